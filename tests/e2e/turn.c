/* SPDX-License-Identifier: Apache-2.0
 *
 * Much that ends at one moment: puts that an etcd does not answer, a session that goes with all its
 * leases, a store that is dropped with all its samples. A neighbour asks all the while, is answered
 * every time, and says how long the longest answer took. Times are printed and fail nothing.
 */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/frame.h"
#include "support/checks.h"
#include "support/cluster.h"
#include "support/wire.h"

#define PATIENCE_MS 120000u
#define FLOODERS    8u
#define BATCH_ITEMS FRAME_BATCH_ITEMS_MAX
#define ITEM_BYTES  8u

/* More than the limits of a session and a user let through by default. */
#define MANY_INI                                                                                   \
    "[store run]\nmax_samples = 1000000\nmax_resident_bytes = 1GiB\n"                              \
    "[local]\nmax_waits_per_session = 1000000\nmax_waits_per_user = 1000000\n"

/* ---- the neighbour ---- */

static int neighbour(int channel, void *context) {
    const struct cluster *cluster = context;
    struct feature *feature = cluster_connect(cluster, 0);
    uint64_t longest_us = 0, asked = 0;
    channel_say(channel, "started");
    for (; !channel_pending(channel, 1); asked++) {
        struct feature_health health = {.size = sizeof health};
        uint64_t begun_us = check_now_us();
        CHECK_OK(feature_health(feature, &health));
        uint64_t took_us = check_now_us() - begun_us;
        longest_us = took_us > longest_us ? took_us : longest_us;
    }
    channel_expect(channel, "end", 1000);
    CHECK(asked > 0, "the neighbour never asked");
    channel_send(channel, &longest_us, sizeof longest_us);
    feature_disconnect(feature);
    return 0;
}

static void neighbour_start(struct process *process, struct cluster *cluster) {
    process_fork(process, neighbour, cluster);
    channel_expect(process->channel, "started", 20000);
}

static uint64_t counter_of(const Fb__HealthReply *health, const char *name) {
    for (size_t i = 0; i < health->n_counters; i++)
        if (!strcmp(health->counters[i]->name, name))
            return health->counters[i]->value;
    CHECK(false, "health has no counter %s", name);
    return 0;
}

/* Milliseconds, as health shows it. */
static uint64_t longest_turn_ms(const struct cluster *cluster) {
    struct wire wire;
    Fb__Health health = FB__HEALTH__INIT;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_HEALTH;
    request.health = &health;
    wire_connect(&wire, cluster->nodes[0].socket_path);
    wire_hello(&wire, 77);
    Fb__ClientReply *reply = wire_call(&wire, &request);
    CHECK(reply->health != NULL, "no health: %s", reply->error);
    uint64_t longest_ms = counter_of(reply->health, "loop_lag_longest_ms");
    CHECK(counter_of(reply->health, "loop_lag_ms") <= longest_ms,
          "the last minute's is longer than all");
    fb__client_reply__free_unpacked(reply, NULL);
    wire_close(&wire);
    return longest_ms;
}

static void neighbour_stop(struct process *process, const struct cluster *cluster,
                           const char *what) {
    uint64_t longest_us, turn_ms = longest_turn_ms(cluster);
    channel_say(process->channel, "end");
    CHECK(channel_receive(process->channel, &longest_us, sizeof longest_us, PATIENCE_MS) ==
              sizeof longest_us,
          "the neighbour failed");
    process_join(process, 30000);
    printf("turn: %s: a neighbour's longest answer took %.1f ms, the longest turn %" PRIu64 " ms\n",
           what, (double)longest_us / 1000, turn_ms);
    fflush(stdout);
}

/* ---- flooding ---- */

struct flooder {
    struct wire wire;
    uint32_t handle, sent, answered;
    uint64_t ok, refused;
};

static void flooder_open(struct flooder *flooder, const struct cluster *cluster, uint32_t number) {
    *flooder = (struct flooder){0};
    wire_connect(&flooder->wire, cluster->nodes[0].socket_path);
    wire_hello(&flooder->wire, 1000 + number);
    flooder->handle = wire_open(&flooder->wire, "run");
}

