/* SPDX-License-Identifier: Apache-2.0
 *
 * Two nodes: a sample at home on node a, got on node b again and again. The stores are on-ack and
 * the view is released as returned, so that the landing copy goes with its lease and every get
 * crosses the network; the bytes that b has read from its peer are counted to prove it.
 *
 * A get ends when the checksum has been checked (unless the figure says _nosum); the plain stream
 * that is its limit checks nothing.
 */
#include "bench/bench.h"
#include "bench/brokers.h"
#include "bench/limits.h"
#include "bench/rounds.h"
#include "bench/workload.h"

static const char settings[] = "[memory]\nmax_resident_bytes = 1GiB\nprefault = on\n"
                               "[store sum]\npolicy = on-ack\nmax_resident_bytes = 128MiB\n"
                               "landing_bytes = 256MiB\n"
                               "[store nosum]\npolicy = on-ack\nmax_resident_bytes = 128MiB\n"
                               "landing_bytes = 256MiB\nchecksum = never\n";

struct pair { /* a store on both nodes */
    struct feature_store *home, *reader;
    struct feature *reader_node;
};

/* Runs the ops; the last one is a remote get of so many bytes: fails unless each run of it crossed.
 */
static int run_crossing(const struct pair *pair, struct rounds_op *ops, size_t op_count,
                        struct rounds_plan plan, uint64_t bytes) {
    uint64_t before, after;
    if (broker_peer_bytes_in(pair->reader_node, &before) != 0 ||
        rounds_run(ops, op_count, plan) != 0 ||
        broker_peer_bytes_in(pair->reader_node, &after) != 0)
        return -1;
    const uint64_t gets = (uint64_t)plan.rounds * (plan.runs_per_round + plan.warm_up_runs);
    if (after - before < gets * bytes)
        return bench_fail("%llu gets of %llu bytes brought only %llu bytes over the network",
                          (unsigned long long)gets, (unsigned long long)bytes,
                          (unsigned long long)(after - before));
    return 0;
}

static int measure_bulk(struct bench *bench, const struct pair *pair, uint64_t bytes,
                        struct bench_figure figure) {
    struct limit stream = {0};
    struct feature_ref *ref = NULL;
    int result = workload_put(pair->home, figure.name, bytes, &ref);
    if (result == 0)
        result = limit_open_stream(&stream, CPU_NODE_A, bytes);
    struct workload_get get = {.store = pair->reader, .ref = ref};
    struct rounds_op ops[] = {{.run = limit_stream, .context = &stream},
                              {.run = workload_get_and_release, .context = &get}};
    const unsigned runs = bytes > 16 * MIB ? 2 : 4;
    const struct rounds_plan plan = {bench->quick ? 3 : 40, runs, 1};
    if (result == 0 && (result = run_crossing(pair, ops, 2, plan, bytes)) == 0) {
        figure.limit = bench_gb_per_s(bytes, samples_median(&ops[0].samples));
        figure.value = bench_gb_per_s(bytes, samples_median(&ops[1].samples));
        bench_report(bench, &figure);
    }
    rounds_deinit(ops, 2);
    limit_close(&stream);
    feature_ref_free(ref);
    return result;
}

static int measure_small(struct bench *bench, const struct pair *pair) {
    struct limit local = {0}, tcp = {0};
    struct feature_ref *ref = NULL;
    int result = workload_put(pair->home, "remote_get_4KiB", 4 * KIB, &ref);
    if (result == 0 && (result = limit_open_unix(&local, CPU_NODE_B)) == 0)
        result = limit_open_tcp(&tcp, CPU_NODE_A);
    struct workload_get get = {.store = pair->reader, .ref = ref};
    struct rounds_op ops[] = {{.run = limit_ping, .context = &local},
                              {.run = limit_ping, .context = &tcp},
                              {.run = workload_get_and_release, .context = &get}};
    const struct rounds_plan plan = {bench->quick ? 2 : 40, bench->quick ? 50 : 100, 20};
    if (result == 0 && (result = run_crossing(pair, ops, 3, plan, 4 * KIB)) == 0)
        bench_report(bench,
                     &(struct bench_figure){
                         "remote_get_4KiB", "us", samples_median(&ops[2].samples) / 1e3,
                         (samples_median(&ops[0].samples) + samples_median(&ops[1].samples)) / 1e3,
                         BENCH_AT_MOST, 1.6,
                         "get + release, p50, over one Unix and one TCP ping-pong together"});
    rounds_deinit(ops, 3);
    limit_close(&local);
    limit_close(&tcp);
    feature_ref_free(ref);
    return result;
}

static int measure_with_checksum(struct bench *bench, const struct pair *pair) {
    const char *what = "get + release with checksum check, p50, over one plain TCP stream";
    const struct bench_figure get_16 = {.name = "remote_get_16MiB",
                                        .unit = "GB/s",
                                        .bar = BENCH_AT_LEAST,
                                        .bar_ratio = 0.85,
                                        .what = what};
    const struct bench_figure get_64 = {.name = "remote_get_64MiB",
                                        .unit = "GB/s",
                                        .bar = BENCH_AT_LEAST,
                                        .bar_ratio = 0.85,
                                        .what = what};
    if (measure_bulk(bench, pair, 16 * MIB, get_16) != 0 ||
        measure_bulk(bench, pair, 64 * MIB, get_64) != 0)
        return -1;
    return measure_small(bench, pair);
}

static int measure_without_checksum(struct bench *bench, const struct pair *pair) {
    const char *what = "get + release, checksum = never, p50, over one plain TCP stream";
    const struct bench_figure get_16 = {
        .name = "remote_get_16MiB_nosum", .unit = "GB/s", .bar = BENCH_NO_BAR, .what = what};
    const struct bench_figure get_64 = {
        .name = "remote_get_64MiB_nosum", .unit = "GB/s", .bar = BENCH_NO_BAR, .what = what};
    if (measure_bulk(bench, pair, 16 * MIB, get_16) != 0)
        return -1;
    return measure_bulk(bench, pair, 64 * MIB, get_64);
}

/* Opens `store` on both nodes and measures. */
static int with_pair(struct bench *bench, struct feature *const nodes[2], const char *store,
                     int (*measure)(struct bench *bench, const struct pair *pair)) {
    struct pair pair = {.reader_node = nodes[1]};
    int result = -1;
    if (broker_open_store(nodes[0], store, &pair.home) != 0)
        return -1;
    if (broker_open_store(nodes[1], store, &pair.reader) == 0) {
        result = measure(bench, &pair);
        feature_store_close(pair.reader);
    }
    feature_store_close(pair.home);
    return result;
}

int bench_remote(struct bench *bench) {
    struct brokers brokers;
    struct feature *nodes[2] = {NULL, NULL};
    if (brokers_start(&brokers, bench, 2, settings) != 0)
        return -1;
    int result = 0;
    for (int i = 0; i < 2 && result == 0; i++)
        result = broker_connect(&brokers.list[i], &nodes[i]);
    if (result == 0)
        result = with_pair(bench, nodes, "sum", measure_with_checksum);
    if (result == 0)
        result = with_pair(bench, nodes, "nosum", measure_without_checksum);
    feature_disconnect(nodes[0]);
    feature_disconnect(nodes[1]);
    brokers_stop(&brokers);
    return result;
}
