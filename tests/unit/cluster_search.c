/* SPDX-License-Identifier: Apache-2.0
 *
 * The machine of cluster/search.c. All states, events and facts are few enough to go through each
 * combination; what must hold of them is said by rules in the words of the contract, not of the
 * table. Then the ways that a search goes in life, event by event.
 */
#include <criterion/criterion.h>

#include "cluster/cluster.h"

static bool is_end(enum search_do what) {
    return what >= SEARCH_DO_GRANT;
}

static bool says_absent(enum search_do what) {
    return what == SEARCH_DO_END_MISSING || what == SEARCH_DO_END_ABSENT;
}

static bool is_asking(enum search_state state) {
    return state == SEARCH_HOME || state == SEARCH_NAMED || state == SEARCH_ANYWHERE;
}

static void expect(enum search_state before, enum search_event event,
                   const struct search_facts *facts) {
    enum search_state state = before;
    enum search_do what = search_step(&state, event, facts);
    cr_assert_eq(is_end(what), state == SEARCH_OVER && before != SEARCH_OVER,
                 "state %d event %d: an end, and no other step, is the end", before, event);
    if (before == SEARCH_OVER)
        cr_assert_eq(what, SEARCH_DO_NOTHING);
    if (what == SEARCH_DO_GRANT)
        cr_assert(event == SEARCH_ON_GRANTED || event == SEARCH_ON_RESIDENT,
                  "nothing is granted without a lease");
    if (event == SEARCH_ON_LEASED && is_asking(before))
        cr_assert_eq(what, SEARCH_DO_LAND);
    if (what == SEARCH_DO_LAND)
        cr_assert_eq(event, SEARCH_ON_LEASED, "its home alone says that it may be read");
    /* The sample may still be put here: another's no is not the end. */
    bool may_come = before == SEARCH_INDEX || before == SEARCH_NAMED || before == SEARCH_ANYWHERE;
    if (facts->waits_here && may_come)
        cr_assert_not(says_absent(what) || what == SEARCH_DO_END_UNHEARD ||
                          what == SEARCH_DO_END_AS_SAID || what == SEARCH_DO_END_INDEX_DOWN,
                      "state %d event %d ends a wait", before, event);
    if (before == SEARCH_ANYWHERE && facts->more_answers && event != SEARCH_ON_NOT_ASKED)
        cr_assert_not(says_absent(what) || what == SEARCH_DO_END_UNHEARD ||
                      what == SEARCH_DO_END_AS_SAID);
    /* A node that could not be asked is not one without the sample. */
    if (before == SEARCH_ANYWHERE && facts->unheard)
        cr_assert_not(says_absent(what));
    if (event == SEARCH_ON_FENCED && before != SEARCH_NEW && before != SEARCH_OVER)
        cr_assert_neq(what, SEARCH_DO_GRANT);
}

Test(cluster_search, what_must_hold_in_every_state_on_every_event) {
    for (unsigned state = 0; state < SEARCH_STATES; state++)
        for (unsigned event = 0; event < SEARCH_EVENTS; event++)
            for (unsigned bits = 0; bits < 8; bits++) {
                const struct search_facts facts = {
                    .more_answers = bits & 1, .waits_here = bits & 2, .unheard = bits & 4};
                expect((enum search_state)state, (enum search_event)event, &facts);
            }
}

Test(cluster_search, every_state_is_reached_and_can_end) {
    bool reached[SEARCH_STATES] = {[SEARCH_NEW] = true}, ends[SEARCH_STATES] = {false};
    for (unsigned round = 0; round < SEARCH_STATES; round++)
        for (unsigned from = 0; from < SEARCH_STATES; from++)
            for (unsigned event = 0; event < SEARCH_EVENTS; event++)
                for (unsigned bits = 0; bits < 8; bits++) {
                    const struct search_facts facts = {bits & 1, bits & 2, bits & 4};
                    enum search_state to = (enum search_state)from;
                    search_step(&to, (enum search_event)event, &facts);
                    reached[to] |= reached[from];
                    ends[from] |= to == SEARCH_OVER || ends[to];
                }
    for (unsigned state = 0; state < SEARCH_STATES; state++) {
        cr_assert(reached[state], "state %u cannot be reached", state);
        cr_assert(ends[state], "state %u cannot end", state);
    }
}

/* One step of a search as it goes in life. */
struct step {
    enum search_event event;
    struct search_facts facts;
    enum search_do what;
};

#define WAITS                                                                                      \
    { .waits_here = true }
#define MORE                                                                                       \
    { .more_answers = true }
#define UNHEARD                                                                                    \
    { .unheard = true }

static void walk(const struct step *steps, size_t count, enum search_state last) {
    enum search_state state = SEARCH_NEW;
    for (size_t i = 0; i < count; i++)
        cr_assert_eq(search_step(&state, steps[i].event, &steps[i].facts), steps[i].what,
                     "step %zu", i);
    cr_assert_eq(state, last);
}
#define WALK(last, ...)                                                                            \
    do {                                                                                           \
        const struct step steps[] = {__VA_ARGS__};                                                 \
        walk(steps, sizeof steps / sizeof *steps, last);                                           \
    } while (0)

