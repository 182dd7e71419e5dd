/* SPDX-License-Identifier: Apache-2.0
 *
 * What TCP and RDMA have alike, without a medium: connections and their ends, strangers, the order
 * of a handshake's steps, control frames, the queue of reads.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "proto/container.h"
#include "transport/control.h"
#include "transport/proving.h"
#include "transport/read_queue.h"

/* ---- a medium that moves nothing ---- */

struct world {
    struct endpoint endpoint;
    uint32_t stopped, freed, messages, reads_done, closed, destroyed;
    int read_status;
    char why[192];
    uint8_t memory[4096];
    uint32_t region;
};

static struct world *world_of(struct endpoint *endpoint) {
    return container_of(endpoint, struct world, endpoint);
}

static void medium_stop(struct connection *conn) {
    world_of(conn->endpoint)->stopped++;
}

static void medium_free(struct endpoint *endpoint) {
    world_of(endpoint)->freed++;
}

static const struct endpoint_medium medium = {
    .ops = {.name = "none"}, .strangers_max = 3, .stop = medium_stop, .free = medium_free};

static void on_message(void *owner, void *user, const void *data, size_t bytes) {
    struct world *world = owner;
    (void)user, (void)data, (void)bytes;
    world->messages++;
}

static void on_read_done(void *owner, void *user, void *read_user, int status) {
    struct world *world = owner;
    (void)user, (void)read_user;
    world->reads_done++;
    world->read_status = status;
}

static void on_closed(void *owner, void *user, const char *why) {
    struct world *world = owner;
    (void)user;
    world->closed++;
    snprintf(world->why, sizeof world->why, "%s", why);
}

static const struct transport_events events = {
    .message = on_message, .read_done = on_read_done, .closed = on_closed};

static struct world *world_new(void) {
    struct world *world = calloc(1, sizeof *world);
    struct transport_options options = {.chunk_bytes = 1024,
                                        .reads_per_connection = 2,
                                        .handshake_timeout_ms = 7,
                                        .send_queue_bytes = 100,
                                        .connections_max = 1};
    struct transport_setup setup = {NULL, &options, &events, world};
    cr_assert_not_null(world);
    cr_assert_eq(auth_init(), 0);
    cr_assert_eq(endpoint_init(&world->endpoint, &medium, &setup), 0);
    cr_assert_eq(
        endpoint_add_region(&world->endpoint, world->memory, sizeof world->memory, &world->region),
        0);
    return world;
}

static void world_free(struct world *world) {
    regions_deinit(&world->endpoint.regions);
    free(world);
}

static void conn_init(struct world *world, struct connection *conn) {
    *conn = (struct connection){0};
    connection_init(conn, &world->endpoint, false);
    connection_belongs_to(conn, world);
    conn->up = true;
}

/* ---- ends ---- */

Test(transport_common, the_first_reason_of_an_end_stays_and_no_event_comes_from_inside) {
    struct world *world = world_new();
    struct connection conn;
    conn_init(world, &conn);
    connection_fail(&conn, -EPROTO, "first %d", 1);
    connection_fail(&conn, -EIO, "second");
    cr_assert_eq(world->stopped, 1);
    cr_assert_eq(world->closed, 0);
    cr_assert_not(connection_is_usable(&conn));
    connection_raise_closed(&conn);
    cr_assert_eq(world->closed, 1);
    cr_assert_str_eq(world->why, "first 1");
    cr_assert_eq(conn.end_status, -EPROTO);
    world_free(world);
}

Test(transport_common, an_endpoint_is_freed_with_its_last_connection) {
    struct world *world = world_new();
    struct connection conn;
    conn_init(world, &conn);
    endpoint_destroy(&world->endpoint, NULL);
    endpoint_release(&world->endpoint);
    cr_assert(conn.closing);
    cr_assert_eq(world->freed, 0, "a connection still holds it");
    connection_deinit(&conn);
    endpoint_release(&world->endpoint);
    cr_assert_eq(world->freed, 1);
    world_free(world);
}

