/* SPDX-License-Identifier: Apache-2.0
 *
 * One node: what a zero-copy get, a zero-copy put and a copying put cost over what the machine must
 * do for them anyway, a round trip between two processes or one memcpy.
 *
 * A put takes the same sample_id again, which supersedes and frees the one before: two extents take
 * turns. The memcpy that is its limit takes turns between two reservations of the same store for
 * the same reason.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "bench/bench.h"
#include "bench/brokers.h"
#include "bench/limits.h"
#include "bench/rounds.h"
#include "bench/workload.h"

#define PUT_BYTES (16 * MIB)

static const char settings[] = "[memory]\nmax_resident_bytes = 1GiB\nprefault = on\n"
                               "[store keep]\npolicy = retain\nmax_resident_bytes = 320MiB\n"
                               "landing_bytes = 1MiB\n"
                               "[store sum]\npolicy = retain\nmax_resident_bytes = 128MiB\n"
                               "landing_bytes = 1MiB\n"
                               "[store nosum]\npolicy = retain\nmax_resident_bytes = 128MiB\n"
                               "landing_bytes = 1MiB\nchecksum = never\n";

/* ---- get ---- */
static int get_one(struct bench *bench, struct feature_store *store, const char *figure,
                   uint64_t bytes) {
    struct limit limit = {0};
    struct feature_ref *ref = NULL;
    if (limit_open_unix(&limit, CPU_NODE_A) != 0)
        return -1;
    int result = workload_put(store, figure, bytes, &ref);
    struct workload_get get = {.store = store, .ref = ref};
    struct rounds_op ops[] = {{.run = limit_ping, .context = &limit},
                              {.run = workload_get_and_release, .context = &get}};
    const struct rounds_plan plan = {bench->quick ? 2 : 40, bench->quick ? 50 : 200, 20};
    if (result == 0 && (result = rounds_run(ops, 2, plan)) == 0)
        bench_report(bench, &(struct bench_figure){
                                figure, "us", samples_median(&ops[1].samples) / 1e3,
                                samples_median(&ops[0].samples) / 1e3, BENCH_AT_MOST, 1.6,
                                "zero-copy get + release, p50, over a bare Unix ping-pong"});
    rounds_deinit(ops, 2);
    feature_ref_free(ref);
    limit_close(&limit);
    return result;
}

static int measure_gets(struct bench *bench, struct feature *feature) {
    struct feature_store *store;
    if (broker_open_store(feature, "keep", &store) != 0)
        return -1;
    const int result = get_one(bench, store, "local_get_64KiB", 64 * KIB) != 0 ||
                       get_one(bench, store, "local_get_16MiB", 16 * MIB) != 0 ||
                       get_one(bench, store, "local_get_256MiB", 256 * MIB) != 0;
    feature_store_close(store);
    return result == 0 ? 0 : -1;
}

/* ---- put without writing the bytes ---- */
static int put_zero_copy(void *context) {
    struct workload_sample sample;
    struct feature_reservation *reservation;
    workload_sample_init(&sample, "zero-copy", PUT_BYTES);
    int status = feature_reserve(context, &sample.sample, 0, &reservation);
    if (status == FEATURE_OK)
        status = feature_commit(reservation, NULL);
    return status == FEATURE_OK ? 0 : bench_fail_feature("zero-copy put", status);
}

static int measure_put_zero_copy(struct bench *bench, struct feature *feature) {
    struct feature_store *store;
    struct limit limit = {0};
    if (broker_open_store(feature, "nosum", &store) != 0)
        return -1;
    int result = limit_open_unix(&limit, CPU_NODE_A);
    struct rounds_op ops[] = {{.run = limit_ping, .context = &limit},
                              {.run = put_zero_copy, .context = store}};
    const struct rounds_plan plan = {bench->quick ? 2 : 40, bench->quick ? 50 : 200, 20};
    if (result == 0 && (result = rounds_run(ops, 2, plan)) == 0)
        bench_report(bench,
                     &(struct bench_figure){
                         "local_put_zero_copy_16MiB", "us", samples_median(&ops[1].samples) / 1e3,
                         samples_median(&ops[0].samples) / 1e3, BENCH_AT_MOST, 3.0,
                         "reserve + commit, p50, over a bare Unix ping-pong; checksum = "
                         "never, as no byte is written"});
    rounds_deinit(ops, 2);
    limit_close(&limit);
    feature_store_close(store);
    return result;
}

