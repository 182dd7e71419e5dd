/* SPDX-License-Identifier: Apache-2.0
 *
 * What every directory must hold (suite `directory`), and what those with a cluster-wide index must
 * hold beyond that (suite `directory_index`: supersede, conditional retire, fencing, LOST). A
 * directory without one promises none of the latter: each home knows its own samples, the broker
 * asks the peers.
 */
#include "conformance/directory_suite.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct directory_fixture *const fixtures[] = {
    &directory_fixture_static,
    &directory_fixture_fake,
    &directory_fixture_etcd,
    NULL,
};

/* Declares `fixture`. */
#define FOR_EACH_FIXTURE()                                                                         \
    for (const struct directory_fixture *const *at = fixtures, *fixture; (fixture = *at); at++)

/* ---- what the events said ---- */

struct seen { /* by one node */
    uint32_t up[DIRECTORY_SUITE_NODES], down[DIRECTORY_SUITE_NODES], fenced, unfenced, strangers;
    bool inside; /* a question is being asked: no callback may run */
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

struct bench {
    const struct directory_fixture *fixture;
    void *cluster;
    struct seen seen[DIRECTORY_SUITE_NODES];
};

#define UNTIL(bench, condition)                                                                    \
    for (uint32_t steps = 0; !(condition); steps++) {                                              \
        cr_assert_lt(steps, (bench)->fixture->patience, "%s: never came: %s",                      \
                     (bench)->fixture->name, #condition);                                          \
        (bench)->fixture->step((bench)->cluster);                                                  \
    }

static struct directory *node(struct bench *bench, uint32_t i) {
    return bench->fixture->node(bench->cluster, i);
}

static bool everybody_is_up(const struct bench *bench) {
    for (uint32_t i = 0; i < DIRECTORY_SUITE_NODES; i++)
        for (uint32_t j = 0; j < DIRECTORY_SUITE_NODES; j++)
            if (i != j && bench->seen[i].up[j] == 0)
                return false;
    return true;
}

static void bench_init(struct bench *bench, const struct directory_fixture *fixture) {
    *bench = (struct bench){.fixture = fixture};
    void *owners[DIRECTORY_SUITE_NODES];
    for (uint32_t i = 0; i < DIRECTORY_SUITE_NODES; i++)
        owners[i] = &bench->seen[i];
    bench->cluster = fixture->set_up(&events, owners);
    for (uint32_t i = 0; i < DIRECTORY_SUITE_NODES; i++)
        cr_assert_eq(node(bench, i)->ops->start(node(bench, i)), 0, "%s", fixture->name);
    UNTIL(bench, everybody_is_up(bench));
}

static void bench_deinit(struct bench *bench) {
    bench->fixture->tear_down(bench->cluster);
}

/* ---- asking ---- */

struct answer {
    struct seen *seen;
    uint32_t count;
    enum directory_result result;
    bool has_record, ask_peers;
    char home[16];
    uint64_t generation, incarnation, bytes;
};

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

static void on_retired(void *context, enum directory_result result) {
    answer_take(context, result, NULL);
}

static void on_located(void *context, enum directory_result result,
                       const struct directory_record *record, bool ask_peers) {
    struct answer *answer = context;
    answer_take(answer, result, record);
    answer->ask_peers = ask_peers;
}

/* The strings it passes are gone when it returns: a directory must have copied them. */
static void ask(struct bench *bench, uint32_t i, bool retire, const char *store,
                const char *sample_id, uint64_t generation, struct answer *answer) {
    struct directory *d = node(bench, i);
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
        d->ops->retire(d, &record, on_retired, answer);
    else
        d->ops->publish(d, &record, on_published, answer);
    bench->seen[i].inside = false;
    memset(store_copy, 'x', sizeof store_copy - 1);
    memset(id_copy, 'x', sizeof id_copy - 1);
}

static struct answer publish(struct bench *bench, uint32_t i, const char *sample_id,
                             uint64_t generation) {
    struct answer answer;
    ask(bench, i, false, "run0", sample_id, generation, &answer);
    UNTIL(bench, answer.count > 0);
    return answer;
}

static struct answer retire(struct bench *bench, uint32_t i, const char *sample_id,
                            uint64_t generation) {
    struct answer answer;
    ask(bench, i, true, "run0", sample_id, generation, &answer);
    UNTIL(bench, answer.count > 0);
    return answer;
}

static struct answer locate_in(struct bench *bench, uint32_t i, const char *store,
                               const char *sample_id) {
    struct directory *d = node(bench, i);
    struct answer answer = {.seen = &bench->seen[i]};
    bench->seen[i].inside = true;
    d->ops->locate(d, store, sample_id, on_located, &answer);
    bench->seen[i].inside = false;
    UNTIL(bench, answer.count > 0);
    return answer;
}

static struct answer locate(struct bench *bench, uint32_t i, const char *sample_id) {
    return locate_in(bench, i, "run0", sample_id);
}

static uint64_t next_generation(struct bench *bench, uint32_t i) {
    uint64_t generation = 0;
    UNTIL(bench, (generation = node(bench, i)->ops->next_generation(node(bench, i))) != 0);
    return generation;
}

/* ---- every directory ---- */

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
        node(&bench, 0)->ops->members(node(&bench, 0), on_retired, &answer);
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
            ask(&bench, 0, k % 2, "run0", id, 1 + k / 2, &answers[k]);
        }
        for (uint32_t k = 0; k < 40; k++) {
            UNTIL(&bench, answers[k].count > 0);
            cr_expect_eq(answers[k].result, DIRECTORY_OK, "%s", fixture->name);
        }
        locate(&bench, 0, "sample-0"); /* whatever else is due has come by then */
        for (uint32_t k = 0; k < 40; k++)
            cr_expect_eq(answers[k].count, 1, "%s", fixture->name);
        bench_deinit(&bench);
    }
}