/* One frame of small samples with ids of their own. */
static void flooder_send(struct flooder *flooder, uint32_t number) {
    static uint8_t payload[BATCH_ITEMS * ITEM_BYTES];
    static char ids[BATCH_ITEMS][32];
    struct wire_sample sample;
    Fb__PutItem items[BATCH_ITEMS], *pointers[BATCH_ITEMS];
    wire_sample(&sample, payload, ITEM_BYTES);
    for (uint32_t i = 0; i < BATCH_ITEMS; i++) {
        snprintf(ids[i], sizeof ids[i], "f%" PRIu32 "-%" PRIu32 "-%" PRIu32, number, flooder->sent,
                 i);
        fb__put_item__init(&items[i]);
        items[i].sample_id = ids[i];
        items[i].spec = (ProtobufCBinaryData){.data = sample.spec, .len = sample.spec_bytes};
        items[i].checksums = (ProtobufCBinaryData){.data = sample.checksum, .len = 8};
        items[i].bytes = ITEM_BYTES;
        pointers[i] = &items[i];
    }
    Fb__Put put = FB__PUT__INIT;
    put.handle = flooder->handle;
    put.n_items = BATCH_ITEMS;
    put.items = pointers;
    put.deadline_ms = PATIENCE_MS;
    put.op_id = 1 + (uint64_t)flooder->sent * BATCH_ITEMS;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_PUT;
    request.put = &put;
    CHECK(wire_send(&flooder->wire, FRAME_REQUEST, &request, payload, sizeof payload) != 0,
          "session closed");
    flooder->sent++;
}

/* Takes one answer, if one comes within wait_ms. */
static bool flooder_take(struct flooder *flooder, int wait_ms) {
    struct pollfd readable = {.fd = flooder->wire.fd, .events = POLLIN};
    if (flooder->answered == flooder->sent || poll(&readable, 1, wait_ms) <= 0)
        return false;
    Fb__ClientReply *reply = wire_receive(&flooder->wire, PATIENCE_MS);
    CHECK(reply && reply->put && reply->put->n_items == BATCH_ITEMS, "no answer to a put: %s",
          reply ? reply->error : "session closed");
    for (uint32_t i = 0; i < BATCH_ITEMS; i++) {
        Fb__Status status = reply->put->items[i]->status;
        flooder->ok += status == FB__STATUS__OK;
        flooder->refused += status == FB__STATUS__UNAVAILABLE;
    }
    fb__client_reply__free_unpacked(reply, NULL);
    flooder->answered++;
    return true;
}

static void flood(struct flooder *flooders, uint32_t frames) {
    for (uint32_t frame = 0; frame < frames; frame++)
        for (uint32_t i = 0; i < FLOODERS; i++) {
            flooder_send(&flooders[i], i);
            while (flooder_take(&flooders[i], 0))
                ;
        }
}

/* Until no more than so many frames are not answered. */
static void flood_await(struct flooder *flooders, uint32_t unanswered_max) {
    uint64_t end_ms = check_now_ms() + PATIENCE_MS;
    for (uint32_t unanswered = UINT32_MAX; unanswered > unanswered_max;) {
        CHECK(check_now_ms() < end_ms, "%u frames are not answered", unanswered);
        unanswered = 0;
        for (uint32_t i = 0; i < FLOODERS; i++) {
            while (flooder_take(&flooders[i], 1))
                ;
            unanswered += flooders[i].sent - flooders[i].answered;
        }
    }
}

/* ---- etcd that answers nobody ---- */

#define FRAMES_EACH  235u /* 60,160 samples */
#define IN_DOUBT_MAX 8u   /* what was sent to etcd before it froze is answered when it goes on */

