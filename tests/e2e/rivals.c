/* SPDX-License-Identifier: Apache-2.0
 *
 * What was seen to go wrong elsewhere, re-enacted: a put killed half-way that poisons its key, a
 * re-put that keeps the old bytes, frees refused because somebody reads or probes, a frozen owner
 * that hangs its readers and loses its data when it wakes, a full store that evicts or never waits,
 * samples that die with their producer.
 */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "support/checks.h"
#include "support/world.h"

#define MIB      1048576u
#define SAMPLES  20u
#define RUN_INI  "[store run]\n"
#define FULL_INI "[store run]\nmax_resident_bytes = 8MiB\n"

#define RIVALS(NAME, INI)                                                                          \
    static void NAME(struct world *world);                                                         \
    Test(rivals, NAME##_one_node, .timeout = 120) {                                                \
        world_run(1, INI, NAME);                                                                   \
    }                                                                                              \
    Test(rivals, NAME##_two_nodes, .timeout = 120) {                                               \
        world_run(2, INI, NAME);                                                                   \
    }                                                                                              \
    static void NAME(struct world *world)

/* ---- putters that are killed ---- */

static int put_half(int channel, void *context) {
    struct world *world = context;
    struct payload payload;
    struct feature_reservation *reservation = NULL;
    struct feature *feature = cluster_connect(&world->cluster, world->producer_node);
    payload_init(&payload, "s1", 1, 2 * MIB);
    CHECK_OK(
        feature_reserve(cluster_open(feature, "run", false), &payload.sample, 0, &reservation));
    payload_write(&payload, reservation, 0);
    payload_write(&payload, reservation, 1);
    channel_say(channel, "half");
    channel_expect(channel, "never", 60000);
    return 1;
}

RIVALS(a_put_killed_half_way_does_not_poison_its_id, RUN_INI) {
    struct process putter;
    struct payload payload;
    struct feature_ref *ref = NULL;
    process_fork(&putter, put_half, world);
    channel_expect(putter.channel, "half", 20000);
    process_kill(&putter);
    payload_init(&payload, "s1", 2, MIB); /* at once, without waiting for the clean-up */
    CHECK_OK(payload_put(&payload, world->producer, 0, &ref));
    payload_check_get(&payload, world->consumer, by_id("s1"), FEATURE_RELEASE_RETURNED);
    payload_check_get(&payload, world->consumer, by_ref(ref), FEATURE_RELEASE_CONSUMED);
    world_settle(world);
    feature_ref_free(ref);
    payload_deinit(&payload);
}

static int put_and_wait(int channel, void *context) {
    struct world *world = context;
    struct feature *feature = cluster_connect(&world->cluster, world->producer_node);
    struct feature_store *store = cluster_open(feature, "run", false);
    for (uint32_t i = 0; i < SAMPLES; i++) {
        struct payload payload;
        struct feature_ref *ref = NULL;
        uint8_t encoded[8192];
        size_t bytes = 0;
        char sample_id[16];
        snprintf(sample_id, sizeof sample_id, "s%u", i);
        payload_init(&payload, sample_id, i, 1000 + i * 50000);
        CHECK_OK(payload_put(&payload, store, 0, &ref));
        CHECK_OK(feature_ref_encode(ref, encoded, sizeof encoded, &bytes));
        channel_send(channel, encoded, bytes);
        feature_ref_free(ref);
        payload_deinit(&payload);
    }
    channel_expect(channel, "never", 60000);
    return 1;
}

