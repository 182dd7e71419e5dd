/* SPDX-License-Identifier: Apache-2.0
 *
 * The contract, clauses 13 and 14: every status can be met, with a sentence that names the object,
 * the cause and the limit (INTERNAL aside: it is what must not happen), and a repeated operation
 * has no second effect.
 */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "proto/frame.h"
#include "support/checks.h"
#include "support/wire.h"
#include "support/world.h"

#define MIB 1048576u

static void check_sentence(void) {
    CHECK(strlen(feature_last_error()) >= 12, "sentence \"%s\"", feature_last_error());
}

CONTRACT(c13_invalid, "[store run]\n") {
    struct payload payload;
    payload_init(&payload, "", 1, 1000);
    CHECK_STATUS(FEATURE_E_INVALID, payload_put(&payload, world->producer, 0, NULL));
    check_sentence();
    payload_deinit(&payload);
    payload_init(&payload, "s1", 1, 1000);
    payload.tensors[1].name = payload.tensors[0].name;
    CHECK_STATUS(FEATURE_E_INVALID, payload_put(&payload, world->producer, 0, NULL));
    check_sentence();
    payload_deinit(&payload);
    payload_init(&payload, "s1", 1, 1000);
    payload.data[2].iov_len--;
    CHECK_STATUS(FEATURE_E_INVALID, payload_put(&payload, world->producer, 0, NULL));
    check_sentence();
    payload_deinit(&payload);
    CHECK_STATUS(FEATURE_E_INVALID, world_try_get(world->consumer, by_id(NULL), 1000));
    struct feature_ref *ref = NULL;
    CHECK_STATUS(FEATURE_E_INVALID, feature_ref_from_uri("http://run/s1", &ref));
    CHECK_STATUS(FEATURE_E_INVALID, feature_ref_decode("rubbish", 7, &ref));
    check_sentence();
}

CONTRACT(c13_not_found, "[store run]\n") {
    CHECK_STATUS(FEATURE_E_NOT_FOUND, world_try_get(world->consumer, by_id("never-put"), 10000));
    CHECK_SAYS("never-put");
    CHECK_SAYS("run");
}

CONTRACT(c13_not_found_says_why, "[store run]\n") {
    struct payload payload;
    struct feature_ref *ref = NULL;
    payload_init(&payload, "s1", 2, MIB);
    CHECK_OK(payload_put(&payload, world->producer, 0, &ref));
    payload_check_get(&payload, world->consumer, by_ref(ref), FEATURE_RELEASE_CONSUMED);
    world_settle(world);
    CHECK_STATUS(FEATURE_E_NOT_FOUND, world_try_get(world->consumer, by_ref(ref), 10000));
    CHECK_SAYS("s1");
    CHECK_SAYS("consumed");
    feature_ref_free(ref);
    payload_deinit(&payload);
}

CONTRACT(c13_exists, "[store run]\n") {
    struct feature_store_options options = {.size = sizeof options, .max_resident_bytes = 4 * MIB};
    CHECK_OK(feature_store_create(world->producer_feature, "made", &options));
    CHECK_OK(feature_store_create(world->producer_feature, "made", &options));
    options.readers = 7;
    CHECK_STATUS(FEATURE_E_EXISTS, feature_store_create(world->producer_feature, "made", &options));
    CHECK_SAYS("made");
    CHECK_OK(feature_store_drop(world->producer_feature, "made"));
}

CONTRACT(c13_full, "[store run]\nmax_resident_bytes = 4MiB\n") {
    struct payload first, second;
    payload_init(&first, "first", 3, 3 * MIB);
    payload_init(&second, "second", 3, 2 * MIB);
    CHECK_OK(payload_put(&first, world->producer, 0, NULL));
    CHECK_STATUS(FEATURE_E_FULL, payload_put(&second, world->producer, 0, NULL));
    CHECK_SAYS("run");
    CHECK_SAYS("4 MiB"); /* the limit */
    CHECK_SAYS("2.0 MiB asked");
    CHECK_OK(feature_abort(world->producer, FEATURE_BY_ID("first"), 1, NULL));
    payload_deinit(&first);
    payload_deinit(&second);
}

