/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "directory.h"

static void write_down(void *context, enum directory_verdict verdict,
                       const struct directory_record *record, uint64_t in_place_of) {
    static const char *const words[] = {"retire", "publish", "remove"};
    char *out = context;
    snprintf(out + strlen(out), 256 - strlen(out), "%s %s/%s %llu", words[verdict], record->store,
             record->sample_id, (unsigned long long)record->generation);
    snprintf(out + strlen(out), 256 - strlen(out), in_place_of ? " for %llu; " : "; ",
             (unsigned long long)in_place_of);
}

#define RECORD(store_, id_, generation_)                                                           \
    { .store = store_, .sample_id = id_, .home = "n", .generation = generation_ }

static void expect(const struct directory_record *held, size_t held_count,
                   const struct directory_record *records, size_t record_count, bool index_lost,
                   const char *expected) {
    char said[256] = "";
    directory_reconcile(held, held_count, records, record_count, index_lost, write_down, said);
    cr_expect_str_eq(said, expected);
}

Test(etcd_reconcile, what_agrees_is_left_alone) {
    const struct directory_record both[] = {RECORD("a", "s", 1), RECORD("b", "s", 2)};
    expect(both, 2, both, 2, false, "");
    expect(both, 2, both, 2, true, "");
    expect(NULL, 0, NULL, 0, false, "");
}

Test(etcd_reconcile, what_the_index_dropped_goes_unless_the_index_was_lost) {
    const struct directory_record held[] = {RECORD("a", "s", 1), RECORD("b", "s", 2),
                                            RECORD("b", "t", 3)};
    expect(held, 3, &held[1], 1, false, "retire a/s 1; retire b/t 3; ");
    expect(held, 3, &held[1], 1, true, "publish a/s 1; publish b/t 3; ");
    expect(held, 3, NULL, 0, true, "publish a/s 1; publish b/s 2; publish b/t 3; ");
}

Test(etcd_reconcile, records_of_what_we_do_not_hold_go) {
    const struct directory_record records[] = {RECORD("a", "s", 1), RECORD("b", "s", 2),
                                               RECORD("b", "t", 3)};
    expect(&records[1], 1, records, 3, false, "remove a/s 1; remove b/t 3; ");
    expect(&records[1], 1, records, 3, true, "remove a/s 1; remove b/t 3; ");
}

Test(etcd_reconcile, a_put_of_ours_that_reached_the_index_ends_what_it_replaced) {
    const struct directory_record held[] = {RECORD("a", "s", 1)};
    const struct directory_record records[] = {RECORD("a", "s", 5)};
    expect(held, 1, records, 1, false, "retire a/s 1; remove a/s 5; ");
    expect(held, 1, records, 1, true, "publish a/s 1 for 5; ");
}

Test(etcd_reconcile, the_order_is_by_store_then_sample) {
    const struct directory_record a = RECORD("a", "z", 1), b = RECORD("b", "a", 1),
                                  c = RECORD("b", "b", 9);
    cr_expect_lt(directory_record_compare(&a, &b), 0);
    cr_expect_lt(directory_record_compare(&b, &c), 0);
    cr_expect_eq(directory_record_compare(&c, &c), 0);
    cr_expect_gt(directory_record_compare(&c, &a), 0);
}
