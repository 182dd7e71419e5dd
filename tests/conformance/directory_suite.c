/* SPDX-License-Identifier: Apache-2.0
 *
 * What every directory must hold (suite `directory`). What those with a cluster-wide index must
 * hold beyond that is in directory_suite_index.c. A directory without one promises none of the
 * latter: each home knows its own samples, the broker asks the peers.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conformance/directory_bench.h"

Test(directory, each_node_hears_of_every_other_and_not_of_itself) {
    FOR_EACH_FIXTURE() {
        struct bench bench;
        bench_init(&bench, fixture); /* waits until everybody is up */
        for (uint32_t i = 0; i < DIRECTORY_SUITE_NODES; i++) {
            cr_expect_eq(bench.seen[i].up[i], 0, "%s", fixture->name);
            cr_expect_eq(bench.seen[i].strangers, 0, "%s", fixture->name);
            cr_expect_eq(bench.seen[i].fenced, 0, "%s", fixture->name);
        }
        bench_deinit(&bench);
    }
}

Test(directory, who_asks_for_the_members_has_heard_of_all_there_are) {
    FOR_EACH_FIXTURE() {
        struct bench bench;
        bench_init(&bench, fixture);
        struct answer answer = {.seen = &bench.seen[0]};
        bench_node(&bench, 0)->ops->members(bench_node(&bench, 0), bench_on_retired, &answer);
        cr_expect_eq(answer.count, 0, "%s: answered from inside the call", fixture->name);
        UNTIL(&bench, answer.count > 0);
        cr_expect_eq(answer.result, DIRECTORY_OK, "%s", fixture->name);
        for (uint32_t i = 1; i < DIRECTORY_SUITE_NODES; i++)
            cr_expect_gt(bench.seen[0].up[i], 0, "%s", fixture->name);
        bench_deinit(&bench);
    }
}

Test(directory, a_question_is_answered_once_and_not_from_inside) {
    FOR_EACH_FIXTURE() {
        struct bench bench;
        bench_init(&bench, fixture);
        struct answer answers[40];
        for (uint32_t k = 0; k < 40; k++) {
            char id[16];
            snprintf(id, sizeof id, "sample-%u", k / 2);
            bench_ask(&bench, 0, k % 2, "run0", id, 1 + k / 2, &answers[k]);
        }
        for (uint32_t k = 0; k < 40; k++) {
            UNTIL(&bench, answers[k].count > 0);
            cr_expect_eq(answers[k].result, DIRECTORY_OK, "%s", fixture->name);
        }
        bench_locate(&bench, 0, "sample-0"); /* whatever else is due has come by then */
        for (uint32_t k = 0; k < 40; k++)
            cr_expect_eq(answers[k].count, 1, "%s", fixture->name);
        bench_deinit(&bench);
    }
}

Test(directory, pending_counts_publishes_and_retires_until_their_answer) {
    FOR_EACH_FIXTURE() {
        struct bench bench;
        bench_init(&bench, fixture);
        const struct directory *d = bench_node(&bench, 0);
        cr_expect_eq(d->ops->pending(d), 0);
        struct answer published, retired;
        bench_ask(&bench, 0, false, "run0", "s", 1, &published);
        bench_ask(&bench, 0, true, "run0", "t", 2, &retired);
        cr_expect_eq(d->ops->pending(d), 2, "%s", fixture->name);
        UNTIL(&bench, published.count > 0 && retired.count > 0);
        cr_expect_eq(d->ops->pending(d), 0, "%s", fixture->name);
        bench_deinit(&bench);
    }
}

static int compare_u64(const void *a, const void *b) {
    uint64_t left, right;
    memcpy(&left, a, sizeof left);
    memcpy(&right, b, sizeof right);
    return (left > right) - (left < right);
}

