/* SPDX-License-Identifier: Apache-2.0
 *
 * Regions of this node, registered piece by piece with every device.
 */
#ifndef FEATURED_TRANSPORT_RDMA_MEMORY_H
#define FEATURED_TRANSPORT_RDMA_MEMORY_H

#include "transport/rdma/rdma_internal.h"

int rmemory_add(struct rdma *rdma, void *base, uint64_t bytes, uint32_t *region_out);
void rmemory_remove(struct rdma *rdma, uint32_t region);
/* Registers what is not registered yet, in the background. */
void rmemory_continue(struct rdma *rdma);
void rmemory_drop_device(struct rdma_device *device);
/* The segment of the region that contains the address `at`. NULL: that segment is not registered
 * with the device yet. */
const struct rdma_segment *rmemory_at(const struct rdma *rdma, uint32_t region, const void *at,
                                      const struct rdma_device *device);
/* Is the segment registered with every device? */
bool rmemory_whole(const struct rdma *rdma, const struct rdma_segment *segment);
/* A device has been lost. A segment that was registered with every other device is now registered
 * with all there are, and its owner is told. */
void rmemory_announce(struct rdma *rdma);
void rmemory_deinit(struct rdma *rdma);

#endif
