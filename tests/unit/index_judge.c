/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <string.h>

#include "cluster/index_judge.h"

#define INCARNATION UINT64_C(42)

static const struct directory_record ours = {
    .store = "run", .sample_id = "s1", .home = "a", .generation = 7, .incarnation = INCARNATION};
static const struct directory_record theirs = {
    .store = "run", .sample_id = "s1", .home = "b", .generation = 8, .incarnation = 43};
static const struct directory_record earlier = {
    .store = "run", .sample_id = "s1", .home = "a", .generation = 6, .incarnation = 41};

static Fb__Finding judge(uint64_t held, enum directory_result result,
                         const struct directory_record *record) {
    struct index_facts facts = {.held = held};
    return index_judge(&facts, &facts, result, record, "a", INCARNATION);
}

Test(index_judge, what_agrees) {
    cr_expect_eq(judge(7, DIRECTORY_OK, &ours), FB__FINDING__AGREES);
    cr_expect_eq(judge(0, DIRECTORY_OK, &theirs), FB__FINDING__AGREES);
    cr_expect_eq(judge(0, DIRECTORY_E_LOST, &theirs), FB__FINDING__AGREES);
    cr_expect_eq(judge(0, DIRECTORY_E_NOT_FOUND, NULL), FB__FINDING__AGREES);
}

Test(index_judge, every_way_to_disagree_has_its_finding) {
    cr_expect_eq(judge(0, DIRECTORY_OK, &ours), FB__FINDING__NOT_HELD);
    cr_expect_eq(judge(7, DIRECTORY_E_NOT_FOUND, NULL), FB__FINDING__NOT_RECORDED);
    cr_expect_eq(judge(7, DIRECTORY_OK, &theirs), FB__FINDING__REPLACED);
    cr_expect_eq(judge(7, DIRECTORY_E_LOST, &theirs), FB__FINDING__REPLACED);
    cr_expect_eq(judge(9, DIRECTORY_OK, &ours), FB__FINDING__OTHER_GENERATION);
}

Test(index_judge, a_record_of_our_own_earlier_life_is_not_ours) {
    cr_expect_eq(judge(0, DIRECTORY_E_LOST, &earlier), FB__FINDING__AGREES);
    cr_expect_eq(judge(7, DIRECTORY_E_LOST, &earlier), FB__FINDING__REPLACED);
    cr_expect_eq(index_judge_record(DIRECTORY_E_LOST), FB__FINDING__HOME_DEAD);
    cr_expect_eq(index_judge_record(DIRECTORY_OK), FB__FINDING__AGREES);
    cr_expect_eq(index_judge_record(DIRECTORY_E_NOT_FOUND), FB__FINDING__AGREES);
}

Test(index_judge, what_changes_while_it_is_looked_at_is_no_finding) {
    static const struct index_facts still = {.held = 7}, other = {.held = 8},
                                    moving = {.held = 7, .moving = true};
    const struct index_facts *pairs[][2] = {
        {&moving, &still}, {&still, &moving}, {&still, &other}, {&other, &still}};
    for (size_t i = 0; i < 4; i++)
        cr_expect_eq(
            index_judge(pairs[i][0], pairs[i][1], DIRECTORY_E_NOT_FOUND, NULL, "a", INCARNATION),
            FB__FINDING__MOVING);
}

Test(index_judge, an_index_that_cannot_be_read_proves_nothing) {
    cr_expect_eq(judge(7, DIRECTORY_E_UNAVAILABLE, NULL), FB__FINDING__NOT_CHECKED);
    cr_expect_eq(judge(0, DIRECTORY_E_FENCED, NULL), FB__FINDING__NOT_CHECKED);
    cr_expect_eq(index_judge_record(DIRECTORY_E_UNAVAILABLE), FB__FINDING__NOT_CHECKED);
}

Test(index_judge, every_finding_says_who_and_what_to_do) {
    char what[512], remedy[256];
    for (int finding = FB__FINDING__HOME_DEAD; finding < FB__FINDING__NOT_CHECKED; finding++) {
        index_say(what, sizeof what, finding, "run", "s1", "a", 7, &ours);
        index_say_remedy(remedy, sizeof remedy, finding, "a");
        cr_expect(strstr(what, "sample s1 of store run") && strstr(what, "node a"), "%s", what);
        cr_expect_gt(strlen(remedy), 0, "%s", what);
    }
    index_say(what, sizeof what, FB__FINDING__NOT_RECORDED, "run", "s1", "a", 7, NULL);
    cr_expect(strstr(what, "generation 7"), "%s", what);
    index_say_remedy(remedy, sizeof remedy, FB__FINDING__AGREES, "a");
    cr_expect_str_empty(remedy);
}
