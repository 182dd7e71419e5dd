/* SPDX-License-Identifier: Apache-2.0
 *
 * Clients that break the protocol, on purpose. Each test plays one of them against a broker that a
 * well-behaved client uses all the while: the hostile session is closed (or its request refused),
 * the neighbour never fails, and nothing is left behind.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/frame.h"
#include "proto/version.h"
#include "support/checks.h"
#include "support/wire.h"
#include "support/world.h"

static int behave_well(int channel, void *context) {
    const struct cluster *cluster = context;
    struct feature *feature = cluster_connect(cluster, 0);
    struct feature_store *store = cluster_open(feature, "run", false);
    for (uint64_t seed = 0; !channel_pending(channel, 2); seed++) {
        struct payload payload;
        struct feature_ref *ref = NULL;
        payload_init(&payload, "well", seed, 100 + seed * 7919 % 200000);
        CHECK_OK(payload_put(&payload, store, 20000, &ref));
        payload_check_get(&payload, store, by_ref(ref), FEATURE_RELEASE_CONSUMED);
        feature_ref_free(ref);
        payload_deinit(&payload);
        if (seed == 0)
            channel_say(channel, "started");
    }
    CHECK_OK(feature_drain(feature, 20000));
    feature_disconnect(feature);
    return 0;
}

static void beside_a_neighbour(const char *ini, void (*hostile)(struct cluster *cluster)) {
    struct cluster cluster;
    struct process neighbour;
    cluster_start(&cluster, &(struct cluster_options){.nodes = 1, .ini = ini});
    process_fork(&neighbour, behave_well, &cluster);
    channel_expect(neighbour.channel, "started", 20000);
    hostile(&cluster);
    CHECK(process_running(&neighbour), "the well-behaved client failed");
    channel_say(neighbour.channel, "end");
    process_join(&neighbour, 30000);
    cluster_await_empty(&cluster, 0);
    cluster_stop(&cluster);
}

#define HOSTILE(NAME, INI)                                                                         \
    static void NAME(struct cluster *cluster);                                                     \
    Test(hostile_clients, NAME, .timeout = 120) {                                                  \
        beside_a_neighbour(INI, NAME);                                                             \
    }                                                                                              \
    static void NAME(struct cluster *cluster)

static void greeted(struct cluster *cluster, struct wire *wire) {
    wire_connect(wire, cluster->nodes[0].socket_path);
    wire_hello(wire, 666);
}

static void check_closed(struct wire *wire, const char *what) {
    CHECK(wire_closed(wire, 20000), "the broker kept a session that %s", what);
    wire_close(wire);
}

/* ---- what is no frame ---- */

HOSTILE(rubbish, "[store run]\n") {
    static uint8_t bytes[FRAME_CLIENT_BYTES_MAX];
    uint64_t seed = check_seed("hostile_clients");
    for (int i = 0; i < 100; i++) {
        struct wire wire;
        size_t count = 1 + check_random(&seed) % (i % 10 == 0 ? sizeof bytes : 200);
        for (size_t at = 0; at < count; at++)
            bytes[at] = (uint8_t)check_random(&seed);
        if (i % 2)
            greeted(cluster, &wire);
        else
            wire_connect(&wire, cluster->nodes[0].socket_path);
        CHECK(wire_send_bytes(&wire, bytes, count), "send: %s", strerror(errno));
        check_closed(&wire, "sent rubbish");
    }
}

/* A well-formed Put, packed. */
static size_t pack_put(uint8_t *packet, const char *sample_id, uint32_t claimed_bytes) {
    struct wire_sample sample;
    wire_sample(&sample, "0123456789", 10);
    Fb__PutItem item = FB__PUT_ITEM__INIT, *items = &item;
    item.sample_id = (char *)sample_id;
    item.spec = (ProtobufCBinaryData){.data = sample.spec, .len = sample.spec_bytes};
    item.checksums = (ProtobufCBinaryData){.data = sample.checksum, .len = 8};
    item.bytes = claimed_bytes;
    Fb__Put put = FB__PUT__INIT;
    put.handle = 1;
    put.n_items = 1;
    put.items = &items;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_PUT;
    request.put = &put;
    size_t body_bytes = fb__client_request__pack(&request, packet + FRAME_HEADER_BYTES);
    struct frame_header header = {.version = FRAME_VERSION,
                                  .type = FRAME_REQUEST,
                                  .request_id = 99,
                                  .body_bytes = (uint32_t)body_bytes,
                                  .payload_bytes = 10};
    frame_encode(&header, packet);
    memcpy(packet + FRAME_HEADER_BYTES + body_bytes, "0123456789", 10);
    return FRAME_HEADER_BYTES + body_bytes + 10;
}

