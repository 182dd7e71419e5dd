/* SPDX-License-Identifier: Apache-2.0
 *
 * Clients and brokers that are older or newer than the broker of today. They speak its frames over
 * real sockets, and say other versions, operations, fields and enum values than it knows. What
 * never was (a version 0) stands for what is no longer spoken, what is not yet (a version 2, an
 * operation 900) for what will be. The library's side is tested in tests/unit/client_versions.c.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <uv.h>

#include "peer/peer.h"
#include "proto/auth.h"
#include "proto/frame.h"
#include "proto/version.h"
#include "support/checks.h"
#include "support/cluster.h"
#include "support/wire.h"
#include "transport/tcp/tcp.h"

#define ANSWER_MS   20000u
#define NEWER_FIELD 900u /* of a oneof: an operation; else one more thing that is said */
#define NEWER_ENUM  77

/* One unknown field: number NEWER_FIELD, an empty message. */
static ProtobufCMessageUnknownField newer_field = {
    .tag = NEWER_FIELD,
    .wire_type = PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED,
    .len = 1,
    .data = (uint8_t *)"",
};
static void add_newer_field(ProtobufCMessage *message) {
    message->n_unknown_fields = 1;
    message->unknown_fields = &newer_field;
}

/* ---- clients ---- */

static Fb__ClientReply *say_hello(struct wire *wire, struct version_range range) {
    Fb__Hello hello = FB__HELLO__INIT;
    hello.version_min = range.lowest;
    hello.version_max = range.highest;
    hello.client_id = 1;
    add_newer_field(&hello.base);
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_HELLO;
    request.hello = &hello;
    return wire_call(wire, &request);
}

static void expect_no_common(struct wire *wire, struct version_range range, const char *theirs) {
    Fb__ClientReply *reply = say_hello(wire, range);
    CHECK(reply->status == FB__STATUS__UNSUPPORTED, "status %d: %s", reply->status, reply->error);
    CHECK(strstr(reply->error, "speaks version 1 of") && strstr(reply->error, theirs), "%s",
          reply->error);
    fb__client_reply__free_unpacked(reply, NULL);
}

/* No version in common is told with both ranges, and ends nothing: the client may offer others. */
Test(versions, a_client_offers_what_it_speaks, .timeout = 120) {
    struct cluster cluster;
    struct wire wire;
    cluster_start(&cluster, &(struct cluster_options){.nodes = 1, .ini = "[store run]\n"});
    wire_connect(&wire, cluster.nodes[0].socket_path);
    expect_no_common(&wire, (struct version_range){0, 0}, "the client version 0");
    expect_no_common(&wire, (struct version_range){2, 3}, "the client versions 2 to 3");
    expect_no_common(&wire, (struct version_range){3, 1}, "the client versions 3 to 1");
    WAIT_UNTIL(cluster_log_has(&cluster, 0, "the client versions 2 to 3"), ANSWER_MS);
    Fb__ClientReply *reply = say_hello(&wire, (struct version_range){0, 5});
    CHECK(reply->status == FB__STATUS__OK && reply->hello->version == 1, "version %u: %s",
          reply->hello ? reply->hello->version : 0, reply->error);
    fb__client_reply__free_unpacked(reply, NULL);
    wire_open(&wire, "run");
    wire_close(&wire);
    cluster_stop(&cluster);
}

static void expect(struct wire *wire, const Fb__ClientRequest *request, Fb__Status status,
                   const char *words) {
    Fb__ClientReply *reply = wire_call(wire, request);
    CHECK(reply->status == status && strstr(reply->error, words), "status %d: %s", reply->status,
          reply->error);
    fb__client_reply__free_unpacked(reply, NULL);
}