Test(turn, frozen_etcd_fails_many_puts_at_once, .timeout = 300) {
    struct cluster cluster;
    struct flooder flooders[FLOODERS];
    struct process process;
    uint64_t ok = 0, refused = 0, sent = (uint64_t)FLOODERS * FRAMES_EACH * BATCH_ITEMS;
    cluster_start(&cluster,
                  &(struct cluster_options){.nodes = 1, .etcd_members = 1, .ini = MANY_INI});
    for (uint32_t i = 0; i < FLOODERS; i++)
        flooder_open(&flooders[i], &cluster, i);
    neighbour_start(&process, &cluster);
    uint64_t begun_ms = check_now_ms();
    flood(flooders, FRAMES_EACH / 2); /* generation numbers come from etcd, too */
    etcd_server_freeze(&cluster.etcd, 0);
    flood(flooders, FRAMES_EACH - FRAMES_EACH / 2);
    printf("turn: %" PRIu64 " samples sent in %" PRIu64 " ms\n", sent, check_now_ms() - begun_ms);
    flood_await(flooders, IN_DOUBT_MAX);
    printf("turn: all but a few answered after %" PRIu64 " ms\n", check_now_ms() - begun_ms);
    neighbour_stop(&process, &cluster, "480,000 puts that etcd does not answer");
    etcd_server_thaw(&cluster.etcd, 0);
    flood_await(flooders, 0);
    for (uint32_t i = 0; i < FLOODERS; i++) {
        ok += flooders[i].ok;
        refused += flooders[i].refused;
        wire_close(&flooders[i].wire);
    }
    CHECK(ok + refused == sent, "%" PRIu64 " put, %" PRIu64 " refused", ok, refused);
    CHECK(refused > 0, "etcd was never missed");
    struct feature *feature = cluster_connect(&cluster, 0);
    WAIT_UNTIL(feature_store_drop(feature, "run") == FEATURE_OK, PATIENCE_MS);
    WAIT_UNTIL(feature_drain(feature, 5000) == FEATURE_OK, PATIENCE_MS);
    feature_disconnect(feature);
    cluster_stop(&cluster);
}

/* ---- etcd that comes back to a node that holds much ---- */

#define HELD_FRAMES 50u /* 102,400 samples */

/* How many are there: on a busy machine etcd may be too slow for some. */
static uint64_t put_many(struct cluster *cluster) {
    struct flooder flooders[FLOODERS];
    uint64_t held = 0;
    cluster_start(cluster,
                  &(struct cluster_options){
                      .nodes = 1, .etcd_members = 1, .lease_ttl_ms = 8000, .ini = MANY_INI});
    for (uint32_t i = 0; i < FLOODERS; i++)
        flooder_open(&flooders[i], cluster, i);
    for (uint32_t frame = 0; frame < HELD_FRAMES; frame++) {
        flood(flooders, 1);
        flood_await(flooders, FLOODERS);
    }
    flood_await(flooders, 0);
    for (uint32_t i = 0; i < FLOODERS; i++) {
        held += flooders[i].ok;
        wire_close(&flooders[i].wire);
    }
    CHECK(held > 0, "nothing was put");
    printf("turn: %" PRIu64 " samples put: the longest turn %" PRIu64 " ms\n", held,
           longest_turn_ms(cluster));
    fflush(stdout);
    return held;
}

/* It holds what it held, and is served. */
static void expect_held(struct cluster *cluster, uint64_t held) {
    struct feature *feature = cluster_connect(cluster, 0);
    struct feature_store *store = cluster_open(feature, "run", false);
    const struct feature_key *first = FEATURE_BY_ID("f0-0-0");
    struct feature_view *view = NULL;
    CHECK_OK(feature_get(store, first, NULL, &view));
    CHECK_OK(feature_release(view, FEATURE_RELEASE_RETURNED));
    CHECK(cluster_numbers(cluster, 0, "run").resident == held, "samples have ended");
    feature_store_close(store);
    CHECK_OK(feature_store_drop(feature, "run"));
    WAIT_UNTIL(cluster_health(cluster, 0).resident_bytes == 0, PATIENCE_MS);
    WAIT_UNTIL(feature_drain(feature, 5000) == FEATURE_OK, PATIENCE_MS);
    feature_disconnect(feature);
}

static void etcd_comes_back(bool empty, const char *what) {
    struct cluster cluster;
    struct process process;
    uint64_t held = put_many(&cluster);
    neighbour_start(&process, &cluster);
    if (empty)
        etcd_server_kill(&cluster.etcd, 0);
    else
        etcd_server_freeze(&cluster.etcd, 0);
    WAIT_UNTIL(cluster_log_has(&cluster, 0, ": fenced: "), PATIENCE_MS);
    uint64_t begun_ms = check_now_ms();
    if (empty)
        etcd_server_restart_empty(&cluster.etcd);
    else
        etcd_server_thaw(&cluster.etcd, 0);
    WAIT_UNTIL(cluster_log_has(&cluster, 0, ": serving again: "), PATIENCE_MS);
    WAIT_UNTIL(cluster_etcd_count(&cluster, "samples/run/") == held, PATIENCE_MS);
    printf("turn: all is as it was after %" PRIu64 " ms\n", check_now_ms() - begun_ms);
    neighbour_stop(&process, &cluster, what);
    expect_held(&cluster, held);
    cluster_stop(&cluster);
}

