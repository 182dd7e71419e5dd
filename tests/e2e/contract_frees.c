/* SPDX-License-Identifier: Apache-2.0
 *
 * The contract, clauses 6, 7 and 8: holders that die, homes that do not answer, samples nobody
 * wants.
 */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "support/checks.h"
#include "support/wire.h"
#include "support/world.h"

#define MIB       1048576u
#define RUN_STORE "[store run]\n"

/* ---- 6: a dead holder consumes nothing ---- */

/* A helper that holds a lease of s1 until it is killed. */
static int hold_a_lease(int channel, void *context) {
    struct world *world = context;
    struct feature *feature = cluster_connect(&world->cluster, world->consumer_node);
    struct feature_view *view = NULL;
    CHECK_OK(feature_get(cluster_open(feature, "run", true), by_id("s1"), NULL, &view));
    channel_say(channel, "held");
    channel_expect(channel, "never", 60000);
    return 1;
}

CONTRACT(c6_a_dead_holder_consumes_nothing, RUN_STORE) {
    struct payload payload;
    struct feature_ref *ref = NULL;
    struct process reader;
    payload_init(&payload, "s1", 1, MIB);
    CHECK_OK(payload_put(&payload, world->producer, 0, &ref));
    process_fork(&reader, hold_a_lease, world);
    channel_expect(reader.channel, "held", 20000);
    CHECK(world_home(world).leases == 1, "%" PRIu64 " leases at home", world_home(world).leases);
    process_kill(&reader);
    WAIT_UNTIL(world_home(world).leases == 0, 20000);
    payload_check_get(&payload, world->consumer, by_ref(ref), FEATURE_RELEASE_RETURNED);
    payload_check_get(&payload, world->consumer, by_ref(ref), FEATURE_RELEASE_CONSUMED);
    world_settle(world);
    CHECK_STATUS(FEATURE_E_NOT_FOUND, world_try_get(world->consumer, by_ref(ref), 10000));
    feature_ref_free(ref);
    payload_deinit(&payload);
}

struct token {
    uint64_t hi, lo;
};

/* Leases the generation of ref at the consumer's broker with a connection of its own, and drops the
 * connection. */
static struct token lease_and_die(struct world *world, const struct feature_ref *ref) {
    struct wire wire;
    wire_connect(&wire, world->cluster.nodes[world->consumer_node].socket_path);
    wire_hello(&wire, 4711);
    uint32_t handle = wire_open(&wire, "run");
    Fb__GetItem item = FB__GET_ITEM__INIT, *items = &item;
    item.sample_id = (char *)feature_ref_sample_id(ref);
    item.generation = feature_ref_generation(ref);
    item.home = (char *)feature_ref_home(ref);
    Fb__Get get = FB__GET__INIT;
    get.handle = handle;
    get.n_items = 1;
    get.items = &items;
    get.deadline_ms = 10000;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_GET;
    request.get = &get;
    Fb__ClientReply *reply = wire_call(&wire, &request);
    CHECK(reply->status == FB__STATUS__OK && reply->get->items[0]->status == FB__STATUS__OK,
          "get: %s", reply->get != NULL ? reply->get->items[0]->error : reply->error);
    struct token token = {reply->get->items[0]->lease_hi, reply->get->items[0]->lease_lo};
    fb__client_reply__free_unpacked(reply, NULL);
    wire_close(&wire);
    WAIT_UNTIL(world_home(world).leases == 0, 20000);
    return token;
}

CONTRACT(c6_a_late_consumed_counts_once, "[store run]\nreaders = 2\n") {
    struct payload payload;
    struct feature_ref *ref = NULL;
    struct wire wire;
    payload_init(&payload, "s1", 2, MIB);
    CHECK_OK(payload_put(&payload, world->producer, 0, &ref));
    struct token first = lease_and_die(world, ref), second = lease_and_die(world, ref);
    wire_connect(&wire, world->cluster.nodes[world->consumer_node].socket_path);
    wire_hello(&wire, 4711);
    uint32_t handle = wire_open(&wire, "run");
    for (int i = 0; i < 3; i++)
        CHECK(wire_release(&wire, handle, first.hi, first.lo, true) == FB__STATUS__OK,
              "late release refused");
    world_settle(world);
    CHECK_OK(feature_exists(world->consumer, by_ref(ref)));
    CHECK(wire_release(&wire, handle, second.hi, second.lo, true) == FB__STATUS__OK,
          "late release refused");
    world_settle(world);
    WAIT_UNTIL(feature_exists(world->consumer, by_ref(ref)) == FEATURE_E_NOT_FOUND, 20000);
    wire_close(&wire);
    feature_ref_free(ref);
    payload_deinit(&payload);
}

