/* SPDX-License-Identifier: Apache-2.0
 *
 * The whole life of a small sample, put, got and consumed on one node, one at a time and in
 * batches.
 */
#include <stdio.h>
#include <string.h>

#include "bench/bench.h"
#include "bench/brokers.h"
#include "bench/limits.h"
#include "bench/rounds.h"
#include "bench/workload.h"

#define SAMPLE_BYTES 1024u
#define BATCH        64u

static const char settings[] = "[memory]\nmax_resident_bytes = 64MiB\nprefault = on\n"
                               "[store small]\npolicy = on-release\nmax_resident_bytes = 32MiB\n"
                               "landing_bytes = 1MiB\n";

struct cycle {
    struct feature_store *store;
    struct workload_sample samples[BATCH];
    struct iovec data[BATCH];
    char ids[BATCH][16], bytes[SAMPLE_BYTES];
};

static void cycle_init(struct cycle *cycle, struct feature_store *store) {
    cycle->store = store;
    memset(cycle->bytes, 0x5a, sizeof cycle->bytes);
    for (unsigned i = 0; i < BATCH; i++) {
        snprintf(cycle->ids[i], sizeof cycle->ids[i], "sample-%u", i);
        workload_sample_init(&cycle->samples[i], cycle->ids[i], SAMPLE_BYTES);
        cycle->data[i] = (struct iovec){cycle->bytes, SAMPLE_BYTES};
    }
}

static int cycle_one(void *context) {
    struct cycle *cycle = context;
    const struct feature_get_options options = {.size = sizeof options};
    struct feature_ref *ref;
    struct feature_view *view;
    int status = feature_put(cycle->store, &cycle->samples[0].sample, cycle->data, 0, &ref);
    if (status != FEATURE_OK)
        return bench_fail_feature("put", status);
    status = feature_get(cycle->store, FEATURE_BY_REF(ref), &options, &view);
    feature_ref_free(ref);
    if (status != FEATURE_OK)
        return bench_fail_feature("get", status);
    feature_release(view, FEATURE_RELEASE_CONSUMED);
    return 0;
}

static int get_and_release_batch(struct cycle *cycle, const struct feature_put_item *puts) {
    const struct feature_get_options options = {.size = sizeof options};
    struct feature_get_item gets[BATCH];
    struct feature_view *views[BATCH];
    for (unsigned i = 0; i < BATCH; i++)
        gets[i] =
            (struct feature_get_item){.size = sizeof(struct feature_get_item), .ref = puts[i].ref};
    const int status = feature_get_batch(cycle->store, gets, BATCH, &options);
    for (unsigned i = 0; i < BATCH; i++)
        views[i] = gets[i].view;
    if (status == FEATURE_OK)
        feature_release_batch(views, BATCH, FEATURE_RELEASE_CONSUMED);
    return status == FEATURE_OK ? 0 : bench_fail_feature("batched get", status);
}

static int cycle_batch(void *context) {
    struct cycle *cycle = context;
    struct feature_put_item puts[BATCH];
    for (unsigned i = 0; i < BATCH; i++)
        puts[i] = (struct feature_put_item){.size = sizeof(struct feature_put_item),
                                            .sample = &cycle->samples[i].sample,
                                            .data = &cycle->data[i]};
    const int status = feature_put_batch(cycle->store, puts, BATCH, 0);
    int result = status == FEATURE_OK ? 0 : bench_fail_feature("batched put", status);
    if (result == 0)
        result = get_and_release_batch(cycle, puts);
    for (unsigned i = 0; i < BATCH; i++)
        feature_ref_free(puts[i].ref);
    return result;
}

static int measure(struct bench *bench, struct cycle *cycle) {
    struct limit limit = {0};
    if (limit_open_unix(&limit, CPU_NODE_A) != 0)
        return -1;
    struct rounds_op ops[] = {{.run = limit_ping, .context = &limit},
                              {.run = cycle_one, .context = cycle},
                              {.run = cycle_batch, .context = cycle}};
    const struct rounds_plan plan = {bench->quick ? 2 : 40, bench->quick ? 20 : 100, 10};
    const int result = rounds_run(ops, 3, plan);
    if (result == 0) {
        const double ping_us = samples_median(&ops[0].samples) / 1e3;
        bench_report(
            bench, &(struct bench_figure){"cycle_1KiB", "us", samples_median(&ops[1].samples) / 1e3,
                                          ping_us, BENCH_AT_MOST, 3.0,
                                          "put + get + release, p50, over a bare Unix ping-pong"});
        bench_report(
            bench, &(struct bench_figure){"cycle_1KiB_batch64", "us",
                                          samples_median(&ops[2].samples) / 1e3 / BATCH, ping_us,
                                          BENCH_AT_MOST, 0.2,
                                          "the same in batches of 64, per sample, over the same"});
    }
    rounds_deinit(ops, 3);
    limit_close(&limit);
    return result;
}

int bench_ops(struct bench *bench) {
    struct brokers brokers;
    struct feature *feature = NULL;
    struct feature_store *store;
    if (brokers_start(&brokers, bench, 1, settings) != 0)
        return -1;
    int result = broker_connect(&brokers.list[0], &feature);
    if (result == 0 && (result = broker_open_store(feature, "small", &store)) == 0) {
        struct cycle cycle;
        cycle_init(&cycle, store);
        result = measure(bench, &cycle);
    }
    feature_disconnect(feature);
    brokers_stop(&brokers);
    return result;
}