HOSTILE(truncated_packets, "[store run]\n") {
    uint8_t packet[1024];
    size_t count = pack_put(packet, "cut", 10);
    for (size_t cut = 1; cut < count; cut += cut < 20 ? 1 : 7) {
        struct wire wire;
        greeted(cluster, &wire);
        CHECK(wire_send_bytes(&wire, packet, cut), "send: %s", strerror(errno));
        check_closed(&wire, "sent a truncated packet");
    }
}

HOSTILE(truncated_protobuf, "[store run]\n") {
    uint8_t packet[1024];
    size_t count = pack_put(packet, "cut", 10);
    size_t body_bytes = count - FRAME_HEADER_BYTES - 10;
    for (size_t cut = 1; cut < body_bytes;
         cut += 5) { /* the header agrees, the message ends early */
        struct frame_header header = {.version = FRAME_VERSION,
                                      .type = FRAME_REQUEST,
                                      .request_id = 99,
                                      .body_bytes = (uint32_t)(body_bytes - cut)};
        struct wire wire;
        frame_encode(&header, packet);
        greeted(cluster, &wire);
        CHECK(wire_send_bytes(&wire, packet, FRAME_HEADER_BYTES + body_bytes - cut), "send: %s",
              strerror(errno));
        check_closed(&wire, "sent truncated protobuf");
    }
}

HOSTILE(huge_sizes_in_the_header, "[store run]\n") {
    static const uint32_t sizes[][2] = {{UINT32_MAX, 0},
                                        {0, UINT32_MAX},
                                        {UINT32_MAX, UINT32_MAX},
                                        {0x80000000u, 0x80000000u},
                                        {131072, 131072}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct frame_header header = {.version = FRAME_VERSION,
                                      .type = FRAME_REQUEST,
                                      .request_id = 1,
                                      .body_bytes = sizes[i][0],
                                      .payload_bytes = sizes[i][1]};
        uint8_t packet[64] = {0};
        struct wire wire;
        frame_encode(&header, packet);
        greeted(cluster, &wire);
        CHECK(wire_send_bytes(&wire, packet, sizeof packet), "send: %s", strerror(errno));
        check_closed(&wire, "claimed a huge frame");
    }
}

/* ---- frames that lie ---- */

/* INVALID, DENIED or FULL for the request or its item, or the session's end; never OK. */
static void check_refused(struct wire *wire, const char *what) {
    Fb__ClientReply *reply = wire_receive(wire, 10000);
    if (reply == NULL)
        return;
    Fb__Status status = reply->status;
    if (status == FB__STATUS__OK && reply->result_case == FB__CLIENT_REPLY__RESULT_PUT)
        status = reply->put->items[0]->status;
    CHECK(status != FB__STATUS__OK && status != FB__STATUS__INTERNAL, "%s: status %d", what,
          status);
    fb__client_reply__free_unpacked(reply, NULL);
}

HOSTILE(inline_sizes_that_lie, "[store run]\n") {
    static const uint32_t claims[] = {0, 9, 11, 4096, UINT32_MAX};
    for (size_t i = 0; i < sizeof claims / sizeof *claims; i++) {
        uint8_t packet[1024];
        struct wire wire;
        greeted(cluster, &wire);
        CHECK(wire_open(&wire, "run") == 1, "not the first handle");
        CHECK(wire_send_bytes(&wire, packet, pack_put(packet, "lie", claims[i])), "send: %s",
              strerror(errno));
        check_refused(&wire, "a put whose size is not that of its payload");
        wire_close(&wire);
    }
}

