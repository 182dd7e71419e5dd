/* SPDX-License-Identifier: Apache-2.0
 *
 * The contract, clauses 2, 5 and 9: how long bytes stay, what consumption does, what a probe does
 * not do.
 */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "support/checks.h"
#include "support/world.h"

#define MIB       1048576u
#define RUN_STORE "[store run]\n"

/* ---- 2: no use after free ---- */

/* Puts and reads until every byte that is free on both nodes has been written over. */
static void churn(struct world *world, uint64_t bytes) {
    for (uint32_t i = 0; i < bytes / MIB + 2; i++) {
        struct payload payload;
        payload_init(&payload, "churn", 1000 + i, MIB);
        CHECK_OK(payload_put(&payload, world->producer, 10000, NULL));
        payload_check_get(&payload, world->consumer, by_id("churn"), FEATURE_RELEASE_CONSUMED);
        payload_deinit(&payload);
        world_settle(world);
    }
}

CONTRACT(c2_no_use_after_free, "[store run]\nmax_resident_bytes = 8MiB\nlanding_bytes = 8MiB\n") {
    struct payload payload;
    struct feature_ref *ref = NULL;
    payload_init(&payload, "s1", 1, 2 * MIB);
    CHECK_OK(payload_put(&payload, world->producer, 0, &ref));
    struct feature_view *far = payload_view(&payload, world->consumer, by_ref(ref));
    struct feature_view *near = payload_view(&payload, world->producer, by_ref(ref));
    CHECK_OK(feature_abort(world->producer, FEATURE_BY_REF(ref), 1, NULL));

    CHECK_STATUS(FEATURE_E_NOT_FOUND, world_try_get(world->producer, by_ref(ref), 10000));
    CHECK_STATUS(FEATURE_E_NOT_FOUND, world_try_get(world->consumer, by_ref(ref), 10000));
    CHECK_STATUS(FEATURE_E_NOT_FOUND, world_try_get(world->consumer, by_id("s1"), 10000));
    CHECK(world_home(world).resident_bytes >= 2 * MIB, "freed under a reader");
    churn(world, 8 * MIB);
    CHECK(payload_difference(&payload, far) == NULL, "%s", payload_difference(&payload, far));
    CHECK(payload_difference(&payload, near) == NULL, "%s", payload_difference(&payload, near));
    CHECK_OK(feature_view_check(far));

    CHECK_OK(feature_release(near, FEATURE_RELEASE_RETURNED));
    CHECK_OK(feature_release(far, FEATURE_RELEASE_RETURNED));
    world_settle(world);
    for (uint32_t i = 0; i < world->cluster.count; i++)
        WAIT_UNTIL(cluster_numbers(&world->cluster, i, "run").resident_bytes == 0, 20000);
    CHECK_STATUS(FEATURE_E_NOT_FOUND, world_try_get(world->consumer, by_ref(ref), 10000));
    feature_ref_free(ref);
    payload_deinit(&payload);
}

CONTRACT(c2_an_unknown_generation_is_not_found, RUN_STORE) {
    struct payload payload;
    struct feature_ref *ref = NULL, *other = NULL;
    char uri[512];
    size_t bytes = 0;
    payload_init(&payload, "s1", 2, MIB);
    CHECK_OK(payload_put(&payload, world->producer, 0, &ref));
    CHECK_OK(feature_ref_to_uri(ref, uri, sizeof uri, &bytes));
    snprintf(uri, sizeof uri,
             "feature://run/s1?generation=%" PRIu64 "&home=%s&incarnation=%" PRIu64,
             feature_ref_generation(ref) + 1, feature_ref_home(ref), feature_ref_incarnation(ref));
    CHECK_OK(feature_ref_from_uri(uri, &other));
    CHECK_STATUS(FEATURE_E_NOT_FOUND, world_try_get(world->consumer, by_ref(other), 10000));
    CHECK_STATUS(FEATURE_E_NOT_FOUND, feature_exists(world->consumer, by_ref(other)));
    payload_check_get(&payload, world->consumer, by_ref(ref), FEATURE_RELEASE_CONSUMED);
    world_settle(world);
    feature_ref_free(ref);
    feature_ref_free(other);
    payload_deinit(&payload);
}