Test(cluster_search, a_ref_of_this_node_is_looked_for_nowhere_else) {
    WALK(SEARCH_OVER, {SEARCH_ON_REF_HERE, {0}, SEARCH_DO_TRY_HERE},
         {SEARCH_ON_GRANTED, {0}, SEARCH_DO_GRANT});
    WALK(SEARCH_OVER, {SEARCH_ON_REF_HERE, {0}, SEARCH_DO_TRY_HERE},
         {SEARCH_ON_MISSING, {0}, SEARCH_DO_END_MISSING});
    WALK(SEARCH_OVER, {SEARCH_ON_REF_HERE, {0}, SEARCH_DO_TRY_HERE},
         {SEARCH_ON_QUEUED, WAITS, SEARCH_DO_NOTHING},
         {SEARCH_ON_WAIT_OVER, {0}, SEARCH_DO_END_REFUSED});
}

Test(cluster_search, a_ref_of_another_node_is_landed) {
    WALK(SEARCH_OVER, {SEARCH_ON_REF_ELSEWHERE, {0}, SEARCH_DO_ASK_HOME},
         {SEARCH_ON_LEASED, {0}, SEARCH_DO_LAND}, {SEARCH_ON_LANDED, {0}, SEARCH_DO_LEASE_COPY},
         {SEARCH_ON_QUEUED, WAITS, SEARCH_DO_NOTHING}, {SEARCH_ON_RESIDENT, {0}, SEARCH_DO_GRANT});
    WALK(SEARCH_OVER, {SEARCH_ON_REF_ELSEWHERE, {0}, SEARCH_DO_ASK_HOME},
         {SEARCH_ON_NOT_FOUND, {0}, SEARCH_DO_END_AS_SAID});
}

/* Put anew on another node between the look into the index and the question to the home, twice. */
Test(cluster_search, what_the_index_named_and_is_gone_is_looked_for_again) {
    WALK(SEARCH_OVER, {SEARCH_ON_ID, {0}, SEARCH_DO_TRY_HERE},
         {SEARCH_ON_MISSING, {0}, SEARCH_DO_ASK_INDEX},
         {SEARCH_ON_NAMES_OTHER, {0}, SEARCH_DO_ASK_HOME},
         {SEARCH_ON_NOT_FOUND, {0}, SEARCH_DO_ASK_INDEX_AGAIN},
         {SEARCH_ON_NAMES_US, {0}, SEARCH_DO_TRY_HERE},
         {SEARCH_ON_MISSING, {0}, SEARCH_DO_ASK_INDEX_AGAIN},
         {SEARCH_ON_NAMES_NOBODY, {0}, SEARCH_DO_END_ABSENT});
}

Test(cluster_search, no_node_has_it_only_when_all_have_said_so) {
    WALK(SEARCH_OVER, {SEARCH_ON_ID, {0}, SEARCH_DO_TRY_HERE},
         {SEARCH_ON_MISSING, {0}, SEARCH_DO_ASK_INDEX},
         {SEARCH_ON_CANNOT_NAME, {0}, SEARCH_DO_ASK_ALL},
         {SEARCH_ON_NOT_FOUND, MORE, SEARCH_DO_NOTHING},
         {SEARCH_ON_NOT_FOUND, {0}, SEARCH_DO_END_MISSING});
    WALK(SEARCH_OVER, {SEARCH_ON_ID, {0}, SEARCH_DO_TRY_HERE},
         {SEARCH_ON_MISSING, {0}, SEARCH_DO_ASK_INDEX},
         {SEARCH_ON_CANNOT_NAME, {0}, SEARCH_DO_ASK_ALL},
         {SEARCH_ON_UNHEARD, MORE, SEARCH_DO_NOTHING},
         {SEARCH_ON_NOT_FOUND, UNHEARD, SEARCH_DO_END_UNHEARD});
}

Test(cluster_search, one_that_waits_here_goes_on_when_all_others_have_said_no) {
    WALK(SEARCH_OVER, {SEARCH_ON_ID, {0}, SEARCH_DO_TRY_HERE},
         {SEARCH_ON_QUEUED, WAITS, SEARCH_DO_ASK_INDEX},
         {SEARCH_ON_CANNOT_NAME, WAITS, SEARCH_DO_ASK_ALL},
         {SEARCH_ON_NOT_FOUND, WAITS, SEARCH_DO_NOTHING},
         {SEARCH_ON_RESIDENT, {0}, SEARCH_DO_GRANT});
    /* And the other way round: the wait ends first. */
    WALK(SEARCH_LANDING, {SEARCH_ON_ID, {0}, SEARCH_DO_TRY_HERE},
         {SEARCH_ON_QUEUED, WAITS, SEARCH_DO_ASK_INDEX},
         {SEARCH_ON_CANNOT_NAME, WAITS, SEARCH_DO_ASK_ALL},
         {SEARCH_ON_WAIT_OVER, MORE, SEARCH_DO_NOTHING}, {SEARCH_ON_LEASED, {0}, SEARCH_DO_LAND});
}

Test(cluster_search, what_comes_after_the_end_changes_nothing) {
    WALK(SEARCH_OVER, {SEARCH_ON_REF_HERE, {0}, SEARCH_DO_TRY_HERE},
         {SEARCH_ON_GRANTED, {0}, SEARCH_DO_GRANT}, {SEARCH_ON_LEASED, {0}, SEARCH_DO_NOTHING},
         {SEARCH_ON_RESIDENT, {0}, SEARCH_DO_NOTHING});
}
