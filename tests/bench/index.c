/* SPDX-License-Identifier: Apache-2.0
 *
 * What the shared index costs: brokers on an etcd of one member of their own (its data in shared
 * memory where there is some), against a raw client of the same etcd.
 *
 * Rate and writes are taken with several clients that put batches and ack them, so that publishes
 * and retires are under way at once; etcd's own counters say what reached it. Its lease is long:
 * nobody is fenced while etcd is stopped for a remote get.
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "bench/bench.h"
#include "bench/brokers.h"
#include "bench/cpus.h"
#include "bench/raw_etcd.h"
#include "bench/rounds.h"
#include "bench/workload.h"
#include "support/etcd_server.h"

#define CLIENTS         4u
#define BATCH           256u /* samples a request */
#define BATCHES         4u   /* of one client, one after the other */
#define SAMPLES_PER_RUN (CLIENTS * BATCH * BATCHES)
#define TXNS_PER_RUN    64u
#define SAMPLE_BYTES    1024u
#define REMOTE_BYTES    (4 * KIB)
#define DRAIN_MS        20000u

static const char settings[] =
    "[memory]\nmax_resident_bytes = 1GiB\nprefault = on\n"
    "[store run]\npolicy = on-ack\nmax_resident_bytes = 128MiB\nlanding_bytes = 64MiB\n"
    "max_samples = 65536\n";

struct index_bench {
    struct bench *bench;
    struct etcd_server etcd;
    struct raw_etcd *raw;
    struct brokers brokers;
    struct feature *features[BROKERS_MAX];
    struct feature_store *stores[BROKERS_MAX];
    uint64_t serial;
};

/* ---- publish and retire ---- */

struct client {
    pthread_t thread;
    struct feature_store *store;
    unsigned index;
    uint64_t serial; /* of its next sample: no id comes twice */
    int result;
};

static int put_and_ack(struct client *client) {
    static unsigned char bytes[SAMPLE_BYTES];
    const struct iovec data = {.iov_base = bytes, .iov_len = sizeof bytes};
    static _Thread_local struct workload_sample samples[BATCH];
    static _Thread_local struct feature_put_item items[BATCH];
    static _Thread_local struct feature_key keys[BATCH];
    char ids[BATCH][32];
    for (unsigned i = 0; i < BATCH; i++) {
        snprintf(ids[i], sizeof ids[i], "sample-%u-%llu", client->index,
                 (unsigned long long)client->serial++);
        workload_sample_init(&samples[i], ids[i], SAMPLE_BYTES);
        items[i] = (struct feature_put_item){
            .size = sizeof(struct feature_put_item), .sample = &samples[i].sample, .data = &data};
        keys[i] = *FEATURE_BY_ID(ids[i]);
    }
    int status = feature_put_batch(client->store, items, BATCH, 10000);
    for (unsigned i = 0; i < BATCH; i++)
        feature_ref_free(items[i].ref);
    if (status == FEATURE_OK)
        status = feature_ack(client->store, keys, BATCH, NULL);
    return status == FEATURE_OK ? 0 : bench_fail_feature("a batch", status);
}

static void *run_client(void *context) {
    struct client *client = context;
    for (unsigned i = 0; i < BATCHES && client->result == 0; i++)
        client->result = put_and_ack(client);
    return NULL;
}

/* Op: SAMPLES_PER_RUN samples put, acked, and gone from the index. */
static int run_lifetimes(void *context) {
    struct index_bench *index = context;
    struct client clients[CLIENTS];
    int result = 0;
    for (unsigned i = 0; i < CLIENTS; i++) {
        clients[i] =
            (struct client){.store = index->stores[0], .index = i, .serial = index->serial};
        if (pthread_create(&clients[i].thread, NULL, run_client, &clients[i]) != 0)
            return bench_fail("no thread");
    }
    for (unsigned i = 0; i < CLIENTS; i++) {
        pthread_join(clients[i].thread, NULL);
        result |= clients[i].result;
    }
    index->serial += BATCHES * BATCH;
    const int status = result == 0 ? feature_drain(index->features[0], DRAIN_MS) : FEATURE_OK;
    return status == FEATURE_OK ? result : bench_fail_feature("drain", status);
}

static int run_raw_txns(void *context) {
    for (unsigned i = 0; i < TXNS_PER_RUN; i++)
        if (raw_etcd_txn(context) != 0)
            return -1;
    return 0;
}

static int measure_rate(struct index_bench *index) {
    struct rounds_op ops[] = {{.run = run_raw_txns, .context = index->raw},
                              {.run = run_lifetimes, .context = index}};
    const struct rounds_plan plan = {index->bench->quick ? 2 : 12, 2, 1};
    const int result = rounds_run(ops, 2, plan);
    if (result == 0)
        bench_report(index->bench,
                     &(struct bench_figure){
                         "index_rate", "kop/s",
                         2e6 * SAMPLES_PER_RUN / samples_median(&ops[1].samples),
                         1e6 * TXNS_PER_RUN * RAW_ETCD_TXN_KEYS / samples_median(&ops[0].samples),
                         BENCH_AT_LEAST, 0.7,
                         "publishes and retires of samples, over keys put by raw 128-key Txns"});
    rounds_deinit(ops, 2);
    return result;
}