/* ---- 5: consumption ---- */

CONTRACT(c5_consumption_by_one_reader, RUN_STORE) {
    struct payload payload;
    struct feature_ref *ref = NULL;
    payload_init(&payload, "s1", 10, MIB);
    CHECK_OK(payload_put(&payload, world->producer, 0, &ref));
    payload_check_get(&payload, world->consumer, by_ref(ref), FEATURE_RELEASE_RETURNED);
    world_settle(world);
    payload_check_get(&payload, world->consumer, by_ref(ref), FEATURE_RELEASE_CONSUMED);
    world_settle(world);
    CHECK_STATUS(FEATURE_E_NOT_FOUND, world_try_get(world->consumer, by_ref(ref), 10000));
    struct feature_info info = FEATURE_INFO_INIT;
    int status = feature_stat(world->producer, by_ref(ref), &info, NULL);
    CHECK(status == FEATURE_E_NOT_FOUND || strcmp(info.reason, "consumed") == 0, "reason \"%s\"",
          info.reason);
    feature_ref_free(ref);
    payload_deinit(&payload);
}

CONTRACT(c5_consumption_by_two_readers, "[store run]\nreaders = 2\n") {
    struct payload payload;
    struct feature_ref *ref = NULL;
    payload_init(&payload, "s1", 11, MIB);
    CHECK_OK(payload_put(&payload, world->producer, 0, &ref));
    struct feature_view *views[3];
    for (int i = 0; i < 3; i++)
        views[i] = payload_view(&payload, world->consumer, by_ref(ref));
    CHECK_OK(feature_release(views[0], FEATURE_RELEASE_CONSUMED));
    world_settle(world);
    CHECK_OK(feature_exists(world->consumer, by_ref(ref)));
    CHECK_OK(feature_release(views[1], FEATURE_RELEASE_CONSUMED));
    world_settle(world);
    CHECK_OK(feature_exists(world->consumer,
                            by_ref(ref))); /* consumed twice, and still read by the third */
    CHECK_OK(feature_release(views[2], FEATURE_RELEASE_RETURNED));
    world_settle(world);
    CHECK_STATUS(FEATURE_E_NOT_FOUND, feature_exists(world->consumer, by_ref(ref)));
    CHECK_STATUS(FEATURE_E_NOT_FOUND, world_try_get(world->consumer, by_ref(ref), 10000));
    feature_ref_free(ref);
    payload_deinit(&payload);
}

CONTRACT(c5_consumption_one_after_the_other, "[store run]\nreaders = 2\n") {
    struct payload payload;
    struct feature_ref *ref = NULL;
    payload_init(&payload, "s1", 12, MIB);
    CHECK_OK(payload_put(&payload, world->producer, 0, &ref));
    payload_check_get(&payload, world->consumer, by_ref(ref), FEATURE_RELEASE_CONSUMED);
    world_settle(world);
    payload_check_get(&payload, world->consumer, by_ref(ref), FEATURE_RELEASE_RETURNED);
    world_settle(world);
    payload_check_get(&payload, world->producer, by_ref(ref), FEATURE_RELEASE_CONSUMED);
    world_settle(world);
    CHECK_STATUS(FEATURE_E_NOT_FOUND, world_try_get(world->consumer, by_ref(ref), 10000));
    feature_ref_free(ref);
    payload_deinit(&payload);
}

