/* SPDX-License-Identifier: Apache-2.0
 *
 * A directory whose broker is killed and started again with its memory: the same incarnation, and
 * what the directory has noted in struct directory_kept. The static one goes on with its numbers.
 * The one over a real etcd takes its record over, compares before it serves, and settles what was
 * being put.
 *
 * Node 0 is the one that is killed. It is cut off from etcd first, so that its end tells etcd
 * nothing.
 */
#include <criterion/criterion.h>

#include "conformance/directory_etcd_world.h"
#include "conformance/directory_suite.h"
#include "support/checks.h"

#define START_MS    UINT64_C(1700000000000)
#define PATIENCE_MS 60000u

#define UNTIL(bench, condition)                                                                    \
    for (uint64_t until_ms_ = check_now_ms() + PATIENCE_MS; !(condition);) {                       \
        cr_assert_lt(check_now_ms(), until_ms_, "never came: %s", #condition);                     \
        etcd_world_step(&(bench)->world);                                                          \
    }

/* ---- static ---- */

static void on_any_up(void *owner, const char *node, const char *address, const char *data_address,
                      uint64_t incarnation) {
    (void)owner, (void)node, (void)address, (void)data_address, (void)incarnation;
}

static uint64_t numbers(struct directory_kept *kept, uint64_t unix_ms, unsigned count,
                        uint64_t *last) {
    static const struct directory_events events = {.node_up = on_any_up};
    struct directory *d;
    cr_assert_eq(directory_static_new("a", NULL, 0, unix_ms, &events, NULL, &d), 0);
    directory_static_keep(d, kept);
    uint64_t first = d->ops->next_generation(d);
    *last = first;
    while (--count)
        *last = d->ops->next_generation(d);
    d->ops->destroy(d);
    return first;
}

Test(directory_kept, static_numbers_go_on_though_the_clock_was_set_back) {
    struct directory_kept kept = {0};
    uint64_t last, later;
    numbers(&kept, START_MS, 1000, &last);
    cr_expect_eq(numbers(&kept, START_MS - 3600000, 1, &later), last + 1);
    cr_expect_gt(numbers(&kept, START_MS + 3600000, 1, &later), last + 1);
}

/* ---- etcd ---- */

struct seen {
    uint32_t down, fenced, unfenced, reconciled;
    size_t record_count, ended_count;
};

struct bench {
    struct etcd_world world;
    struct directory_kept kept; /* of node 0 */
    struct seen seen[2];
};

static void on_up(void *owner, const char *node, const char *address, const char *data_address,
                  uint64_t incarnation) {
    (void)owner, (void)node, (void)address, (void)data_address, (void)incarnation;
}

static void on_down(void *owner, const char *node, uint64_t incarnation) {
    (void)node, (void)incarnation;
    ((struct seen *)owner)->down++;
}

static void on_fenced(void *owner, bool fenced, const char *why) {
    struct seen *seen = owner;
    (void)why;
    *(fenced ? &seen->fenced : &seen->unfenced) += 1;
}

static bool on_reconcile(void *owner, const struct directory_records *records,
                         const struct directory_records *ended, bool first, bool begins) {
    struct seen *seen = owner;
    cr_expect(first && begins);
    cr_expect_eq(seen->unfenced, seen->reconciled, "compared before it serves");
    seen->reconciled++;
    seen->record_count = records->count;
    seen->ended_count = ended->count;
    return true;
}

static const struct directory_events events = {
    .node_up = on_up, .node_down = on_down, .fenced = on_fenced, .reconcile = on_reconcile};
static const struct etcd_world_options options = {
    .members = 1, .lease_ttl_s = 60, .request_timeout_ms = 2000, .give_up_ms = 20000};

static void start(struct bench *bench, uint32_t i) {
    bench->world.options.kept = i ? NULL : &bench->kept;
    etcd_world_add(&bench->world, i, &events, &bench->seen[i]);
    bench->world.nodes[i]->ops->start(bench->world.nodes[i]);
    UNTIL(bench, bench->world.nodes[i]->ops->next_generation(bench->world.nodes[i]) != 0);
}

static void bench_init(struct bench *bench) {
    *bench = (struct bench){0};
    etcd_world_init(&bench->world, &options);
    start(bench, 0);
    start(bench, 1);
}

static void kill_and_start(struct bench *bench) {
    struct tcp_proxy *proxy = bench->world.proxies[0];
    tcp_proxy_set(proxy, TCP_PROXY_CUT);
    etcd_world_destroy_node(&bench->world, 0);
    tcp_proxy_free(proxy);
    start(bench, 0);
    UNTIL(bench, bench->seen[0].unfenced == bench->seen[0].fenced && bench->seen[0].fenced);
}

struct answer {
    uint32_t count;
    enum directory_result result;
    bool ask_peers;
    uint64_t generation;
};

static void on_answer(void *context, enum directory_result result,
                      const struct directory_record *record, bool ask_peers) {
    struct answer *answer = context;
    answer->count++;
    answer->result = result;
    answer->ask_peers = ask_peers;
    answer->generation = record ? record->generation : 0;
}

static struct directory_record record_of(uint32_t i, char home[16], uint64_t generation) {
    directory_suite_node_name(i, home);
    return (struct directory_record){.store = "run0",
                                     .sample_id = "s",
                                     .home = home,
                                     .generation = generation,
                                     .incarnation = DIRECTORY_SUITE_INCARNATION(i),
                                     .bytes = 4096};
}

static struct answer publish(struct bench *bench, uint32_t i, uint64_t generation) {
    char home[16];
    struct answer answer = {0};
    struct directory *d = bench->world.nodes[i];
    struct directory_record record = record_of(i, home, generation);
    d->ops->publish(d, &record, on_answer, &answer);
    UNTIL(bench, answer.count > 0);
    return answer;
}

static struct answer publish_again(struct bench *bench, uint64_t generation, int64_t moment) {
    char home[16];
    struct answer answer = {0};
    struct directory *d = bench->world.nodes[0];
    struct directory_record record = record_of(0, home, generation);
    d->ops->publish_again(d, &record, moment, on_answer, &answer);
    UNTIL(bench, answer.count > 0);
    return answer;
}

static uint64_t located(struct bench *bench) {
    struct answer answer = {0};
    struct directory *d = bench->world.nodes[1];
    d->ops->locate(d, "run0", "s", on_answer, &answer);
    UNTIL(bench, answer.count > 0);
    return answer.generation;
}

static int64_t moment(const struct bench *bench) {
    return bench->world.nodes[0]->ops->moment(bench->world.nodes[0]);
}

Test(directory_kept, a_restart_within_the_lease_is_seen_by_nobody, .timeout = 120) {
    struct bench bench;
    bench_init(&bench);
    struct directory *d = bench.world.nodes[0];
    uint64_t last = d->ops->next_generation(d);
    cr_expect_eq(publish(&bench, 0, 11).result, DIRECTORY_OK);
    kill_and_start(&bench);
    d = bench.world.nodes[0];
    cr_expect_eq(bench.seen[0].fenced, 1, "it stands as fenced until it has compared");
    cr_expect_eq(bench.seen[0].reconciled, 1);
    cr_expect_eq(bench.seen[0].record_count, 1);
    cr_expect_eq(bench.seen[1].down, 0, "node 1 has seen it go");
    UNTIL(&bench, d->ops->next_generation(d) > last);
    cr_expect_gt(d->ops->serves_until_ns(d), 0);
    cr_expect_eq(publish(&bench, 0, 12).generation, 11);
    kill_and_start(&bench);
    cr_expect_eq(bench.seen[0].reconciled, 2, "a second restart is as the first");
    etcd_world_deinit(&bench.world);
}

Test(directory_kept, nothing_is_served_before_it_has_compared, .timeout = 120) {
    struct bench bench;
    bench_init(&bench);
    tcp_proxy_set(bench.world.proxies[0], TCP_PROXY_CUT);
    etcd_world_destroy_node(&bench.world, 0);
    tcp_proxy_free(bench.world.proxies[0]);
    bench.world.options.kept = &bench.kept;
    etcd_world_add(&bench.world, 0, &events, &bench.seen[0]);
    struct directory *d = bench.world.nodes[0];
    cr_expect_eq(d->ops->serves_until_ns(d), 0, "not even before its first tick");
    tcp_proxy_set(bench.world.proxies[0], TCP_PROXY_CUT);
    d->ops->start(d);
    UNTIL(&bench, bench.seen[0].fenced == 1);
    cr_expect_eq(d->ops->serves_until_ns(d), 0);
    etcd_world_deinit(&bench.world);
}

Test(directory_kept, a_put_that_was_done_is_found_done, .timeout = 120) {
    struct bench bench;
    bench_init(&bench);
    publish(&bench, 1, 11);
    int64_t before = moment(&bench);
    publish(&bench, 0, 12);
    int64_t written = etcd_world_look(&bench.world, "s").written;
    kill_and_start(&bench);
    struct answer answer = publish_again(&bench, 12, before);
    cr_expect_eq(answer.result, DIRECTORY_OK);
    cr_expect_eq(answer.generation, 11, "what it has replaced is read from etcd's history");
    cr_expect_eq(etcd_world_look(&bench.world, "s").written, written, "it was written twice");
    etcd_world_deinit(&bench.world);
}

Test(directory_kept, a_put_that_was_not_done_is_done_now, .timeout = 120) {
    struct bench bench;
    bench_init(&bench);
    publish(&bench, 1, 11);
    publish(&bench, 0, 12); /* an older one of its own, and it knows of it */
    int64_t before = moment(&bench);
    kill_and_start(&bench);
    struct answer answer = publish_again(&bench, 13, before);
    cr_expect_eq(answer.result, DIRECTORY_OK);
    cr_expect_eq(answer.generation, 12);
    cr_expect_eq(located(&bench), 13);
    etcd_world_deinit(&bench.world);
}

Test(directory_kept, a_put_that_another_node_has_replaced_does_not_come_back, .timeout = 120) {
    struct bench bench;
    bench_init(&bench);
    int64_t before = moment(&bench);
    publish(&bench, 0, 11);
    publish(&bench, 1, 12);
    kill_and_start(&bench);
    struct answer answer = publish_again(&bench, 11, before);
    cr_expect_eq(answer.result, DIRECTORY_E_UNAVAILABLE);
    cr_expect(answer.ask_peers);
    cr_expect_eq(located(&bench), 12);
    etcd_world_deinit(&bench.world);
}
