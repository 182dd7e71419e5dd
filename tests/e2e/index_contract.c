/* SPDX-License-Identifier: Apache-2.0
 *
 * The cluster-wide clauses of the contract on three nodes and a real etcd: what one node has
 * answered is true on every other one from that answer on.
 */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "e2e/index_world.h"
#include "support/checks.h"

#define MIB         1048576u
#define PATIENCE_MS 60000u

#define INDEX(NAME) INDEX_WITH(index, NAME, .nodes = INDEX_NODES)
/* With leases whose end is waited for. */
#define SOON_LOST(NAME) INDEX_WITH(index, NAME, .lease_ttl_ms = 5000)

static void abort_by(struct feature_store *store, const struct feature_key *key) {
    CHECK_OK(feature_abort(store, key, 1, NULL));
}

/* What was said before has been carried out: etcd has exactly so many records of a store. */
static void expect_records(struct index_world *world, const char *store, uint32_t count) {
    char prefix[32];
    index_world_settle(world);
    snprintf(prefix, sizeof prefix, "samples/%s/", store);
    uint32_t got = cluster_etcd_count(&world->cluster, prefix);
    CHECK(got == count, "%u records of store %s, expected %u", got, store, count);
}

static void await_home_empty(struct index_world *world, uint32_t node) {
    WAIT_UNTIL(cluster_numbers(&world->cluster, node, "run").resident_bytes == 0, PATIENCE_MS);
}

/* ---- abort ---- */

/* Put on a, read on b, aborted on `aborter`: gone everywhere at once but for b's reader. */
static void check_abort(struct index_world *world, uint32_t aborter, bool by_its_ref) {
    struct payload payload;
    struct feature_ref *ref = NULL;
    payload_init(&payload, "s1", 1, MIB);
    CHECK_OK(payload_put(&payload, world->run[A], 0, &ref));
    struct feature_view *reader = payload_view(&payload, world->run[B], by_ref(ref));
    abort_by(world->run[aborter], by_its_ref ? by_ref(ref) : by_id("s1"));
    index_world_expect(world, by_ref(ref), FEATURE_E_NOT_FOUND);
    index_world_expect(world, by_id("s1"), FEATURE_E_NOT_FOUND);
    for (uint32_t i = 0; i < INDEX_NODES; i++)
        CHECK_STATUS(FEATURE_E_NOT_FOUND, feature_exists(world->run[i], by_id("s1")));
    CHECK(payload_difference(&payload, reader) == NULL, "%s", payload_difference(&payload, reader));
    CHECK_OK(feature_view_check(reader));
    CHECK(cluster_numbers(&world->cluster, A, "run").resident_bytes >= MIB, "freed under a reader");
    expect_records(world, "run", 0); /* though it is still being read */
    CHECK_OK(feature_release(reader, FEATURE_RELEASE_RETURNED));
    index_world_settle(world);
    await_home_empty(world, A);
    await_home_empty(world, B);                 /* nor a copy where it was read */
    abort_by(world->run[aborter], by_ref(ref)); /* absent is success */
    abort_by(world->run[aborter], by_id("s1"));
    feature_ref_free(ref);
    payload_deinit(&payload);
}

INDEX(an_abort_at_home_by_ref_is_true_on_every_node_while_another_reads) {
    check_abort(world, A, true);
}
INDEX(an_abort_at_home_by_id_is_true_on_every_node_while_another_reads) {
    check_abort(world, A, false);
}
INDEX(an_abort_on_a_third_node_by_ref_is_true_on_every_node) {
    check_abort(world, C, true);
}
INDEX(an_abort_on_a_third_node_by_id_is_true_on_every_node) {
    check_abort(world, C, false);
}

/* ---- readers that never stop asking ---- */

struct hammer { /* gets one sample by ref and by id in turn until told to stop */
    pthread_t thread;
    struct feature_store *store;
    const struct feature_ref *ref;
    const char *sample_id;
    atomic_bool stop;
    atomic_uint gets;
    uint64_t last_good_us; /* when the last get of this generation that succeeded was begun */
};

