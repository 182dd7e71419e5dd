/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "checksum.h"
#include "copy.h"

#define ROOM_BYTES (FC_COPY_LARGE_BYTES + 65536u)
#define GUARD_BYTE 0x77

static const size_t sizes[] = {0,
                               1,
                               63,
                               64,
                               8192,
                               FC_COPY_LARGE_BYTES - 1,
                               FC_COPY_LARGE_BYTES,
                               FC_COPY_LARGE_BYTES + 65,
                               FC_COPY_LARGE_BYTES + 4095, /* a block of the checksum, and */
                               FC_COPY_LARGE_BYTES + 4096, /* the one that is fetched ahead */
                               FC_COPY_LARGE_BYTES + 4097,
                               FC_COPY_LARGE_BYTES + 8191};
static const size_t offsets[] = {0, 16, 1}; /* of the destination: the last is not aligned */

static uint8_t *source_new(void) {
    uint8_t *source = malloc(ROOM_BYTES);
    cr_assert(source);
    for (size_t i = 0; i < ROOM_BYTES; i++)
        source[i] = (uint8_t)(i * 31 + (i >> 8));
    return source;
}

/* Copies every size to every offset with `copy` and looks at each byte and at the one behind. */
static void check_all(void (*copy)(void *to, const void *from, size_t bytes)) {
    uint8_t *source = source_new(), *room = aligned_alloc(4096, ROOM_BYTES);
    cr_assert(room);
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (size_t o = 0; o < sizeof offsets / sizeof *offsets; o++) {
            memset(room, GUARD_BYTE, ROOM_BYTES);
            copy(room + offsets[o], source + 3, sizes[s]);
            cr_assert_eq(memcmp(room + offsets[o], source + 3, sizes[s]), 0, "%zu bytes to +%zu",
                         sizes[s], offsets[o]);
            cr_assert_eq(room[offsets[o] + sizes[s]], GUARD_BYTE, "%zu bytes to +%zu", sizes[s],
                         offsets[o]);
        }
    free(room);
    free(source);
}

Test(client_copy, gives_every_byte_and_not_one_more) {
    check_all(fc_copy);
}

static void copy_with_checksum(void *to, const void *from, size_t bytes) {
    cr_assert_eq(fc_checksum_copy(to, from, bytes), fc_checksum(from, bytes), "%zu bytes", bytes);
}

Test(client_copy, with_a_checksum_gives_the_same_bytes_and_the_sum_of_the_source) {
    check_all(copy_with_checksum);
}

Test(client_copy, streams_only_what_is_large_and_aligned) {
    char *aligned = aligned_alloc(4096, 4096);
    cr_assert(fc_copy_streams(aligned, FC_COPY_LARGE_BYTES));
    cr_assert_not(fc_copy_streams(aligned, FC_COPY_LARGE_BYTES - 1));
    cr_assert_not(fc_copy_streams(aligned + 8, FC_COPY_LARGE_BYTES));
    free(aligned);
}
