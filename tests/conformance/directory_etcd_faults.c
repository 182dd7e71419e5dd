/* SPDX-License-Identifier: Apache-2.0
 *
 * The directory over a real etcd that is killed, frozen, cut off, compacted, emptied, or that takes
 * the node's lease away. Leases are short, so that their ends are worth waiting for.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conformance/directory_etcd_world.h"
#include "conformance/directory_suite.h"
#include "support/checks.h"

#define PATIENCE_MS 60000u
#define RECORDS_MAX 64u

#define UNTIL(bench, condition)                                                                    \
    for (uint64_t until_ms_ = check_now_ms() + PATIENCE_MS; !(condition);) {                       \
        cr_assert_lt(check_now_ms(), until_ms_, "never came: %s", #condition);                     \
        etcd_world_step(&(bench)->world);                                                          \
    }

struct seen {
    uint32_t up[ETCD_WORLD_NODES_MAX], down[ETCD_WORLD_NODES_MAX];
    uint32_t fenced, unfenced, reconciled;
    char data_address[64]; /* of the node that came up last */
    size_t record_count, ended_count;
    uint64_t generations[RECORDS_MAX]; /* of the records at the last reconcile */
};

struct bench {
    struct etcd_world world;
    struct seen seen[ETCD_WORLD_NODES_MAX];
};

static uint32_t index_of(const char *node) {
    return (uint32_t)(node[strlen(node) - 1] - '0');
}

static void on_up(void *owner, const char *node, const char *address, const char *data_address,
                  uint64_t incarnation) {
    struct seen *seen = owner;
    (void)address, (void)incarnation;
    seen->up[index_of(node)]++;
    snprintf(seen->data_address, sizeof seen->data_address, "%s", data_address);
}

static void on_down(void *owner, const char *node, uint64_t incarnation) {
    (void)incarnation;
    ((struct seen *)owner)->down[index_of(node)]++;
}

static void on_fenced(void *owner, bool fenced, const char *why) {
    struct seen *seen = owner;
    cr_expect_gt(strlen(why), 0);
    cr_expect_eq(seen->fenced - seen->unfenced, fenced ? 0 : 1);
    cr_expect(fenced || seen->reconciled == seen->fenced, "reconciled before it serves again");
    *(fenced ? &seen->fenced : &seen->unfenced) += 1;
}

static bool on_reconcile(void *owner, const struct directory_records *records,
                         const struct directory_records *ended, bool first, bool begins) {
    struct seen *seen = owner;
    cr_expect(first, "it was fenced");
    cr_expect(begins, "it was not asked to go on");
    seen->reconciled++;
    seen->record_count = records->count;
    seen->ended_count = ended->count;
    for (size_t i = 0; i < records->count && i < RECORDS_MAX; i++)
        seen->generations[i] = records->records[i].generation;
    return true;
}

static const struct directory_events events = {
    .node_up = on_up, .node_down = on_down, .fenced = on_fenced, .reconcile = on_reconcile};

static void bench_init(struct bench *bench, uint32_t nodes,
                       const struct etcd_world_options *options) {
    memset(bench, 0, sizeof *bench);
    etcd_world_init(&bench->world, options);
    for (uint32_t i = 0; i < nodes; i++) {
        etcd_world_add(&bench->world, i, &events, &bench->seen[i]);
        bench->world.nodes[i]->ops->start(bench->world.nodes[i]);
    }
    for (uint32_t i = 0; i < nodes; i++) {
        UNTIL(bench, bench->world.nodes[i]->ops->next_generation(bench->world.nodes[i]) != 0);
        for (uint32_t j = 0; j < nodes; j++)
            UNTIL(bench, i == j || bench->seen[i].up[j] > 0);
    }
}

/* ---- asking ---- */

struct answer {
    uint32_t count;
    enum directory_result result;
    bool has_record, ask_peers;
    uint64_t generation;
};

static void take(struct answer *answer, enum directory_result result,
                 const struct directory_record *record, bool ask_peers) {
    answer->count++;
    answer->result = result;
    answer->has_record = record != NULL;
    answer->ask_peers = ask_peers;
    answer->generation = record ? record->generation : 0;
}