static int measure_writes(struct index_bench *index) {
    const unsigned runs = index->bench->quick ? 2 : 8;
    const double samples = (double)runs * SAMPLES_PER_RUN;
    struct raw_etcd_counts before, after;
    if (raw_etcd_count(index->raw, &before) != 0)
        return -1;
    for (unsigned i = 0; i < runs; i++)
        if (run_lifetimes(index) != 0)
            return -1;
    if (raw_etcd_count(index->raw, &after) != 0)
        return -1;
    const double writes = (double)(after.puts - before.puts + after.deletes - before.deletes);
    const double txns = (double)(after.revision - before.revision);
    /* A hundredth for the generations' counter and the nodes' own records. */
    bench_report(index->bench, &(struct bench_figure){"index_writes_per_sample", "",
                                                      writes / samples, 2, BENCH_AT_MOST, 1.01,
                                                      "keys that etcd put and deleted, over 2"});
    bench_report(index->bench, &(struct bench_figure){"index_txns_per_sample", "", txns / samples,
                                                      1.0 / 16, BENCH_AT_MOST, 1,
                                                      "transactions that etcd wrote, over 1/16"});
    return 0;
}

/* ---- one put ---- */

static int run_put(void *context) {
    struct feature_ref *ref = NULL;
    static unsigned char bytes[SAMPLE_BYTES];
    const struct iovec data = {.iov_base = bytes, .iov_len = sizeof bytes};
    struct workload_sample sample;
    workload_sample_init(&sample, "put again and again", SAMPLE_BYTES);
    const int status = feature_put(context, &sample.sample, &data, 10000, &ref);
    feature_ref_free(ref);
    return status == FEATURE_OK ? 0 : bench_fail_feature("put", status);
}

static int measure_put(struct index_bench *index) {
    struct rounds_op ops[] = {{.run = raw_etcd_put, .context = index->raw},
                              {.run = run_put, .context = index->stores[0]}};
    const struct rounds_plan plan = {index->bench->quick ? 2 : 20, 50, 5};
    const int result = rounds_run(ops, 2, plan);
    if (result == 0)
        bench_report(index->bench,
                     &(struct bench_figure){"index_put_latency", "us",
                                            samples_median(&ops[1].samples) / 1e3,
                                            samples_median(&ops[0].samples) / 1e3, BENCH_AT_MOST,
                                            2.5, "put of 1 KiB, p50, over one raw etcd put"});
    rounds_deinit(ops, 2);
    return result;
}

/* ---- a remote get without etcd ---- */

struct remote {
    struct index_bench *index;
    struct workload_get get;
    bool etcd_runs, *frozen;
};

static int run_remote(void *context) {
    struct remote *remote = context;
    if (*remote->frozen == remote->etcd_runs) { /* in a turn's first run, a warm-up */
        if (remote->etcd_runs)
            etcd_server_thaw(&remote->index->etcd, 0);
        else
            etcd_server_freeze(&remote->index->etcd, 0);
        *remote->frozen = !remote->etcd_runs;
    }
    return workload_get_and_release(&remote->get);
}

static int measure_remote(struct index_bench *index) {
    struct feature_ref *ref = NULL;
    bool frozen = false;
    if (workload_put(index->stores[0], "remote", REMOTE_BYTES, &ref) != 0)
        return -1;
    const struct workload_get get = {.store = index->stores[1], .ref = ref};
    struct remote with = {index, get, true, &frozen}, without = {index, get, false, &frozen};
    struct rounds_op ops[] = {{.run = run_remote, .context = &with},
                              {.run = run_remote, .context = &without}};
    const struct rounds_plan plan = {index->bench->quick ? 2 : 20, 100, 20};
    const int result = rounds_run(ops, 2, plan);
    etcd_server_thaw(&index->etcd, 0);
    if (result == 0)
        bench_report(index->bench,
                     &(struct bench_figure){
                         "remote_get_etcd_down", "us", samples_median(&ops[1].samples) / 1e3,
                         samples_median(&ops[0].samples) / 1e3, BENCH_AT_MOST, 1.05,
                         "remote get of 4 KiB with etcd stopped, p50, over the "
                         "same with etcd running"});
    rounds_deinit(ops, 2);
    feature_ref_free(ref);
    return result;
}

/* ---- the group ---- */

static int connect_all(struct index_bench *index) {
    for (size_t i = 0; i < index->brokers.count; i++)
        if (broker_connect(&index->brokers.list[i], &index->features[i]) != 0 ||
            broker_open_store(index->features[i], "run", &index->stores[i]) != 0)
            return -1;
    return 0;
}

static int measure(struct index_bench *index) {
    if (connect_all(index) != 0 || measure_rate(index) != 0 || measure_writes(index) != 0 ||
        measure_put(index) != 0)
        return -1;
    return measure_remote(index);
}

int bench_index(struct bench *bench) {
    static struct index_bench index;
    char directory[256];
    int result = -1;
    index = (struct index_bench){.bench = bench};
    if (bench_in_flight(bench) != 0)
        return -1;
    cpus_take_all(); /* for etcd, which inherits it */
    etcd_server_start(&index.etcd, 1, false);
    cpus_take_place(CPU_CLIENT);
    snprintf(directory, sizeof directory,
             "[directory]\nkind = etcd\nendpoints = %s\nlease_ttl = 60s\n",
             index.etcd.members[0].client_url);
    index.raw = raw_etcd_new(index.etcd.members[0].client_url);
    if (index.raw != NULL && brokers_start_in(&index.brokers, bench, 2, settings, directory) == 0)
        result = measure(&index);
    for (size_t i = 0; i < BROKERS_MAX; i++)
        feature_disconnect(index.features[i]);
    brokers_stop(&index.brokers);
    raw_etcd_free(index.raw);
    etcd_server_stop(&index.etcd);
    return result;
}