static bool gets_it(struct hammer *hammer, const struct feature_key *key) {
    struct feature_get_options options = {.size = sizeof options, .deadline_ms = 5000};
    struct feature_view *view = NULL;
    int status = feature_get(hammer->store, key, &options, &view);
    CHECK(status == FEATURE_OK || status == FEATURE_E_NOT_FOUND, "%s: %s", feature_strerror(status),
          feature_last_error());
    if (status != FEATURE_OK)
        return false;
    bool same =
        feature_ref_generation(feature_view_ref(view)) == feature_ref_generation(hammer->ref);
    feature_release(view, FEATURE_RELEASE_RETURNED);
    return same;
}

static void *run_hammer(void *context) {
    struct hammer *hammer = context;
    while (!hammer->stop) {
        uint64_t begun_us = check_now_us();
        bool by_its_ref = hammer->gets % 2 == 0;
        if (gets_it(hammer, by_its_ref ? by_ref(hammer->ref) : by_id(hammer->sample_id)))
            hammer->last_good_us = begun_us;
        hammer->gets++;
    }
    return NULL;
}

/* While every node gets a generation without pause, `end_it` ends it: no get that is begun after
 * its return succeeds. */
static void check_hammered(struct index_world *world, const struct feature_ref *ref,
                           void (*end_it)(struct index_world *world, void *context),
                           void *context) {
    struct hammer hammers[INDEX_NODES];
    for (uint32_t i = 0; i < INDEX_NODES; i++) {
        hammers[i] = (struct hammer){
            .store = world->run[i], .ref = ref, .sample_id = feature_ref_sample_id(ref)};
        CHECK(pthread_create(&hammers[i].thread, NULL, run_hammer, &hammers[i]) == 0, "no thread");
    }
    for (uint32_t i = 0; i < INDEX_NODES; i++)
        WAIT_UNTIL(hammers[i].gets >= 4, PATIENCE_MS);
    end_it(world, context);
    uint64_t ended_us = check_now_us();
    for (uint32_t i = 0; i < INDEX_NODES; i++) {
        unsigned so_far = hammers[i].gets;
        WAIT_UNTIL(hammers[i].gets >= so_far + 5, PATIENCE_MS);
    }
    for (uint32_t i = 0; i < INDEX_NODES; i++) {
        hammers[i].stop = true;
        pthread_join(hammers[i].thread, NULL);
        CHECK(hammers[i].last_good_us <= ended_us,
              "node %s got it in a get begun %llu us after its end was answered",
              world->cluster.nodes[i].name,
              (unsigned long long)(hammers[i].last_good_us - ended_us));
    }
}

static void abort_on_c(struct index_world *world, void *context) {
    (void)context;
    abort_by(world->run[C], by_id("s1"));
}

static void put_on_c(struct index_world *world, void *context) {
    CHECK_OK(payload_put(context, world->run[C], 5000, NULL));
}

INDEX(no_get_begun_after_an_abort_succeeds) {
    for (uint32_t round = 0; round < 5; round++) {
        struct payload payload;
        struct feature_ref *ref = NULL;
        payload_init(&payload, "s1", round, 70000);
        CHECK_OK(payload_put(&payload, world->run[round % 2], 0, &ref));
        check_hammered(world, ref, abort_on_c, NULL);
        feature_ref_free(ref);
        payload_deinit(&payload);
    }
    index_world_settle(world);
}

INDEX(no_get_of_the_old_one_begun_after_a_re_put_succeeds) {
    for (uint32_t round = 0; round < 5; round++) {
        struct payload old, new;
        struct feature_ref *ref = NULL;
        payload_init(&old, "s1", 2 * round, 70000);
        payload_init(&new, "s1", 2 * round + 1, 70000);
        CHECK_OK(payload_put(&old, world->run[round % 2], 0, &ref));
        check_hammered(world, ref, put_on_c, &new);
        index_world_expect(world, by_ref(ref), FEATURE_E_NOT_FOUND);
        feature_ref_free(ref);
        payload_deinit(&old);
        payload_deinit(&new);
    }
    abort_by(world->run[A], by_id("s1"));
    index_world_settle(world);
}

/* ---- supersede ---- */