RIVALS(samples_outlive_their_producer, RUN_INI) {
    struct process producer;
    struct feature_ref *refs[SAMPLES];
    process_fork(&producer, put_and_wait, world);
    for (uint32_t i = 0; i < SAMPLES; i++) {
        uint8_t encoded[8192];
        size_t bytes = channel_receive(producer.channel, encoded, sizeof encoded, 20000);
        CHECK_OK(feature_ref_decode(encoded, bytes, &refs[i]));
    }
    process_kill(&producer);
    WAIT_UNTIL(cluster_health(&world->cluster, world->producer_node).sessions <= 3, 20000);
    for (uint32_t i = 0; i < SAMPLES; i++) {
        struct payload payload;
        char sample_id[16];
        snprintf(sample_id, sizeof sample_id, "s%u", i);
        payload_init(&payload, sample_id, i, 1000 + i * 50000);
        payload_check_get(&payload, world->consumer, by_ref(refs[i]), FEATURE_RELEASE_CONSUMED);
        feature_ref_free(refs[i]);
        payload_deinit(&payload);
    }
    world_settle(world);
}

/* ---- re-puts ---- */

RIVALS(a_re_put_stores_the_new_bytes, RUN_INI) {
    static const uint64_t sizes[] = {MIB, 100, 3 * MIB, 60000, MIB, MIB};
    struct feature_view *readers[6];
    struct payload payloads[6];
    for (uint32_t i = 0; i < 6; i++) { /* every older one is still being read */
        payload_init(&payloads[i], "s1", 100 + i, sizes[i]);
        CHECK_OK(payload_put(&payloads[i], world->producer, 0, NULL));
        readers[i] = payload_view(&payloads[i], world->consumer, by_id("s1"));
    }
    for (uint32_t i = 0; i < 6; i++) {
        const char *why = payload_difference(&payloads[i], readers[i]);
        CHECK(why == NULL, "generation %u: %s", i, why);
        payload_deinit(&payloads[i]);
    }
    CHECK_OK(feature_release_batch(readers, 6, FEATURE_RELEASE_CONSUMED));
    world_settle(world);
}

/* ---- frees while somebody reads or probes ---- */

RIVALS(abort_and_consume_while_a_reader_holds, RUN_INI) {
    struct payload aborted, consumed;
    payload_init(&aborted, "aborted", 1, MIB);
    payload_init(&consumed, "consumed", 2, MIB);
    CHECK_OK(payload_put(&aborted, world->producer, 0, NULL));
    CHECK_OK(payload_put(&consumed, world->producer, 0, NULL));
    struct feature_view *reader = payload_view(&aborted, world->consumer, by_id("aborted"));
    struct feature_view *first = payload_view(&consumed, world->consumer, by_id("consumed"));
    struct feature_view *second = payload_view(&consumed, world->consumer, by_id("consumed"));
    CHECK_OK(feature_abort(world->producer, FEATURE_BY_ID("aborted"), 1, NULL));
    CHECK_STATUS(FEATURE_E_NOT_FOUND, world_try_get(world->consumer, by_id("aborted"), 10000));
    CHECK_OK(feature_release(first, FEATURE_RELEASE_CONSUMED));
    world_settle(world);
    CHECK(payload_difference(&aborted, reader) == NULL, "%s", payload_difference(&aborted, reader));
    CHECK(payload_difference(&consumed, second) == NULL, "%s",
          payload_difference(&consumed, second));
    CHECK_OK(feature_release(reader, FEATURE_RELEASE_RETURNED));
    CHECK_OK(feature_release(second, FEATURE_RELEASE_RETURNED));
    world_settle(world);
    CHECK(world_home(world).resident_bytes == 0, "%" PRIu64 " bytes left",
          world_home(world).resident_bytes);
    payload_deinit(&aborted);
    payload_deinit(&consumed);
}

RIVALS(probes_do_not_delay_a_free, RUN_INI) {
    struct payload payload;
    payload_init(&payload, "s1", 3, MIB);
    CHECK_OK(payload_put(&payload, world->producer, 0, NULL));
    payload_check_get(&payload, world->consumer, by_id("s1"), FEATURE_RELEASE_RETURNED);
    for (int i = 0; i < 1000; i++)
        CHECK_OK(feature_exists(world->consumer, by_id("s1")));
    CHECK_OK(feature_abort(world->producer, FEATURE_BY_ID("s1"), 1, NULL));
    world_settle(world);
    CHECK(world_home(world).resident_bytes == 0, "%" PRIu64 " bytes left",
          world_home(world).resident_bytes);
    CHECK_STATUS(FEATURE_E_NOT_FOUND, feature_exists(world->consumer, by_id("s1")));
    payload_deinit(&payload);
}

