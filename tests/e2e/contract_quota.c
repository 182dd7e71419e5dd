/* SPDX-License-Identifier: Apache-2.0
 *
 * The contract, clause 10: going over a quota or limit is an expected outcome with its own status
 * and a sentence, and concerns nobody else.
 */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>

#include "support/checks.h"
#include "support/world.h"

#define MIB 1048576u

CONTRACT(c10_quota_of_a_store,
         "[store run]\nmax_resident_bytes = 4MiB\n[store other]\nmax_resident_bytes = 4MiB\n") {
    struct payload three, two;
    payload_init(&three, "three", 1, 3 * MIB);
    payload_init(&two, "two", 2, 2 * MIB);
    struct feature_store *other = cluster_open(world->producer_feature, "other", false);
    CHECK_OK(payload_put(&three, world->producer, 0, NULL));
    CHECK_STATUS(FEATURE_E_FULL, payload_put(&two, world->producer, 0, NULL));
    CHECK_SAYS("run");
    CHECK_SAYS("4"); /* the limit */
    CHECK_OK(payload_put(&two, other, 0, NULL));
    CHECK_OK(feature_abort(other, FEATURE_BY_ID("two"), 1, NULL));
    payload_check_get(&three, world->consumer, by_id("three"), FEATURE_RELEASE_CONSUMED);
    world_settle(world);
    CHECK_OK(payload_put(&two, world->producer, 0, NULL));
    payload_check_get(&two, world->consumer, by_id("two"), FEATURE_RELEASE_CONSUMED);
    world_settle(world);
    feature_store_close(other);
    payload_deinit(&three);
    payload_deinit(&two);
}

CONTRACT(c10_quota_of_a_node,
         "[memory]\nmax_resident_bytes = 4MiB\n"
         "[store run]\nmax_resident_bytes = 4MiB\n[store other]\nmax_resident_bytes = 4MiB\n") {
    struct payload three, two;
    payload_init(&three, "three", 3, 3 * MIB);
    payload_init(&two, "two", 4, 2 * MIB);
    struct feature_store *other = cluster_open(world->producer_feature, "other", false);
    CHECK_OK(payload_put(&three, world->producer, 0, NULL));
    CHECK_STATUS(FEATURE_E_FULL, payload_put(&two, other, 0, NULL)); /* its own store is empty */
    CHECK_SAYS("node");
    payload_check_get(&three, world->consumer, by_id("three"), FEATURE_RELEASE_CONSUMED);
    world_settle(world);
    CHECK_OK(payload_put(&two, other, 0, NULL));
    CHECK_OK(feature_abort(other, FEATURE_BY_ID("two"), 1, NULL));
    feature_store_close(other);
    payload_deinit(&three);
    payload_deinit(&two);
}

CONTRACT(c10_quota_of_samples, "[store run]\nmax_samples = 8\n") {
    struct payload payload;
    uint32_t stored = 0;
    int status = FEATURE_OK;
    for (; stored < 100; stored++) {
        char sample_id[16];
        snprintf(sample_id, sizeof sample_id, "s%u", stored);
        payload_init(&payload, sample_id, stored, 5000);
        status = payload_put(&payload, world->producer, 0, NULL);
        payload_deinit(&payload);
        if (status != FEATURE_OK)
            break;
    }
    CHECK_STATUS(FEATURE_E_FULL, status);
    CHECK_SAYS("8");
    CHECK(stored == 8, "%u samples stored, the limit is 8", stored);
    for (uint32_t i = 0; i < stored; i++) {
        char sample_id[16];
        snprintf(sample_id, sizeof sample_id, "s%u", i);
        CHECK_OK(feature_abort(world->producer, FEATURE_BY_ID(sample_id), 1, NULL));
    }
}

