/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <string.h>

#include "cluster/cluster.h"

#define INCARNATION UINT64_C(42)

static const struct audit_record ours = {.home = "a", .generation = 7, .incarnation = INCARNATION};
static const struct audit_record theirs = {.home = "b", .generation = 8, .incarnation = 43};
static const struct audit_record earlier = {.home = "a", .generation = 6, .incarnation = 41};

static enum audit_finding judge(uint64_t held, enum cluster_reading result,
                                const struct audit_record *record) {
    struct audit_facts facts = {.held = held};
    return cluster_audit_judge(&facts, &facts, result, record, "a", INCARNATION);
}

Test(cluster_audit, what_agrees) {
    cr_expect_eq(judge(7, READING_RECORD, &ours), AUDIT_AGREES);
    cr_expect_eq(judge(0, READING_RECORD, &theirs), AUDIT_AGREES);
    cr_expect_eq(judge(0, READING_LOST, &theirs), AUDIT_AGREES);
    cr_expect_eq(judge(0, READING_NONE, NULL), AUDIT_AGREES);
}

Test(cluster_audit, every_way_to_disagree_has_its_finding) {
    cr_expect_eq(judge(0, READING_RECORD, &ours), AUDIT_NOT_HELD);
    cr_expect_eq(judge(7, READING_NONE, NULL), AUDIT_NOT_RECORDED);
    cr_expect_eq(judge(7, READING_RECORD, &theirs), AUDIT_REPLACED);
    cr_expect_eq(judge(7, READING_LOST, &theirs), AUDIT_REPLACED);
    cr_expect_eq(judge(9, READING_RECORD, &ours), AUDIT_OTHER_GENERATION);
}

Test(cluster_audit, a_record_of_our_own_earlier_life_is_not_ours) {
    cr_expect_eq(judge(0, READING_LOST, &earlier), AUDIT_AGREES);
    cr_expect_eq(judge(7, READING_LOST, &earlier), AUDIT_REPLACED);
    cr_expect_eq(cluster_audit_judge_record(READING_LOST), AUDIT_HOME_DEAD);
    cr_expect_eq(cluster_audit_judge_record(READING_RECORD), AUDIT_AGREES);
    cr_expect_eq(cluster_audit_judge_record(READING_NONE), AUDIT_AGREES);
}

Test(cluster_audit, what_changes_while_it_is_looked_at_is_no_finding) {
    static const struct audit_facts still = {.held = 7}, other = {.held = 8},
                                    moving = {.held = 7, .moving = true};
    const struct audit_facts *pairs[][2] = {
        {&moving, &still}, {&still, &moving}, {&still, &other}, {&other, &still}};
    for (size_t i = 0; i < 4; i++)
        cr_expect_eq(
            cluster_audit_judge(pairs[i][0], pairs[i][1], READING_NONE, NULL, "a", INCARNATION),
            AUDIT_MOVING);
}

Test(cluster_audit, an_index_that_cannot_be_read_proves_nothing) {
    cr_expect_eq(judge(7, READING_FAILED, NULL), AUDIT_NOT_CHECKED);
    cr_expect_eq(judge(0, READING_FAILED, NULL), AUDIT_NOT_CHECKED);
    cr_expect_eq(cluster_audit_judge_record(READING_FAILED), AUDIT_NOT_CHECKED);
}

Test(cluster_audit, every_finding_says_who_and_what_to_do) {
    char what[512], remedy[256];
    for (int finding = AUDIT_HOME_DEAD; finding < AUDIT_NOT_CHECKED; finding++) {
        cluster_audit_say(what, sizeof what, finding, "run", "s1", "a", 7, &ours);
        cluster_audit_say_remedy(remedy, sizeof remedy, finding, "a");
        cr_expect(strstr(what, "sample s1 of store run") && strstr(what, "node a"), "%s", what);
        cr_expect_gt(strlen(remedy), 0, "%s", what);
    }
    cluster_audit_say(what, sizeof what, AUDIT_NOT_RECORDED, "run", "s1", "a", 7, NULL);
    cr_expect(strstr(what, "generation 7"), "%s", what);
    cluster_audit_say_remedy(remedy, sizeof remedy, AUDIT_AGREES, "a");
    cr_expect_str_empty(remedy);
}
