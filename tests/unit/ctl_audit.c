/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "featurectl/audit.h"

static void add_record(struct audit *audit, const char *id, uint64_t generation, const char *home,
                       bool member) {
    Fb__IndexRecord record = FB__INDEX_RECORD__INIT;
    record.store = (char *)"run";
    record.sample_id = (char *)id;
    record.generation = generation;
    record.home = (char *)home;
    record.home_is_member = member;
    audit_add_record(audit, &record);
}

static void add_sample(struct audit *audit, const char *id, uint64_t generation, const char *node) {
    Fb__SampleInfo sample = FB__SAMPLE_INFO__INIT;
    sample.sample_id = (char *)id;
    sample.generation = generation;
    audit_add_sample(audit, "run", node, &sample);
}

static bool all_but_c(void *context, const char *node) {
    (void)context;
    return *node != 'c';
}

static void expect_suspect(const struct audit *audit, size_t at, const char *id, const char *node) {
    cr_assert_lt(at, audit->suspect_count);
    cr_expect_str_eq(audit->suspects[at].sample_id, id);
    cr_expect_str_eq(audit->suspects[at].node, node);
}

static void look(struct suspect *suspect, Fb__Finding finding, uint64_t held) {
    Fb__IndexFinding *found = malloc(sizeof *found);
    fb__index_finding__init(found);
    found->finding = finding;
    found->held = held;
    audit_judge(suspect, found);
}

Test(ctl_audit, what_agrees_is_not_suspect) {
    struct audit audit = {0};
    add_record(&audit, "s1", 1, "a", true);
    add_record(&audit, "s2", 2, "b", true);
    add_sample(&audit, "s1", 1, "a");
    add_sample(&audit, "s2", 2, "b");
    cr_expect_eq(audit_close(&audit, all_but_c, NULL), 0);
    cr_expect_eq(audit.suspect_count, 0);
    cr_expect_eq(audit.record_count, 2);
    cr_expect_eq(audit.sample_count, 2);
    audit_deinit(&audit);
}

Test(ctl_audit, each_disagreement_is_suspect_once) {
    struct audit audit = {0};
    add_record(&audit, "dead", 1, "x", false);
    add_record(&audit, "not-held", 2, "a", true);
    add_record(&audit, "other", 3, "b", true);
    add_record(&audit, "silent", 4, "c", true);
    add_record(&audit, "twice", 5, "a", true);
    add_record(&audit, "twice", 5, "a", true); /* a page read again */
    add_sample(&audit, "other", 9, "b");
    add_sample(&audit, "none", 10, "a");
    add_sample(&audit, "twice", 5, "a");
    cr_expect_eq(audit_close(&audit, all_but_c, NULL), 1, "the record of c is unknown");
    cr_expect_eq(audit.record_count, 5);
    cr_assert_eq(audit.suspect_count, 4);
    expect_suspect(&audit, 0, "dead", "");
    expect_suspect(&audit, 1, "none", "a");
    expect_suspect(&audit, 2, "not-held", "a");
    expect_suspect(&audit, 3, "other", "b");
    audit_deinit(&audit);
}

Test(ctl_audit, a_finding_takes_two_looks_that_say_the_same) {
    struct audit audit = {0};
    add_sample(&audit, "s1", 1, "a");
    struct suspect *s1 = &audit.suspects[0];
    look(s1, FB__FINDING__NOT_RECORDED, 1);
    cr_expect(audit_sift(&audit), "one look is not enough");
    look(s1, FB__FINDING__NOT_RECORDED, 2);
    cr_expect(audit_sift(&audit), "another generation is another finding");
    look(s1, FB__FINDING__MOVING, 2);
    look(s1, FB__FINDING__MOVING, 2);
    cr_expect(audit_sift(&audit) && !audit_is_finding(s1), "what moves is looked at again");
    look(s1, FB__FINDING__REPLACED, 2);
    look(s1, FB__FINDING__REPLACED, 2);
    cr_expect(!audit_sift(&audit) && audit_is_finding(s1));
    audit_deinit(&audit);
}

Test(ctl_audit, who_agrees_at_a_later_look_is_dropped) {
    struct audit audit = {0};
    add_sample(&audit, "s1", 1, "a");
    add_sample(&audit, "s2", 2, "a");
    look(&audit.suspects[0], FB__FINDING__AGREES, 1);
    look(&audit.suspects[1], FB__FINDING__NOT_CHECKED, 0);
    look(&audit.suspects[1], FB__FINDING__NOT_CHECKED, 0);
    cr_expect(audit_sift(&audit));
    cr_assert_eq(audit.suspect_count, 1);
    expect_suspect(&audit, 0, "s2", "a");
    cr_expect_not(audit_is_finding(&audit.suspects[0]), "nobody could be asked");
    audit_deinit(&audit);
}

static void mend(struct suspect *suspect, Fb__Finding finding, bool repaired) {
    Fb__IndexFinding *found = malloc(sizeof *found);
    fb__index_finding__init(found);
    found->finding = finding;
    found->repaired = repaired;
    audit_mend(suspect, found);
}

Test(ctl_audit, what_agrees_when_it_is_to_be_mended_is_mended) {
    struct audit audit = {0};
    add_sample(&audit, "s1", 1, "a");
    struct suspect *s1 = &audit.suspects[0];
    look(s1, FB__FINDING__REPLACED, 1);
    look(s1, FB__FINDING__REPLACED, 1);
    mend(s1, FB__FINDING__MOVING, false);
    cr_expect(audit_is_finding(s1) && !s1->finding->repaired, "a move proves nothing");
    mend(s1, FB__FINDING__AGREES, false);
    cr_expect(audit_is_finding(s1) && s1->finding->repaired, "it agrees by now");
    cr_expect_eq(s1->finding->finding, FB__FINDING__REPLACED);
    mend(s1, FB__FINDING__NOT_HELD, true);
    cr_expect(s1->finding->finding == FB__FINDING__NOT_HELD && s1->finding->repaired);
    audit_deinit(&audit);
}