static void on_published(void *context, enum directory_result result,
                         const struct directory_record *older, bool ask_peers) {
    take(context, result, older, ask_peers);
}

static void on_retired(void *context, enum directory_result result) {
    take(context, result, NULL, false);
}

static void on_located(void *context, enum directory_result result,
                       const struct directory_record *record, bool ask_peers) {
    take(context, result, record, ask_peers);
}

static struct directory_record record_of(uint32_t i, char home[16], const char *id,
                                         uint64_t generation) {
    directory_suite_node_name(i, home);
    return (struct directory_record){.store = "run0",
                                     .sample_id = id,
                                     .home = home,
                                     .generation = generation,
                                     .incarnation = DIRECTORY_SUITE_INCARNATION(i),
                                     .bytes = 4096};
}

static void begin_publish(struct bench *bench, uint32_t i, const char *id, uint64_t generation,
                          struct answer *answer) {
    char home[16];
    struct directory *d = bench->world.nodes[i];
    struct directory_record record = record_of(i, home, id, generation);
    *answer = (struct answer){0};
    d->ops->publish(d, &record, on_published, answer);
}

static struct answer publish(struct bench *bench, uint32_t i, const char *id, uint64_t generation) {
    struct answer answer;
    begin_publish(bench, i, id, generation, &answer);
    UNTIL(bench, answer.count > 0);
    return answer;
}

static void begin_retire(struct bench *bench, uint32_t i, const char *id, uint64_t generation,
                         struct answer *answer) {
    char home[16];
    struct directory *d = bench->world.nodes[i];
    struct directory_record record = record_of(i, home, id, generation);
    *answer = (struct answer){0};
    d->ops->retire(d, &record, on_retired, answer);
}

static struct answer locate(struct bench *bench, uint32_t i, const char *id) {
    struct answer answer = {0};
    struct directory *d = bench->world.nodes[i];
    d->ops->locate(d, "run0", id, on_located, &answer);
    UNTIL(bench, answer.count > 0);
    return answer;
}

/* Again and again until it is taken; what was refused meanwhile must say UNAVAILABLE. */
static struct answer publish_until_ok(struct bench *bench, uint32_t i, const char *id,
                                      uint64_t generation) {
    for (;;) {
        struct answer answer = publish(bench, i, id, generation);
        if (answer.result == DIRECTORY_OK)
            return answer;
        cr_assert_eq(answer.result, DIRECTORY_E_UNAVAILABLE, "%d", answer.result);
    }
}

static void ctl(struct bench *bench, const char *const arguments[]) {
    free(etcd_server_ctl(&bench->world.server, arguments));
}

static void set_proxies(struct bench *bench, enum tcp_proxy_mode mode) {
    for (uint32_t i = 0; i < ETCD_WORLD_NODES_MAX; i++)
        if (bench->world.proxies[i])
            tcp_proxy_set(bench->world.proxies[i], mode);
}

/* What is to be given up or to expire while etcd is there takes seconds, so that a busy machine
 * does not bring it about. */
static const struct etcd_world_options patient = {
    .members = 1, .lease_ttl_s = 20, .request_timeout_ms = 5000, .give_up_ms = 5000};
/* For writes of which many wait for others. */
static const struct etcd_world_options unhurried = {
    .members = 1, .lease_ttl_s = 20, .request_timeout_ms = 5000, .give_up_ms = 60000};
static const struct etcd_world_options brisk = {
    .members = 1, .lease_ttl_s = 8, .request_timeout_ms = 1500, .give_up_ms = 5000};

/* ---- etcd stops ---- */