Test(turn, etcd_comes_back_as_it_was_to_a_node_with_many_samples, .timeout = 300) {
    etcd_comes_back(false, "etcd comes back to a node with 102,400 samples");
}

Test(turn, etcd_comes_back_empty_to_a_node_with_many_samples, .timeout = 300) {
    etcd_comes_back(true, "an empty etcd comes back to a node with 102,400 samples");
}

/* ---- one that goes with all it holds, a store that goes with all that is in it ---- */

#define LEASES_EACH 65536u
#define MANY_FRAMES 60u

/* Leases on one sample, as many as a session may have, each by a wire of its own. */
static void lease_all(struct wire *wire, const char *sample_id, uint32_t count) {
    Fb__GetItem items[BATCH_ITEMS], *pointers[BATCH_ITEMS];
    uint32_t handle = wire_open(wire, "run");
    for (uint32_t i = 0; i < BATCH_ITEMS; i++) {
        fb__get_item__init(&items[i]);
        items[i].sample_id = (char *)sample_id;
        pointers[i] = &items[i];
    }
    Fb__Get get = FB__GET__INIT;
    get.handle = handle;
    get.n_items = BATCH_ITEMS;
    get.items = pointers;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_GET;
    request.get = &get;
    for (uint32_t got = 0; got < count; got += BATCH_ITEMS) {
        Fb__ClientReply *reply = wire_call(wire, &request);
        CHECK(reply->get && reply->get->n_items == BATCH_ITEMS &&
                  reply->get->items[BATCH_ITEMS - 1]->status == FB__STATUS__OK,
              "%s", reply->get ? reply->get->items[BATCH_ITEMS - 1]->error : reply->error);
        fb__client_reply__free_unpacked(reply, NULL);
    }
}

Test(turn, sessions_go_with_all_their_leases_and_a_store_with_all_its_samples, .timeout = 300) {
    struct cluster cluster;
    struct flooder flooders[FLOODERS];
    struct process process;
    struct wire readers[3];
    cluster_start(&cluster, &(struct cluster_options){.nodes = 1, .ini = MANY_INI});
    for (uint32_t i = 0; i < FLOODERS; i++)
        flooder_open(&flooders[i], &cluster, i);
    flood(flooders, MANY_FRAMES);
    flood_await(flooders, 0);
    for (uint32_t i = 0; i < FLOODERS; i++) {
        CHECK(flooders[i].ok == (uint64_t)MANY_FRAMES * BATCH_ITEMS, "%" PRIu64 " put",
              flooders[i].ok);
        wire_close(&flooders[i].wire);
    }
    for (uint32_t i = 0; i < 3; i++) {
        wire_connect(&readers[i], cluster.nodes[0].socket_path);
        wire_hello(&readers[i], 100 + i);
        lease_all(&readers[i], "f0-0-0", LEASES_EACH);
    }
    CHECK(cluster_numbers(&cluster, 0, "run").leases == 3 * LEASES_EACH, "not all are leased");
    neighbour_start(&process, &cluster);
    for (uint32_t i = 0; i < 3; i++)
        wire_close(&readers[i]);
    WAIT_UNTIL(cluster_numbers(&cluster, 0, "run").leases == 0, PATIENCE_MS);
    neighbour_stop(&process, &cluster, "three sessions end with 65,536 leases each");
    CHECK(cluster_numbers(&cluster, 0, "run").resident == FLOODERS * MANY_FRAMES * BATCH_ITEMS,
          "sessions that died consumed");

    neighbour_start(&process, &cluster);
    struct feature *feature = cluster_connect(&cluster, 0);
    struct feature_store *store = cluster_open(feature, "run", false);
    CHECK_OK(feature_store_drop(feature, "run"));
    const struct feature_key *last = FEATURE_BY_ID("f7-59-255");
    struct feature_view *view = NULL;
    CHECK_STATUS(FEATURE_E_NOT_FOUND, feature_get(store, last, NULL, &view));
    feature_store_close(store);
    WAIT_UNTIL(cluster_health(&cluster, 0).resident_bytes == 0, PATIENCE_MS);
    neighbour_stop(&process, &cluster, "a store of 122,880 samples is dropped");
    feature_disconnect(feature);
    cluster_stop(&cluster);
}