Test(transport_common, accepted_connections_are_limited_and_found_by_their_id) {
    struct world *world = world_new();
    struct connection conn = {0};
    cr_assert(endpoint_has_room(&world->endpoint));
    connection_init(&conn, &world->endpoint, true);
    connection_give_id(&conn);
    cr_assert_not(endpoint_has_room(&world->endpoint));
    cr_assert_eq(endpoint_find(&world->endpoint, conn.id), &conn);
    cr_assert_null(endpoint_find(&world->endpoint, conn.id + 1));
    connection_fail(&conn, -EIO, "gone");
    cr_assert_null(endpoint_find(&world->endpoint, conn.id),
                   "a bulk link must not join it any more");
    connection_raise_closed(&conn);
    cr_assert_eq(world->closed, 0, "its owner has never heard of it");
    connection_deinit(&conn);
    cr_assert(endpoint_has_room(&world->endpoint));
    world_free(world);
}

/* ---- strangers ---- */

Test(transport_common, the_oldest_stranger_makes_room) {
    struct strangers strangers;
    struct stranger all[5] = {{.is_one = false}};
    strangers_init(&strangers, 3);
    for (size_t i = 0; i < 3; i++)
        cr_assert_null(strangers_add(&strangers, &all[i]));
    strangers_remove(&strangers, &all[0]); /* he has proved himself */
    strangers_remove(&strangers, &all[0]);
    cr_assert_null(strangers_add(&strangers, &all[3]));
    cr_assert_eq(strangers_add(&strangers, &all[4]), &all[1]);
    strangers_remove(&strangers, &all[1]);
    cr_assert_eq(strangers.count, 3);
    cr_assert_eq(strangers_oldest(&strangers), &all[2]);
}

Test(transport_common, strangers_fill_no_journal) {
    struct strangers strangers;
    strangers_init(&strangers, 3);
    cr_assert(strangers_may_log(&strangers, 5000));
    strangers_log(&strangers, 5000, "listener", "10.0.0.1:1", "silent");
    cr_assert_not(strangers_may_log(&strangers, 5001));
    cr_assert_not(strangers_may_log(&strangers, 5999));
    cr_assert_eq(strangers.unlogged, 2);
    cr_assert(strangers_may_log(&strangers, 6000));
}

/* ---- the steps of a handshake ---- */

static void carry(struct handshake *from, struct handshake *to) {
    const uint8_t *out;
    size_t bytes = handshake_output(from, &out);
    while (bytes > 0) {
        uint8_t *into;
        size_t want = handshake_want(to, &into);
        cr_assert_gt(want, 0);
        want = want < bytes ? want : bytes;
        memcpy(into, out, want);
        handshake_received(to, want);
        handshake_sent(from, want);
        bytes = handshake_output(from, &out);
    }
}

static void prove(const struct transport_options *asker_options,
                  const struct transport_options *answerer_options, struct handshake **asker,
                  struct handshake **answerer) {
    *asker = proving_new_asker(asker_options, HANDSHAKE_CONTROL, 0);
    *answerer = proving_new_answerer(answerer_options);
    cr_assert_eq(proving_next(*answerer), PROVING_RECEIVE);
    cr_assert_eq(proving_next(*asker), PROVING_SEND);
    carry(*asker, *answerer); /* HELLO */
    carry(*answerer, *asker); /* CHALLENGE */
    carry(*asker, *answerer); /* PROOF */
}

Test(transport_common, an_answer_is_sent_before_a_link_opens) {
    struct transport_options options = {.hello = "x", .hello_bytes = 1};
    struct handshake *asker, *answerer;
    cr_assert_eq(auth_init(), 0);
    prove(&options, &options, &asker, &answerer);
    cr_assert_eq(proving_next(asker), PROVING_RECEIVE);
    cr_assert_eq(proving_next(answerer), PROVING_ADOPT);
    handshake_accept(answerer, 42);
    cr_assert_eq(proving_next(answerer), PROVING_SEND);
    carry(answerer, asker);
    cr_assert_eq(proving_next(answerer), PROVING_OPEN);
    cr_assert_eq(proving_next(asker), PROVING_OPEN);
    struct seal asker_out, asker_in, answerer_out, answerer_in;
    proving_make_seals(asker, &options, &asker_out, &asker_in);
    proving_make_seals(answerer, &options, &answerer_out, &answerer_in);
    cr_assert_eq(memcmp(asker_out.key, answerer_in.key, sizeof asker_out.key), 0);
    cr_assert_eq(memcmp(asker_in.key, answerer_out.key, sizeof asker_in.key), 0);
    proving_free(asker);
    proving_free(answerer);
}