/* ---- a frozen home ---- */

static void a_frozen_home_loses_nothing(struct world *world) {
    struct payload payloads[4];
    struct feature_ref *refs[4];
    for (uint32_t i = 0; i < 4; i++) {
        char sample_id[16];
        snprintf(sample_id, sizeof sample_id, "s%u", i);
        payload_init(&payloads[i], sample_id, 40 + i, 2 * MIB);
        CHECK_OK(payload_put(&payloads[i], world->producer, 0, &refs[i]));
    }
    cluster_node_freeze(&world->cluster, world->producer_node);
    for (uint32_t i = 0; i < 4; i++) {
        uint64_t begin_ms = check_now_ms();
        int status = world_try_get(world->consumer, by_ref(refs[i]), 500);
        CHECK(status == FEATURE_E_TIMEOUT || status == FEATURE_E_UNAVAILABLE, "%s",
              feature_strerror(status));
        CHECK(check_now_ms() - begin_ms < 10000,
              "a get with a deadline of 500 ms took %" PRIu64 " ms", check_now_ms() - begin_ms);
    }
    /* long enough for the others to have given it up */
    WAIT_UNTIL(world_try_get(world->consumer, by_ref(refs[0]), 500) == FEATURE_E_UNAVAILABLE,
               30000);
    cluster_node_thaw(&world->cluster, world->producer_node);
    WAIT_UNTIL(world_try_get(world->consumer, by_ref(refs[0]), 1000) == FEATURE_OK, 30000);
    for (uint32_t i = 0; i < 4; i++) {
        payload_check_get(&payloads[i], world->consumer, by_ref(refs[i]), FEATURE_RELEASE_CONSUMED);
        feature_ref_free(refs[i]);
        payload_deinit(&payloads[i]);
    }
    world_settle(world);
}
Test(rivals, a_frozen_home_loses_nothing_two_nodes, .timeout = 120) {
    world_run(2, RUN_INI, a_frozen_home_loses_nothing);
}

/* ---- a full store ---- */

static int put_when_there_is_room(int channel, void *context) {
    struct world *world = context;
    struct payload payload;
    struct feature *feature = cluster_connect(&world->cluster, world->producer_node);
    payload_init(&payload, "late", 51, 4 * MIB);
    CHECK_OK(payload_put(&payload, cluster_open(feature, "run", false), 60000, NULL));
    channel_say(channel, "stored");
    feature_disconnect(feature);
    return 0;
}

RIVALS(a_full_store_makes_a_put_wait, FULL_INI) {
    struct payload filling, late;
    struct process putter;
    payload_init(&filling, "filling", 50, 7 * MIB);
    payload_init(&late, "late", 51, 4 * MIB);
    CHECK_OK(payload_put(&filling, world->producer, 0, NULL));
    uint64_t begin_ms = check_now_ms();
    CHECK_STATUS(FEATURE_E_FULL, payload_put(&late, world->producer, 400, NULL));
    CHECK(check_now_ms() - begin_ms >= 200, "FULL before its deadline");
    process_fork(&putter, put_when_there_is_room, world);
    WAIT_UNTIL(world_home(world).put_waiters == 1, 20000);
    CHECK_STATUS(FEATURE_E_NOT_FOUND, feature_exists(world->producer, by_id("late")));
    payload_check_get(&filling, world->consumer, by_id("filling"),
                      FEATURE_RELEASE_CONSUMED); /* not evicted */
    world_settle(world);
    channel_expect(putter.channel, "stored", 20000);
    process_join(&putter, 20000);
    payload_check_get(&late, world->consumer, by_id("late"), FEATURE_RELEASE_CONSUMED);
    world_settle(world);
    payload_deinit(&filling);
    payload_deinit(&late);
}