/* ---- copying put ---- */
struct copying {
    struct feature_store *store;
    struct feature_reservation *reserved[2]; /* where memcpy goes, in turns */
    unsigned turn;
    void *source;
};

static int copying_init(struct copying *copying, struct feature_store *store) {
    struct workload_sample sample;
    *copying = (struct copying){.store = store};
    copying->source = mmap(NULL, PUT_BYTES, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (copying->source == MAP_FAILED)
        return bench_fail("no memory for the bytes to put");
    memset(copying->source, 0x5a, PUT_BYTES);
    workload_sample_init(&sample, "memcpy", PUT_BYTES);
    for (int i = 0; i < 2; i++) {
        const int status = feature_reserve(store, &sample.sample, 0, &copying->reserved[i]);
        if (status != FEATURE_OK)
            return bench_fail_feature("reserving room to memcpy into", status);
    }
    return 0;
}

static void copying_deinit(struct copying *copying) {
    feature_cancel(copying->reserved[0]);
    feature_cancel(copying->reserved[1]);
    if (copying->source != MAP_FAILED)
        munmap(copying->source, PUT_BYTES);
}

static int plain_memcpy(void *context) {
    struct copying *copying = context;
    struct feature_reservation *into = copying->reserved[copying->turn++ % 2];
    memcpy(feature_reservation_data(into, 0), copying->source, PUT_BYTES);
    return 0;
}

static int put_copying(void *context) {
    const struct copying *copying = context;
    const struct iovec data = {copying->source, PUT_BYTES};
    struct workload_sample sample;
    workload_sample_init(&sample, "copying", PUT_BYTES);
    const int status = feature_put(copying->store, &sample.sample, &data, 0, NULL);
    return status == FEATURE_OK ? 0 : bench_fail_feature("copying put", status);
}

static int measure_put_copy(struct bench *bench, struct feature *feature, const char *store_name,
                            struct bench_figure figure) {
    struct feature_store *store;
    struct copying copying;
    if (broker_open_store(feature, store_name, &store) != 0)
        return -1;
    int result = copying_init(&copying, store);
    struct rounds_op ops[] = {{.run = plain_memcpy, .context = &copying},
                              {.run = put_copying, .context = &copying}};
    const struct rounds_plan plan = {bench->quick ? 2 : 40, 6, 2};
    if (result == 0 && (result = rounds_run(ops, 2, plan)) == 0) {
        figure.limit = bench_gb_per_s(PUT_BYTES, samples_median(&ops[0].samples));
        figure.value = bench_gb_per_s(PUT_BYTES, samples_median(&ops[1].samples));
        bench_report(bench, &figure);
    }
    rounds_deinit(ops, 2);
    copying_deinit(&copying);
    feature_store_close(store);
    return result;
}

static int measure_puts(struct bench *bench, struct feature *feature) {
    const struct bench_figure sum = {
        .name = "local_put_copy_16MiB",
        .unit = "GB/s",
        .bar = BENCH_AT_LEAST,
        .bar_ratio = 0.7,
        .what = "copy + checksum, p50, over memcpy into the same warm mapping"};
    const struct bench_figure no_sum = {
        .name = "local_put_copy_16MiB_nosum",
        .unit = "GB/s",
        .bar = BENCH_AT_LEAST,
        .bar_ratio = 0.9,
        .what = "copy, checksum = never, p50, over memcpy into the same warm mapping"};
    if (measure_put_zero_copy(bench, feature) != 0 ||
        measure_put_copy(bench, feature, "sum", sum) != 0)
        return -1;
    return measure_put_copy(bench, feature, "nosum", no_sum);
}

int bench_local(struct bench *bench) {
    struct brokers brokers;
    struct feature *feature = NULL;
    if (brokers_start(&brokers, bench, 1, settings) != 0)
        return -1;
    int result = broker_connect(&brokers.list[0], &feature);
    if (result == 0)
        result = measure_gets(bench, feature) != 0 || measure_puts(bench, feature) != 0 ? -1 : 0;
    feature_disconnect(feature);
    brokers_stop(&brokers);
    return result;
}
