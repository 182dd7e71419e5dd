/* SPDX-License-Identifier: Apache-2.0
 *
 * What a user notices of another one who takes all that the limits allow: p99 of the cycle of a
 * small sample beside one who has all the sessions and waiting gets that a user may have and goes
 * on asking, over p99 alone.
 */
#include <errno.h>
#include <grp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/bench.h"
#include "bench/brokers.h"
#include "bench/rounds.h"
#include "bench/workload.h"
#include "proto/frame.h"
#include "proto/version.h"
#include "support/checks.h"
#include "support/wire.h"

#define SAMPLE_BYTES    1024u
#define OTHER_UID       4242
#define SESSIONS_MAX    600u
#define WAITS_PER_BATCH 256u
#define BATCHES         30u

static const char settings[] = "[memory]\nmax_resident_bytes = 64MiB\n"
                               "[store small]\nmax_resident_bytes = 32MiB\nlanding_bytes = 0\n";

/* ---- the one who takes all ---- */

static bool greet(struct wire *wire, const char *socket_path) {
    Fb__Hello hello = FB__HELLO__INIT;
    hello.version_min = hello.version_max = VERSION_CLIENT.highest;
    hello.client_id = 1;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_HELLO;
    request.hello = &hello;
    wire_connect(wire, socket_path);
    Fb__ClientReply *reply = wire_call(wire, &request);
    bool greeted = reply->status == FB__STATUS__OK;
    fb__client_reply__free_unpacked(reply, NULL);
    return greeted;
}

static void wait_for_much(struct wire *wire, uint32_t handle) {
    Fb__GetItem items[WAITS_PER_BATCH], *pointers[WAITS_PER_BATCH];
    for (unsigned i = 0; i < WAITS_PER_BATCH; i++) {
        fb__get_item__init(&items[i]);
        items[i].sample_id = (char *)"never";
        pointers[i] = &items[i];
    }
    Fb__Get get = FB__GET__INIT;
    get.handle = handle;
    get.n_items = WAITS_PER_BATCH;
    get.items = pointers;
    get.wait_ms = 600000;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_GET;
    request.get = &get;
    for (unsigned i = 0; i < BATCHES; i++)
        wire_send(wire, FRAME_REQUEST, &request, NULL, 0);
}

/* Never returns. Says so when it has all. */
static void take_all(const char *socket_path, int ready) {
    static struct wire wires[SESSIONS_MAX];
    unsigned count = 0;
    if (getuid() == 0 && (setgroups(0, NULL) || setgid(OTHER_UID) || setuid(OTHER_UID)))
        _exit(1);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    while (count < SESSIONS_MAX && greet(&wires[count], socket_path))
        count++;
    uint32_t handle = wire_open(&wires[0], "small");
    for (unsigned i = 1; i < 5 && i < count; i++)
        wait_for_much(&wires[i], wire_open(&wires[i], "small"));
    if (write(ready, "x", 1) != 1)
        _exit(1);
    for (;;)
        fb__client_reply__free_unpacked(wire_get(&wires[0], handle, "none", 0), NULL);
}

static pid_t start_other(const struct broker *broker) {
    int pair[2];
    char word;
    if (pipe(pair) != 0)
        return -1;
    const pid_t pid = fork();
    if (pid == 0)
        take_all(broker->socket_path, pair[1]);
    close(pair[1]);
    const bool has_all = pid > 0 && read(pair[0], &word, 1) == 1;
    close(pair[0]);
    return has_all ? pid : -1;
}

/* ---- the one who notices ---- */

struct cycle {
    struct feature_store *store;
    struct workload_sample sample;
    struct iovec data;
    char bytes[SAMPLE_BYTES];
};

static int cycle_run(void *context) {
    struct cycle *cycle = context;
    const struct feature_get_options options = {.size = sizeof options};
    struct feature_ref *ref;
    struct feature_view *view;
    int status = feature_put(cycle->store, &cycle->sample.sample, &cycle->data, 5000, &ref);
    if (status != FEATURE_OK)
        return bench_fail_feature("put", status);
    status = feature_get(cycle->store, FEATURE_BY_REF(ref), &options, &view);
    feature_ref_free(ref);
    if (status != FEATURE_OK)
        return bench_fail_feature("get", status);
    feature_release(view, FEATURE_RELEASE_CONSUMED);
    return 0;
}

/* 0, or -1 when an operation failed. */
static int p99_us(struct cycle *cycle, bool quick, double *out) {
    struct rounds_op op = {.run = cycle_run, .context = cycle};
    const int result = rounds_run(&op, 1, (struct rounds_plan){quick ? 2 : 20, 200, 10});
    samples_median(&op.samples); /* sorts */
    if (result == 0)
        *out = (double)op.samples.values[op.samples.count * 99 / 100] / 1e3;
    rounds_deinit(&op, 1);
    return result;
}

static int measure(struct bench *bench, const struct broker *broker, struct cycle *cycle) {
    double alone_us, beside_us;
    if (p99_us(cycle, bench->quick, &alone_us) != 0)
        return -1;
    const pid_t other = start_other(broker);
    if (other < 0)
        return bench_fail("the one who takes all could not: %s", strerror(errno));
    const int result = p99_us(cycle, bench->quick, &beside_us);
    kill(other, SIGKILL);
    waitpid(other, NULL, 0);
    if (result == 0)
        bench_report(bench, &(struct bench_figure){
                                "limits_p99", "us", beside_us, alone_us, BENCH_AT_MOST, 3.0,
                                "put + get + release, p99, beside a user who takes all that the "
                                "limits allow, over alone"});
    return result;
}

static int let_others_in(const struct bench *bench, const struct broker *broker) {
    return chmod(bench->directory, 0711) || chmod(broker->directory, 0711) ||
                   chmod(broker->socket_path, 0666)
               ? bench_fail("%s: %s", broker->socket_path, strerror(errno))
               : 0;
}

int bench_beside(struct bench *bench) {
    struct brokers brokers;
    struct feature *feature = NULL;
    struct cycle cycle;
    if (brokers_start(&brokers, bench, 1, settings) != 0)
        return -1;
    int result = let_others_in(bench, &brokers.list[0]);
    if (result == 0 && (result = broker_connect(&brokers.list[0], &feature)) == 0 &&
        (result = broker_open_store(feature, "small", &cycle.store)) == 0) {
        memset(cycle.bytes, 0x5a, sizeof cycle.bytes);
        workload_sample_init(&cycle.sample, "small", SAMPLE_BYTES);
        cycle.data = (struct iovec){cycle.bytes, SAMPLE_BYTES};
        result = measure(bench, &brokers.list[0], &cycle);
    }
    feature_disconnect(feature);
    brokers_stop(&brokers);
    return result;
}
