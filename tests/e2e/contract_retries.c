/* SPDX-License-Identifier: Apache-2.0
 *
 * The contract, clause 14: a repeat of an operation, under the same client_id and op_id, from a
 * connection that took the place of a lost one, gets the first answer and has no second effect.
 */
#include <criterion/criterion.h>
#include <string.h>

#include "proto/frame.h"
#include "support/checks.h"
#include "support/wire.h"
#include "support/world.h"

#define CLIENT_ID 0x1122334455667788u

struct line {
    struct wire wire;
    uint32_t handle;
};

static struct line line_of(struct world *world, uint32_t node, uint64_t client_id) {
    struct line line;
    wire_connect(&line.wire, world->cluster.nodes[node].socket_path);
    wire_hello(&line.wire, client_id);
    line.handle = wire_open(&line.wire, "run");
    return line;
}

static uint64_t put(struct line *line, const char *sample_id, uint64_t op_id, const char *bytes) {
    Fb__ClientReply *reply =
        wire_put(&line->wire, line->handle, sample_id, op_id, bytes, strlen(bytes));
    CHECK(reply->status == FB__STATUS__OK && reply->put->items[0]->status == FB__STATUS__OK,
          "put: %s", reply->put != NULL ? reply->put->items[0]->error : reply->error);
    uint64_t generation = reply->put->items[0]->generation;
    fb__client_reply__free_unpacked(reply, NULL);
    return generation;
}

static void check_current(struct world *world, const char *sample_id, uint64_t generation,
                          const char *bytes) {
    struct feature_view *view = NULL;
    CHECK_OK(feature_get(world->consumer, by_id(sample_id), NULL, &view));
    CHECK(feature_ref_generation(feature_view_ref(view)) == generation, "another generation");
    CHECK(memcmp(feature_view_data(view, 0), bytes, strlen(bytes)) == 0, "other bytes");
    CHECK_OK(feature_release(view, FEATURE_RELEASE_RETURNED));
}

/* ack or abort of a sample as operation op_id; gives the item's status. */
static Fb__Status retire(struct line *line, bool abort, const char *sample_id, uint64_t generation,
                         const char *home, uint64_t op_id) {
    Fb__RetireItem item = FB__RETIRE_ITEM__INIT, *items = &item;
    item.sample_id = (char *)sample_id;
    item.generation = generation;
    item.home = (char *)home;
    Fb__Retire message = FB__RETIRE__INIT;
    message.handle = line->handle;
    message.n_items = 1;
    message.items = &items;
    message.op_id = op_id;
    message.deadline_ms = 10000;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = abort ? FB__CLIENT_REQUEST__OP_ABORT : FB__CLIENT_REQUEST__OP_ACK;
    if (abort)
        request.abort = &message;
    else
        request.ack = &message;
    Fb__ClientReply *reply = wire_call(&line->wire, &request);
    Fb__Status status =
        reply->status == FB__STATUS__OK ? reply->items->items[0]->status : reply->status;
    fb__client_reply__free_unpacked(reply, NULL);
    return status;
}

static void abort_sample(struct world *world, const char *sample_id) {
    CHECK_OK(feature_abort(world->producer, FEATURE_BY_ID(sample_id), 1, NULL));
    world_settle(world);
}

CONTRACT(c14_retries_are_safe, "[store run]\n") {
    struct line line = line_of(world, world->producer_node, CLIENT_ID);
    uint64_t first = put(&line, "s1", 7, "first bytes");
    wire_close(&line.wire); /* as if the answer had been lost */
    line = line_of(world, world->producer_node, CLIENT_ID);
    CHECK(put(&line, "s1", 7, "first bytes") == first, "the repeat made a second generation");
    uint64_t second = put(&line, "s1", 8, "second bytes");
    CHECK(second != first, "a new operation got the old answer");
    CHECK(put(&line, "s1", 7, "first bytes") == first, "the late repeat made a second generation");
    check_current(world, "s1", second, "second bytes"); /* and did not supersede the newer one */
    wire_close(&line.wire);

    line = line_of(world, world->producer_node, CLIENT_ID + 1);
    uint64_t third = put(&line, "s1", 7,
                         "third bytes"); /* the same op_id of another client is another operation */
    CHECK(third != first, "another client's answer");
    check_current(world, "s1", third, "third bytes");
    wire_close(&line.wire);
    abort_sample(world, "s1");
}

/* An abort by id that is repeated must not hit what was put in between. */
CONTRACT(c14_a_repeated_abort_spares_what_came_later, "[store run]\n") {
    struct line producer = line_of(world, world->producer_node, CLIENT_ID);
    struct line line = line_of(world, world->consumer_node, CLIENT_ID + 2);
    const char *home = world->cluster.nodes[world->producer_node].name;
    uint64_t first = put(&producer, "s1", 1, "first bytes");
    CHECK(retire(&line, true, "s1", first, home, 20) == FB__STATUS__OK, "abort refused");
    uint64_t second = put(&producer, "s1", 2, "second bytes");
    wire_close(&line.wire);
    line = line_of(world, world->consumer_node, CLIENT_ID + 2);
    CHECK(retire(&line, true, "s1", first, home, 20) == FB__STATUS__OK, "the repeat was refused");
    CHECK(retire(&line, false, "s1", first, home, 21) == FB__STATUS__OK, "a stale ack was refused");
    check_current(world, "s1", second, "second bytes");
    wire_close(&line.wire);
    wire_close(&producer.wire);
    abort_sample(world, "s1");
}

CONTRACT(c14_a_repeated_abort_by_id_spares_what_came_later, "[store run]\n") {
    struct line producer = line_of(world, world->producer_node, CLIENT_ID);
    put(&producer, "s1", 1, "first bytes");
    CHECK(retire(&producer, true, "s1", 0, "", 20) == FB__STATUS__OK, "abort refused");
    uint64_t second = put(&producer, "s1", 2, "second bytes");
    CHECK(retire(&producer, true, "s1", 0, "", 20) == FB__STATUS__OK, "the repeat was refused");
    check_current(world, "s1", second, "second bytes");
    wire_close(&producer.wire);
    abort_sample(world, "s1");
}
