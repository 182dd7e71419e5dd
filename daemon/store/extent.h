/* SPDX-License-Identifier: Apache-2.0
 *
 * Extent allocator: which bytes of a region are in use. Its metadata lies apart from the region, in
 * nodes addressed by 32-bit index inside memory the caller provides; the region itself is never
 * touched. PURE; no malloc; no pointer is kept, so the memory may be mapped elsewhere later.
 *
 * Offsets and sizes are multiples of 64. A request fails only if no free hole can hold it.
 */
#ifndef FEATURED_STORE_EXTENT_H
#define FEATURED_STORE_EXTENT_H

#include <stddef.h>
#include <stdint.h>

#define EXTENT_NONE       UINT32_MAX
#define EXTENT_UNIT_BYTES 64u

struct extent_map; /* opaque; lies at the start of the caller's memory */

/* Bytes of metadata for at most max_extents allocations at a time. */
size_t extent_map_bytes(uint32_t max_extents);
/* memory: 64-byte aligned, extent_map_bytes(max_extents) long. The region is
 * [base_offset, base_offset + region_bytes); both multiples of 4096. */
struct extent_map *extent_init(void *memory, uint64_t base_offset, uint64_t region_bytes,
                               uint32_t max_extents);
/* Returns a handle, or EXTENT_NONE if no hole fits. bytes is rounded up to 64; align_bytes is 64 or
 * 4096. The caller keeps count: more than max_extents at a time is EXTENT_NONE as well. */
uint32_t extent_alloc(struct extent_map *map, uint64_t bytes, uint32_t align_bytes,
                      uint64_t *offset_out);
/* Takes [offset, offset + bytes), both multiples of 64, which the caller knows to be free and
 * behind all that was taken; `last` is the handle that the call before returned, EXTENT_NONE at
 * first. */
uint32_t extent_place(struct extent_map *map, uint32_t last, uint64_t offset, uint64_t bytes);
void extent_free(struct extent_map *map, uint32_t extent);

uint64_t extent_largest_free(const struct extent_map *map);
uint64_t extent_used_bytes(const struct extent_map *map);
uint64_t extent_offset(const struct extent_map *map, uint32_t extent);
uint64_t extent_bytes(const struct extent_map *map, uint32_t extent);

/* NULL, or what is wrong: neighbours ordered and adjacent, no two free ones side by side, every
 * hole in the list of its class. O(extents). For tests. */
const char *extent_audit(const struct extent_map *map);

#endif
