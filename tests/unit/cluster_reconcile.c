/* SPDX-License-Identifier: Apache-2.0
 *
 * The machines of cluster/check.c and cluster/reconcile.c, and the states of cluster/fencing.c. The
 * facts of a check are few enough to go through all combinations that matter; what is expected is
 * said by rules of their own, in the words of the contract rather than of the code. Events in
 * states where they cannot happen change nothing.
 */
#include <criterion/criterion.h>

#include "cluster/cluster.h"

#define HELD  7u
#define OTHER 8u
#define THIRD 9u

/* ---- one check, on our own behalf ---- */

/* The bits of `all`, one fact each. */
static struct check_facts facts_of(unsigned all, enum cluster_reading reading, uint64_t recorded) {
    return (struct check_facts){.reading = reading,
                                .recorded = recorded,
                                .recorded_here = recorded && (all & 1),
                                .recorded_again = recorded && (all & 2),
                                .recorded_before = recorded && (all & 4) && !(all & 1),
                                .home_is_dead = recorded && (all & 8),
                                .put_under_way = recorded && (all & 16),
                                .holds = all & 32,
                                .may_mend = all & 64,
                                .index_remembers = all & 128,
                                .closing = all & 256};
}

static void expect_own(const struct check_facts *facts, unsigned actions, enum check_state state) {
    if (facts->closing || !facts->holds || facts->recorded == HELD) {
        cr_assert_eq(actions, CHECK_END);
        return;
    }
    /* Nothing is certain while the node is fenced, or the index cannot be read. */
    if (!facts->may_mend || (facts->reading == READING_FAILED && !facts->recorded)) {
        cr_assert_eq(actions, CHECK_WAIT);
        cr_assert_eq(state, CHECK_WAITING);
        return;
    }
    /* No record ends what is held by being missing. */
    if (facts->reading == READING_NONE)
        cr_assert_eq(actions, CHECK_REPUBLISH | CHECK_END);
    if (actions & CHECK_RETIRE_HELD) {
        cr_assert(facts->recorded && facts->home_is_dead && facts->index_remembers);
        cr_assert(!facts->recorded_here && !facts->recorded_again);
    }
    if (actions & CHECK_ASK_RIVAL) {
        cr_assert(facts->reading == READING_RECORD && !facts->recorded_here &&
                  !facts->recorded_before);
        cr_assert_eq(state, CHECK_ASKING);
    }
    if (actions & CHECK_REPUBLISH)
        cr_assert(!(facts->recorded_here && facts->put_under_way), "that put goes on");
    if (facts->recorded_here)
        cr_assert_eq(actions, facts->put_under_way ? CHECK_WAIT : CHECK_REPUBLISH | CHECK_END);
}

Test(cluster_reconcile, what_a_record_says_of_our_own) {
    static const struct {
        enum cluster_reading reading;
        uint64_t recorded;
    } readings[] = {{READING_RECORD, HELD}, {READING_RECORD, OTHER}, {READING_LOST, HELD},
                    {READING_LOST, OTHER},  {READING_NONE, 0},       {READING_FAILED, 0}};
    unsigned seen = 0;
    for (unsigned i = 0; i < 6; i++)
        for (unsigned all = 0; all < 512; all++) {
            struct check check = {.own = true, .generation = HELD};
            const struct check_facts facts =
                facts_of(all, readings[i].reading, readings[i].recorded);
            cr_assert_eq(check_begin(&check), CHECK_LOCATE);
            unsigned actions = check_located(&check, &facts);
            expect_own(&facts, actions, check.state);
            seen |= actions;
        }
    cr_expect_eq(seen,
                 CHECK_RETIRE_HELD | CHECK_REPUBLISH | CHECK_ASK_RIVAL | CHECK_WAIT | CHECK_END,
                 "every outcome was reached");
}

/* ---- for another node ---- */

