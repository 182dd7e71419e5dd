/* SPDX-License-Identifier: Apache-2.0
 *
 * A set of generations: what was added is there, and nothing else.
 */
#include "cluster/generation_set.h"

#include <criterion/criterion.h>

#define COUNT 5000u

/* Numbers as directories give them out, and some that differ in their upper bits alone. */
static uint64_t number(uint64_t i) {
    return i % 2 ? i << 48 | 7 : 1764230000000u * 128 + i;
}

Test(cluster_generation_set, what_was_added_is_there_and_nothing_else) {
    struct generation_set set = {0};
    cr_assert(generation_set_init(&set, COUNT));
    for (uint64_t i = 1; i <= COUNT; i++) {
        cr_expect_not(generation_set_has(&set, number(i)), "%llu", (unsigned long long)i);
        generation_set_add(&set, number(i));
        generation_set_add(&set, number(1));
    }
    for (uint64_t i = 1; i <= COUNT; i++)
        cr_expect(generation_set_has(&set, number(i)), "%llu", (unsigned long long)i);
    for (uint64_t i = COUNT + 1; i <= 2 * COUNT; i++)
        cr_expect_not(generation_set_has(&set, number(i)), "%llu", (unsigned long long)i);
    generation_set_deinit(&set);
}

Test(cluster_generation_set, one_for_nothing_has_nothing) {
    struct generation_set set = {0};
    cr_assert(generation_set_init(&set, 0));
    cr_expect_not(generation_set_has(&set, 1));
    generation_set_deinit(&set);
    generation_set_deinit(&set);
}