Test(directory_etcd, a_restart_of_etcd_is_survived, .timeout = 120) {
    struct bench bench;
    bench_init(&bench, 2, &patient);
    publish(&bench, 0, "s", 11);
    etcd_server_kill(&bench.world.server, 0);
    set_proxies(&bench, TCP_PROXY_CUT); /* refuse, as the dead etcd would */
    cr_expect_eq(publish(&bench, 0, "t", 12).result, DIRECTORY_E_UNAVAILABLE);
    cr_expect_eq(locate(&bench, 1, "s").result, DIRECTORY_E_UNAVAILABLE);
    etcd_server_restart(&bench.world.server, 0);
    set_proxies(&bench, TCP_PROXY_OPEN);
    cr_expect_eq(publish_until_ok(&bench, 1, "s", 13).generation, 11);
    cr_expect_eq(locate(&bench, 0, "t").result, DIRECTORY_E_NOT_FOUND, "it was never sent");
    cr_expect_eq(bench.seen[0].fenced + bench.seen[1].fenced, 0, "the lease outlived the restart");
    etcd_world_destroy_node(&bench.world, 1); /* the watch is there again */
    UNTIL(&bench, bench.seen[0].down[1] > 0);
    etcd_world_deinit(&bench.world);
}

Test(directory_etcd, a_frozen_etcd_fences_and_a_thawed_one_takes_back, .timeout = 120) {
    struct bench bench;
    bench_init(&bench, 1, &brisk);
    struct directory *d = bench.world.nodes[0];
    struct answer before, during;
    publish(&bench, 0, "kept", 11);
    cr_expect_lt(d->ops->serves_until_ns(d), UINT64_MAX);
    etcd_server_freeze(&bench.world.server, 0);
    begin_publish(&bench, 0, "before", 12, &before);
    UNTIL(&bench, bench.seen[0].fenced > 0);
    cr_expect_eq(d->ops->serves_until_ns(d), 0);
    begin_publish(&bench, 0, "during", 13, &during);
    UNTIL(&bench, during.count > 0);
    cr_expect_eq(during.result, DIRECTORY_E_FENCED);
    cr_expect_eq(before.count, 0, "it was sent: etcd alone can tell");

    etcd_server_thaw(&bench.world.server, 0);
    UNTIL(&bench, bench.seen[0].unfenced > 0);
    cr_expect_eq(bench.seen[0].reconciled, 1);
    cr_assert_geq(bench.seen[0].record_count, 1); /* "before" may have been carried out late */
    cr_expect_eq(bench.seen[0].generations[bench.seen[0].record_count - 1], 11);
    UNTIL(&bench, before.count > 0);
    /* Whether it came before the end of the lease is etcd's to say; afterwards it is not sent
     * again. */
    bool done = before.result == DIRECTORY_OK;
    cr_expect(done || before.result == DIRECTORY_E_UNAVAILABLE, "%d", before.result);
    cr_expect_eq(publish(&bench, 0, "after", 14).result, DIRECTORY_OK);
    cr_expect_eq(locate(&bench, 0, "before").result, done ? DIRECTORY_OK : DIRECTORY_E_NOT_FOUND);
    cr_expect_eq(locate(&bench, 0, "kept").result, DIRECTORY_OK);
    cr_expect_eq(locate(&bench, 0, "during").result, DIRECTORY_E_NOT_FOUND);
    etcd_world_deinit(&bench.world);
}

Test(directory_etcd, an_etcd_that_has_forgotten_everything_is_recognised, .timeout = 120) {
    struct bench bench;
    bench_init(&bench, 1, &brisk);
    struct directory *d = bench.world.nodes[0];
    publish(&bench, 0, "s", 11);
    uint64_t generation = d->ops->next_generation(d);
    etcd_server_kill(&bench.world.server, 0);
    etcd_server_restart_empty(&bench.world.server);
    UNTIL(&bench, bench.seen[0].unfenced > 0);
    cr_expect_eq(bench.seen[0].record_count, 0);
    cr_expect_eq(publish(&bench, 0, "s", 11).result, DIRECTORY_OK);
    for (uint32_t k = 0; k < 200000; k++) { /* three blocks */
        uint64_t next = 0;
        UNTIL(&bench, (next = d->ops->next_generation(d)) != 0);
        cr_assert_gt(next, generation, "a number comes back");
        generation = next;
    }
    etcd_world_deinit(&bench.world);
}