INDEX(a_re_put_from_another_node_supersedes_everywhere) {
    struct payload old, new;
    struct feature_ref *old_ref = NULL, *new_ref = NULL;
    payload_init(&old, "s1", 1, MIB);
    payload_init(&new, "s1", 2, 2 * MIB);
    CHECK_OK(payload_put(&old, world->run[A], 0, &old_ref));
    struct feature_view *reader = payload_view(&old, world->run[B], by_ref(old_ref));
    CHECK_OK(payload_put(&new, world->run[C], 0, &new_ref));
    index_world_expect(world, by_ref(old_ref), FEATURE_E_NOT_FOUND);
    index_world_expect_current(world, &new, new_ref);
    CHECK(payload_difference(&old, reader) == NULL, "%s", payload_difference(&old, reader));
    abort_by(world->run[B], by_ref(old_ref)); /* stale: no harm to the new one */
    CHECK_OK(feature_view_check(reader));
    CHECK_OK(feature_release(reader, FEATURE_RELEASE_CONSUMED));
    expect_records(world, "run", 1);
    await_home_empty(world, A);
    index_world_expect_current(world, &new, new_ref);
    payload_check_get(&new, world->run[A], by_id("s1"), FEATURE_RELEASE_CONSUMED);
    expect_records(world, "run", 0);
    index_world_expect(world, by_ref(new_ref), FEATURE_E_NOT_FOUND);
    feature_ref_free(old_ref);
    feature_ref_free(new_ref);
    payload_deinit(&old);
    payload_deinit(&new);
}

struct racer {
    pthread_t thread;
    pthread_barrier_t *barrier;
    struct feature_store *store;
    struct payload payload;
    struct feature_ref *ref;
};

static void *run_racer(void *context) {
    struct racer *racer = context;
    pthread_barrier_wait(racer->barrier);
    CHECK_OK(payload_put(&racer->payload, racer->store, 10000, &racer->ref));
    return NULL;
}

/* The racer whose generation every node gets. */
static uint32_t winner_of(struct index_world *world, const struct racer racers[]) {
    struct feature_get_options options = {.size = sizeof options, .deadline_ms = 5000};
    struct feature_view *view = NULL;
    uint32_t winner = 0;
    CHECK_OK(feature_get(world->run[A], by_id("raced"), &options, &view));
    while (winner < INDEX_NODES && feature_ref_generation(racers[winner].ref) !=
                                       feature_ref_generation(feature_view_ref(view)))
        winner++;
    CHECK(winner < INDEX_NODES, "a generation that nobody was given");
    CHECK_OK(feature_release(view, FEATURE_RELEASE_RETURNED));
    return winner;
}

static void race_once(struct index_world *world, uint32_t round) {
    struct racer racers[INDEX_NODES];
    pthread_barrier_t barrier;
    pthread_barrier_init(&barrier, NULL, INDEX_NODES);
    for (uint32_t i = 0; i < INDEX_NODES; i++) {
        racers[i] = (struct racer){.barrier = &barrier, .store = world->run[i]};
        payload_init(&racers[i].payload, "raced", round * INDEX_NODES + i, 70000);
    }
    for (uint32_t i = 0; i < INDEX_NODES; i++)
        CHECK(pthread_create(&racers[i].thread, NULL, run_racer, &racers[i]) == 0, "no thread");
    for (uint32_t i = 0; i < INDEX_NODES; i++)
        pthread_join(racers[i].thread, NULL);
    uint32_t winner = winner_of(world, racers);
    for (uint32_t i = 0; i < INDEX_NODES; i++)
        if (i != winner)
            index_world_expect(world, by_ref(racers[i].ref), FEATURE_E_NOT_FOUND);
    index_world_expect_current(world, &racers[winner].payload, racers[winner].ref);
    expect_records(world, "run", 1);
    WAIT_UNTIL(index_world_resident(world) == 1, PATIENCE_MS);
    for (uint32_t i = 0; i < INDEX_NODES; i++) {
        feature_ref_free(racers[i].ref);
        payload_deinit(&racers[i].payload);
    }
    pthread_barrier_destroy(&barrier);
}

INDEX(of_three_puts_at_once_exactly_one_is_current) {
    for (uint32_t round = 0; round < 20; round++)
        race_once(world, round);
    abort_by(world->run[B], by_id("raced"));
    expect_records(world, "run", 0);
    for (uint32_t i = 0; i < INDEX_NODES; i++)
        await_home_empty(world, i);
}

/* ---- by id, without a ref ---- */