CONTRACT_TWO_NODES(c13_timeout, "[store run]\n") {
    struct payload payload;
    struct feature_ref *ref = NULL;
    payload_init(&payload, "s1", 4, MIB);
    CHECK_OK(payload_put(&payload, world->producer, 0, &ref));
    cluster_node_freeze(&world->cluster, world->producer_node);
    CHECK_STATUS(FEATURE_E_TIMEOUT, world_try_get(world->consumer, by_ref(ref), 400));
    CHECK_SAYS("s1");
    cluster_node_thaw(&world->cluster, world->producer_node);
    payload_check_get(&payload, world->consumer, by_ref(ref), FEATURE_RELEASE_CONSUMED);
    world_settle(world);
    feature_ref_free(ref);
    payload_deinit(&payload);
}

CONTRACT(c13_get_waits_for_a_put_up_to_its_deadline, "[store run]\n") {
    struct feature_get_options options = {
        .size = sizeof options, .deadline_ms = 10000, .wait_ms = 300};
    struct feature_view *view = NULL;
    uint64_t begin_ms = check_now_ms();
    int status = feature_get(world->producer, by_id("late"), &options, &view);
    CHECK(status == FEATURE_E_NOT_FOUND || status == FEATURE_E_TIMEOUT, "%s",
          feature_strerror(status));
    CHECK(check_now_ms() - begin_ms >= 150, "it did not wait");
    CHECK_SAYS("late");
}

CONTRACT(c13_unavailable, "[store run]\n") {
    cluster_node_kill(&world->cluster, world->consumer_node);
    CHECK_STATUS(FEATURE_E_UNAVAILABLE, world_try_get(world->consumer, by_id("s1"), 1000));
    check_sentence();
    cluster_node_start(&world->cluster, world->consumer_node);
    WAIT_UNTIL(feature_exists(world->consumer, by_id("s1")) == FEATURE_E_NOT_FOUND, 20000);
}

CONTRACT(c13_lost, "[store run]\n") {
    struct payload payload;
    struct feature_ref *ref = NULL;
    payload_init(&payload, "s1", 5, MIB);
    CHECK_OK(payload_put(&payload, world->producer, 0, &ref));
    cluster_node_kill(&world->cluster, world->producer_node);
    cluster_node_start(&world->cluster, world->producer_node);
    if (world->cluster.count > 1)
        cluster_await_peer(&world->cluster, world->consumer_node, world->producer_node);
    WAIT_UNTIL(feature_exists(world->consumer, by_id("s1")) == FEATURE_E_NOT_FOUND, 20000);
    CHECK_STATUS(FEATURE_E_LOST, world_try_get(world->consumer, by_ref(ref), 10000));
    CHECK_SAYS("s1");
    feature_ref_free(ref);
    payload_deinit(&payload);
}

static int use_after_fork(int channel, void *context) {
    struct world *world = context;
    CHECK_STATUS(FEATURE_E_INVALID, feature_exists(world->producer, by_id("s1")));
    check_sentence();
    channel_say(channel, "refused");
    return 0;
}

CONTRACT(c6_a_forked_child_is_refused, "[store run]\n") {
    struct process child;
    process_fork(&child, use_after_fork, world);
    channel_expect(child.channel, "refused", 10000);
    process_join(&child, 10000);
    CHECK_STATUS(FEATURE_E_NOT_FOUND,
                 feature_exists(world->producer, by_id("s1"))); /* the parent's still works */
}

Test(contract, c13_unsupported_version, .timeout = 120) {
    struct cluster cluster;
    struct wire wire;
    cluster_start(&cluster, &(struct cluster_options){.nodes = 1});
    wire_connect(&wire, cluster.nodes[0].socket_path);
    Fb__Hello hello = FB__HELLO__INIT;
    hello.version_min = hello.version_max = 4711;
    hello.client_id = 1;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_HELLO;
    request.hello = &hello;
    Fb__ClientReply *reply = wire_call(&wire, &request);
    CHECK(reply->status == FB__STATUS__UNSUPPORTED && strlen(reply->error) > 12, "status %d: %s",
          reply->status, reply->error);
    fb__client_reply__free_unpacked(reply, NULL);
    wire_close(&wire);
    cluster_stop(&cluster);
}