Test(transport_common, a_refusal_is_sent_before_a_link_ends) {
    static const uint8_t one[AUTH_KEY_BYTES] = "one", other[AUTH_KEY_BYTES] = "other";
    struct transport_options options = {.cluster_key = one}, others = {.cluster_key = other};
    struct handshake *asker, *answerer;
    cr_assert_eq(auth_init(), 0);
    prove(&options, &others, &asker, &answerer);
    cr_assert_eq(proving_next(answerer), PROVING_SEND);
    carry(answerer, asker);
    cr_assert_eq(proving_next(answerer), PROVING_END);
    cr_assert_eq(proving_next(asker), PROVING_END);
    cr_assert_str_eq(asker->why, "wrong cluster secret");
    proving_free(asker);
    proving_free(answerer);
}

/* ---- control frames ---- */

enum { OWN_TYPE = 2 };

static const char *check_any(uint32_t type, uint32_t body_bytes) {
    (void)type;
    return body_bytes <= 1024 ? NULL : "too long";
}

static const char *deliver_or_end(struct connection *conn, const struct sealed_frame *frame) {
    if (frame->type == CONTROL_MESSAGE)
        control_raise_message(conn, frame);
    else
        connection_fail(conn, -ECONNRESET, "enough");
    return NULL;
}

static void queue_frame(struct connection *conn, struct seal *seal, struct byte_queue *queue,
                        uint32_t type) {
    char body[] = "body";
    struct iovec part = {body, sizeof body};
    struct control_frame frame;
    cr_assert_eq(control_seal(conn, seal, 0, type, &part, 1, &frame), 0);
    cr_assert_eq(frame.bytes, SEALED_HEADER_BYTES + sizeof body);
    cr_assert_eq(byte_queue_reserve(queue, frame.bytes), 0);
    for (int i = 0; i < frame.part_count; i++)
        byte_queue_append(queue, frame.parts[i].iov_base, frame.parts[i].iov_len);
}

Test(transport_common, messages_are_refused_where_frames_of_the_transport_are_not) {
    struct world *world = world_new();
    struct connection conn;
    struct control_frame frame;
    struct seal seal = {.keyed = false};
    char body[200] = "";
    struct iovec part = {body, sizeof body};
    conn_init(world, &conn);
    cr_assert_eq(control_seal(&conn, &seal, 0, CONTROL_MESSAGE, &part, 1, &frame), 0,
                 "a frame always fits into an empty queue");
    cr_assert_eq(control_seal(&conn, &seal, 1, CONTROL_MESSAGE, &part, 1, &frame), -ENOBUFS);
    cr_assert_eq(control_seal(&conn, &seal, 1, OWN_TYPE, &part, 1, &frame), 0);
    cr_assert_eq(control_seal(&conn, &seal, 2 << 20, OWN_TYPE, &part, 1, &frame), -ENOBUFS);
    cr_assert_eq(seal.sequence, 2, "a frame that is refused uses up no number");
    cr_assert_eq(conn.counters.message_bytes_out, sizeof body);
    world_free(world);
}

Test(transport_common, frames_are_delivered_until_one_of_them_ends_the_connection) {
    struct world *world = world_new();
    struct connection conn;
    struct byte_queue queue = {0};
    struct seal out = {.keyed = true, .key = "key"}, in = out;
    conn_init(world, &conn);
    queue_frame(&conn, &out, &queue, CONTROL_MESSAGE);
    queue_frame(&conn, &out, &queue, CONTROL_MESSAGE);
    queue.end -= 1; /* the last byte is still on its way */
    control_deliver(&conn, &in, &queue, check_any, deliver_or_end);
    cr_assert_eq(world->messages, 1);
    /* It has come: the queue may have moved what it holds, and the byte is the body's last one. */
    byte_queue_append(&queue, "", 1);
    control_deliver(&conn, &in, &queue, check_any, deliver_or_end);
    cr_assert_eq(world->messages, 2);
    queue_frame(&conn, &out, &queue, OWN_TYPE);
    queue_frame(&conn, &out, &queue, CONTROL_MESSAGE);
    control_deliver(&conn, &in, &queue, check_any, deliver_or_end);
    cr_assert_eq(world->messages, 2);
    cr_assert(conn.closing);
    byte_queue_deinit(&queue);
    world_free(world);
}