Test(cluster_reconcile, what_a_record_says_for_another_node) {
    static const struct {
        uint64_t newer, newer_age_us, recorded, age_us;
        bool again, holds;
        unsigned actions;
    } cases[] = {
        /* The index names what the node that asks has put: ours has been replaced. */
        {OTHER, 0, OTHER, 0, false, true, CHECK_RETIRE_HELD | CHECK_ANSWER_YES | CHECK_END},
        /* It names ours: that node's put is not the last one. */
        {OTHER, 0, HELD, 0, false, true, CHECK_ANSWER_YES | CHECK_END},
        /* ... unless that was written by a repair, and ours is the older one. */
        {OTHER, 1000, HELD, 2000, true, true, CHECK_RETIRE_HELD | CHECK_ANSWER_YES | CHECK_END},
        {OTHER, 2000, HELD, 1000, true, true, CHECK_ANSWER_YES | CHECK_END},
        /* It names a third, or none: nobody can tell yet. */
        {OTHER, 0, THIRD, 0, false, true, CHECK_CHECK_OWN | CHECK_ANSWER_NO | CHECK_END},
        {OTHER, 0, 0, 0, false, true, CHECK_CHECK_OWN | CHECK_ANSWER_NO | CHECK_END},
        /* ... for so long that the record must have been lost: ours is newer and stays. */
        {OTHER, 20000000, THIRD, 1, false, true, CHECK_CHECK_OWN | CHECK_ANSWER_YES | CHECK_END},
        /* It wants the record put right only. */
        {0, 0, THIRD, 0, false, true, CHECK_CHECK_OWN | CHECK_ANSWER_YES | CHECK_END},
        /* What was held is gone. */
        {OTHER, 0, 0, 0, false, false, CHECK_CHECK_OWN | CHECK_ANSWER_YES | CHECK_END},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct check check = {
            .generation = HELD, .newer = cases[i].newer, .newer_age_us = cases[i].newer_age_us};
        const struct check_facts facts = {.reading =
                                              cases[i].recorded ? READING_RECORD : READING_NONE,
                                          .recorded = cases[i].recorded,
                                          .recorded_again = cases[i].again,
                                          .holds = cases[i].holds,
                                          .age_us = cases[i].age_us};
        check_begin(&check);
        cr_expect_eq(check_located(&check, &facts), cases[i].actions, "case %zu", i);
        cr_expect_eq(check.state, CHECK_OVER);
    }
}

/* ---- a rival ---- */