INDEX(any_node_gets_and_probes_by_id_what_any_other_put) {
    static const char *const ids[INDEX_NODES] = {"at a", "at b/%", "at \xc3\xa7"};
    struct payload payloads[INDEX_NODES];
    struct feature_ref *refs[INDEX_NODES] = {NULL};
    for (uint32_t home = 0; home < INDEX_NODES; home++) {
        payload_init(&payloads[home], ids[home], home, MIB);
        CHECK_OK(payload_put(&payloads[home], world->run[home], 0, &refs[home]));
    }
    for (uint32_t home = 0; home < INDEX_NODES; home++) {
        index_world_expect_current(world, &payloads[home], refs[home]);
        for (uint32_t node = 0; node < INDEX_NODES; node++) {
            struct feature_info info = FEATURE_INFO_INIT;
            CHECK_OK(feature_exists(world->run[node], by_id(ids[home])));
            CHECK_OK(feature_stat(world->run[node], by_id(ids[home]), &info, NULL));
            CHECK(info.state == FEATURE_STATE_RESIDENT &&
                      info.generation == feature_ref_generation(refs[home]),
                  "state %d, generation %llu", (int)info.state,
                  (unsigned long long)info.generation);
        }
        payload_check_get(&payloads[home], world->run[(home + 1) % INDEX_NODES], by_id(ids[home]),
                          FEATURE_RELEASE_CONSUMED);
        index_world_settle(world);
        index_world_expect(world, by_id(ids[home]), FEATURE_E_NOT_FOUND);
        feature_ref_free(refs[home]);
        payload_deinit(&payloads[home]);
    }
}

struct early_get {
    struct feature_store *store;
    const struct payload *payload;
};

static void *run_early_get(void *context) {
    struct early_get *early = context;
    struct feature_get_options options = {
        .size = sizeof options, .deadline_ms = 20000, .wait_ms = 8000};
    struct feature_view *view = NULL;
    CHECK_OK(feature_get(early->store, by_id(early->payload->sample_id), &options, &view));
    CHECK(payload_difference(early->payload, view) == NULL, "%s",
          payload_difference(early->payload, view));
    CHECK_OK(feature_release(view, FEATURE_RELEASE_RETURNED));
    return NULL;
}

static uint64_t get_waiters(struct index_world *world) {
    uint64_t waiters = 0;
    for (uint32_t i = 0; i < INDEX_NODES; i++)
        waiters += cluster_numbers(&world->cluster, i, "run").get_waiters;
    return waiters;
}

INDEX(a_get_by_id_waits_for_a_put_on_another_node) {
    for (uint32_t home = 0; home < INDEX_NODES; home++) {
        struct payload payload;
        pthread_t thread;
        payload_init(&payload, "early", home, 70000);
        struct early_get early = {world->run[B], &payload};
        CHECK(pthread_create(&thread, NULL, run_early_get, &early) == 0, "no thread");
        WAIT_UNTIL(get_waiters(world) > 0, PATIENCE_MS);
        CHECK_OK(payload_put(&payload, world->run[home], 0, NULL));
        pthread_join(thread, NULL);
        abort_by(world->run[B], by_id("early"));
        index_world_settle(world);
        payload_deinit(&payload);
    }
}

INDEX(two_runs_with_the_same_ids_never_meet) {
    struct payload ours, theirs;
    struct feature_ref *ours_ref = NULL, *theirs_ref = NULL;
    payload_init(&ours, "s1", 1, 70000);
    payload_init(&theirs, "s1", 2, 90000);
    CHECK_OK(payload_put(&ours, world->run[A], 0, &ours_ref));
    CHECK_OK(payload_put(&theirs, world->acked[B], 0, &theirs_ref));
    for (uint32_t i = 0; i < INDEX_NODES; i++) {
        payload_check_get(&ours, world->run[i], by_id("s1"), FEATURE_RELEASE_RETURNED);
        payload_check_get(&theirs, world->acked[i], by_id("s1"), FEATURE_RELEASE_RETURNED);
    }
    abort_by(world->run[C], by_id("s1"));
    index_world_expect(world, by_id("s1"), FEATURE_E_NOT_FOUND);
    expect_records(world, "run", 0);
    expect_records(world, "acked", 1);
    for (uint32_t i = 0; i < INDEX_NODES; i++)
        payload_check_get(&theirs, world->acked[i], by_ref(theirs_ref), FEATURE_RELEASE_RETURNED);
    CHECK_OK(feature_ack(world->acked[C], FEATURE_BY_ID("s1"), 1, NULL));
    expect_records(world, "acked", 0);
    for (uint32_t i = 0; i < INDEX_NODES; i++)
        CHECK_STATUS(FEATURE_E_NOT_FOUND, world_try_get(world->acked[i], by_ref(theirs_ref), 5000));
    feature_ref_free(ours_ref);
    feature_ref_free(theirs_ref);
    payload_deinit(&ours);
    payload_deinit(&theirs);
}

