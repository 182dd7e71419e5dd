/* SPDX-License-Identifier: Apache-2.0
 *
 * The heap of what is due: against a plain array, with what is set, moved and cleared at random.
 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "support/checks.h"
#include "time/deadlines.h"

#define THINGS 64u
#define STEPS  20000u

static const struct deadline *earliest(const struct deadline things[THINGS]) {
    const struct deadline *first = NULL;
    for (uint32_t i = 0; i < THINGS; i++)
        if (things[i].queued &&
            (!first || things[i].at_ns < first->at_ns ||
             (things[i].at_ns == first->at_ns && things[i].sequence < first->sequence)))
            first = &things[i];
    return first;
}

Test(turn, turn_deadlines_come_in_their_order) {
    struct deadlines deadlines = {0};
    struct deadline things[THINGS] = {0};
    uint64_t random = check_seed("turn_deadlines");
    for (uint32_t step = 0; step < STEPS; step++) {
        struct deadline *thing = &things[check_random(&random) % THINGS];
        if (check_random(&random) % 3)
            deadlines_set(&deadlines, thing, check_random(&random) % 50);
        else
            deadlines_clear(&deadlines, thing);
        cr_assert_eq(deadlines.first, earliest(things), "step %u", step);
    }
    uint64_t last_ns = 0;
    for (struct deadline *first; (first = deadlines.first);) {
        cr_assert_geq(first->at_ns, last_ns);
        last_ns = first->at_ns;
        deadlines_clear(&deadlines, first);
        cr_assert_not(first->queued);
    }
    cr_assert_null(earliest(things));
    cr_assert_eq(deadlines_next_ns(&deadlines), UINT64_MAX);
}