/* A newer client has said that it also speaks version 1, and yet asks for what came later. */
Test(versions, a_newer_client_asks_for_more, .timeout = 120) {
    struct cluster cluster;
    struct wire wire;
    cluster_start(&cluster, &(struct cluster_options){.nodes = 1, .ini = "[store run]\n"});
    wire_connect(&wire, cluster.nodes[0].socket_path);
    wire_hello(&wire, 1);
    const uint32_t handle = wire_open(&wire, "run");

    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT; /* an operation */
    add_newer_field(&request.base);
    expect(&wire, &request, FB__STATUS__UNSUPPORTED, "does not know that request");
    CHECK(wire_send(&wire, FRAME_NOTE, &request, NULL, 0) != 0, "the session was closed");

    Fb__StoreSettings settings = FB__STORE_SETTINGS__INIT; /* an enum value */
    Fb__StoreCreate create = FB__STORE_CREATE__INIT;
    Fb__ClientRequest creation = FB__CLIENT_REQUEST__INIT;
    settings.policy = NEWER_ENUM;
    settings.readers = 1;
    create.store = (char *)"new";
    create.settings = &settings;
    creation.op_case = FB__CLIENT_REQUEST__OP_STORE_CREATE;
    creation.store_create = &create;
    expect(&wire, &creation, FB__STATUS__UNSUPPORTED, "policy 77");

    settings.policy = FB__POLICY__RETAIN; /* a field: what is not known is not looked at */
    add_newer_field(&settings.base);
    expect(&wire, &creation, FB__STATUS__OK, "");

    /* All that has ended nothing, and what came before still stands. */
    uint8_t bytes[100] = {0};
    Fb__ClientReply *reply = wire_put(&wire, handle, "s", 7, bytes, sizeof bytes);
    CHECK(reply->status == FB__STATUS__OK && reply->put->items[0]->generation, "%s", reply->error);
    fb__client_reply__free_unpacked(reply, NULL);
    wire_close(&wire);
    struct feature *feature = cluster_connect(&cluster, 0);
    CHECK_OK(feature_abort(cluster_open(feature, "run", false), FEATURE_BY_ID("s"), 1, NULL));
    CHECK_OK(feature_store_drop(feature, "new"));
    feature_disconnect(feature);
    cluster_stop(&cluster);
}

/* An unknown operation before Hello is no less a breach than a known one. */
Test(versions, a_stranger_is_answered_nothing, .timeout = 120) {
    struct cluster cluster;
    struct wire wire;
    cluster_start(&cluster, &(struct cluster_options){.nodes = 1});
    wire_connect(&wire, cluster.nodes[0].socket_path);
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    add_newer_field(&request.base);
    CHECK(wire_send(&wire, FRAME_REQUEST, &request, NULL, 0) != 0, "send");
    CHECK(wire_closed(&wire, ANSWER_MS), "the session was not closed");
    wire_close(&wire);
    cluster_stop(&cluster);
}

/* ---- brokers ---- */

/* A broker of another version: today's links, but for the versions that it says. */
struct broker_played {
    uv_loop_t loop;
    struct deadlines deadlines;
    struct peers *peers;
    struct transport *transport;
    struct peer *link; /* to the broker of today */
    Fb__PeerReply *reply;
};

static uint64_t clock_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void on_link_up(void *owner, struct peer *peer) {
    (void)owner, (void)peer;
}

static void *on_asker_open(void *owner, struct asker *asker, const char *node,
                           uint64_t incarnation) {
    (void)asker, (void)node, (void)incarnation;
    return owner;
}

static void on_asker_request(void *owner, void *user, uint32_t request_id, bool wants_reply,
                             const Fb__PeerRequest *request) {
    (void)owner, (void)user, (void)request_id, (void)wants_reply, (void)request;
}

static void on_asker_closed(void *owner, void *user) {
    (void)owner, (void)user;
}

static const struct peers_events events = {.link_up = on_link_up,
                                           .asker_open = on_asker_open,
                                           .asker_request = on_asker_request,
                                           .asker_closed = on_asker_closed};

/* libuv keeps a few descriptors from its first loop on, which the cluster is not to count as lost.
 */
static void warm_up(void) {
    uv_loop_t loop;
    CHECK(uv_loop_init(&loop) == 0 && uv_loop_close(&loop) == 0, "no loop");
}

