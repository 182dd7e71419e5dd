/* SPDX-License-Identifier: Apache-2.0
 *
 * The contract, clauses 1, 3 and 4: what a put makes visible, what a re-put replaces, what a full
 * store does.
 */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "support/checks.h"
#include "support/world.h"

#define MIB       1048576u
#define RUN_STORE "[store run]\n"

/* ---- 1: all or nothing ---- */

static bool count_sample(void *context, const struct feature_info *info) {
    (void)info;
    (*(uint32_t *)context)++;
    return true;
}

static void check_invisible(struct world *world, const char *sample_id) {
    uint32_t listed = 0;
    CHECK_STATUS(FEATURE_E_NOT_FOUND, world_try_get(world->consumer, by_id(sample_id), 5000));
    CHECK_STATUS(FEATURE_E_NOT_FOUND, feature_exists(world->consumer, by_id(sample_id)));
    CHECK_OK(feature_list(world->producer, NULL, count_sample, &listed));
    CHECK(listed == 0, "%u samples are listed", listed);
}

CONTRACT(c1_all_or_nothing, RUN_STORE) {
    struct payload payload;
    struct feature_reservation *reservation = NULL;
    struct feature_ref *ref = NULL;
    payload_init(&payload, "s1", 1, MIB);
    CHECK_OK(feature_reserve(world->producer, &payload.sample, 0, &reservation));
    check_invisible(world, "s1");
    for (uint32_t i = 0; i < payload.sample.tensor_count; i++) {
        payload_write(&payload, reservation, i);
        check_invisible(world, "s1");
    }
    CHECK_OK(feature_commit(reservation, &ref));
    payload_check_get(&payload, world->consumer, by_id("s1"), FEATURE_RELEASE_RETURNED);
    payload_check_get(&payload, world->consumer, by_ref(ref), FEATURE_RELEASE_CONSUMED);
    feature_ref_free(ref);
    payload_deinit(&payload);
    world_settle(world);
}

CONTRACT(c1_a_cancelled_put_leaves_nothing, RUN_STORE) {
    struct payload payload;
    struct feature_reservation *reservation = NULL;
    payload_init(&payload, "s1", 2, MIB);
    CHECK_OK(feature_reserve(world->producer, &payload.sample, 0, &reservation));
    payload_write(&payload, reservation, 0);
    CHECK(world_home(world).planned == 1, "not planned");
    feature_cancel(reservation);
    world_settle(world);
    cluster_await_empty(&world->cluster, world->producer_node);
    check_invisible(world, "s1");
    payload_deinit(&payload);
}

/* A helper that reserves, writes half and waits to be killed. */
static int half_a_put(int channel, void *context) {
    struct world *world = context;
    struct payload payload;
    struct feature_reservation *reservation = NULL;
    struct feature *feature = cluster_connect(&world->cluster, world->producer_node);
    struct feature_store *store = cluster_open(feature, "run", false);
    payload_init(&payload, "s1", 3, MIB);
    CHECK_OK(feature_reserve(store, &payload.sample, 0, &reservation));
    payload_write(&payload, reservation, 0);
    channel_say(channel, "half");
    channel_expect(channel, "never", 60000);
    return 1;
}

CONTRACT(c1_a_producer_that_dies_leaves_nothing, RUN_STORE) {
    struct process producer;
    process_fork(&producer, half_a_put, world);
    channel_expect(producer.channel, "half", 20000);
    CHECK(world_home(world).planned == 1 && world_home(world).resident_bytes >= MIB, "not planned");
    process_kill(&producer);
    cluster_await_empty(&world->cluster, world->producer_node);
    check_invisible(world, "s1");
}

/* A helper that puts generation after generation of one sample, all bytes of each from one seed. */
static int supersede_for_ever(int channel, void *context) {
    struct world *world = context;
    struct feature *feature = cluster_connect(&world->cluster, world->producer_node);
    struct feature_store *store = cluster_open(feature, "run", false);
    for (uint64_t seed = 1; !channel_pending(channel, 0); seed++) {
        struct payload payload;
        payload_init(&payload, "s1", seed, 256 * 1024 + seed * 1000);
        CHECK_OK(payload_put(&payload, store, 20000, NULL));
        payload_deinit(&payload);
        if (seed == 1)
            channel_say(channel, "first");
    }
    feature_disconnect(feature);
    return 0;
}

