/* SPDX-License-Identifier: Apache-2.0
 *
 * What a directory with a cluster-wide index must hold beyond directory_suite.c: supersede,
 * conditional retire, fencing, LOST; and that its pages and sweeps are right, for those kinds that
 * can look through their index.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "conformance/directory_bench.h"

Test(directory_index, a_publish_names_the_record_it_replaced) {
    FOR_EACH_INDEX() {
        struct bench bench;
        bench_init(&bench, fixture);
        cr_expect_not(bench_publish(&bench, 0, "s", 11).has_record, "%s", fixture->name);
        struct answer second = bench_publish(&bench, 1, "s", 12);
        cr_assert(second.has_record, "%s", fixture->name);
        cr_expect_str_eq(second.home, "node-0");
        cr_expect_eq(second.generation, 11);
        cr_expect_eq(second.incarnation, DIRECTORY_SUITE_INCARNATION(0));
        cr_expect_eq(second.bytes, 1011);
        bench_deinit(&bench);
    }
}

Test(directory_index, publishing_the_same_generation_again_replaces_nothing) {
    FOR_EACH_INDEX() {
        struct bench bench;
        bench_init(&bench, fixture);
        bench_publish(&bench, 0, "s", 11);
        struct answer again = bench_publish(&bench, 0, "s", 11);
        cr_expect_eq(again.result, DIRECTORY_OK, "%s", fixture->name);
        cr_expect_not(again.has_record, "%s", fixture->name);
        bench_deinit(&bench);
    }
}

Test(directory_index, every_node_finds_the_current_record) {
    FOR_EACH_INDEX() {
        struct bench bench;
        bench_init(&bench, fixture);
        bench_publish(&bench, 0, "s", 11);
        bench_publish(&bench, 1, "s", 12);
        for (uint32_t i = 0; i < DIRECTORY_SUITE_NODES; i++) {
            struct answer found = bench_locate(&bench, i, "s");
            cr_assert(found.has_record, "%s", fixture->name);
            cr_expect_eq(found.result, DIRECTORY_OK, "%s", fixture->name);
            cr_expect_eq(found.generation, 12);
            cr_expect_str_eq(found.home, "node-1");
            cr_expect_not(found.ask_peers);
        }
        bench_deinit(&bench);
    }
}

Test(directory_index, a_retire_removes_its_own_generation_only) {
    FOR_EACH_INDEX() {
        struct bench bench;
        bench_init(&bench, fixture);
        bench_publish(&bench, 0, "s", 11);
        bench_publish(&bench, 1, "s", 12);
        cr_expect_eq(bench_retire(&bench, 0, "s", 11).result, DIRECTORY_OK, "%s", fixture->name);
        cr_expect_eq(bench_locate(&bench, 2, "s").generation, 12,
                     "%s: a stale retire took the new record", fixture->name);
        cr_expect_eq(bench_retire(&bench, 1, "s", 12).result, DIRECTORY_OK, "%s", fixture->name);
        cr_expect_eq(bench_locate(&bench, 2, "s").result, DIRECTORY_E_NOT_FOUND, "%s",
                     fixture->name);
        bench_deinit(&bench);
    }
}

Test(directory_index, the_same_id_in_two_stores_is_two_records) {
    FOR_EACH_INDEX() {
        struct bench bench;
        bench_init(&bench, fixture);
        struct answer other;
        bench_publish(&bench, 0, "s", 11);
        bench_ask(&bench, 0, false, "run1", "s", 12, &other);
        UNTIL(&bench, other.count > 0);
        cr_expect_not(other.has_record, "%s", fixture->name);
        cr_expect_eq(bench_locate_in(&bench, 0, "run0", "s").generation, 11, "%s", fixture->name);
        cr_expect_eq(bench_locate_in(&bench, 0, "run1", "s").generation, 12, "%s", fixture->name);
        bench_deinit(&bench);
    }
}

Test(directory_index, a_fenced_node_may_not_publish) {
    FOR_EACH_INDEX() {
        struct bench bench;
        bench_init(&bench, fixture);
        bench_publish(&bench, 1, "s", 11);
        fixture->set_fenced(bench.cluster, 0, true);
        UNTIL(&bench, bench.seen[0].fenced > 0);
        cr_expect_eq(bench_publish(&bench, 0, "s", 12).result, DIRECTORY_E_FENCED, "%s",
                     fixture->name);
        cr_expect_eq(bench_locate(&bench, 2, "s").generation, 11, "%s: the index has changed",
                     fixture->name);

        fixture->set_fenced(bench.cluster, 0, false);
        UNTIL(&bench, bench.seen[0].unfenced > 0);
        cr_expect_eq(bench_publish(&bench, 0, "s", 13).result, DIRECTORY_OK, "%s", fixture->name);
        cr_expect_eq(bench_locate(&bench, 2, "s").generation, 13, "%s", fixture->name);
        bench_deinit(&bench);
    }
}

Test(directory_index, the_others_see_a_node_go_and_come_back) {
    FOR_EACH_INDEX() {
        struct bench bench;
        bench_init(&bench, fixture);
        fixture->set_fenced(bench.cluster, 0, true);
        UNTIL(&bench, bench.seen[1].down[0] > 0 && bench.seen[2].down[0] > 0);
        fixture->set_fenced(bench.cluster, 0, false);
        UNTIL(&bench, bench.seen[1].up[0] > 1 && bench.seen[2].up[0] > 1);
        cr_expect_eq(bench.seen[1].down[2], 0, "%s", fixture->name);
        bench_deinit(&bench);
    }
}

Test(directory_index, a_record_whose_home_has_left_is_lost) {
    FOR_EACH_INDEX() {
        struct bench bench;
        bench_init(&bench, fixture);
        bench_publish(&bench, 0, "s", 11);
        fixture->destroy_node(bench.cluster, 0);
        UNTIL(&bench, bench.seen[1].down[0] > 0);
        struct answer found = bench_locate(&bench, 1, "s");
        cr_expect_eq(found.result, DIRECTORY_E_LOST, "%s", fixture->name);
        cr_assert(found.has_record, "%s: LOST names what is lost", fixture->name);
        cr_expect_eq(found.generation, 11);
        cr_expect_eq(bench_publish(&bench, 1, "s", 12).generation, 11, "%s: it can be superseded",
                     fixture->name);
        cr_expect_eq(bench_locate(&bench, 1, "s").result, DIRECTORY_OK, "%s", fixture->name);
        bench_deinit(&bench);
    }
}

Test(directory_index, out_of_reach_is_unavailable_and_passes) {
    FOR_EACH_INDEX() {
        struct bench bench;
        bench_init(&bench, fixture);
        bench_publish(&bench, 0, "s", 11);
        fixture->set_reachable(bench.cluster, 0, false);
        cr_expect_eq(bench_publish(&bench, 0, "s", 12).result, DIRECTORY_E_UNAVAILABLE, "%s",
                     fixture->name);
        cr_expect_eq(bench_locate(&bench, 0, "s").result, DIRECTORY_E_UNAVAILABLE, "%s",
                     fixture->name);
        fixture->set_reachable(bench.cluster, 0, true);
        cr_expect_eq(bench_publish(&bench, 0, "s", 13).result, DIRECTORY_OK, "%s", fixture->name);
        cr_expect_eq(bench_locate(&bench, 1, "s").generation, 13, "%s", fixture->name);
        bench_deinit(&bench);
    }
}

/* ---- directories that can look through their index ---- */