CONTRACT_TWO_NODES(c6_a_dead_node_consumes_nothing, RUN_STORE) {
    struct payload payload;
    struct feature_ref *ref = NULL;
    payload_init(&payload, "s1", 3, MIB);
    CHECK_OK(payload_put(&payload, world->producer, 0, &ref));
    struct feature_view *view = payload_view(&payload, world->consumer, by_ref(ref));
    CHECK(world_home(world).leases == 1, "%" PRIu64 " leases at home", world_home(world).leases);
    cluster_node_kill(&world->cluster, world->consumer_node);
    WAIT_UNTIL(world_home(world).leases == 0, 20000);
    CHECK(payload_difference(&payload, view) == NULL, "%s", payload_difference(&payload, view));
    payload_check_get(&payload, world->producer, by_ref(ref), FEATURE_RELEASE_RETURNED);

    cluster_node_start(&world->cluster, world->consumer_node);
    WAIT_UNTIL(feature_view_check(view) == FEATURE_E_LOST, 20000);
    CHECK(payload_difference(&payload, view) == NULL, "%s", payload_difference(&payload, view));
    CHECK_OK(feature_release(view, FEATURE_RELEASE_RETURNED));
    WAIT_UNTIL(world_try_get(world->consumer, by_ref(ref), 1000) == FEATURE_OK, 20000);
    payload_check_get(&payload, world->consumer, by_ref(ref), FEATURE_RELEASE_CONSUMED);
    world_settle(world);
    feature_ref_free(ref);
    payload_deinit(&payload);
}

/* ---- 7: frees are fast, idempotent and never lost ---- */

CONTRACT(c7_frees_are_idempotent, RUN_STORE) {
    struct payload payload;
    struct feature_ref *ref = NULL;
    payload_init(&payload, "s1", 10, MIB);
    CHECK_OK(feature_abort(world->consumer_writer, FEATURE_BY_ID("never put"), 1, NULL));
    CHECK_OK(feature_ack(world->consumer, FEATURE_BY_ID("never put"), 1, NULL));
    CHECK_OK(payload_put(&payload, world->producer, 0, &ref));
    struct feature_view *reader = payload_view(&payload, world->consumer, by_ref(ref));
    for (int i = 0; i < 3; i++) { /* while it is read, from both sides */
        CHECK_OK(feature_abort(world->consumer_writer, FEATURE_BY_REF(ref), 1, NULL));
        CHECK_OK(feature_abort(world->producer, FEATURE_BY_REF(ref), 1, NULL));
        CHECK_OK(feature_ack(world->consumer, FEATURE_BY_REF(ref), 1, NULL));
    }
    CHECK_STATUS(FEATURE_E_NOT_FOUND, world_try_get(world->producer, by_ref(ref), 10000));
    CHECK_OK(feature_release(reader, FEATURE_RELEASE_CONSUMED));
    world_settle(world);
    feature_ref_free(ref);
    payload_deinit(&payload);
}

CONTRACT_TWO_NODES(c7_frees_are_fast_and_never_lost, RUN_STORE) {
    struct payload payloads[3];
    struct feature_ref *refs[3];
    struct feature_view *views[3];
    for (uint32_t i = 0; i < 3; i++) {
        char sample_id[16];
        snprintf(sample_id, sizeof sample_id, "s%u", i);
        payload_init(&payloads[i], sample_id, 20 + i, MIB);
        CHECK_OK(payload_put(&payloads[i], world->producer, 0, &refs[i]));
        views[i] = payload_view(&payloads[i], world->consumer, by_ref(refs[i]));
    }
    cluster_node_freeze(&world->cluster, world->producer_node);
    CHECK_OK(feature_release_batch(
        views, 3, FEATURE_RELEASE_CONSUMED)); /* answers though its home is frozen */
    WAIT_UNTIL(cluster_health(&world->cluster, world->consumer_node).release_pending > 0, 20000);
    CHECK_STATUS(FEATURE_E_TIMEOUT, feature_drain(world->consumer_feature, 500));
    CHECK_SAYS("3");
    CHECK_SAYS("a");
    cluster_node_thaw(&world->cluster, world->producer_node);
    CHECK_OK(feature_drain(world->consumer_feature, 30000));
    WAIT_UNTIL(cluster_health(&world->cluster, world->consumer_node).release_pending == 0, 20000);
    WAIT_UNTIL(world_home(world).resident_bytes == 0, 20000);
    for (uint32_t i = 0; i < 3; i++) {
        CHECK_STATUS(FEATURE_E_NOT_FOUND, world_try_get(world->consumer, by_ref(refs[i]), 10000));
        feature_ref_free(refs[i]);
        payload_deinit(&payloads[i]);
    }
}

