/* SPDX-License-Identifier: Apache-2.0
 *
 * A link that could be had over something better is dialled anew when nothing is under way on it,
 * and no call is lost by that. The transport is played by the test.
 */
#include <criterion/criterion.h>
#include <string.h>

#include "peer/peer.h"
#include "proto/frame.h"

enum { CALLS_MAX = 8 };
#define SECOND_NS UINT64_C(1000000000)

struct world {
    struct transport transport;
    struct deadlines deadlines;
    struct peers *peers;
    struct peer *peer;
    void *user; /* of the connection */
    unsigned dials, closes;
    uint32_t sent[CALLS_MAX]; /* request ids on the present connection */
    unsigned sent_count;
    unsigned answered, failed;
    uint64_t now_ns;
};

static struct world world; /* the operations of a transport know only the connection */

static int play_connect(struct transport *t, const char *address, const char *data_address,
                        void *user, struct transport_conn **out) {
    (void)data_address;
    cr_assert_eq(t, &world.transport);
    cr_assert_str_eq(address, "home:1");
    world.user = user;
    world.dials++;
    world.sent_count = 0;
    *out = (struct transport_conn *)&world;
    return 0;
}

static int play_send(struct transport_conn *conn, const struct iovec *parts, int part_count) {
    struct frame_header header;
    uint8_t frame[256];
    size_t bytes = 0;
    cr_assert_eq(conn, (struct transport_conn *)&world);
    for (int i = 0; i < part_count; i++) {
        memcpy(frame + bytes, parts[i].iov_base, parts[i].iov_len);
        bytes += parts[i].iov_len;
    }
    cr_assert_null(frame_open(frame, bytes, FRAME_PEER_BYTES_MAX, &header));
    cr_assert_lt(world.sent_count, CALLS_MAX);
    world.sent[world.sent_count++] = header.request_id;
    return 0;
}

static void play_close(struct transport_conn *conn) {
    cr_assert_eq(conn, (struct transport_conn *)&world);
    world.closes++;
}

static void play_query(const struct transport_conn *conn, struct transport_info *info) {
    (void)conn;
    *info = (struct transport_info){0};
}

static const struct transport_ops ops = {.name = "played",
                                         .connect = play_connect,
                                         .send = play_send,
                                         .close = play_close,
                                         .query = play_query};

static void on_link_up(void *owner, struct peer *peer) {
    (void)owner, (void)peer;
}

static uint64_t clock_ns(void *context) {
    (void)context;
    return world.now_ns;
}

static void come_up(void) {
    struct peers_options home = {.node = "home", .incarnation = 7};
    uint8_t hello[TRANSPORT_HELLO_BYTES_MAX];
    size_t bytes = peers_hello(&home, hello);
    peers_transport_events.up(world.peers, world.user, hello, bytes);
    cr_assert(peer_is_up(world.peer));
}

static void end(void) {
    peers_free(world.peers);
}

static void pass(uint64_t ns) {
    world.now_ns += ns;
    peers_begin_turn(world.peers, world.now_ns);
    deadlines_run(&world.deadlines, world.now_ns, UINT32_MAX);
}

static void on_done(void *context, const Fb__PeerReply *reply, const uint8_t *payload,
                    size_t payload_bytes, const char *why) {
    (void)context, (void)payload, (void)payload_bytes, (void)why;
    world.answered += reply != NULL;
    world.failed += reply == NULL;
}

static void call(void) {
    Fb__PeerPing empty = FB__PEER_PING__INIT;
    Fb__PeerRequest request = FB__PEER_REQUEST__INIT;
    request.op_case = FB__PEER_REQUEST__OP_PING;
    request.ping = &empty;
    cr_assert_eq(peer_call(world.peer, &request, on_done, NULL, world.now_ns), 0);
}

static void answer(uint32_t request_id) {
    Fb__PeerReply reply = FB__PEER_REPLY__INIT;
    uint8_t frame[256];
    size_t body_bytes = fb__peer_reply__get_packed_size(&reply);
    struct frame_header header = {FRAME_VERSION, FRAME_REPLY, request_id, (uint32_t)body_bytes, 0};
    frame_encode(&header, frame);
    fb__peer_reply__pack(&reply, frame + FRAME_HEADER_BYTES);
    peers_transport_events.message(world.peers, world.user, frame, FRAME_HEADER_BYTES + body_bytes);
}

static void start(void) {
    struct peers_options options = {.node = "asker",
                                    .ping_interval_ns = 100 * SECOND_NS,
                                    .timeout_ns = 300 * SECOND_NS,
                                    .reconnect_max_ns = SECOND_NS,
                                    .clock_ns = clock_ns,
                                    .deadlines = &world.deadlines};
    struct peers_events events = {.link_up = on_link_up};
    world = (struct world){.transport.ops = &ops, .now_ns = SECOND_NS};
    cr_assert_eq(peers_new(&options, &events, NULL, &world.peers), 0);
    peers_set_transport(world.peers, &world.transport);
    world.peer = peers_add(world.peers, "home", "home:1", "");
    pass(0);
    cr_assert_eq(world.dials, 1);
    come_up();
    pass(0); /* the ping that greets */
    answer(world.sent[0]);
    world.sent_count = 0;
}

static void better(void) {
    peers_transport_events.better(world.peers, world.user);
}

static void closed(void) {
    peers_transport_events.closed(world.peers, world.user, "");
}

Test(peer_moving, idle_link_moves_at_once) {
    start();
    better();
    cr_assert_eq(world.closes, 1);
    closed();
    cr_assert_eq(world.dials, 2, "dialled again without back-off");
    come_up();
    pass(SECOND_NS);
    cr_assert_eq(world.closes, 1, "it moves once");
    end();
}

Test(peer_moving, link_in_use_moves_after_the_answer_and_new_calls_wait_for_it) {
    start();
    call();
    better();
    call();
    cr_assert_eq(world.closes, 0);
    cr_assert_eq(world.sent_count, 1, "the second call is held back");
    answer(world.sent[0]);
    cr_assert_eq(world.closes, 1);
    call(); /* while it closes */
    closed();
    come_up();
    cr_assert_eq(world.sent_count, 2, "both calls are made on the new link");
    answer(world.sent[0]);
    answer(world.sent[1]);
    cr_assert(world.answered == 3 && world.failed == 0);
    end();
}

Test(peer_moving, calls_are_not_held_back_for_long) {
    start();
    call();
    better();
    call();
    pass(SECOND_NS / 2);
    cr_assert_eq(world.sent_count, 1);
    cr_assert_leq(deadlines_next_ns(&world.deadlines), world.now_ns + SECOND_NS / 2);
    pass(SECOND_NS / 2);
    cr_assert_eq(world.sent_count, 2, "after a second they go out on the old link");
    answer(world.sent[0]);
    cr_assert_eq(world.closes, 0);
    answer(world.sent[1]);
    cr_assert_eq(world.closes, 1, "idle now");
    end();
}

Test(peer_moving, calls_that_waited_fail_when_the_new_link_does) {
    start();
    call();
    better();
    call();
    answer(world.sent[0]);
    closed();
    cr_assert_eq(world.failed, 0);
    peers_transport_events.closed(world.peers, world.user, "connection refused");
    cr_assert_eq(world.failed, 1);
    end();
}
