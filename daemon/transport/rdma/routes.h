/* SPDX-License-Identifier: Apache-2.0
 *
 * The other addresses of a node that is dialled.
 */
#ifndef FEATURED_TRANSPORT_RDMA_ROUTES_H
#define FEATURED_TRANSPORT_RDMA_ROUTES_H

#include "transport/rdma/rdma_internal.h"

/* A node dialled at this address has told its rails. */
void rroute_learn(struct rdma *rdma, const char *address,
                  const struct sockaddr_storage rails[RAILS_MAX]);
/* Where to dial it, in this order; resolved: the address itself. How many. */
uint32_t rroute_targets(struct rdma *rdma, const char *address,
                        const struct sockaddr_storage *resolved,
                        struct sockaddr_storage out[ROUTE_TARGETS_MAX]);
/* The first of those targets did not work, or no longer does. */
void rroute_failed(struct rdma *rdma, const char *address);
void rroutes_free(struct rdma *rdma);

#endif