static void play(struct broker_played *played, struct version_range range) {
    static const char secret[] = "the common secret of all nodes";
    static uint8_t key[AUTH_KEY_BYTES];
    uint8_t hello_bytes[TRANSPORT_HELLO_BYTES_MAX];
    *played = (struct broker_played){0};
    CHECK(auth_init() >= 0 && uv_loop_init(&played->loop) == 0, "no loop");
    auth_key("cluster", secret, strlen(secret), key);
    struct peers_options options = {.node = "z",
                                    .incarnation = 42,
                                    .ping_interval_ns = 1000000000,
                                    .timeout_ns = 60000000000,
                                    .reconnect_max_ns = 60000000000,
                                    .deadlines = &played->deadlines};
    Fb__PeerHello hello = FB__PEER_HELLO__INIT;
    hello.version_min = range.lowest;
    hello.version_max = range.highest;
    hello.node = (char *)"z";
    hello.incarnation = 42;
    add_newer_field(&hello.base);
    struct transport_options transport = {.cluster_key = key,
                                          .hello = hello_bytes,
                                          .hello_bytes = fb__peer_hello__pack(&hello, hello_bytes),
                                          .chunk_bytes = 1u << 20,
                                          .reads_per_connection = 8,
                                          .handshake_timeout_ms = 5000,
                                          .send_queue_bytes = 64u << 20,
                                          .connections_max = 8};
    struct transport_setup setup = {&played->loop, &transport, &peers_transport_events, NULL};
    char why[96];
    CHECK(peers_new(&options, &events, played, &played->peers) == 0, "cannot play a broker");
    setup.owner = played->peers;
    CHECK(transport_tcp_new(&setup, &played->transport, why, sizeof why) == 0, "%s", why);
    peers_set_transport(played->peers, played->transport);
}

static void turn(struct broker_played *played) {
    peers_begin_turn(played->peers, clock_ns());
    deadlines_run(&played->deadlines, clock_ns(), UINT32_MAX);
    uv_run(&played->loop, UV_RUN_NOWAIT);
    check_pause(1);
}

#define TURN_UNTIL(played, condition)                                                              \
    for (uint64_t end_ms = check_now_ms() + ANSWER_MS; !(condition); turn(played))                 \
    CHECK(check_now_ms() < end_ms, "not within %u ms", ANSWER_MS)

static void on_closed(void *owner) {
    *(bool *)owner = true;
}

static void stop(struct broker_played *played) {
    bool closed = false;
    peers_close(played->peers, on_closed, &closed);
    while (!closed)
        uv_run(&played->loop, UV_RUN_ONCE);
    peers_free(played->peers);
    while (uv_run(&played->loop, UV_RUN_NOWAIT))
        continue;
    CHECK(uv_loop_close(&played->loop) == 0, "the loop is not empty");
    if (played->reply)
        fb__peer_reply__free_unpacked(played->reply, NULL);
}

static void on_reply(void *context, const Fb__PeerReply *reply, const uint8_t *payload,
                     size_t payload_bytes, const char *why) {
    (void)payload, (void)payload_bytes;
    struct broker_played *played = context;
    uint8_t packed[1024];
    CHECK(reply, "no answer: %s", why);
    if (played->reply)
        fb__peer_reply__free_unpacked(played->reply, NULL);
    size_t bytes = fb__peer_reply__pack(reply, packed);
    played->reply = fb__peer_reply__unpack(NULL, bytes, packed);
}

static void ask(struct broker_played *played, const Fb__PeerRequest *request, Fb__Status status) {
    if (played->reply)
        fb__peer_reply__free_unpacked(played->reply, NULL);
    played->reply = NULL;
    CHECK(peer_call(played->link, request, on_reply, played, clock_ns()) == 0, "not asked");
    TURN_UNTIL(played, played->reply);
    CHECK(played->reply->status == status, "status %d: %s", played->reply->status,
          played->reply->error);
}

static const char *failure(struct broker_played *played) {
    struct peer_info info = {.last_failure = ""};
    peer_query(played->link, &info);
    return info.last_failure;
}

/* An older or newer broker dials: without a version in common it is refused, and the log says both
 * ranges. */
