/* SPDX-License-Identifier: Apache-2.0
 *
 * The heap of what is due: against a plain array, with what is set, moved and cleared at random;
 * and what one run of it calls, in which order, when the functions set and clear deadlines
 * themselves.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

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

/* A thing that notes each of its calls, and sets deadlines as its test says. */
struct noting {
    struct deadline due, *clears;
    struct deadlines *deadlines;
    char name, *notes;
    uint64_t again_ns; /* 0: not again */
};

static void noting_on_due(struct deadline *due, uint64_t now_ns) {
    struct noting *thing = container_of(due, struct noting, due);
    cr_assert_not(due->queued);
    cr_assert_leq(due->at_ns, now_ns);
    strncat(thing->notes, &thing->name, 1);
    if (thing->again_ns)
        deadlines_set(thing->deadlines, due, thing->again_ns);
    if (thing->clears)
        deadlines_clear(thing->deadlines, thing->clears);
}

struct run {
    struct deadlines deadlines;
    struct noting a, b, c;
    char notes[64];
};

static void noting_init(struct run *run, struct noting *thing, char name, uint64_t at_ns) {
    *thing = (struct noting){.deadlines = &run->deadlines, .name = name, .notes = run->notes};
    deadline_init(&thing->due, noting_on_due);
    deadlines_set(&run->deadlines, &thing->due, at_ns);
}

static struct run *run_new(uint64_t a_ns, uint64_t b_ns, uint64_t c_ns) {
    struct run *run = calloc(1, sizeof *run);
    noting_init(run, &run->a, 'a', a_ns);
    noting_init(run, &run->b, 'b', b_ns);
    noting_init(run, &run->c, 'c', c_ns);
    return run;
}

Test(turn, turn_run_calls_what_is_due_and_no_more) {
    struct run *run = run_new(30, 10, 20);
    cr_assert_eq(deadlines_run(&run->deadlines, 9, 10), 0);
    cr_assert_eq(deadlines_run(&run->deadlines, 20, 10), 2);
    cr_assert_str_eq(run->notes, "bc");
    cr_assert_eq(deadlines_next_ns(&run->deadlines), 30);
    cr_assert_eq(deadlines_run(&run->deadlines, 30, 10), 1);
    cr_assert_str_eq(run->notes, "bca");
    cr_assert_eq(deadlines_next_ns(&run->deadlines), UINT64_MAX);
    free(run);
}

Test(turn, turn_run_keeps_its_budget) {
    struct run *run = run_new(1, 2, 3);
    cr_assert_eq(deadlines_run(&run->deadlines, 100, 2), 2);
    cr_assert_str_eq(run->notes, "ab");
    cr_assert_leq(deadlines_next_ns(&run->deadlines), 100, "the rest is due in the next turn");
    deadlines_run(&run->deadlines, 100, 2);
    cr_assert_str_eq(run->notes, "abc");
    free(run);
}

/* One that is due again at once, even for an earlier time than the others', is called once in each
 * run and keeps no other from its turn. */
Test(turn, turn_run_does_not_call_what_was_set_meanwhile) {
    struct run *run = run_new(10, 20, 30);
    run->a.again_ns = 1;
    cr_assert_eq(deadlines_run(&run->deadlines, 30, 100), 3);
    cr_assert_str_eq(run->notes, "abc");
    cr_assert_leq(deadlines_next_ns(&run->deadlines), 30);
    deadlines_set(&run->deadlines, &run->b.due, 0);
    deadlines_run(&run->deadlines, 30, 1);
    deadlines_run(&run->deadlines, 30, 1);
    cr_assert_str_eq(run->notes, "abcab", "with a budget of 1, each comes in its turn");
    free(run);
}

Test(turn, turn_run_may_clear_what_is_due_too) {
    struct run *run = run_new(10, 10, 10);
    run->a.clears = &run->c.due;
    cr_assert_eq(deadlines_run(&run->deadlines, 10, 100), 2);
    cr_assert_str_eq(run->notes, "ab");
    free(run);
}

Test(turn, turn_deadline_set_earlier_is_never_later) {
    struct run *run = run_new(10, 20, 30);
    deadlines_set_earlier(&run->deadlines, &run->a.due, 15);
    cr_assert_eq(run->a.due.at_ns, 10);
    deadlines_set_earlier(&run->deadlines, &run->c.due, 5);
    cr_assert_eq(deadlines_next_ns(&run->deadlines), 5);
    deadlines_clear(&run->deadlines, &run->c.due);
    deadlines_set_earlier(&run->deadlines, &run->c.due, 99);
    cr_assert(run->c.due.queued);
    free(run);
}
