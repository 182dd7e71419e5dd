/* SPDX-License-Identifier: Apache-2.0
 *
 * Faults of etcd: a leader that dies, a quorum that is lost, an etcd that is not there yet, a watch
 * that finds its revision compacted. Each prints how long it took to serve again, how much was
 * refused, and that nothing untrue was answered.
 */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "e2e/traffic.h"
#include "support/checks.h"

#define PATIENCE_MS 60000u

#define FAULT(NAME, ...) INDEX_WITH(index_faults, NAME, __VA_ARGS__)

FAULT(a_killed_leader_is_replaced, .etcd_members = 3) {
    struct traffic traffic;
    traffic_start(&traffic, world);
    traffic_await_all(&traffic);
    uint32_t leader = etcd_server_leader(&world->cluster.etcd);
    etcd_server_kill(&world->cluster.etcd, leader);
    uint64_t recovered_ms = traffic_await_all(&traffic);
    etcd_server_restart(&world->cluster.etcd, leader);
    traffic_await_all(&traffic);
    traffic_stop(&traffic, "etcd leader killed", recovered_ms);
}

static void await_refusals(struct index_world *world, const struct feature_ref *ref) {
    for (uint32_t i = 0; i < world->cluster.count; i++)
        WAIT_UNTIL(world_try_get(world->run[i], by_ref(ref), 500) == FEATURE_E_UNAVAILABLE,
                   PATIENCE_MS);
}

FAULT(a_lost_quorum_stops_promises_and_loses_nothing, .etcd_members = 3,
      .lease_ttl_ms = CLUSTER_TTL_SHORT_MS) {
    const uint64_t outage_ms = 3 * world->cluster.lease_ttl_ms;
    struct traffic traffic;
    struct payload kept, late;
    struct feature_ref *ref = NULL;
    payload_init(&kept, "kept", 1, 1u << 20);
    payload_init(&late, "late", 2, 1000);
    index_world_put(world, A, &kept, &ref);
    struct feature_view *reader = index_world_view(world, B, &kept, by_ref(ref));
    traffic_start(&traffic, world);
    traffic_await_all(&traffic);
    uint64_t begun_ms = check_now_ms();
    etcd_server_kill(&world->cluster.etcd, 0);
    etcd_server_kill(&world->cluster.etcd, 1);
    await_refusals(world, ref);
    for (uint32_t i = 0; i < INDEX_NODES; i++) /* a put sent before that stays in doubt */
        WAIT_UNTIL(cluster_log_has(&world->cluster, i, ": fenced: "), PATIENCE_MS);
    for (uint32_t i = 0; i < INDEX_NODES; i++)
        CHECK_STATUS(FEATURE_E_UNAVAILABLE, payload_put(&late, world->run[i], 500, NULL));
    CHECK(payload_difference(&kept, reader) == NULL, "%s", payload_difference(&kept, reader));
    CHECK_OK(feature_view_check(reader));
    WAIT_UNTIL(check_now_ms() >= begun_ms + outage_ms, 2 * outage_ms);
    await_refusals(world, ref);
    etcd_server_restart(&world->cluster.etcd, 0);
    etcd_server_restart(&world->cluster.etcd, 1);
    uint64_t recovered_ms = traffic_await_all(&traffic);
    CHECK_OK(feature_view_check(reader));
    CHECK_OK(feature_release(reader, FEATURE_RELEASE_RETURNED));
    index_world_await_current(world, &kept, ref);
    traffic_stop(&traffic, "etcd quorum lost for 3 x TTL", recovered_ms);
    index_world_abort(world, C, "kept");
    feature_ref_free(ref);
    payload_deinit(&kept);
    payload_deinit(&late);
}

FAULT(brokers_start_without_etcd_and_serve_when_it_comes, .etcd_late = true) {
    struct traffic traffic;
    struct payload payload;
    payload_init(&payload, "s1", 1, 70000);
    for (uint32_t i = 0; i < INDEX_NODES; i++) {
        CHECK_STATUS(FEATURE_E_UNAVAILABLE, payload_put(&payload, world->run[i], 300, NULL));
        CHECK_STATUS(FEATURE_E_UNAVAILABLE, world_try_get(world->run[i], by_id("s1"), 500));
        CHECK(!cluster_health(&world->cluster, i).draining, "draining");
        WAIT_UNTIL(cluster_log_has(&world->cluster, i, "etcd"), PATIENCE_MS);
    }
    traffic_start(&traffic, world);
    etcd_server_restart(&world->cluster.etcd, 0);
    uint64_t recovered_ms = traffic_await_all(&traffic);
    traffic_stop(&traffic, "etcd down at start", recovered_ms);
    payload_deinit(&payload);
}

/* ---- compaction ---- */

static uint64_t etcd_revision(struct index_world *world) {
    char *text = etcd_server_ctl(&world->cluster.etcd,
                                 (const char *[]){"get", "/featured", "-w", "json", NULL});
    uint64_t revision = 0;
    const char *at = strstr(text, "\"revision\":");
    CHECK(at != NULL && sscanf(at, "\"revision\":%" SCNu64, &revision) == 1, "%s", text);
    free(text);
    return revision;
}

/* Node a does not see c go and come back: the events are gone when it may look again. */
FAULT(a_watch_over_compacted_revisions_reads_the_list_again, .proxied = true,
      .lease_ttl_ms = CLUSTER_TTL_SHORT_MS) {
    struct proxy *proxy = &world->cluster.proxies[A].etcd;
    struct traffic traffic;
    struct payload payload;
    struct feature_ref *old = NULL, *new = NULL;
    char revision[32];
    payload_init(&payload, "s1", 1, 70000);
    index_world_put(world, C, &payload, &old);
    proxy_hold(proxy, PROXY_HOLD_BOTH);
    cluster_node_terminate(&world->cluster, C); /* gives its lease back */
    cluster_etcd_await_fenced(&world->cluster, C);
    cluster_node_start(&world->cluster, C);
    WAIT_UNTIL(cluster_etcd_count(&world->cluster, "nodes/c") == 1, PATIENCE_MS);
    snprintf(revision, sizeof revision, "%" PRIu64, etcd_revision(world));
    free(etcd_server_ctl(&world->cluster.etcd, (const char *[]){"compact", revision, NULL}));
    proxy_hold(proxy, PROXY_OPEN);
    proxy_cut(proxy);
    uint64_t begun_ms = check_now_ms();
    WAIT_UNTIL(world_try_get(world->run[A], by_ref(old), 500) == FEATURE_E_LOST, PATIENCE_MS);
    WAIT_UNTIL(payload_put(&payload, world->run[C], 500, &new) == FEATURE_OK, PATIENCE_MS);
    WAIT_UNTIL(world_try_get(world->run[A], by_ref(new), 500) == FEATURE_OK, PATIENCE_MS);
    uint64_t recovered_ms = check_now_ms() - begun_ms;
    traffic_start(&traffic, world);
    traffic_await_all(&traffic);
    traffic_stop(&traffic, "compaction during a watch gap", recovered_ms);
    index_world_abort(world, A, "s1");
    feature_ref_free(old);
    feature_ref_free(new);
    payload_deinit(&payload);
}