Test(versions, a_broker_that_dials_says_what_it_speaks, .timeout = 120) {
    static const struct {
        struct version_range range;
        const char *log; /* NULL: it is let in */
    } cases[] = {
        {{0, 0}, "node z speaks version 0 of the peer protocol, this node version 1"},
        {{2, 4}, "node z speaks versions 2 to 4 of the peer protocol, this node version 1"},
        {{1, 4}, NULL}};
    struct cluster cluster;
    warm_up();
    cluster_start(&cluster, &(struct cluster_options){.nodes = 2});
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct broker_played played;
        play(&played, cases[i].range);
        played.link = peers_add(played.peers, "a", cluster.nodes[0].address, "");
        if (cases[i].log) {
            TURN_UNTIL(&played, *failure(&played));
            CHECK(!peer_is_up(played.link), "it was let in");
            WAIT_UNTIL(cluster_log_has(&cluster, 0, cases[i].log), ANSWER_MS);
        } else {
            TURN_UNTIL(&played, peer_is_up(played.link));
        }
        stop(&played);
    }
    cluster_stop(&cluster);
}

/* The broker of today dials an older and a newer one: it says in its log why it does not stay. */
Test(versions, a_broker_that_is_dialled_says_what_it_speaks, .timeout = 120) {
    static const struct {
        struct version_range range;
        const char *log;
    } cases[] = {
        {{0, 0}, "node z speaks version 0 of the peer protocol, this node version 1"},
        {{2, 4}, "node z speaks versions 2 to 4 of the peer protocol, this node version 1"},
        {{1, 4}, "link to node z"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct broker_played played;
        struct cluster cluster;
        char address[64], ini[128];
        play(&played, cases[i].range); /* only to learn of a port that is free */
        CHECK(peers_listen(played.peers, "127.0.0.1:0", address) == 0, "cannot listen");
        stop(&played);
        snprintf(ini, sizeof ini, "[peer z]\naddress = %s\n", address);
        cluster_start(&cluster,
                      &(struct cluster_options){.nodes = 2, .ini = ini, .unconnected = true});
        play(&played, cases[i].range);
        CHECK(peers_listen(played.peers, address, address) == 0, "cannot listen at %s", address);
        TURN_UNTIL(&played, cluster_log_has(&cluster, 0, cases[i].log));
        stop(&played);
        cluster_stop(&cluster);
    }
}

/* A newer broker that was let in asks for what came later. */
Test(versions, a_newer_broker_asks_for_more, .timeout = 120) {
    struct cluster cluster;
    struct broker_played played;
    warm_up();
    cluster_start(&cluster, &(struct cluster_options){.nodes = 2, .ini = "[store run]\n"});
    play(&played, (struct version_range){1, 4});
    played.link = peers_add(played.peers, "a", cluster.nodes[0].address, "");
    TURN_UNTIL(&played, peer_is_up(played.link));
    const uint64_t epoch = peer_epoch(played.link);

    Fb__PeerRequest newer = FB__PEER_REQUEST__INIT; /* an operation */
    add_newer_field(&newer.base);
    ask(&played, &newer, FB__STATUS__UNSUPPORTED);
    CHECK(strstr(played.reply->error, "does not know that request"), "%s", played.reply->error);

    Fb__PeerRetire retire = FB__PEER_RETIRE__INIT; /* an enum value */
    Fb__PeerRequest request = FB__PEER_REQUEST__INIT;
    retire.store = (char *)"run";
    retire.reason = NEWER_ENUM;
    request.op_case = FB__PEER_REQUEST__OP_RETIRE;
    request.retire = &retire;
    ask(&played, &request, FB__STATUS__UNSUPPORTED);

    Fb__PeerHealth health = FB__PEER_HEALTH__INIT; /* a field */
    Fb__PeerRequest question = FB__PEER_REQUEST__INIT;
    question.op_case = FB__PEER_REQUEST__OP_HEALTH;
    question.health = &health;
    add_newer_field(&health.base);
    ask(&played, &question, FB__STATUS__OK);
    CHECK(played.reply->health && !strcmp(played.reply->health->node, "a"), "no health");
    CHECK(peer_epoch(played.link) == epoch && peer_is_up(played.link), "the link ended");
    stop(&played);
    cluster_stop(&cluster);
}
