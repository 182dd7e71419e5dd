/* SPDX-License-Identifier: Apache-2.0
 *
 * That a record is missing ends nothing (absence_...): only what was kept by name does.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "directory.h"

static void write_down(void *context, enum directory_verdict verdict,
                       const struct directory_record *record) {
    static const char *const words[] = {"retire", "check", "remove"};
    char *out = context;
    snprintf(out + strlen(out), 256 - strlen(out), "%s %s/%s %llu; ", words[verdict], record->store,
             record->sample_id, (unsigned long long)record->generation);
}

#define RECORD(store_, id_, generation_)                                                           \
    { .store = store_, .sample_id = id_, .home = "n", .generation = generation_ }

static void expect(const struct directory_record *held, size_t held_count,
                   const struct directory_record *records, size_t record_count,
                   const struct directory_record *ended, size_t ended_count, const char *expected) {
    char said[256] = "";
    const struct directory_records has = {held, held_count}, named = {records, record_count},
                                   over = {ended, ended_count};
    directory_reconcile(&has, &named, &over, write_down, said);
    cr_expect_str_eq(said, expected, "%s instead of %s", said, expected);
}

Test(etcd_reconcile, what_agrees_is_left_alone) {
    const struct directory_record both[] = {RECORD("a", "s", 1), RECORD("b", "s", 2)};
    expect(both, 2, both, 2, NULL, 0, "");
    expect(NULL, 0, NULL, 0, NULL, 0, "");
}

Test(etcd_reconcile, absence_of_a_record_ends_nothing) {
    const struct directory_record held[] = {RECORD("a", "s", 1), RECORD("b", "s", 2),
                                            RECORD("b", "t", 3)};
    expect(held, 3, &held[1], 1, NULL, 0, "check a/s 1; check b/t 3; ");
    expect(held, 3, NULL, 0, NULL, 0, "check a/s 1; check b/s 2; check b/t 3; ");
}

Test(etcd_reconcile, what_has_ended_by_name_goes_with_its_record) {
    const struct directory_record held[] = {RECORD("a", "s", 1), RECORD("b", "s", 2),
                                            RECORD("b", "t", 3)};
    const struct directory_record ended[] = {RECORD("a", "r", 9), RECORD("b", "s", 2),
                                             RECORD("b", "z", 1)};
    expect(held, 3, held, 3, ended, 3, "retire b/s 2; remove b/s 2; ");
    expect(held, 3, held, 1, ended, 3, "retire b/s 2; check b/t 3; ");
}

Test(etcd_reconcile, an_end_is_of_what_was_put_before_and_of_nothing_later) {
    const struct directory_record held[] = {RECORD("a", "s", 5)};
    const struct directory_record later[] = {RECORD("a", "s", 3), RECORD("a", "s", 7)};
    expect(held, 1, held, 1, later, 1, "");
    expect(held, 1, NULL, 0, later, 2, "retire a/s 5; ");
}

Test(etcd_reconcile, records_of_what_we_do_not_hold_go) {
    const struct directory_record records[] = {RECORD("a", "s", 1), RECORD("b", "s", 2),
                                               RECORD("b", "t", 3)};
    expect(&records[1], 1, records, 3, NULL, 0, "remove a/s 1; remove b/t 3; ");
}

Test(etcd_reconcile, a_record_of_another_generation_is_looked_at) {
    const struct directory_record held[] = {RECORD("a", "s", 1)};
    const struct directory_record records[] = {RECORD("a", "s", 5)};
    expect(held, 1, records, 1, NULL, 0, "check a/s 1; ");
}

Test(etcd_reconcile, the_order_is_by_store_then_sample) {
    const struct directory_record a = RECORD("a", "z", 1), b = RECORD("b", "a", 1),
                                  c = RECORD("b", "b", 9);
    cr_expect_lt(directory_record_compare(&a, &b), 0);
    cr_expect_lt(directory_record_compare(&b, &c), 0);
    cr_expect_eq(directory_record_compare(&c, &c), 0);
    cr_expect_gt(directory_record_compare(&c, &a), 0);
}