Test(transport_common, a_forged_frame_ends_the_connection) {
    struct world *world = world_new();
    struct connection conn;
    struct byte_queue queue = {0};
    struct seal out = {.keyed = true, .key = "key"}, in = out;
    conn_init(world, &conn);
    queue_frame(&conn, &out, &queue, CONTROL_MESSAGE);
    queue.data[queue.end - 1] ^= 1;
    control_deliver(&conn, &in, &queue, check_any, deliver_or_end);
    cr_assert_eq(world->messages, 0);
    cr_assert_eq(conn.end_status, -EPROTO);
    cr_assert_str_eq(conn.why, "peer sent a bad frame: wrong tag");
    byte_queue_deinit(&queue);
    world_free(world);
}

/* ---- reads ---- */

static void free_read(struct queued_read *read) {
    free(read);
}

static void add_read(struct world *world, struct read_queue *queue, struct connection *conn) {
    struct transport_read ask = {
        .key = "k", .key_bytes = 1, .bytes = 16, .local = world->memory + 8};
    struct queued_read *read = calloc(1, sizeof *read);
    uint32_t region;
    cr_assert_not_null(read);
    cr_assert_eq(read_queue_check(conn, &ask, &region), 0);
    cr_assert_eq(region, world->region);
    read_queue_add(queue, read, &ask, region);
}

Test(transport_common, reads_wait_while_enough_are_active_and_end_with_their_connection) {
    struct world *world = world_new();
    struct connection conn;
    struct read_queue queue;
    conn_init(world, &conn);
    read_queue_init(&queue, world->endpoint.options.reads_per_connection);
    for (int i = 0; i < 4; i++)
        add_read(world, &queue, &conn);
    struct queued_read *first = read_queue_start(&queue), *second = read_queue_start(&queue);
    cr_assert(first != NULL && second != NULL);
    cr_assert_null(read_queue_start(&queue));
    read_queue_to_the_back(&queue, first);
    cr_assert_eq(TAILQ_FIRST(&queue.active), second);
    read_queue_leave(&queue, second);
    free(second);
    cr_assert_not_null(read_queue_start(&queue));
    cr_assert_eq(read_queue_count(&queue), 3);
    cr_assert(read_queue_uses(&queue, world->region));
    cr_assert_not(read_queue_uses(&queue, world->region + 1));
    connection_fail(&conn, -ECONNRESET, "gone");
    read_queue_end(&queue, &conn, free_read);
    cr_assert_eq(world->reads_done, 3);
    cr_assert_eq(world->read_status, -ECONNRESET);
    cr_assert_eq(read_queue_count(&queue), 0);
    world_free(world);
}

Test(transport_common, a_read_must_land_in_memory_of_ours_on_a_usable_connection) {
    struct world *world = world_new();
    struct connection conn;
    struct transport_read ask = {
        .key = "k", .key_bytes = 1, .bytes = sizeof world->memory + 1, .local = world->memory};
    uint32_t region;
    conn_init(world, &conn);
    cr_assert_eq(read_queue_check(&conn, &ask, &region), -EINVAL);
    ask.bytes = 1;
    cr_assert_eq(read_queue_check(&conn, &ask, &region), 0);
    ask.key_bytes = 0;
    cr_assert_eq(read_queue_check(&conn, &ask, &region), -EINVAL);
    connection_fail(&conn, -EIO, "gone");
    cr_assert_eq(read_queue_check(&conn, &ask, &region), -ENOTCONN);
    world_free(world);
}