Test(cluster_reconcile, of_two_that_were_both_put_the_older_goes) {
    static const struct {
        uint64_t held;
        bool over, still_held;
        uint64_t rival_age_us, our_age_us;
        unsigned actions;
    } cases[] = {
        {OTHER, true, true, 2, 1, CHECK_RETIRE_RIVAL},
        {OTHER, true, true, 1, 2, CHECK_RETIRE_HELD | CHECK_END},
        {OTHER, true, true, 1, 1, CHECK_RETIRE_HELD | CHECK_END}, /* by generation */
        {OTHER, false, true, 2, 1, CHECK_WAIT},                   /* it may ask us yet */
        {OTHER, false, true, 1, 2, CHECK_RETIRE_HELD | CHECK_END},
        {THIRD, true, true, 1, 2, CHECK_WAIT},
        {0, true, true, 1, 2, CHECK_WAIT},
        {OTHER, true, false, 1, 2, CHECK_WAIT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct check check = {.own = true, .generation = HELD};
        const struct check_facts facts = {
            .reading = READING_RECORD, .recorded = OTHER, .holds = true, .may_mend = true};
        check_begin(&check);
        cr_assert_eq(check_located(&check, &facts), CHECK_ASK_RIVAL);
        cr_expect_eq(check_rival_answered(&check, cases[i].held, cases[i].over,
                                          cases[i].rival_age_us, cases[i].our_age_us,
                                          cases[i].still_held),
                     cases[i].actions, "case %zu", i);
        if (check.state == CHECK_ENDING)
            cr_expect_eq(check_rival_ended(&check), CHECK_WAIT);
        if (check.state == CHECK_WAITING)
            cr_expect_eq(check_retry(&check), CHECK_LOCATE);
    }
}

Test(cluster_reconcile, events_that_cannot_happen_change_nothing) {
    const struct check_facts facts = {.reading = READING_NONE, .holds = true, .may_mend = true};
    for (enum check_state state = 0; state < CHECK_STATES; state++) {
        struct check check = {.state = state, .own = true, .generation = HELD, .rival = OTHER};
        if (state != CHECK_LOCATING)
            cr_expect_eq(check_located(&check, &facts), 0);
        if (state != CHECK_ASKING)
            cr_expect_eq(check_rival_answered(&check, OTHER, true, 1, 2, true), 0);
        if (state != CHECK_ENDING)
            cr_expect_eq(check_rival_ended(&check), 0);
        if (state != CHECK_WAITING)
            cr_expect_eq(check_retry(&check), 0);
        cr_expect_eq(check.state, state);
    }
}

Test(cluster_reconcile, a_record_is_written_until_the_index_has_answered) {
    cr_expect_eq(republish_written(CLUSTER_UNREACHABLE, true, false), REPUBLISH_WRITE);
    cr_expect_eq(republish_written(CLUSTER_UNREACHABLE, true, true), REPUBLISH_OVER);
    cr_expect_eq(republish_written(CLUSTER_DONE, true, false), REPUBLISH_OVER);
    cr_expect_eq(republish_written(CLUSTER_DONE, false, false), REPUBLISH_FREE);
    cr_expect_eq(republish_written(CLUSTER_REFUSED, true, false), REPUBLISH_CHECK_AGAIN);
    cr_expect_eq(republish_written(CLUSTER_REFUSED, true, true), REPUBLISH_OVER);
    cr_expect_eq(republish_written(CLUSTER_FENCED, true, false), REPUBLISH_OVER);
}

/* ---- the index as a whole ---- */

Test(cluster_reconcile, ends_then_records_then_what_is_held) {
    struct reconciling reconciling = {0};
    cr_assert(reconcile_begin(&reconciling, 2, 3));
    for (size_t i = 0; i < 2; i++) {
        cr_assert_eq(reconcile_phase(&reconciling), RECONCILE_ENDS);
        cr_assert_eq(reconcile_next(&reconciling), i);
    }
    cr_expect(reconcile_ends(HELD, HELD) && reconcile_ends(HELD, OTHER));
    cr_expect(!reconcile_ends(OTHER, HELD), "it was put after what has ended");
    cr_expect(!reconcile_ends(0, HELD));
    for (size_t i = 0; i < 3; i++) {
        cr_assert_eq(reconcile_phase(&reconciling), RECONCILE_RECORDS);
        cr_assert_eq(reconcile_next(&reconciling), i);
    }
    cr_expect_eq(reconcile_record(&reconciling, HELD, HELD, false), RECONCILE_LEAVE);
    cr_expect_eq(reconcile_record(&reconciling, OTHER, THIRD, false), RECONCILE_LEAVE);
    cr_expect_eq(reconcile_record(&reconciling, 0, THIRD, true), RECONCILE_LEAVE);
    cr_expect_eq(reconcile_record(&reconciling, 0, THIRD, false), RECONCILE_REMOVE);
    cr_assert_eq(reconcile_phase(&reconciling), RECONCILE_HELD);
    cr_expect(!reconcile_held(&reconciling, HELD), "a record names it");
    cr_expect(reconcile_held(&reconciling, OTHER), "no record names it");
    cr_expect(reconciling.held == 2 && reconciling.checked == 1 && reconciling.removed == 1);
    reconcile_end(&reconciling);
}

/* ---- fencing ---- */

Test(cluster_fencing, a_node_serves_while_its_record_stands_and_no_check_comes_first) {
    struct fencing fencing = {0};
    cr_expect_eq(fencing_state(&fencing, 100, 99), FENCING_SERVING);
    cr_expect_eq(fencing_state(&fencing, 100, 100), FENCING_FENCED);
    cr_expect_eq(fencing_state(&fencing, 0, 0), FENCING_FENCED);
    fencing_hold(&fencing, 2);
    cr_expect_eq(fencing_state(&fencing, 100, 99), FENCING_SETTLING);
    cr_expect_eq(fencing_state(&fencing, 100, 100), FENCING_FENCED);
    fencing_let_go(&fencing, 1);
    cr_expect_eq(fencing_state(&fencing, 100, 99), FENCING_SETTLING);
    fencing_let_go(&fencing, 1);
    cr_expect_eq(fencing_state(&fencing, 100, 99), FENCING_SERVING);
    for (enum fencing_state state = 0; state < FENCING_STATES; state++) {
        cr_expect_eq(fencing_may_serve(state), state == FENCING_SERVING);
        cr_expect_eq(fencing_may_mend(state), state != FENCING_FENCED);
        cr_expect_eq(fencing_refuses(state, true, true), FENCING_STOPPING);
        cr_expect_eq(fencing_refuses(state, false, true), FENCING_TWIN);
        cr_expect_eq(fencing_refuses(state, false, false),
                     state == FENCING_SERVING ? FENCING_TAKES : FENCING_NOT_SERVING);
    }
}