CONTRACT(c10_leases_of_a_session, "[store run]\n[local]\nmax_leases_per_session = 4\n") {
    struct payload payload;
    struct feature_view *views[4], *one_more = NULL;
    payload_init(&payload, "s1", 10, 100000);
    CHECK_OK(payload_put(&payload, world->producer, 0, NULL));
    for (int i = 0; i < 4; i++)
        views[i] = payload_view(&payload, world->consumer, by_id("s1"));
    CHECK_STATUS(FEATURE_E_FULL, feature_get(world->consumer, by_id("s1"), NULL, &one_more));
    CHECK_SAYS("4");
    CHECK(one_more == NULL, "a view came with a failure");
    payload_check_get(&payload, world->producer, by_id("s1"),
                      FEATURE_RELEASE_RETURNED); /* another session */
    CHECK_OK(feature_release(views[0], FEATURE_RELEASE_RETURNED));
    views[0] = payload_view(&payload, world->consumer, by_id("s1"));
    CHECK_OK(feature_release_batch(views, 4, FEATURE_RELEASE_CONSUMED));
    world_settle(world);
    payload_deinit(&payload);
}

CONTRACT(c10_reservations_of_a_session,
         "[store run]\n[local]\nmax_reservations_per_session = 2\n") {
    struct payload payload;
    struct feature_reservation *reservations[2], *one_more = NULL;
    payload_init(&payload, "s1", 11, 100000);
    for (int i = 0; i < 2; i++)
        CHECK_OK(feature_reserve(world->producer, &payload.sample, 0, &reservations[i]));
    CHECK_STATUS(FEATURE_E_FULL, feature_reserve(world->producer, &payload.sample, 0, &one_more));
    CHECK_SAYS("2");
    struct feature *feature = cluster_connect(&world->cluster, world->producer_node);
    struct feature_store *store = cluster_open(feature, "run", false);
    CHECK_OK(feature_reserve(store, &payload.sample, 0, &one_more)); /* another session */
    feature_cancel(one_more);
    feature_cancel(reservations[0]);
    CHECK_OK(feature_reserve(world->producer, &payload.sample, 0, &one_more));
    feature_cancel(one_more);
    feature_cancel(reservations[1]);
    feature_disconnect(feature);
    world_settle(world);
    payload_deinit(&payload);
}

struct queued_put {
    struct feature_store *store;
    struct payload payload;
};

static void *put_queued(void *context) {
    struct queued_put *put = context;
    CHECK_OK(payload_put(&put->payload, put->store, 60000, NULL));
    return NULL;
}

CONTRACT(c10_queued_bytes_of_a_session, "[store run]\nmax_resident_bytes = 8MiB\n"
                                        "[local]\nmax_queued_bytes_per_session = 4MiB\n") {
    struct payload filling, refused;
    struct queued_put queued = {.store = world->producer};
    pthread_t thread;
    payload_init(&filling, "filling", 20, 7 * MIB);
    payload_init(&queued.payload, "queued", 21, 3 * MIB);
    payload_init(&refused, "refused", 22, 2 * MIB);
    CHECK_OK(payload_put(&filling, world->producer, 0, NULL));
    CHECK(pthread_create(&thread, NULL, put_queued, &queued) == 0, "pthread_create");
    WAIT_UNTIL(world_home(world).put_waiters == 1, 20000);
    uint64_t begin_ms = check_now_ms();
    CHECK_STATUS(FEATURE_E_FULL, payload_put(&refused, world->producer, 60000, NULL)); /* at once */
    CHECK(check_now_ms() - begin_ms < 30000, "it queued");
    payload_check_get(&filling, world->consumer, by_id("filling"), FEATURE_RELEASE_CONSUMED);
    world_settle(world);
    CHECK(pthread_join(thread, NULL) == 0, "pthread_join");
    payload_check_get(&queued.payload, world->consumer, by_id("queued"), FEATURE_RELEASE_CONSUMED);
    world_settle(world);
    payload_deinit(&filling);
    payload_deinit(&queued.payload);
    payload_deinit(&refused);
}