Test(directory_etcd, the_leader_of_three_may_die, .timeout = 180) {
    struct bench bench;
    struct etcd_world_options options = {
        .members = 3, .lease_ttl_s = 20, .request_timeout_ms = 5000, .give_up_ms = 5000};
    bench_init(&bench, 2, &options);
    publish(&bench, 0, "s", 11);
    uint32_t leader = etcd_server_leader(&bench.world.server);
    uint64_t killed_ms = check_now_ms();
    etcd_server_kill(&bench.world.server, leader);
    struct answer first = publish_until_ok(&bench, 1, "s", 12);
    fprintf(stderr, "published %u ms after the leader's death\n",
            (unsigned)(check_now_ms() - killed_ms));
    cr_expect(first.generation == 11 || first.ask_peers);
    cr_expect_eq(locate(&bench, 0, "s").generation, 12);
    cr_expect_eq(bench.seen[0].fenced + bench.seen[1].fenced, 0);
    etcd_server_restart(&bench.world.server, leader);
    etcd_world_destroy_node(&bench.world, 1);
    UNTIL(&bench, bench.seen[0].down[1] > 0);
    etcd_world_deinit(&bench.world);
}

/* ---- the record is lost ---- */

Test(directory_etcd, a_lease_taken_away_is_noticed_and_replaced, .timeout = 120) {
    struct bench bench;
    bench_init(&bench, 2, &patient);
    publish(&bench, 0, "a", 11);
    publish(&bench, 0, "b", 12);
    publish(&bench, 1, "c", 13);
    /* Node 0 hears of nothing until b is another's: it would otherwise reconcile as soon as it
     * notices, before or after that publish, as the machine happens to run. */
    tcp_proxy_set(bench.world.proxies[0], TCP_PROXY_CUT);
    etcd_world_revoke(&bench.world, 0);
    struct answer superseded = publish(&bench, 1, "b", 14);
    cr_expect_eq(superseded.generation, 12);
    tcp_proxy_set(bench.world.proxies[0], TCP_PROXY_OPEN);
    UNTIL(&bench, bench.seen[0].unfenced > 0);
    cr_expect_eq(bench.seen[0].fenced, 1);
    cr_expect_eq(bench.seen[0].record_count, 1, "c is another's, b is another's now");
    cr_expect_eq(bench.seen[0].generations[0], 11);
    UNTIL(&bench, bench.seen[1].down[0] == 1 && bench.seen[1].up[0] == 2);
    cr_expect_eq(publish(&bench, 0, "b", 15).generation, 14);
    etcd_world_deinit(&bench.world);
}

Test(directory_etcd, a_compaction_while_not_watching_loses_no_change, .timeout = 120) {
    struct bench bench;
    char revision[32];
    bench_init(&bench, 3, &patient);
    tcp_proxy_set(bench.world.proxies[0], TCP_PROXY_CUT);
    etcd_world_destroy_node(&bench.world, 1);
    UNTIL(&bench, bench.seen[2].down[1] > 0);
    for (uint32_t k = 0; k < 3; k++)
        publish(&bench, 2, "s", 11 + k);
    snprintf(revision, sizeof revision, "%lld",
             (long long)etcd_world_look(&bench.world, "s").latest);
    ctl(&bench, (const char *[]){"compact", revision, NULL});
    cr_expect_eq(bench.seen[0].down[1], 0);
    tcp_proxy_set(bench.world.proxies[0], TCP_PROXY_OPEN);
    UNTIL(&bench, bench.seen[0].down[1] > 0);
    cr_expect_eq(bench.seen[0].down[2], 0);
    cr_expect_eq(bench.seen[0].fenced, 0);
    etcd_world_destroy_node(&bench.world, 2); /* the new watch works */
    UNTIL(&bench, bench.seen[0].down[2] > 0);
    etcd_world_deinit(&bench.world);
}

/* ---- answers are lost ---- */