Test(directory, pending_counts_publishes_and_retires_until_their_answer) {
    FOR_EACH_FIXTURE() {
        struct bench bench;
        bench_init(&bench, fixture);
        const struct directory *d = node(&bench, 0);
        cr_expect_eq(d->ops->pending(d), 0);
        struct answer published, retired;
        ask(&bench, 0, false, "run0", "s", 1, &published);
        ask(&bench, 0, true, "run0", "t", 2, &retired);
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
            given[k] = next_generation(&bench, k % DIRECTORY_SUITE_NODES);
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
        cr_expect_eq(retire(&bench, 0, "never-put", 7).result, DIRECTORY_OK, "%s", fixture->name);
        bench_deinit(&bench);
    }
}

Test(directory, what_is_not_known_is_not_found_and_says_whether_to_ask_the_peers) {
    FOR_EACH_FIXTURE() {
        struct bench bench;
        bench_init(&bench, fixture);
        struct answer answer = locate(&bench, 1, "never-put");
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
    chain->d->ops->locate(chain->d, "run0", "s", on_located, &chain->second);
    chain->second.seen->inside = false;
}

Test(directory, an_answer_may_ask_the_next_question) {
    FOR_EACH_FIXTURE() {
        struct bench bench;
        bench_init(&bench, fixture);
        struct chain chain = {.d = node(&bench, 0), .second.seen = &bench.seen[0]};
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
        ask(&bench, 0, false, "run0", "s", 1, &published);
        ask(&bench, 0, true, "run0", "t", 2, &retired);
        struct directory *d = node(&bench, 0);
        d->ops->locate(d, "run0", "s", on_located, &located);
        d->ops->members(d, on_retired, &members);
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

/* ---- directories with a cluster-wide index ---- */

#define FOR_EACH_INDEX() FOR_EACH_FIXTURE() if (fixture->has_index)

Test(directory_index, a_publish_names_the_record_it_replaced) {
    FOR_EACH_INDEX() {
        struct bench bench;
        bench_init(&bench, fixture);
        cr_expect_not(publish(&bench, 0, "s", 11).has_record, "%s", fixture->name);
        struct answer second = publish(&bench, 1, "s", 12);
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
        publish(&bench, 0, "s", 11);
        struct answer again = publish(&bench, 0, "s", 11);
        cr_expect_eq(again.result, DIRECTORY_OK, "%s", fixture->name);
        cr_expect_not(again.has_record, "%s", fixture->name);
        bench_deinit(&bench);
    }
}

Test(directory_index, every_node_finds_the_current_record) {
    FOR_EACH_INDEX() {
        struct bench bench;
        bench_init(&bench, fixture);
        publish(&bench, 0, "s", 11);
        publish(&bench, 1, "s", 12);
        for (uint32_t i = 0; i < DIRECTORY_SUITE_NODES; i++) {
            struct answer found = locate(&bench, i, "s");
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
        publish(&bench, 0, "s", 11);
        publish(&bench, 1, "s", 12);
        cr_expect_eq(retire(&bench, 0, "s", 11).result, DIRECTORY_OK, "%s", fixture->name);
        cr_expect_eq(locate(&bench, 2, "s").generation, 12,
                     "%s: a stale retire took the new record", fixture->name);
        cr_expect_eq(retire(&bench, 1, "s", 12).result, DIRECTORY_OK, "%s", fixture->name);
        cr_expect_eq(locate(&bench, 2, "s").result, DIRECTORY_E_NOT_FOUND, "%s", fixture->name);
        bench_deinit(&bench);
    }
}

Test(directory_index, the_same_id_in_two_stores_is_two_records) {
    FOR_EACH_INDEX() {
        struct bench bench;
        bench_init(&bench, fixture);
        struct answer other;
        publish(&bench, 0, "s", 11);
        ask(&bench, 0, false, "run1", "s", 12, &other);
        UNTIL(&bench, other.count > 0);
        cr_expect_not(other.has_record, "%s", fixture->name);
        cr_expect_eq(locate_in(&bench, 0, "run0", "s").generation, 11, "%s", fixture->name);
        cr_expect_eq(locate_in(&bench, 0, "run1", "s").generation, 12, "%s", fixture->name);
        bench_deinit(&bench);
    }
}

Test(directory_index, a_fenced_node_may_not_publish) {
    FOR_EACH_INDEX() {
        struct bench bench;
        bench_init(&bench, fixture);
        publish(&bench, 1, "s", 11);
        fixture->set_fenced(bench.cluster, 0, true);
        UNTIL(&bench, bench.seen[0].fenced > 0);
        cr_expect_eq(publish(&bench, 0, "s", 12).result, DIRECTORY_E_FENCED, "%s", fixture->name);
        cr_expect_eq(locate(&bench, 2, "s").generation, 11, "%s: the index has changed",
                     fixture->name);

        fixture->set_fenced(bench.cluster, 0, false);
        UNTIL(&bench, bench.seen[0].unfenced > 0);
        cr_expect_eq(publish(&bench, 0, "s", 13).result, DIRECTORY_OK, "%s", fixture->name);
        cr_expect_eq(locate(&bench, 2, "s").generation, 13, "%s", fixture->name);
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
        publish(&bench, 0, "s", 11);
        fixture->destroy_node(bench.cluster, 0);
        UNTIL(&bench, bench.seen[1].down[0] > 0);
        struct answer found = locate(&bench, 1, "s");
        cr_expect_eq(found.result, DIRECTORY_E_LOST, "%s", fixture->name);
        cr_assert(found.has_record, "%s: LOST names what is lost", fixture->name);
        cr_expect_eq(found.generation, 11);
        cr_expect_eq(publish(&bench, 1, "s", 12).generation, 11, "%s: it can be superseded",
                     fixture->name);
        cr_expect_eq(locate(&bench, 1, "s").result, DIRECTORY_OK, "%s", fixture->name);
        bench_deinit(&bench);
    }
}

Test(directory_index, out_of_reach_is_unavailable_and_passes) {
    FOR_EACH_INDEX() {
        struct bench bench;
        bench_init(&bench, fixture);
        publish(&bench, 0, "s", 11);
        fixture->set_reachable(bench.cluster, 0, false);
        cr_expect_eq(publish(&bench, 0, "s", 12).result, DIRECTORY_E_UNAVAILABLE, "%s",
                     fixture->name);
        cr_expect_eq(locate(&bench, 0, "s").result, DIRECTORY_E_UNAVAILABLE, "%s", fixture->name);
        fixture->set_reachable(bench.cluster, 0, true);
        cr_expect_eq(publish(&bench, 0, "s", 13).result, DIRECTORY_OK, "%s", fixture->name);
        cr_expect_eq(locate(&bench, 1, "s").generation, 13, "%s", fixture->name);
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
    struct directory *d = node(bench, i);
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
    struct directory *d = node(bench, 2);
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
        if (node(bench, 0)->ops->audit)

Test(directory_index, its_pages_hold_every_record_once_and_in_order) {
    struct bench bench;
    FOR_EACH_AUDIT(&bench) {
        struct answer answers[2 * DIRECTORY_PAGE_RECORDS + 1], other;
        for (uint32_t i = 0; i < 2 * DIRECTORY_PAGE_RECORDS + 1; i++) {
            char id[16];
            snprintf(id, sizeof id, "s/%u", i);
            ask(&bench, i % 2, false, "run0", id, 100 + i, &answers[i]);
        }
        ask(&bench, 0, false, "run1", "s", 7, &other);
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
        publish(&bench, 0, "s", 11);
        publish(&bench, 1, "t", 12);
        cr_expect_eq(sweep_both(&bench, 11).removed, 0, "%s: both homes live", fixture->name);
        fixture->destroy_node(bench.cluster, 0);
        UNTIL(&bench, bench.seen[2].down[0] > 0);
        cr_expect_eq(list(&bench, 2, NULL).members, 1, "%s", fixture->name);
        cr_expect_eq(sweep_both(&bench, 10).removed, 0, "%s: another generation", fixture->name);
        struct listed swept = sweep_both(&bench, 11);
        cr_expect(swept.result == DIRECTORY_OK && swept.removed == 1, "%s", fixture->name);
        cr_expect_eq(locate(&bench, 2, "s").result, DIRECTORY_E_NOT_FOUND, "%s", fixture->name);
        cr_expect_eq(locate(&bench, 2, "t").result, DIRECTORY_OK, "%s", fixture->name);
        cr_expect_eq(sweep_both(&bench, 11).removed, 0, "%s: twice", fixture->name);
    }
}