CONTRACT(c1_a_reader_never_sees_half_a_generation, "[store run]\npolicy = retain\n") {
    struct process producer;
    uint64_t generations = 0, last_seed = 0;
    process_fork(&producer, supersede_for_ever, world);
    channel_expect(producer.channel, "first", 20000);
    for (int i = 0; i < 60 || generations < 5; i++) {
        struct feature_get_options options = {.size = sizeof options, .deadline_ms = 20000};
        struct feature_view *view = NULL;
        int status = feature_get(world->consumer, by_id("s1"), &options, &view);
        if (status == FEATURE_E_NOT_FOUND)
            continue; /* superseded between the two nodes: a new look-up finds the newer one */
        CHECK_OK(status);
        uint64_t seed = payload_seed(view);
        struct payload payload;
        payload_init(&payload, "s1", seed, 256 * 1024 + seed * 1000);
        const char *why = payload_difference(&payload, view);
        CHECK(why == NULL, "generation of seed %" PRIu64 ": %s", seed, why);
        payload_deinit(&payload);
        CHECK_OK(feature_release(view, FEATURE_RELEASE_CONSUMED));
        generations += seed != last_seed;
        last_seed = seed;
    }
    channel_say(producer.channel, "end");
    process_join(&producer, 20000);
    CHECK_OK(feature_abort(world->producer, FEATURE_BY_ID("s1"), 1, NULL));
    world_settle(world);
}

/* ---- 3: supersede ---- */

CONTRACT(c3_supersede, RUN_STORE) {
    struct payload old, new;
    struct feature_ref *old_ref = NULL, *new_ref = NULL;
    payload_init(&old, "s1", 10, MIB);
    payload_init(&new, "s1", 11, 3 * MIB + 12345);
    CHECK_OK(payload_put(&old, world->producer, 0, &old_ref));
    struct feature_view *reader = payload_view(&old, world->consumer, by_ref(old_ref));
    CHECK_OK(payload_put(&new, world->producer, 0, &new_ref));
    CHECK(feature_ref_generation(new_ref) != feature_ref_generation(old_ref), "same generation");
    CHECK_STATUS(FEATURE_E_NOT_FOUND, world_try_get(world->consumer, by_ref(old_ref), 5000));
    CHECK_STATUS(FEATURE_E_NOT_FOUND, world_try_get(world->producer, by_ref(old_ref), 5000));
    payload_check_get(&new, world->consumer, by_id("s1"), FEATURE_RELEASE_RETURNED);
    payload_check_get(&new, world->consumer, by_ref(new_ref), FEATURE_RELEASE_RETURNED);
    CHECK(payload_difference(&old, reader) == NULL, "%s", payload_difference(&old, reader));

    /* stale words are harmless successes */
    CHECK_OK(feature_release(reader, FEATURE_RELEASE_CONSUMED));
    CHECK_OK(feature_ack(world->consumer, FEATURE_BY_REF(old_ref), 1, NULL));
    CHECK_OK(feature_abort(world->consumer_writer, FEATURE_BY_REF(old_ref), 1, NULL));
    world_settle(world);
    payload_check_get(&new, world->consumer, by_ref(new_ref), FEATURE_RELEASE_CONSUMED);
    world_settle(world);
    CHECK_STATUS(FEATURE_E_NOT_FOUND, world_try_get(world->consumer, by_id("s1"), 5000));
    feature_ref_free(old_ref);
    feature_ref_free(new_ref);
    payload_deinit(&old);
    payload_deinit(&new);
}

/* ---- 4: nothing is evicted ---- */

#define EIGHT_MIB "[store run]\nmax_resident_bytes = 8MiB\nlanding_bytes = 16MiB\n"
#define PARTS     8u /* of a full store; each with room for its padding */
#define PART      (MIB - 65536u)

static void fill_store(struct world *world, struct payload parts[PARTS],
                       struct feature_ref *refs[PARTS]) {
    for (uint32_t i = 0; i < PARTS; i++) {
        char sample_id[16];
        snprintf(sample_id, sizeof sample_id, "part%u", i);
        payload_init(&parts[i], sample_id, 100 + i, PART);
        CHECK_OK(payload_put(&parts[i], world->producer, 0, &refs[i]));
    }
}

