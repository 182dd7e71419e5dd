/* SPDX-License-Identifier: Apache-2.0 */
#include "store/extent.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define REGION_BYTES (1ull << 20)
#define BASE_OFFSET  (3ull << 20)
#define EXTENTS_MAX  256u

static struct extent_map *map;

static void setup(void) {
    void *memory = aligned_alloc(64, extent_map_bytes(EXTENTS_MAX));
    cr_assert(memory);
    memset(memory, 0, extent_map_bytes(EXTENTS_MAX));
    map = extent_init(memory, BASE_OFFSET, REGION_BYTES, EXTENTS_MAX);
}

static void teardown(void) {
    cr_assert_null(extent_audit(map), "%s", extent_audit(map));
    free(map);
}

TestSuite(extent, .init = setup, .fini = teardown);

Test(extent, fills_the_region_to_the_last_byte) {
    uint64_t offset;
    uint32_t whole = extent_alloc(map, REGION_BYTES, 4096, &offset);
    cr_assert_neq(whole, EXTENT_NONE);
    cr_assert_eq(offset, BASE_OFFSET);
    cr_assert_eq(extent_largest_free(map), 0);
    cr_assert_eq(extent_alloc(map, 64, 64, &offset), EXTENT_NONE);
    extent_free(map, whole);
    cr_assert_eq(extent_largest_free(map), REGION_BYTES);
}

Test(extent, joins_neighbours_in_any_order) {
    static const int orders[][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2},
                                    {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    for (size_t o = 0; o < sizeof orders / sizeof *orders; o++) {
        uint32_t extents[3];
        uint64_t offset;
        for (int i = 0; i < 3; i++)
            extents[i] = extent_alloc(map, 4096, 64, &offset);
        for (int i = 0; i < 3; i++) {
            extent_free(map, extents[orders[o][i]]);
            cr_assert_null(extent_audit(map));
        }
        cr_assert_eq(extent_largest_free(map), REGION_BYTES);
    }
}

Test(extent, never_misses_a_hole_that_fits) {
    /* Holes of one class, all but the last too small by one unit: more of them than are tried
     * first. */
    uint32_t extents[64];
    uint64_t offset, wanted = 0;
    for (int i = 0; i < 64; i++) {
        uint64_t bytes = i % 2 ? 64 : i == 0 ? 4096 + 64 : 4096;
        extents[i] = extent_alloc(map, bytes, 64, &offset);
        if (i == 0)
            wanted = offset;
    }
    uint32_t rest = extent_alloc(map, extent_largest_free(map), 64, &offset);
    cr_assert_neq(rest, EXTENT_NONE);
    for (int i = 0; i < 64; i += 2)
        extent_free(map, extents[i]);
    cr_assert_neq(extent_alloc(map, 4096 + 64, 64, &offset), EXTENT_NONE);
    cr_assert_eq(offset, wanted);
}

Test(extent, aligned_request_finds_the_one_hole_whose_aligned_part_fits) {
    uint64_t offset;
    uint32_t first = extent_alloc(map, 64, 64, &offset);
    uint32_t hole = extent_alloc(map, 4096 - 64 + 8192, 64, &offset);
    uint32_t rest = extent_alloc(map, extent_largest_free(map), 64, &offset);
    cr_assert(first != EXTENT_NONE && hole != EXTENT_NONE && rest != EXTENT_NONE);
    extent_free(map, hole);
    cr_assert_eq(extent_alloc(map, 8192 + 64, 4096, &offset), EXTENT_NONE);
    cr_assert_neq(extent_alloc(map, 8192, 4096, &offset), EXTENT_NONE);
    cr_assert_eq(offset, BASE_OFFSET + 4096);
    cr_assert_eq(extent_largest_free(map), 4096 - 64);
}

Test(extent, survives_random_churn) {
    uint32_t extents[EXTENTS_MAX], count = 0;
    uint64_t random = 88172645463325252ull, offset, used = 0;
    for (int step = 0; step < 20000; step++) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        if (random % 3 && count < EXTENTS_MAX) {
            uint32_t align = random >> 8 & 1 ? 4096 : 64;
            extents[count] = extent_alloc(map, 64 + (random >> 16) % 30000, align, &offset);
            if (extents[count] == EXTENT_NONE)
                continue;
            cr_assert_eq(offset % align, 0);
            used += extent_bytes(map, extents[count++]);
        } else if (count) {
            uint32_t pick = (uint32_t)(random >> 16) % count;
            used -= extent_bytes(map, extents[pick]);
            extent_free(map, extents[pick]);
            extents[pick] = extents[--count];
        }
        cr_assert_eq(extent_used_bytes(map), used);
        if (step % 64 == 0)
            cr_assert_null(extent_audit(map));
    }
}
