/* SPDX-License-Identifier: Apache-2.0
 *
 * Remote gets between two machines, which this program does not start: tests/vm/bench does, and
 * runs ib_read_bw over the same rail right before. It says where things are by the environment:
 *   FEATURED_SOCKET               the broker of the machine that reads
 *   BENCH_RDMA_SMALL              URI of a sample of 4 KiB at the other machine
 *   BENCH_RDMA_LARGE              URI of a sample of 16 MiB there
 *   BENCH_RDMA_RAILS              how many rails the reading broker uses
 *   BENCH_RDMA_GB_PER_S           what ib_read_bw reached with 1 MiB on one rail
 *   BENCH_RDMA_ONE_RAIL_GB_PER_S  with two rails: what rdma_get_16MiB reached on one
 *   BENCH_RDMA_PING_US            what ib_send_lat reached with 4 KiB there, a full round
 * The store has checksum = never: under emulation the check would cost more than the wire.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"
#include "bench/brokers.h"
#include "bench/rounds.h"
#include "bench/workload.h"

#define STORE "run"

static double number_of(const char *name) {
    const char *text = getenv(name);
    return text != NULL ? strtod(text, NULL) : 0;
}

/* Nanoseconds of one get and release, p50; negative when it failed. */
static double measure(struct feature_store *store, const char *variable, struct rounds_plan plan) {
    const char *uri = getenv(variable);
    struct feature_ref *ref = NULL;
    const int status = feature_ref_from_uri(uri != NULL ? uri : "", &ref);
    if (status != FEATURE_OK) {
        bench_fail_feature(variable, status);
        return -1;
    }
    struct workload_get get = {.store = store, .ref = ref};
    struct rounds_op op = {.run = workload_get_and_release, .context = &get};
    const double ns = rounds_run(&op, 1, plan) == 0 ? samples_median(&op.samples) : -1;
    rounds_deinit(&op, 1);
    feature_ref_free(ref);
    return ns;
}

static int report_large(struct bench *bench, struct feature_store *store) {
    const struct rounds_plan plan = {bench->quick ? 1 : 5, 1, 3};
    const double ns = measure(store, "BENCH_RDMA_LARGE", plan);
    if (ns < 0)
        return -1;
    struct bench_figure figure = {"rdma_get_16MiB",
                                  "GB/s",
                                  bench_gb_per_s(16 * MIB, ns),
                                  number_of("BENCH_RDMA_GB_PER_S"),
                                  BENCH_AT_LEAST,
                                  0.9,
                                  "get + release, p50, over ib_read_bw of 1 MiB on one rail"};
    if (number_of("BENCH_RDMA_RAILS") >= 2) {
        figure.name = "rdma_get_16MiB_rails2";
        figure.limit = number_of("BENCH_RDMA_ONE_RAIL_GB_PER_S");
        figure.bar_ratio = 0.95;
        figure.what = "get + release, p50, over the same on one rail";
    }
    bench_report(bench, &figure);
    return 0;
}

static int report_small(struct bench *bench, struct feature_store *store) {
    const struct rounds_plan plan = {bench->quick ? 1 : 5, 20, 5};
    const double ns = measure(store, "BENCH_RDMA_SMALL", plan);
    if (ns < 0)
        return -1;
    bench_report(bench, &(struct bench_figure){"rdma_get_4KiB", "us", ns / 1e3,
                                               number_of("BENCH_RDMA_PING_US"), BENCH_NO_BAR, 0,
                                               "get + release, p50, over a ping-pong of 4 KiB"});
    return 0;
}

int bench_rdma(struct bench *bench) {
    const struct feature_options options = {.size = sizeof options,
                                            .client_name = "feature-bench",
                                            .socket_path = getenv("FEATURED_SOCKET")};
    struct feature *reader;
    struct feature_store *store;
    const int status = feature_connect(&options, &reader);
    if (status != FEATURE_OK)
        return bench_fail_feature("connecting to the reading broker", status);
    int result = broker_open_store(reader, STORE, &store);
    if (result == 0) {
        result = report_large(bench, store);
        if (result == 0 && number_of("BENCH_RDMA_RAILS") < 2)
            result = report_small(bench, store);
        feature_store_close(store);
    }
    feature_disconnect(reader);
    return result;
}