static void consume_part(struct world *world, struct payload *part, struct feature_ref **ref) {
    payload_check_get(part, world->consumer, by_ref(*ref), FEATURE_RELEASE_CONSUMED);
    world_settle(world);
    feature_ref_free(*ref);
    payload_deinit(part);
}

CONTRACT(c4_nothing_is_evicted, EIGHT_MIB) {
    struct payload parts[PARTS], more, huge;
    struct feature_ref *refs[PARTS];
    fill_store(world, parts, refs);
    payload_init(&more, "more", 200, PART);
    payload_init(&huge, "huge", 201, 9 * MIB);
    CHECK_STATUS(FEATURE_E_FULL, payload_put(&more, world->producer, 0, NULL));
    uint64_t begin_ms = check_now_ms();
    CHECK_STATUS(FEATURE_E_FULL, payload_put(&more, world->producer, 300, NULL));
    CHECK(check_now_ms() - begin_ms >= 150, "it did not wait for its deadline");
    CHECK_SAYS("run");
    CHECK_STATUS(FEATURE_E_INVALID, /* could never fit: waiting would not help */
                 payload_put(&huge, world->producer, 60000, NULL));
    for (uint32_t i = 0; i < PARTS; i++)
        payload_check_get(&parts[i], world->consumer, by_ref(refs[i]), FEATURE_RELEASE_RETURNED);
    for (uint32_t i = 0; i < PARTS; i++)
        consume_part(world, &parts[i], &refs[i]);
    payload_deinit(&more);
    payload_deinit(&huge);
}

struct late_put {
    struct world *world;
    const char *sample_id;
    uint64_t seed, bytes;
};

/* A helper whose put has to wait for room. */
static int waiting_put(int channel, void *context) {
    struct late_put *put = context;
    struct payload payload;
    struct feature *feature = cluster_connect(&put->world->cluster, put->world->producer_node);
    struct feature_store *store = cluster_open(feature, "run", false);
    payload_init(&payload, put->sample_id, put->seed, put->bytes);
    CHECK_OK(payload_put(&payload, store, 60000, NULL));
    channel_say(channel, "stored");
    payload_deinit(&payload);
    feature_disconnect(feature);
    return 0;
}

/* With max_pass = 0 nobody passes anybody; with more, see squat.c. */
CONTRACT(c4_a_put_waits_its_turn_for_room, EIGHT_MIB "max_pass = 0\n") {
    struct payload parts[PARTS], check;
    struct feature_ref *refs[PARTS];
    struct process large, small;
    fill_store(world, parts, refs);
    struct late_put large_put = {world, "large", 300, 2 * PART},
                    small_put = {world, "small", 301, PART};
    process_fork(&large, waiting_put, &large_put);
    WAIT_UNTIL(world_home(world).put_waiters == 1, 20000);
    process_fork(&small, waiting_put, &small_put);
    WAIT_UNTIL(world_home(world).put_waiters == 2, 20000);

    consume_part(world, &parts[0], &refs[0]);
    CHECK(world_home(world).put_waiters == 2, "the small put jumped the queue");
    consume_part(world, &parts[1], &refs[1]);
    channel_expect(large.channel, "stored", 20000);
    CHECK(world_home(world).put_waiters == 1, "%" PRIu64 " wait", world_home(world).put_waiters);
    consume_part(world, &parts[2], &refs[2]);
    channel_expect(small.channel, "stored", 20000);
    process_join(&large, 20000);
    process_join(&small, 20000);

    for (uint32_t i = 3; i < PARTS; i++)
        consume_part(world, &parts[i], &refs[i]);
    payload_init(&check, "large", 300, 2 * PART);
    payload_check_get(&check, world->consumer, by_id("large"), FEATURE_RELEASE_CONSUMED);
    payload_deinit(&check);
    payload_init(&check, "small", 301, PART);
    payload_check_get(&check, world->consumer, by_id("small"), FEATURE_RELEASE_CONSUMED);
    payload_deinit(&check);
    world_settle(world);
}
