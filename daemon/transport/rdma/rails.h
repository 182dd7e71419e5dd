/* SPDX-License-Identifier: Apache-2.0
 *
 * The rails of this node: found, watched for, listened on.
 */
#ifndef FEATURED_TRANSPORT_RDMA_RAILS_H
#define FEATURED_TRANSPORT_RDMA_RAILS_H

#include "transport/rdma/rdma_internal.h"

/* Looks for rails that have appeared. How many there are now; `why`, if not NULL, says why there
 * are none. */
uint32_t rrails_scan(struct rdma *rdma, char *why, size_t why_bytes);
uint32_t rrails_count(const struct rdma *rdma);
/* The rail that a resolved or incoming id uses; -1: none of ours. */
int rrails_of_id(const struct rdma *rdma, const struct rdma_cm_id *id);
int rrails_listen(struct rdma *rdma, struct rdma_rail *rail);

#endif
