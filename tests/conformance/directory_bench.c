/* SPDX-License-Identifier: Apache-2.0
 *
 * The bench of the directory's conformance suites: what the events of each node said, and questions
 * that wait for their answer. That no callback runs from inside a question is checked with each.
 */
#include "conformance/directory_bench.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

const struct directory_fixture *const directory_fixtures[] = {
    &directory_fixture_static,
    &directory_fixture_fake,
    &directory_fixture_etcd,
    NULL,
};

static uint32_t node_index(struct seen *seen, const char *node) {
    for (uint32_t i = 0; i < DIRECTORY_SUITE_NODES; i++) {
        char name[16];
        directory_suite_node_name(i, name);
        if (!strcmp(name, node))
            return i;
    }
    seen->strangers++;
    return 0;
}

static void on_node_up(void *owner, const char *node, const char *address, const char *data_address,
                       uint64_t incarnation) {
    struct seen *seen = owner;
    uint32_t i = node_index(seen, node);
    char expected[32];
    directory_suite_node_address(i, expected);
    cr_expect_str_eq(address, expected);
    cr_expect_str_eq(data_address, expected, "the same, for none of its own was given");
    cr_expect(incarnation == 0 || incarnation == DIRECTORY_SUITE_INCARNATION(i));
    cr_expect_not(seen->inside);
    seen->up[i]++;
}

static void on_node_down(void *owner, const char *node, uint64_t incarnation) {
    struct seen *seen = owner;
    uint32_t i = node_index(seen, node);
    cr_expect_eq(incarnation, DIRECTORY_SUITE_INCARNATION(i));
    cr_expect_not(seen->inside);
    seen->down[i]++;
}

static void on_fenced(void *owner, bool fenced, const char *why) {
    struct seen *seen = owner;
    cr_expect_gt(strlen(why), 0);
    cr_expect_not(seen->inside);
    *(fenced ? &seen->fenced : &seen->unfenced) += 1;
}

static const struct directory_events events = {
    .node_up = on_node_up, .node_down = on_node_down, .fenced = on_fenced};

/* ---- the bench ---- */

struct directory *bench_node(struct bench *bench, uint32_t i) {
    return bench->fixture->node(bench->cluster, i);
}

static bool everybody_is_up(const struct bench *bench) {
    for (uint32_t i = 0; i < DIRECTORY_SUITE_NODES; i++)
        for (uint32_t j = 0; j < DIRECTORY_SUITE_NODES; j++)
            if (i != j && bench->seen[i].up[j] == 0)
                return false;
    return true;
}

void bench_init(struct bench *bench, const struct directory_fixture *fixture) {
    *bench = (struct bench){.fixture = fixture};
    void *owners[DIRECTORY_SUITE_NODES];
    for (uint32_t i = 0; i < DIRECTORY_SUITE_NODES; i++)
        owners[i] = &bench->seen[i];
    bench->cluster = fixture->set_up(&events, owners);
    for (uint32_t i = 0; i < DIRECTORY_SUITE_NODES; i++)
        cr_assert_eq(bench_node(bench, i)->ops->start(bench_node(bench, i)), 0, "%s",
                     fixture->name);
    UNTIL(bench, everybody_is_up(bench));
}

void bench_deinit(struct bench *bench) {
    bench->fixture->tear_down(bench->cluster);
}

/* ---- asking ---- */

static void answer_take(struct answer *answer, enum directory_result result,
                        const struct directory_record *record) {
    cr_expect_not(answer->seen->inside, "answered from inside the question");
    answer->count++;
    answer->result = result;
    answer->has_record = record != NULL;
    if (!record)
        return;
    snprintf(answer->home, sizeof answer->home, "%s", record->home);
    answer->generation = record->generation;
    answer->incarnation = record->incarnation;
    answer->bytes = record->bytes;
}

static void on_published(void *context, enum directory_result result,
                         const struct directory_record *older, bool ask_peers) {
    cr_expect_not(ask_peers, "no answer was lost, yet one is missed");
    answer_take(context, result, older);
}

void bench_on_retired(void *context, enum directory_result result) {
    answer_take(context, result, NULL);
}

void bench_on_located(void *context, enum directory_result result,
                      const struct directory_record *record, bool ask_peers) {
    struct answer *answer = context;
    answer_take(answer, result, record);
    answer->ask_peers = ask_peers;
}

/* The strings it passes are gone when it returns: a directory must have copied them. */
void bench_ask(struct bench *bench, uint32_t i, bool retire, const char *store,
               const char *sample_id, uint64_t generation, struct answer *answer) {
    struct directory *d = bench_node(bench, i);
    char home[16], store_copy[16], id_copy[16];
    directory_suite_node_name(i, home);
    snprintf(store_copy, sizeof store_copy, "%s", store);
    snprintf(id_copy, sizeof id_copy, "%s", sample_id);
    const struct directory_record record = {
        .store = store_copy,
        .sample_id = id_copy,
        .home = home,
        .generation = generation,
        .incarnation = DIRECTORY_SUITE_INCARNATION(i),
        .bytes = 1000 + generation % 1000,
    };
    *answer = (struct answer){.seen = &bench->seen[i]};
    bench->seen[i].inside = true;
    if (retire)
        d->ops->retire(d, &record, bench_on_retired, answer);
    else
        d->ops->publish(d, &record, on_published, answer);
    bench->seen[i].inside = false;
    memset(store_copy, 'x', sizeof store_copy - 1);
    memset(id_copy, 'x', sizeof id_copy - 1);
}

struct answer bench_publish(struct bench *bench, uint32_t i, const char *sample_id,
                            uint64_t generation) {
    struct answer answer;
    bench_ask(bench, i, false, "run0", sample_id, generation, &answer);
    UNTIL(bench, answer.count > 0);
    return answer;
}

struct answer bench_retire(struct bench *bench, uint32_t i, const char *sample_id,
                           uint64_t generation) {
    struct answer answer;
    bench_ask(bench, i, true, "run0", sample_id, generation, &answer);
    UNTIL(bench, answer.count > 0);
    return answer;
}

struct answer bench_locate_in(struct bench *bench, uint32_t i, const char *store,
                              const char *sample_id) {
    struct directory *d = bench_node(bench, i);
    struct answer answer = {.seen = &bench->seen[i]};
    bench->seen[i].inside = true;
    d->ops->locate(d, store, sample_id, bench_on_located, &answer);
    bench->seen[i].inside = false;
    UNTIL(bench, answer.count > 0);
    return answer;
}

struct answer bench_locate(struct bench *bench, uint32_t i, const char *sample_id) {
    return bench_locate_in(bench, i, "run0", sample_id);
}

uint64_t bench_next_generation(struct bench *bench, uint32_t i) {
    uint64_t generation = 0;
    UNTIL(bench,
          (generation = bench_node(bench, i)->ops->next_generation(bench_node(bench, i))) != 0);
    return generation;
}