/* libcurl by itself would send a request again whose reused connection turns out dead. */
Test(directory_etcd, a_publish_whose_answer_is_lost_is_done_once, .timeout = 120) {
    struct bench bench;
    bench_init(&bench, 2, &patient);
    publish(&bench, 1, "s", 11);
    publish(&bench, 0, "t", 12); /* there is a connection to be reused */
    struct answer answer;
    tcp_proxy_set(bench.world.proxies[0], TCP_PROXY_MUTE);
    int64_t before = etcd_world_look(&bench.world, "s").written;
    begin_publish(&bench, 0, "s", 13, &answer);
    UNTIL(&bench, etcd_world_look(&bench.world, "s").written > before);
    int64_t written = etcd_world_look(&bench.world, "s").written;
    cr_expect_eq(answer.count, 0);
    tcp_proxy_set(bench.world.proxies[0], TCP_PROXY_OPEN);
    tcp_proxy_drop(bench.world.proxies[0]);
    UNTIL(&bench, answer.count > 0);
    cr_expect_eq(answer.result, DIRECTORY_OK);
    cr_expect_eq(answer.generation, 11, "what it replaced is read from etcd's history");
    cr_expect_not(answer.ask_peers);
    cr_expect_eq(etcd_world_look(&bench.world, "s").written, written, "written twice");
    cr_expect_eq(publish(&bench, 0, "s", 14).generation, 13, "the order of a key is kept");
    etcd_world_deinit(&bench.world);
}

Test(directory_etcd, a_lost_answer_does_not_bring_back_what_another_node_has_replaced,
     .timeout = 120) {
    struct bench bench;
    struct answer lost;
    bench_init(&bench, 2, &patient);
    tcp_proxy_set(bench.world.proxies[0], TCP_PROXY_MUTE);
    begin_publish(&bench, 0, "s", 11, &lost);
    UNTIL(&bench, etcd_world_look(&bench.world, "s").written > 0);
    cr_expect_eq(publish(&bench, 1, "s", 12).generation, 11);
    tcp_proxy_set(bench.world.proxies[0], TCP_PROXY_OPEN);
    tcp_proxy_drop(bench.world.proxies[0]);
    UNTIL(&bench, lost.count > 0);
    cr_expect_eq(lost.result, DIRECTORY_E_UNAVAILABLE);
    cr_expect(lost.ask_peers);
    cr_expect_eq(locate(&bench, 0, "s").generation, 12);
    etcd_world_deinit(&bench.world);
}

/* ---- many ---- */

Test(directory_etcd, of_racing_publishes_each_but_the_first_names_the_one_before, .timeout = 120) {
    enum { NODES = 3, SAMPLES = 40 };
    struct bench bench;
    static struct answer answers[SAMPLES][NODES];
    bench_init(&bench, NODES, &unhurried);
    for (uint32_t s = 0; s < SAMPLES; s++)
        for (uint32_t i = 0; i < NODES; i++) {
            char id[16];
            snprintf(id, sizeof id, "s%u", s);
            begin_publish(&bench, i, id, 100 + s * NODES + i, &answers[s][i]);
        }
    for (uint32_t s = 0; s < SAMPLES; s++) {
        uint64_t sum = 0, older = 0;
        uint32_t firsts = 0;
        char id[16];
        for (uint32_t i = 0; i < NODES; i++) {
            UNTIL(&bench, answers[s][i].count > 0);
            cr_expect_eq(answers[s][i].result, DIRECTORY_OK);
            firsts += !answers[s][i].has_record;
            sum += 100 + s * NODES + i;
            older += answers[s][i].generation;
        }
        snprintf(id, sizeof id, "s%u", s);
        cr_expect_eq(firsts, 1);
        cr_expect_eq(sum - older, locate(&bench, 0, id).generation, "a chain, its end on record");
    }
    etcd_world_deinit(&bench.world);
}