Test(directory, generations_are_unique_in_the_cluster_and_never_0) {
    enum { EACH = 5000, ALL = EACH * DIRECTORY_SUITE_NODES };
    static uint64_t given[ALL];
    FOR_EACH_FIXTURE() {
        struct bench bench;
        bench_init(&bench, fixture);
        for (uint32_t k = 0; k < ALL; k++)
            given[k] = bench_next_generation(&bench, k % DIRECTORY_SUITE_NODES);
        qsort(given, ALL, sizeof *given, compare_u64);
        for (uint32_t k = 1; k < ALL; k++)
            cr_assert_neq(given[k - 1], given[k], "%s: %llu twice", fixture->name,
                          (unsigned long long)given[k]);
        bench_deinit(&bench);
    }
}

Test(directory, retiring_what_is_absent_is_fine) {
    FOR_EACH_FIXTURE() {
        struct bench bench;
        bench_init(&bench, fixture);
        cr_expect_eq(bench_retire(&bench, 0, "never-put", 7).result, DIRECTORY_OK, "%s",
                     fixture->name);
        bench_deinit(&bench);
    }
}

Test(directory, what_is_not_known_is_not_found_and_says_whether_to_ask_the_peers) {
    FOR_EACH_FIXTURE() {
        struct bench bench;
        bench_init(&bench, fixture);
        struct answer answer = bench_locate(&bench, 1, "never-put");
        cr_expect_eq(answer.result, DIRECTORY_E_NOT_FOUND, "%s", fixture->name);
        cr_expect_not(answer.has_record, "%s", fixture->name);
        cr_expect_eq(answer.ask_peers, !fixture->has_index, "%s", fixture->name);
        bench_deinit(&bench);
    }
}

struct chain {
    struct directory *d;
    struct answer second;
    uint32_t first_count;
};

static void on_first_of_chain(void *context, enum directory_result result,
                              const struct directory_record *older, bool ask_peers) {
    struct chain *chain = context;
    (void)result, (void)older, (void)ask_peers;
    chain->first_count++;
    chain->second.seen->inside = true;
    chain->d->ops->locate(chain->d, "run0", "s", bench_on_located, &chain->second);
    chain->second.seen->inside = false;
}

Test(directory, an_answer_may_ask_the_next_question) {
    FOR_EACH_FIXTURE() {
        struct bench bench;
        bench_init(&bench, fixture);
        struct chain chain = {.d = bench_node(&bench, 0), .second.seen = &bench.seen[0]};
        const struct directory_record record = {.store = "run0",
                                                .sample_id = "s",
                                                .home = "node-0",
                                                .generation = 1,
                                                .incarnation = 100};
        chain.d->ops->publish(chain.d, &record, on_first_of_chain, &chain);
        UNTIL(&bench, chain.second.count > 0);
        cr_expect_eq(chain.first_count, 1, "%s", fixture->name);
        bench_deinit(&bench);
    }
}

Test(directory, destroying_answers_what_is_owed) {
    FOR_EACH_FIXTURE() {
        struct bench bench;
        bench_init(&bench, fixture);
        struct answer published, retired;
        struct answer located = {.seen = &bench.seen[0]}, members = {.seen = &bench.seen[0]};
        bench_ask(&bench, 0, false, "run0", "s", 1, &published);
        bench_ask(&bench, 0, true, "run0", "t", 2, &retired);
        struct directory *d = bench_node(&bench, 0);
        d->ops->locate(d, "run0", "s", bench_on_located, &located);
        d->ops->members(d, bench_on_retired, &members);
        fixture->destroy_node(bench.cluster, 0);
        const struct answer *all[] = {&published, &retired, &located, &members};
        for (size_t k = 0; k < 4; k++) {
            cr_expect_eq(all[k]->count, 1, "%s: question %zu", fixture->name, k);
            cr_expect_eq(all[k]->result, DIRECTORY_E_UNAVAILABLE, "%s: question %zu", fixture->name,
                         k);
        }
        bench_deinit(&bench);
    }
}
