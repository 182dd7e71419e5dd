/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "checksum.h"

/* Around the block size of the copy, and where XXH3 changes its algorithm. */
static const size_t sizes[] = {0,      1,      3,      16,     17,    128,   129,
                               240,    241,    1023,   1024,   4095,  65536, 262143,
                               262144, 262145, 524288, 524300, 700001};

Test(client_checksum, copies_and_sums_as_memcpy_and_xxh3_do) {
    const size_t room = 800000;
    uint8_t *from = malloc(room), *to = malloc(room);
    cr_assert(from && to);
    for (size_t i = 0; i < room; i++)
        from[i] = (uint8_t)(i * 2654435761u >> 13);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (size_t shift = 0; shift < 3; shift++) {
            memset(to, 0xee, room);
            uint64_t sum = fc_checksum_copy(to + shift, from + 2 * shift, sizes[i]);
            cr_assert_eq(sum, fc_checksum(from + 2 * shift, sizes[i]), "%zu bytes", sizes[i]);
            cr_assert_arr_eq(to + shift, from + 2 * shift, sizes[i]);
            cr_assert_eq(to[shift + sizes[i]], 0xee, "wrote past the end");
        }
    }
    free(from);
    free(to);
}

/* Known answers of XXH3-64 with seed 0: the sums travel between machines. */
Test(client_checksum, is_xxh3_64) {
    cr_assert_eq(fc_checksum("", 0), 0x2d06800538d394c2);
    cr_assert_eq(fc_checksum("a", 1), 0xe6c632b61e964e1f);
}
