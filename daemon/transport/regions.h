/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory that peers may read, and the keys that name it, for transports that look ranges up
 * themselves (tcp, the fake), or open them by key (rdma). Pure. A key is the region's number and a
 * keyed hash of the connection that it is for, under a random secret of the region's own: it opens
 * the region on no other connection, and the key of a removed region never the next one in its
 * slot.
 */
#ifndef FEATURED_PEER_TRANSPORT_REGIONS_H
#define FEATURED_PEER_TRANSPORT_REGIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define REGION_KEY_BYTES 12u

struct region {
    uint8_t *base; /* NULL = free slot */
    uint64_t bytes, secret;
};

struct regions {
    struct region *slots;
    uint32_t count;
};

void regions_deinit(struct regions *regions);
/* 0, -EINVAL (empty or wrapping range), -ENOMEM. */
int regions_add(struct regions *regions, void *base, uint64_t bytes, uint64_t secret,
                uint32_t *region_out);
void regions_remove(struct regions *regions, uint32_t region);
/* connection: a number that no other connection has, not even a later one. REGION_KEY_BYTES, or
 * -ENOENT, -EMSGSIZE. */
int regions_key(const struct regions *regions, uint64_t connection, uint32_t region, void *out,
                size_t out_bytes);
/* Resolves a peer's key and range. 0, or -EINVAL: unknown key, one of another connection, empty
 * range or one outside the region. */
int regions_resolve(const struct regions *regions, uint64_t connection, const void *key,
                    size_t key_bytes, uint64_t offset, uint64_t bytes, uint32_t *region_out,
                    uint8_t **at_out);
/* The region that holds all of [at, at + bytes); -EINVAL when none does. */
int regions_find(const struct regions *regions, const void *at, uint64_t bytes,
                 uint32_t *region_out);

#endif