struct listed {
    struct seen *seen;
    uint32_t answers;
    enum directory_result result;
    uint32_t records, members; /* whose home is a member */
    char last[16], next[512];
    bool in_order;
    size_t removed;
};

static void on_page(void *context, enum directory_result result,
                    const struct directory_listed *records, size_t count, size_t unreadable,
                    const char *next) {
    struct listed *listed = context;
    cr_expect_not(listed->seen->inside, "answered from inside the question");
    cr_expect_eq(unreadable, 0);
    cr_expect_leq(count, DIRECTORY_PAGE_RECORDS);
    for (size_t i = 0; i < count; i++) {
        listed->records++;
        listed->members += records[i].home_is_member;
        listed->in_order &= strcmp(listed->last, records[i].record.sample_id) < 0;
        snprintf(listed->last, sizeof listed->last, "%s", records[i].record.sample_id);
    }
    snprintf(listed->next, sizeof listed->next, "%s", next);
    listed->result = result;
    listed->answers++;
}

static struct listed list(struct bench *bench, uint32_t i, const char *store) {
    struct directory *d = bench_node(bench, i);
    struct listed listed = {.seen = &bench->seen[i], .in_order = true};
    do {
        char after[sizeof listed.next];
        uint32_t answers = listed.answers;
        memcpy(after, listed.next, sizeof after);
        bench->seen[i].inside = true;
        d->ops->audit->list(d, store, after, on_page, &listed);
        bench->seen[i].inside = false;
        UNTIL(bench, listed.answers > answers);
    } while (listed.result == DIRECTORY_OK && *listed.next);
    return listed;
}