/* ---- homes that die ---- */

SOON_LOST(what_a_killed_node_held_is_lost_and_may_be_put_elsewhere) {
    struct payload old, new;
    struct feature_ref *old_ref = NULL, *new_ref = NULL;
    payload_init(&old, "s1", 1, MIB);
    payload_init(&new, "s1", 2, MIB);
    CHECK_OK(payload_put(&old, world->run[A], 0, &old_ref));
    struct feature_view *reader = payload_view(&old, world->run[B], by_ref(old_ref));
    cluster_node_kill(&world->cluster, A);
    for (uint32_t i = B; i <= C; i++) {
        WAIT_UNTIL(world_try_get(world->run[i], by_ref(old_ref), 1000) == FEATURE_E_LOST,
                   PATIENCE_MS);
        WAIT_UNTIL(world_try_get(world->run[i], by_id("s1"), 1000) == FEATURE_E_LOST, PATIENCE_MS);
    }
    CHECK(payload_difference(&old, reader) == NULL, "%s", payload_difference(&old, reader));
    CHECK_OK(feature_release(reader, FEATURE_RELEASE_CONSUMED));
    CHECK_OK(payload_put(&new, world->run[B], 5000, &new_ref));
    cluster_node_start(&world->cluster, A);
    WAIT_UNTIL(world_try_get(world->run[A], by_id("s1"), 1000) == FEATURE_OK, PATIENCE_MS);
    index_world_expect_current(world, &new, new_ref);
    for (uint32_t i = 0; i < INDEX_NODES; i++)
        CHECK_STATUS(FEATURE_E_LOST, world_try_get(world->run[i], by_ref(old_ref), 5000));
    payload_check_get(&new, world->run[A], by_ref(new_ref), FEATURE_RELEASE_CONSUMED);
    index_world_settle(world);
    feature_ref_free(old_ref);
    feature_ref_free(new_ref);
    payload_deinit(&old);
    payload_deinit(&new);
}

SOON_LOST(an_ack_after_the_home_restarted_is_a_success_and_leaves_nothing) {
    struct payload payloads[4];
    struct feature_ref *refs[4] = {NULL};
    char sample_id[8];
    for (uint32_t i = 0; i < 4; i++) {
        snprintf(sample_id, sizeof sample_id, "s%u", i);
        payload_init(&payloads[i], sample_id, i, 70000);
        CHECK_OK(payload_put(&payloads[i], world->acked[A], 0, &refs[i]));
        payload_check_get(&payloads[i], world->acked[B], by_ref(refs[i]), FEATURE_RELEASE_CONSUMED);
    }
    cluster_node_kill(&world->cluster, A);
    cluster_node_start(&world->cluster, A);
    WAIT_UNTIL(world_try_get(world->acked[A], by_ref(refs[0]), 1000) == FEATURE_E_LOST,
               PATIENCE_MS);
    WAIT_UNTIL(world_try_get(world->acked[B], by_ref(refs[0]), 1000) == FEATURE_E_LOST,
               PATIENCE_MS);
    const struct feature_key from_b[] = {*by_ref(refs[0]), *by_id("s1")};
    const struct feature_key from_c[] = {*by_id("s2"), *by_ref(refs[0]), *by_id("s0")};
    const struct feature_key from_a[] = {*by_id("s3"), *by_ref(refs[1])};
    CHECK_OK(feature_ack(world->acked[B], from_b, 2, NULL));
    CHECK_OK(feature_ack(world->acked[C], from_c, 3, NULL));
    CHECK_OK(feature_ack(world->acked[A], from_a, 2, NULL));
    expect_records(world, "acked", 0);
    for (uint32_t i = 0; i < 4; i++) {
        CHECK_STATUS(FEATURE_E_LOST, world_try_get(world->acked[C], by_ref(refs[i]), 5000));
        feature_ref_free(refs[i]);
        payload_deinit(&payloads[i]);
    }
}
