/* SPDX-License-Identifier: Apache-2.0
 *
 * That etcd has lost what it knew ends no sample: emptied, restored from a backup, a record deleted
 * by hand, another cluster's records. What was there is there, what had ended has ended, and later
 * puts, gets and aborts are as true as before.
 */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "e2e/index_world.h"
#include "support/checks.h"

#define PATIENCE_MS 60000u
#define EACH        8u /* samples per node */
#define SAMPLES     (INDEX_NODES * EACH)
#define BYTES       2000u
#define COMPARE     "[directory]\ncompare_interval = 1s\n"

#define ABSENCE(NAME, ...)                                                                         \
    INDEX_WITH(index_absence, NAME, .lease_ttl_ms = CLUSTER_TTL_SHORT_MS,                          \
               .ini_of = {COMPARE, COMPARE, COMPARE}, __VA_ARGS__)

struct held {
    struct payload payloads[SAMPLES];
    struct feature_ref *refs[SAMPLES];
};

/* Sample i lies on node i % INDEX_NODES. */
static void put_numbered(struct index_world *world, struct held *held, uint32_t i, uint32_t node) {
    char id[16];
    snprintf(id, sizeof id, "s%u", i);
    feature_ref_free(held->refs[i]);
    held->refs[i] = NULL;
    payload_deinit(&held->payloads[i]);
    payload_init(&held->payloads[i], id, 100 * node + i, BYTES);
    index_world_put(world, node, &held->payloads[i], &held->refs[i]);
}

static struct held *put_all(struct index_world *world, uint32_t first, uint32_t end,
                            struct held *held) {
    held = held ? held : calloc(1, sizeof *held);
    CHECK(held != NULL, "memory");
    for (uint32_t i = first; i < end; i++)
        put_numbered(world, held, i, i % INDEX_NODES);
    return held;
}

static void abort_all(struct index_world *world, struct held *held) {
    for (uint32_t i = 0; i < SAMPLES; i++) {
        if (held->refs[i])
            index_world_abort(world, i % INDEX_NODES, held->payloads[i].sample_id);
        feature_ref_free(held->refs[i]);
        payload_deinit(&held->payloads[i]);
    }
    free(held);
}

static void await_records(struct index_world *world, uint32_t count) {
    WAIT_UNTIL(cluster_etcd_count(&world->cluster, "samples/run/") == count, PATIENCE_MS);
}

/* All that is held is found by its id and by its ref from everywhere, and nothing else is there. */
static void expect_whole(struct index_world *world, struct held *held, uint32_t count) {
    await_records(world, count);
    for (uint32_t i = 0; i < SAMPLES * INDEX_NODES; i++)
        if (held->refs[i % SAMPLES])
            WAIT_UNTIL(world_try_get(world->run[i / SAMPLES],
                                     by_id(held->payloads[i % SAMPLES].sample_id),
                                     1000) == FEATURE_OK,
                       PATIENCE_MS);
    for (uint32_t i = 0; i < SAMPLES; i++)
        if (held->refs[i])
            index_world_await_current(world, &held->payloads[i], held->refs[i]);
    WAIT_UNTIL(index_world_resident(world) == count, PATIENCE_MS); /* copies go by and by */
}

/* What is done afterwards is true for the whole cluster. */
static void expect_later_puts_hold(struct index_world *world, struct held *held, uint32_t count) {
    struct feature_ref *old = held->refs[0];
    held->refs[0] = NULL;
    put_numbered(world, held, 0, B); /* it was on a */
    index_world_await(world, by_ref(old), FEATURE_E_NOT_FOUND);
    feature_ref_free(old);
    index_world_abort(world, C, held->payloads[1].sample_id);
    index_world_expect(world, by_ref(held->refs[1]), FEATURE_E_NOT_FOUND);
    feature_ref_free(held->refs[1]);
    held->refs[1] = NULL;
    expect_whole(world, held, count - 1);
}

static void await_fenced(struct index_world *world) {
    for (uint32_t i = 0; i < INDEX_NODES; i++)
        WAIT_UNTIL(cluster_log_has(&world->cluster, i, ": fenced: "), PATIENCE_MS);
}

ABSENCE(absence_of_everything_after_a_fence_ends_nothing, .nodes = INDEX_NODES) {
    struct held *held = put_all(world, 0, SAMPLES, NULL);
    etcd_server_kill(&world->cluster.etcd, 0);
    await_fenced(world);
    etcd_server_restart_empty(&world->cluster.etcd);
    expect_whole(world, held, SAMPLES);
    expect_later_puts_hold(world, held, SAMPLES);
    abort_all(world, held);
}

ABSENCE(absence_of_everything_at_once_ends_nothing, .nodes = INDEX_NODES) {
    struct held *held = put_all(world, 0, SAMPLES, NULL);
    etcd_server_kill(&world->cluster.etcd, 0);
    etcd_server_restart_empty(&world->cluster.etcd);
    expect_whole(world, held, SAMPLES);
    expect_later_puts_hold(world, held, SAMPLES);
    abort_all(world, held);
}