static void on_swept(void *context, enum directory_result result, size_t removed) {
    struct listed *listed = context;
    listed->result = result;
    listed->removed = removed;
    listed->answers++;
}

/* Node 0's generation 11 and node 1's 12, of s and t, as node 2 has heard of them. */
static struct listed sweep_both(struct bench *bench, uint64_t generation) {
    struct directory *d = bench_node(bench, 2);
    struct listed listed = {.seen = &bench->seen[2]};
    const struct directory_record records[] = {
        {"run0", "s", "node-0", generation, DIRECTORY_SUITE_INCARNATION(0), 0, false},
        {"run0", "t", "node-1", 12, DIRECTORY_SUITE_INCARNATION(1), 0, false}};
    d->ops->audit->sweep(d, records, 2, on_swept, &listed);
    UNTIL(bench, listed.answers > 0);
    return listed;
}

#define FOR_EACH_AUDIT(bench)                                                                      \
    FOR_EACH_INDEX()                                                                               \
    for (bool once = (bench_init(bench, fixture), true); once; bench_deinit(bench), once = false)  \
        if (bench_node(bench, 0)->ops->audit)

Test(directory_index, its_pages_hold_every_record_once_and_in_order) {
    struct bench bench;
    FOR_EACH_AUDIT(&bench) {
        struct answer answers[2 * DIRECTORY_PAGE_RECORDS + 1], other;
        for (uint32_t i = 0; i < 2 * DIRECTORY_PAGE_RECORDS + 1; i++) {
            char id[16];
            snprintf(id, sizeof id, "s/%u", i);
            bench_ask(&bench, i % 2, false, "run0", id, 100 + i, &answers[i]);
        }
        bench_ask(&bench, 0, false, "run1", "s", 7, &other);
        for (uint32_t i = 0; i < 2 * DIRECTORY_PAGE_RECORDS + 1; i++)
            UNTIL(&bench, answers[i].count > 0);
        UNTIL(&bench, other.count > 0);
        struct listed all = list(&bench, 2, NULL), one = list(&bench, 1, "run0");
        cr_expect_eq(all.records, 2 * DIRECTORY_PAGE_RECORDS + 2, "%s", fixture->name);
        cr_expect_eq(all.members, all.records, "%s", fixture->name);
        cr_expect_eq(one.records, 2 * DIRECTORY_PAGE_RECORDS + 1, "%s", fixture->name);
        cr_expect(one.in_order && one.answers == 3, "%s", fixture->name);
        cr_expect_eq(list(&bench, 0, "run2").records, 0, "%s", fixture->name);
    }
}

Test(directory_index, a_sweep_takes_the_records_of_the_dead_alone) {
    struct bench bench;
    FOR_EACH_AUDIT(&bench) {
        bench_publish(&bench, 0, "s", 11);
        bench_publish(&bench, 1, "t", 12);
        cr_expect_eq(sweep_both(&bench, 11).removed, 0, "%s: both homes live", fixture->name);
        fixture->destroy_node(bench.cluster, 0);
        UNTIL(&bench, bench.seen[2].down[0] > 0);
        cr_expect_eq(list(&bench, 2, NULL).members, 1, "%s", fixture->name);
        cr_expect_eq(sweep_both(&bench, 10).removed, 0, "%s: another generation", fixture->name);
        struct listed swept = sweep_both(&bench, 11);
        cr_expect(swept.result == DIRECTORY_OK && swept.removed == 1, "%s", fixture->name);
        cr_expect_eq(bench_locate(&bench, 2, "s").result, DIRECTORY_E_NOT_FOUND, "%s",
                     fixture->name);
        cr_expect_eq(bench_locate(&bench, 2, "t").result, DIRECTORY_OK, "%s", fixture->name);
        cr_expect_eq(sweep_both(&bench, 11).removed, 0, "%s: twice", fixture->name);
    }
}