CONTRACT_TWO_NODES(c7_an_abort_of_a_frozen_home_is_not_lost, RUN_STORE) {
    struct payload payload;
    struct feature_ref *ref = NULL;
    payload_init(&payload, "s1", 30, MIB);
    CHECK_OK(payload_put(&payload, world->producer, 0, &ref));
    payload_check_get(&payload, world->consumer, by_ref(ref), FEATURE_RELEASE_RETURNED);
    world_settle(world);
    cluster_node_freeze(&world->cluster, world->producer_node);
    uint64_t begin_ms = check_now_ms();
    int status = feature_abort(world->consumer_writer, FEATURE_BY_REF(ref), 1, NULL);
    CHECK(check_now_ms() - begin_ms < 20000, "the abort hung");
    if (status == FEATURE_OK) /* then no get of it succeeds any more, here at least */
        CHECK(world_try_get(world->consumer, by_ref(ref), 1000) != FEATURE_OK,
              "got after an abort");
    else
        CHECK(status == FEATURE_E_UNAVAILABLE || status == FEATURE_E_TIMEOUT, "%s",
              feature_last_error());
    cluster_node_thaw(&world->cluster, world->producer_node);
    if (status != FEATURE_OK)
        WAIT_UNTIL(feature_abort(world->consumer_writer, FEATURE_BY_REF(ref), 1, NULL) ==
                       FEATURE_OK,
                   20000);
    CHECK_OK(feature_drain(world->consumer_feature, 30000));
    CHECK_STATUS(FEATURE_E_NOT_FOUND, world_try_get(world->consumer, by_ref(ref), 10000));
    feature_ref_free(ref);
    payload_deinit(&payload);
}

CONTRACT_TWO_NODES(c7_a_release_ends_with_its_home, RUN_STORE) {
    struct payload payload;
    struct feature_ref *ref = NULL;
    payload_init(&payload, "s1", 31, MIB);
    CHECK_OK(payload_put(&payload, world->producer, 0, &ref));
    struct feature_view *view = payload_view(&payload, world->consumer, by_ref(ref));
    cluster_node_kill(&world->cluster, world->producer_node);
    CHECK(payload_difference(&payload, view) == NULL, "%s", payload_difference(&payload, view));
    CHECK_OK(feature_release(view, FEATURE_RELEASE_CONSUMED));
    cluster_node_start(&world->cluster, world->producer_node);
    CHECK_OK(feature_drain(world->consumer_feature,
                           30000)); /* the new incarnation knows nothing of it */
    CHECK_STATUS(FEATURE_E_LOST, world_try_get(world->consumer, by_ref(ref), 10000));
    feature_ref_free(ref);
    payload_deinit(&payload);
}

/* ---- 8: max-hold gc ---- */

CONTRACT(c8_max_hold_gc, "[store run]\nmax_hold = 300ms\n") {
    struct payload held, left;
    payload_init(&held, "held", 40, MIB);
    payload_init(&left, "left", 41, MIB);
    CHECK_OK(payload_put(&held, world->producer, 0, NULL));
    struct feature_view *reader = payload_view(&held, world->consumer, by_id("held"));
    CHECK_OK(payload_put(&left, world->producer, 0, NULL));
    WAIT_UNTIL(feature_exists(world->producer, by_id("left")) == FEATURE_E_NOT_FOUND, 20000);
    CHECK_OK(feature_exists(world->producer, by_id("held"))); /* older, and spared: it is leased */
    CHECK(payload_difference(&held, reader) == NULL, "%s", payload_difference(&held, reader));
    CHECK_OK(feature_release(reader, FEATURE_RELEASE_RETURNED));
    world_settle(world);
    WAIT_UNTIL(feature_exists(world->producer, by_id("held")) == FEATURE_E_NOT_FOUND, 20000);
    payload_deinit(&held);
    payload_deinit(&left);
}

CONTRACT(c8_gc_on_demand, RUN_STORE) {
    struct payload held, left;
    struct feature_info info = FEATURE_INFO_INIT;
    uint64_t freed = 99;
    payload_init(&held, "held", 42, MIB);
    payload_init(&left, "left", 43, MIB);
    CHECK_OK(payload_put(&held, world->producer, 0, NULL));
    CHECK_OK(payload_put(&left, world->producer, 0, NULL));
    CHECK_OK(feature_gc(world->producer, 600000, &freed));
    CHECK(freed == 0, "%" PRIu64 " freed that are younger than ten minutes", freed);
    struct feature_view *reader = payload_view(&held, world->consumer, by_id("held"));
    WAIT_UNTIL(feature_stat(world->producer, by_id("left"), &info, NULL) == FEATURE_OK &&
                   info.age_ms >= 5,
               20000);
    CHECK_OK(feature_gc(world->producer, 2, &freed));
    CHECK(freed == 1, "%" PRIu64 " freed, the leased one must be spared", freed);
    CHECK_STATUS(FEATURE_E_NOT_FOUND, feature_exists(world->producer, by_id("left")));
    CHECK_OK(feature_release(reader, FEATURE_RELEASE_CONSUMED));
    world_settle(world);
    payload_deinit(&held);
    payload_deinit(&left);
}
