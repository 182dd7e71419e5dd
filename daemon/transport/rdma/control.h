/* SPDX-License-Identifier: Apache-2.0
 *
 * Frames on the control stream, and who reads which region of ours.
 */
#ifndef FEATURED_TRANSPORT_RDMA_CONTROL_H
#define FEATURED_TRANSPORT_RDMA_CONTROL_H

#include "transport/rdma/rdma_internal.h"

int rcontrol_send(struct rdma_conn *conn, enum rwire_type type, const struct iovec *parts,
                  int part_count);
/* The control link has bytes: delivers the whole frames among them. */
void rcontrol_received(struct rdma_link *link);
/* A piece of a region of ours has been registered with every device. */
void rcontrol_announce(struct rdma *rdma, uint32_t region, const struct rdma_segment *segment);
/* The same of every piece, for an asker that has a rail more. */
void rcontrol_announce_all(struct rdma_conn *conn);
/* A region of ours could not be registered. */
void rcontrol_announce_failure(struct rdma *rdma, uint32_t region);
/* The region is going: tells or ends those who read it. */
void rcontrol_region_removed(struct rdma *rdma, uint32_t region);
void rcontrol_end(struct rdma_conn *conn);

#endif