Test(directory_etcd, many_writes_share_a_transaction, .timeout = 120) {
    enum { SAMPLES = 2000 };
    struct bench bench;
    static struct answer published[SAMPLES], retired[SAMPLES];
    bench_init(&bench, 1, &unhurried);
    int64_t before = etcd_world_look(&bench.world, "none").latest;
    for (uint32_t s = 0; s < SAMPLES; s++) {
        char id[32];
        snprintf(id, sizeof id, "s/%u \303\244%%", s);
        begin_publish(&bench, 0, id, 1 + s, &published[s]);
        begin_retire(&bench, 0, id, 1 + s, &retired[s]);
    }
    for (uint32_t s = 0; s < SAMPLES; s++) {
        UNTIL(&bench, published[s].count > 0 && retired[s].count > 0);
        cr_expect_eq(published[s].result, DIRECTORY_OK);
        cr_expect_eq(retired[s].result, DIRECTORY_OK);
    }
    int64_t transactions = etcd_world_look(&bench.world, "none").latest - before;
    cr_expect_leq(transactions, 2 * SAMPLES / 16, "%lld", (long long)transactions);
    cr_expect_eq(locate(&bench, 0, "s/7 \303\244%").result, DIRECTORY_E_NOT_FOUND);
    etcd_world_deinit(&bench.world);
}

/* A retire that goes with a compare of its own fails those it shares a transaction with: they go
 * again, and only what it was about stays. */
Test(directory_etcd, a_retire_of_what_another_node_has_put_since_removes_nothing, .timeout = 120) {
    enum { SAMPLES = 12 };
    struct bench bench;
    struct answer retired[SAMPLES], late;
    char id[16];
    bench_init(&bench, 2, &unhurried);
    for (uint32_t s = 0; s < SAMPLES; s++) {
        snprintf(id, sizeof id, "s%u", s);
        publish(&bench, 0, id, 100 + s);
    }
    cr_expect_eq(publish(&bench, 1, "s5", 200).generation, 105);
    for (uint32_t s = 0; s < SAMPLES; s++) {
        snprintf(id, sizeof id, "s%u", s);
        begin_retire(&bench, 0, id, 100 + s, &retired[s]);
    }
    begin_publish(&bench, 0, "late", 300, &late);
    for (uint32_t s = 0; s < SAMPLES; s++) {
        UNTIL(&bench, retired[s].count > 0);
        cr_expect_eq(retired[s].result, DIRECTORY_OK);
        snprintf(id, sizeof id, "s%u", s);
        cr_expect_eq(locate(&bench, 1, id).result, s == 5 ? DIRECTORY_OK : DIRECTORY_E_NOT_FOUND,
                     "%s", id);
    }
    UNTIL(&bench, late.count > 0);
    cr_expect_eq(late.result, DIRECTORY_OK);
    cr_expect_eq(locate(&bench, 0, "s5").generation, 200);
    cr_expect_eq(locate(&bench, 1, "late").generation, 300);
    cr_expect_eq(bench.seen[0].fenced, 0);
    etcd_world_deinit(&bench.world);
}

/* ---- addresses ---- */

Test(directory_etcd, an_address_of_bytes_is_told_apart_from_that_of_messages, .timeout = 120) {
    struct bench bench;
    bench_init(&bench, 1, &patient);
    bench.world.options.data_address = "10.9.8.7:6";
    etcd_world_add(&bench.world, 1, &events, &bench.seen[1]);
    bench.world.nodes[1]->ops->start(bench.world.nodes[1]);
    UNTIL(&bench, bench.seen[0].up[1] > 0 && bench.seen[1].up[0] > 0);
    cr_expect_str_eq(bench.seen[0].data_address, "10.9.8.7:6");
    cr_expect_str_neq(bench.seen[1].data_address, "10.9.8.7:6");
    etcd_world_deinit(&bench.world);
}

/* ---- access ---- */