HOSTILE(sizes_that_overflow, "[store run]\n") {
    static const uint64_t shapes[][2] = {{UINT64_MAX, 1},
                                         {UINT64_MAX, UINT64_MAX},
                                         {1ull << 62, 4},
                                         {1ull << 33, 1ull << 33},
                                         {1ull << 62, 1}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct wire wire;
        uint8_t packed[256];
        uint64_t shape[2] = {shapes[i][0], shapes[i][1]};
        greeted(cluster, &wire);
        Fb__TensorSpec tensor = FB__TENSOR_SPEC__INIT, *tensors = &tensor;
        tensor.name = (char *)"x";
        tensor.dtype = FB__DTYPE__F64;
        tensor.n_shape = 2;
        tensor.shape = shape;
        tensor.bytes = shape[0] * shape[1] * 8u;
        Fb__SampleSpec spec = FB__SAMPLE_SPEC__INIT;
        spec.n_tensors = 1;
        spec.tensors = &tensors;
        Fb__ReserveItem item = FB__RESERVE_ITEM__INIT, *items = &item;
        item.sample_id = (char *)"huge";
        item.spec =
            (ProtobufCBinaryData){.data = packed, .len = fb__sample_spec__pack(&spec, packed)};
        Fb__Reserve reserve = FB__RESERVE__INIT;
        reserve.handle = wire_open(&wire, "run");
        reserve.n_items = 1;
        reserve.items = &items;
        Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
        request.op_case = FB__CLIENT_REQUEST__OP_RESERVE;
        request.reserve = &reserve;
        CHECK(wire_send(&wire, FRAME_REQUEST, &request, NULL, 0) != 0, "session closed");
        check_refused(&wire, "a reservation of an impossible size");
        wire_close(&wire);
    }
}

HOSTILE(requests_before_hello, "[store run]\n") {
    struct wire wire;
    uint8_t nonce[32] = {0};
    Fb__StoreOpen open = FB__STORE_OPEN__INIT;
    open.store = (char *)"run";
    open.client_nonce = (ProtobufCBinaryData){.data = nonce, .len = sizeof nonce};
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_STORE_OPEN;
    request.store_open = &open;
    wire_connect(&wire, cluster->nodes[0].socket_path);
    CHECK(wire_send(&wire, FRAME_REQUEST, &request, NULL, 0) != 0, "send");
    check_closed(&wire, "opened a store without Hello");
    CHECK(wire.passed_fd < 0, "an arena was passed along");

    Fb__ClientRequest empty = FB__CLIENT_REQUEST__INIT;
    greeted(cluster, &wire);
    CHECK(wire_send(&wire, FRAME_REQUEST, &empty, NULL, 0) != 0, "send");
    check_closed(&wire, "sent an empty request");
}

HOSTILE(silence, "[store run]\n") {
    struct wire silent[8];
    for (int i = 0; i < 8; i++)
        wire_connect(&silent[i], cluster->nodes[0].socket_path);
    for (int i = 0; i < 8; i++)
        check_closed(&silent[i], "never said Hello");
}

HOSTILE(connections_that_come_and_go, "[store run]\n") {
    for (int i = 0; i < 300; i++) {
        struct wire wire;
        wire_connect(&wire, cluster->nodes[0].socket_path);
        if (i % 3 == 0)
            wire_hello(&wire, (uint64_t)i + 1);
        wire_close(&wire);
    }
}

/* ---- descriptors nobody asked for ---- */

HOSTILE(descriptors_sent_to_the_broker, "[store run]\n") {
    for (int i = 0; i < 20; i++) {
        struct wire wire;
        int fds[8];
        char control[CMSG_SPACE(sizeof fds)] = {0};
        struct iovec part = {.iov_base = (void *)"FB", .iov_len = 2};
        struct msghdr message = {.msg_iov = &part,
                                 .msg_iovlen = 1,
                                 .msg_control = control,
                                 .msg_controllen = sizeof control};
        greeted(cluster, &wire);
        for (int j = 0; j < 8; j++)
            fds[j] = wire.fd;
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof fds);
        memcpy(CMSG_DATA(header), fds, sizeof fds);
        CHECK(sendmsg(wire.fd, &message, MSG_NOSIGNAL) == 2, "sendmsg: %s", strerror(errno));
        check_closed(&wire, "sent descriptors");
    } /* cluster_stop() finds those that the broker kept */
}