/* In the backup are half of the samples; a third of them are put anew or aborted after it. */
static void check_backup(struct index_world *world, bool fenced) {
    struct held *held = put_all(world, 0, SAMPLES / 2, NULL);
    struct feature_ref *replaced = held->refs[2], *aborted = held->refs[3];
    etcd_server_back_up(&world->cluster.etcd);
    held->refs[2] = held->refs[3] = NULL;
    put_numbered(world, held, 2, A); /* it was on c */
    index_world_abort(world, B, "s3");
    put_all(world, SAMPLES / 2, SAMPLES, held);
    etcd_server_kill(&world->cluster.etcd, 0);
    if (fenced)
        await_fenced(world);
    etcd_server_restart_restored(&world->cluster.etcd);
    expect_whole(world, held, SAMPLES - 1);
    index_world_await(world, by_ref(replaced), FEATURE_E_NOT_FOUND);
    index_world_await(world, by_ref(aborted), FEATURE_E_NOT_FOUND);
    index_world_await(world, by_id("s3"), FEATURE_E_NOT_FOUND);
    expect_later_puts_hold(world, held, SAMPLES - 1);
    feature_ref_free(replaced);
    feature_ref_free(aborted);
    abort_all(world, held);
}

ABSENCE(absence_in_a_backup_ends_nothing_and_brings_nothing_back, .nodes = INDEX_NODES) {
    check_backup(world, false);
}
ABSENCE(absence_in_a_backup_after_a_fence_ends_nothing, .nodes = INDEX_NODES) {
    check_backup(world, true);
}

ABSENCE(absence_of_one_record_is_mended, .nodes = INDEX_NODES) {
    struct held *held = put_all(world, 0, SAMPLES, NULL);
    free(etcd_server_ctl(&world->cluster.etcd,
                         (const char *[]){"del", "/featured/test/samples/run/s4", NULL}));
    expect_whole(world, held, SAMPLES);
    free(etcd_server_ctl(&world->cluster.etcd,
                         (const char *[]){"del", "/featured/test/samples/run/s5", NULL}));
    index_world_abort(world, A, "s5"); /* it is on c, and an abort finds it without a record */
    index_world_expect(world, by_ref(held->refs[5]), FEATURE_E_NOT_FOUND);
    feature_ref_free(held->refs[5]);
    held->refs[5] = NULL;
    expect_whole(world, held, SAMPLES - 1);
    abort_all(world, held);
}

/* Of a node that has one of our names, one that has none, and numbers below and above ours. */
static void plant_foreign(struct index_world *world) {
    static const char *const homes[] = {"a", "elsewhere"};
    char key[64], value[128];
    for (uint32_t i = 0; i < SAMPLES; i += 2) {
        snprintf(key, sizeof key, "/featured/test/samples/run/s%u", i);
        snprintf(value, sizeof value,
                 "{\"gen\":%" PRIu64 ",\"home\":\"%s\",\"inc\":\"abc\",\"bytes\":1,\"time\":1}",
                 i % 4 ? UINT64_C(7) : UINT64_C(9000000000000000000), homes[i / 4 % 2]);
        free(etcd_server_ctl(&world->cluster.etcd, (const char *[]){"put", key, value, NULL}));
    }
}

ABSENCE(absence_under_records_of_another_cluster_ends_nothing, .nodes = INDEX_NODES) {
    struct held *held = put_all(world, 0, SAMPLES, NULL);
    plant_foreign(world);
    put_numbered(world, held, 0, B); /* over a foreign record: it is answered */
    expect_whole(world, held, SAMPLES);
    expect_later_puts_hold(world, held, SAMPLES);
    abort_all(world, held);
}

/* c is stopped until it counts as dead; meanwhile its samples are put anew and aborted elsewhere,
 * and these ends are known to etcd alone, by name. Then etcd is emptied as well. */
static void check_ends(struct index_world *world, bool emptied) {
    struct held *held = put_all(world, 0, SAMPLES, NULL);
    struct feature_ref *replaced = held->refs[2];
    cluster_node_freeze(&world->cluster, C);
    cluster_etcd_await_fenced(&world->cluster, C);
    held->refs[2] = NULL;
    put_numbered(world, held, 2, A);
    if (!emptied)
        index_world_abort(world, B, "s5");
    if (emptied) {
        etcd_server_kill(&world->cluster.etcd, 0);
        etcd_server_restart_empty(&world->cluster.etcd);
    }
    cluster_node_thaw(&world->cluster, C);
    index_world_await(world, by_ref(replaced), FEATURE_E_NOT_FOUND);
    if (!emptied) {
        index_world_await(world, by_ref(held->refs[5]), FEATURE_E_NOT_FOUND);
        feature_ref_free(held->refs[5]);
        held->refs[5] = NULL;
    }
    expect_whole(world, held, SAMPLES - !emptied);
    feature_ref_free(replaced);
    abort_all(world, held);
}

ABSENCE(absence_is_told_from_what_ended_by_name_meanwhile, .nodes = INDEX_NODES) {
    check_ends(world, false);
}
ABSENCE(absence_of_everything_and_of_a_home_keeps_the_later_put, .nodes = INDEX_NODES) {
    check_ends(world, true);
}