/* Simple tokens are forgotten by a restart, as they are after 300 s. */
Test(directory_etcd, a_token_that_has_expired_is_replaced, .timeout = 120) {
    struct bench bench;
    struct etcd_server *server = &bench.world.server;
    struct etcd_world_options options = patient;
    options.lease_ttl_s = 6;
    bench_init(&bench, 0, &options);
    ctl(&bench, (const char *[]){"user", "add", "root:the root password", NULL});
    ctl(&bench, (const char *[]){"user", "grant-role", "root", "root", NULL});
    ctl(&bench, (const char *[]){"role", "add", "featured", NULL});
    ctl(&bench, (const char *[]){"role", "grant-permission", "featured", "--prefix=true",
                                 "readwrite", "/featured/test/", NULL});
    ctl(&bench, (const char *[]){"user", "add", "featured:a \"word\" of pass", NULL});
    ctl(&bench, (const char *[]){"user", "grant-role", "featured", "featured", NULL});
    ctl(&bench, (const char *[]){"auth", "enable", NULL});
    bench.world.options.username = "featured";
    bench.world.options.password = "a \"word\" of pass";
    etcd_world_add(&bench.world, 0, &events, &bench.seen[0]);
    struct directory *d = bench.world.nodes[0];
    d->ops->start(d);
    UNTIL(&bench, d->ops->next_generation(d) != 0);
    cr_expect_eq(publish(&bench, 0, "s", 11).result, DIRECTORY_OK);
    etcd_world_add(&bench.world, 1, &events, &bench.seen[1]);
    bench.world.nodes[1]->ops->start(bench.world.nodes[1]);
    UNTIL(&bench, bench.seen[0].up[1] == 1 && bench.seen[1].up[0] == 1);
    etcd_server_kill(server, 0);
    etcd_server_restart(server, 0);
    UNTIL(&bench, bench.seen[0].up[1] == 1);
    etcd_world_destroy_node(&bench.world, 1); /* a watch begun with the old token sees nothing */
    UNTIL(&bench, bench.seen[0].down[1] == 1);
    cr_expect_eq(publish_until_ok(&bench, 0, "s", 12).generation, 11);
    etcd_world_deinit(&bench.world);
}

Test(directory_etcd, both_ends_prove_who_they_are, .timeout = 120) {
    struct bench bench;
    struct etcd_world_options options = patient;
    options.tls = true;
    bench_init(&bench, 1, &options);
    cr_expect_eq(publish(&bench, 0, "s", 11).result, DIRECTORY_OK);
    bench.world.options.no_certificate = true;
    etcd_world_add(&bench.world, 1, &events, &bench.seen[1]);
    bench.world.nodes[1]->ops->start(bench.world.nodes[1]);
    cr_expect_eq(locate(&bench, 1, "s").result, DIRECTORY_E_UNAVAILABLE);
    cr_expect_eq(publish(&bench, 1, "s", 12).result, DIRECTORY_E_UNAVAILABLE);
    cr_expect_eq(locate(&bench, 0, "s").generation, 11);
    etcd_world_deinit(&bench.world);
}

/* ---- two of one name ---- */

Test(directory_etcd, a_name_that_is_taken_is_waited_for, .timeout = 120) {
    struct bench bench;
    struct answer early;
    bench_init(&bench, 1, &brisk);
    publish(&bench, 0, "s", 11);
    bench.world.options.same_name = true; /* the same node, restarted */
    bench.world.options.incarnation = 999;
    etcd_world_add(&bench.world, 1, &events, &bench.seen[1]);
    struct directory *second = bench.world.nodes[1];
    second->ops->start(second);
    begin_publish(&bench, 1, "s", 12, &early);
    UNTIL(&bench, early.count > 0);
    cr_expect_eq(early.result, DIRECTORY_E_UNAVAILABLE);
    cr_expect_eq(publish(&bench, 0, "t", 13).result, DIRECTORY_OK, "the first is not disturbed");
    tcp_proxy_set(bench.world.proxies[0], TCP_PROXY_CUT); /* dies without a word */
    etcd_world_destroy_node(&bench.world, 0);
    UNTIL(&bench, publish(&bench, 1, "u", 14).result == DIRECTORY_OK);
    cr_expect_eq(locate(&bench, 1, "s").result, DIRECTORY_E_LOST, "of the earlier incarnation");
    etcd_world_deinit(&bench.world);
}