/* ---- taking without end ---- */

/* Asks and asks without reading an answer: it is not listened to any more, costs what its answers
 * so far do, and has all of them when it reads after all. */
HOSTILE(answers_that_are_not_read,
        "[store run]\n[store s1]\n[store s2]\n[store s3]\n[store s4]\n[store s5]\n[store s6]\n"
        "[store s7]\n[store s8]\n[store s9]\n[store s10]\n[store s11]\n[store s12]\n") {
    struct wire wire;
    Fb__Stores stores = FB__STORES__INIT; /* its answer is many times as large */
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_STORES;
    request.stores = &stores;
    greeted(cluster, &wire);
    int flags = fcntl(wire.fd, F_GETFL);
    CHECK(fcntl(wire.fd, F_SETFL, O_NONBLOCK) == 0, "%s", strerror(errno));
    uint64_t sent = 0;
    for (struct pollfd room = {wire.fd, POLLOUT, 0}; poll(&room, 1, 300) > 0;) {
        sent += wire_send(&wire, FRAME_REQUEST, &request, NULL, 0) != 0;
        CHECK(sent < 1000000, "it takes any number of requests");
    }
    CHECK(check_private_bytes(cluster->nodes[0].process.pid) < 64u << 20, "memory without limit");
    CHECK(fcntl(wire.fd, F_SETFL, flags) == 0, "%s", strerror(errno));
    for (uint64_t i = 0; i < sent; i++) {
        Fb__ClientReply *reply = wire_receive(&wire, 20000);
        CHECK(reply != NULL && reply->status == FB__STATUS__OK, "answer %" PRIu64, i);
        fb__client_reply__free_unpacked(reply, NULL);
    }
    wire_close(&wire);
}

/* Gets that wait for a sample that never comes, one after the other. */
HOSTILE(more_requests_than_allowed, "[store run]\n[local]\nmax_requests_per_session = 8\n") {
    struct wire wire;
    Fb__GetItem item = FB__GET_ITEM__INIT, *items = &item;
    item.sample_id = (char *)"never";
    Fb__Get get = FB__GET__INIT;
    get.n_items = 1;
    get.items = &items;
    get.deadline_ms = get.wait_ms = 60000;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_GET;
    request.get = &get;
    greeted(cluster, &wire);
    get.handle = wire_open(&wire, "run");
    for (int i = 0; i < 64; i++)
        if (wire_send(&wire, FRAME_REQUEST, &request, NULL, 0) == 0)
            break; /* closed already */
    Fb__ClientReply *reply = wire_receive(&wire, 20000);
    CHECK(reply == NULL || reply->status == FB__STATUS__FULL, "status %d: %s", reply->status,
          reply->error);
    if (reply != NULL)
        fb__client_reply__free_unpacked(reply, NULL);
    CHECK(cluster_numbers(cluster, 0, "run").get_waiters <= 8, "%" PRIu64 " gets wait",
          cluster_numbers(cluster, 0, "run").get_waiters);
    wire_close(&wire);
}

HOSTILE(more_sessions_than_allowed, "[store run]\n[local]\nmax_sessions = 8\n") {
    struct wire wires[16];
    int refused = 0;
    Fb__Hello hello = FB__HELLO__INIT;
    hello.version_min = hello.version_max = VERSION_CLIENT.highest;
    hello.client_id = 1;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_HELLO;
    request.hello = &hello;
    for (int i = 0; i < 16; i++)
        wire_connect(&wires[i], cluster->nodes[0].socket_path);
    for (int i = 0; i < 16; i++) {
        bool sent = wire_send(&wires[i], FRAME_REQUEST, &request, NULL, 0) != 0;
        Fb__ClientReply *reply = sent ? wire_receive(&wires[i], 10000) : NULL;
        refused += reply == NULL || reply->status != FB__STATUS__OK;
        if (reply != NULL)
            fb__client_reply__free_unpacked(reply, NULL);
    }
    for (int i = 0; i < 16; i++)
        wire_close(&wires[i]);
    CHECK(refused == 9, "%d of 16 sessions were refused beside the neighbour, 8 are allowed",
          refused);
}
