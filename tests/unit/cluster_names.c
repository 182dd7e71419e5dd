/* SPDX-License-Identifier: Apache-2.0
 *
 * The machines of cluster/own_name.c, whose table is gone through state by state, and of
 * cluster/dead_homes.c.
 */
#include <criterion/criterion.h>

#include "cluster/cluster.h"

#define OURS    1u /* of the record: the incarnation that is asked for */
#define OTHER   2u
#define TTL     100u
#define ADDRESS "10.0.0.7:7700"

static struct own_name asked_at(uint64_t now_ns) {
    struct own_name name = {0};
    cr_assert_eq(own_name_taken(&name, ADDRESS, OURS, now_ns, TTL), OWN_NAME_DO_ASK);
    cr_assert_eq(name.state, OWN_NAME_ASKED);
    return name;
}

/* ---- own_name.c ---- */

Test(cluster_names, a_record_is_asked_for_once) {
    struct own_name name = asked_at(0);
    cr_expect_eq(own_name_taken(&name, ADDRESS, OURS, 5, TTL), OWN_NAME_DO_NOTHING);
    cr_expect_eq(name.outlived_ns, 3 * TTL, "what is said again does not prolong it");
    cr_expect_eq(own_name_taken(&name, "10.0.0.8:7700", OURS, 5, TTL), OWN_NAME_DO_ASK);
    cr_expect_eq(own_name_taken(&name, "10.0.0.8:7700", OTHER, 9, TTL), OWN_NAME_DO_ASK);
    cr_expect_eq(name.outlived_ns, 9 + 3 * TTL);
    cr_expect_str_eq(name.address, "10.0.0.8:7700");
}

Test(cluster_names, a_name_that_is_freed_is_told_once) {
    struct own_name name = asked_at(0);
    cr_expect_eq(own_name_freed(&name), OWN_NAME_DO_TELL_FREED);
    cr_expect_eq(own_name_freed(&name), OWN_NAME_DO_NOTHING);
    cr_expect_eq(own_name_answered(&name, OWN_NAME_ONE, OURS, 1000 * TTL), OWN_NAME_DO_NOTHING);
    cr_expect_eq(name.state, OWN_NAME_FREE, "an answer that comes late changes nothing");
    cr_expect_eq(own_name_taken(&name, ADDRESS, OURS, 7, TTL), OWN_NAME_DO_ASK,
                 "the same one may come back");
}

/* Every state but FREE, every answer, before and after the record should have ended. */
Test(cluster_names, what_an_answer_means) {
    static const enum own_name_state states[] = {OWN_NAME_ASKED, OWN_NAME_RESTART, OWN_NAME_STANDS,
                                                 OWN_NAME_TWIN};
    static const struct {
        enum own_name_answer answer;
        uint64_t incarnation;
    } answers[] = {
        {OWN_NAME_UNKNOWN, 0}, {OWN_NAME_NOBODY, 0}, {OWN_NAME_ONE, OURS}, {OWN_NAME_ONE, OTHER}};
    for (unsigned s = 0; s < 4; s++)
        for (unsigned a = 0; a < 4; a++)
            for (unsigned outlived = 0; outlived < 2; outlived++) {
                struct own_name name = asked_at(0);
                name.state = states[s];
                const bool lives = answers[a].incarnation == OURS;
                const bool unknown = answers[a].answer == OWN_NAME_UNKNOWN;
                const enum own_name_do told =
                    own_name_answered(&name, answers[a].answer, answers[a].incarnation,
                                      outlived ? 3 * TTL + 1 : 3 * TTL);
                enum own_name_state to = states[s];
                if (lives)
                    to = OWN_NAME_TWIN;
                else if (!unknown && (to == OWN_NAME_ASKED || to == OWN_NAME_TWIN))
                    to = OWN_NAME_RESTART;
                else if (outlived && to == OWN_NAME_RESTART)
                    to = OWN_NAME_STANDS;
                cr_expect_eq(name.state, to, "state %u, answer %u, outlived %u", states[s], a,
                             outlived);
                /* A change is told, and a twin as long as it is one. */
                const enum own_name_do expected = to == OWN_NAME_TWIN ? OWN_NAME_DO_TELL_TWIN
                                                  : to == states[s]   ? OWN_NAME_DO_NOTHING
                                                  : to == OWN_NAME_RESTART
                                                      ? OWN_NAME_DO_TELL_RESTART
                                                      : OWN_NAME_DO_TELL_STANDS;
                cr_expect_eq(told, expected, "state %u, answer %u, outlived %u", states[s], a,
                             outlived);
            }
}

/* ---- dead_homes.c ---- */

#define KEEP 1000u

Test(cluster_names, a_home_is_long_dead_when_every_look_has_found_it_dead) {
    struct dead_homes homes;
    dead_homes_init(&homes);
    for (uint64_t now_ns = 0; now_ns < KEEP; now_ns += 250) {
        dead_homes_begin_look(&homes);
        cr_expect(!dead_homes_come_upon(&homes, "b", OURS, now_ns, KEEP));
        cr_expect(!dead_homes_come_upon(&homes, "b", OURS, now_ns, KEEP), "it has many records");
        dead_homes_end_look(&homes);
    }
    dead_homes_begin_look(&homes);
    cr_expect(dead_homes_come_upon(&homes, "b", OURS, KEEP, KEEP));
    cr_expect(!dead_homes_come_upon(&homes, "b", OTHER, KEEP, KEEP), "an incarnation of its own");
    cr_expect(!dead_homes_come_upon(&homes, "c", OURS, KEEP, KEEP));
    dead_homes_forget(&homes);
}

Test(cluster_names, a_look_that_does_not_find_it_makes_it_count_anew) {
    struct dead_homes homes;
    dead_homes_init(&homes);
    dead_homes_begin_look(&homes);
    cr_expect(!dead_homes_come_upon(&homes, "b", OURS, 0, KEEP));
    dead_homes_end_look(&homes);
    dead_homes_begin_look(&homes);
    dead_homes_end_look(&homes);
    dead_homes_begin_look(&homes);
    cr_expect(!dead_homes_come_upon(&homes, "b", OURS, KEEP, KEEP), "it was alive meanwhile");
    dead_homes_forget(&homes);
    cr_expect(TAILQ_EMPTY(&homes.list));
}

Test(cluster_names, a_look_that_is_broken_off_forgets_nobody) {
    struct dead_homes homes;
    dead_homes_init(&homes);
    dead_homes_begin_look(&homes);
    cr_expect(!dead_homes_come_upon(&homes, "b", OURS, 0, KEEP));
    dead_homes_end_look(&homes);
    dead_homes_begin_look(&homes); /* broken off before it comes upon b */
    dead_homes_begin_look(&homes);
    cr_expect(dead_homes_come_upon(&homes, "b", OURS, KEEP, KEEP));
    dead_homes_forget(&homes);
}