CONTRACT(c5_on_ack, "[store run]\npolicy = on-ack\n") {
    enum { COUNT = 5 };
    struct payload payloads[COUNT];
    struct feature_ref *refs[COUNT];
    struct feature_key keys[COUNT];
    for (uint32_t i = 0; i < COUNT; i++) {
        char sample_id[16];
        snprintf(sample_id, sizeof sample_id, "s%u", i);
        payload_init(&payloads[i], sample_id, 20 + i, 300000);
        CHECK_OK(payload_put(&payloads[i], world->producer, 0, &refs[i]));
        payload_check_get(&payloads[i], world->consumer, by_ref(refs[i]), FEATURE_RELEASE_CONSUMED);
        keys[i] = *by_ref(refs[i]);
    }
    world_settle(world);
    struct feature_view *reader = payload_view(&payloads[0], world->consumer, &keys[0]);
    CHECK_OK(feature_ack(world->consumer, keys, COUNT, NULL));
    CHECK_OK(feature_ack(world->consumer, keys, COUNT, NULL)); /* idempotent */
    world_settle(world);
    for (uint32_t i = 0; i < COUNT; i++)
        CHECK_STATUS(FEATURE_E_NOT_FOUND, world_try_get(world->consumer, &keys[i], 10000));
    CHECK(payload_difference(&payloads[0], reader) == NULL, "%s",
          payload_difference(&payloads[0], reader));
    CHECK_OK(feature_release(reader, FEATURE_RELEASE_RETURNED));
    world_settle(world);
    for (uint32_t i = 0; i < COUNT; i++) {
        feature_ref_free(refs[i]);
        payload_deinit(&payloads[i]);
    }
}

CONTRACT(c5_retain, "[store run]\npolicy = retain\n") {
    struct payload payload;
    struct feature_ref *ref = NULL;
    payload_init(&payload, "s1", 30, MIB);
    CHECK_OK(payload_put(&payload, world->producer, 0, &ref));
    for (int epoch = 0; epoch < 4; epoch++) {
        payload_check_get(&payload, world->consumer, by_ref(ref), FEATURE_RELEASE_CONSUMED);
        CHECK_OK(feature_ack(world->consumer, FEATURE_BY_REF(ref), 1, NULL));
        world_settle(world);
    }
    payload_check_get(&payload, world->consumer, by_ref(ref), FEATURE_RELEASE_CONSUMED);
    CHECK_OK(feature_abort(world->consumer_writer, FEATURE_BY_REF(ref), 1, NULL));
    CHECK_STATUS(FEATURE_E_NOT_FOUND, world_try_get(world->consumer, by_ref(ref), 10000));
    CHECK_STATUS(FEATURE_E_NOT_FOUND, world_try_get(world->producer, by_ref(ref), 10000));
    world_settle(world);
    feature_ref_free(ref);
    payload_deinit(&payload);
}

/* ---- 9: probes have no side effects ---- */

static bool count_sample(void *context, const struct feature_info *info) {
    (void)info;
    (*(uint32_t *)context)++;
    return true;
}

CONTRACT(c9_probes_have_no_side_effects, RUN_STORE) {
    struct payload payload;
    struct feature_ref *ref = NULL;
    struct feature_info before = FEATURE_INFO_INIT, after = FEATURE_INFO_INIT;
    payload_init(&payload, "s1", 40, MIB);
    CHECK_OK(payload_put(&payload, world->producer, 0, &ref));
    CHECK_OK(feature_stat(world->producer, by_ref(ref), &before, NULL));
    for (int i = 0; i < 1000; i++) {
        uint32_t listed = 0;
        CHECK_OK(feature_exists(world->consumer, by_ref(ref)));
        CHECK_OK(feature_stat(world->consumer, by_ref(ref), &after, NULL));
        CHECK_OK(feature_list(world->producer, NULL, count_sample, &listed));
        CHECK(listed == 1, "%u samples are listed", listed);
    }
    CHECK_OK(feature_stat(world->producer, by_ref(ref), &after, NULL));
    CHECK(after.state == FEATURE_STATE_RESIDENT && after.leases == 0 && after.consumed == 0 &&
              after.generation == before.generation && after.age_ms >= before.age_ms,
          "state %d, %u leases, consumed %u", after.state, after.leases, after.consumed);
    for (uint32_t i = 0; i < world->cluster.count; i++)
        CHECK(cluster_numbers(&world->cluster, i, "run").leases == 0 &&
                  cluster_numbers(&world->cluster, i, "run").landing_used_bytes == 0,
              "node %u leases or landed something", i);

    /* the next free is as fast as any */
    CHECK_OK(feature_exists(world->consumer, by_ref(ref)));
    payload_check_get(&payload, world->consumer, by_ref(ref), FEATURE_RELEASE_CONSUMED);
    world_settle(world);
    CHECK(world_home(world).resident_bytes == 0, "%" PRIu64 " bytes",
          world_home(world).resident_bytes);
    feature_ref_free(ref);
    payload_deinit(&payload);
}
