/* SPDX-License-Identifier: Apache-2.0
 *
 * Faults of nodes and of the network between them: a broker that stops for longer than its lease
 * lives and goes on, one that is killed, one cut off from etcd, from its peers, or one way only.
 */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "e2e/traffic.h"
#include "support/checks.h"

#define PATIENCE_MS 60000u

#define NODE_FAULT(NAME, ...) INDEX_WITH(index_nodes, NAME, __VA_ARGS__)
#define SHORT                 .lease_ttl_ms = CLUSTER_TTL_SHORT_MS

static uint64_t outage_ms(const struct index_world *world) {
    return 3 * world->cluster.lease_ttl_ms;
}

static void let_pass_until(uint64_t end_ms) {
    WAIT_UNTIL(check_now_ms() >= end_ms, PATIENCE_MS);
}

/* ---- a zombie ---- */

struct slow_put {
    pthread_t thread;
    struct feature_store *store;
    struct payload payload;
    struct feature_ref *ref;
    uint32_t deadline_ms;
    int status;
};

static void *run_slow_put(void *context) {
    struct slow_put *put = context;
    put->status = payload_put(&put->payload, put->store, put->deadline_ms, &put->ref);
    return NULL;
}

static void slow_put_start(struct slow_put *put, struct feature_store *store, const char *sample_id,
                           uint64_t deadline_ms) {
    *put = (struct slow_put){.store = store, .deadline_ms = (uint32_t)deadline_ms};
    payload_init(&put->payload, sample_id, 1, 70000);
    CHECK(pthread_create(&put->thread, NULL, run_slow_put, put) == 0, "no thread");
}

/* Refused, or not known when the client stopped waiting. */
static bool is_undecided(int status) {
    return status == FEATURE_E_UNAVAILABLE || status == FEATURE_E_TIMEOUT;
}

static bool is_sealed(struct index_world *world, uint32_t node, const char *sample_id) {
    struct feature_info info = FEATURE_INFO_INIT;
    feature_stat(world->run[node], by_id(sample_id), &info, NULL);
    return info.state == FEATURE_STATE_SEALED;
}

/* What b re-put while a was stopped: b's alone is current on every node, a's ref is dead. */
static void check_superseded(struct index_world *world, const struct payload *ours,
                             const struct feature_ref *ours_ref,
                             const struct feature_ref *zombies) {
    for (uint32_t i = 0; i < INDEX_NODES && zombies != NULL; i++) {
        int status = world_try_get(world->run[i], by_ref(zombies), 1000);
        CHECK(status != FEATURE_OK, "node %s gets what was superseded while its home was stopped",
              world->cluster.nodes[i].name);
    }
    WAIT_UNTIL(world_try_get(world->run[A], by_id(ours->sample_id), 1000) == FEATURE_OK,
               PATIENCE_MS);
    index_world_await_current(world, ours, ours_ref);
    if (zombies != NULL)
        index_world_await(world, by_ref(zombies), FEATURE_E_NOT_FOUND);
}

/* a stops while its put of "mid" waits for etcd's answer; the request reaches etcd before a's lease
 * ends, or after. */
static void check_zombie(struct index_world *world, bool reaches_etcd_in_time) {
    struct proxy *proxy = &world->cluster.proxies[A].etcd;
    struct traffic traffic;
    struct slow_put mid;
    struct payload before, after, mid_after;
    struct feature_ref *before_ref = NULL, *after_ref = NULL, *mid_ref = NULL;
    payload_init(&before, "before", 2, 70000);
    payload_init(&after, "before", 3, 70000);
    payload_init(&mid_after, "mid", 4, 70000);
    index_world_put(world, A, &before, &before_ref);
    struct feature_view *reader = index_world_view(world, C, &before, by_ref(before_ref));
    proxy_hold(proxy, PROXY_HOLD_TO_SERVER);
    slow_put_start(&mid, world->run[A], "mid", 2 * outage_ms(world));
    WAIT_UNTIL(is_sealed(world, A, "mid"), PATIENCE_MS);
    uint64_t stopped_ms = check_now_ms();
    cluster_node_freeze(&world->cluster, A);
    if (reaches_etcd_in_time) {
        proxy_hold(proxy, PROXY_OPEN);
        WAIT_UNTIL(cluster_etcd_count(&world->cluster, "samples/run/mid") == 1, PATIENCE_MS);
    }
    cluster_etcd_await_fenced(&world->cluster, A);
    index_world_put(world, B, &after, &after_ref);
    index_world_put(world, B, &mid_after, &mid_ref);
    let_pass_until(stopped_ms + outage_ms(world));
    proxy_hold(proxy, PROXY_OPEN);
    cluster_node_thaw(&world->cluster, A);
    uint64_t thawed_ms = check_now_ms();
    CHECK(world_try_get(world->run[A], by_ref(before_ref), 1000) != FEATURE_OK,
          "the zombie grants what was superseded");
    check_superseded(world, &after, after_ref, before_ref);
    uint64_t recovered_ms = check_now_ms() - thawed_ms;
    pthread_join(mid.thread, NULL);
    CHECK(mid.status == FEATURE_OK || is_undecided(mid.status), "%s", feature_strerror(mid.status));
    check_superseded(world, &mid_after, mid_ref, mid.ref);
    CHECK(payload_difference(&before, reader) == NULL, "%s", payload_difference(&before, reader));
    CHECK_OK(feature_release(reader, FEATURE_RELEASE_RETURNED));
    traffic_start(&traffic, world);
    traffic_await_all(&traffic);
    traffic_stop(&traffic,
                 reaches_etcd_in_time ? "stopped for 3 x TTL between etcd's commit and its answer"
                                      : "stopped for 3 x TTL, its publish reaching etcd too late",
                 recovered_ms);
    index_world_abort(world, C, "before");
    index_world_abort(world, C, "mid");
    feature_ref_free(before_ref);
    feature_ref_free(after_ref);
    feature_ref_free(mid_ref);
    feature_ref_free(mid.ref);
    payload_deinit(&before);
    payload_deinit(&after);
    payload_deinit(&mid_after);
    payload_deinit(&mid.payload);
}

NODE_FAULT(a_stopped_broker_whose_publish_comes_too_late_changes_nothing, .proxied = true, SHORT) {
    check_zombie(world, false);
}
NODE_FAULT(a_stopped_broker_serves_nothing_that_was_superseded_meanwhile, .proxied = true, SHORT) {
    check_zombie(world, true);
}

NODE_FAULT(a_broker_stopped_under_load_for_three_ttls_answers_nothing_untrue, SHORT) {
    struct traffic traffic;
    traffic_start(&traffic, world);
    traffic_await_all(&traffic);
    uint64_t stopped_ms = check_now_ms();
    traffic.homes_may_die = true;
    cluster_node_freeze(&world->cluster, A);
    let_pass_until(stopped_ms + outage_ms(world));
    cluster_node_thaw(&world->cluster, A);
    uint64_t recovered_ms = traffic_await_all(&traffic);
    traffic_stop(&traffic, "broker stopped for 3 x TTL under load", recovered_ms);
}

/* ---- a put whose answer was lost ---- */

/* b holds a sample. a's put of it is carried out by etcd, but a never hears of it, and refuses it
 * when its lease has ended. Then c puts the sample, before a is back or after. */
static void check_lost_answer(struct index_world *world, bool a_comes_back_first) {
    struct proxy *proxy = &world->cluster.proxies[A].etcd;
    struct slow_put lost;
    struct payload old, new;
    struct feature_ref *old_ref = NULL, *new_ref = NULL;
    payload_init(&old, "s1", 2, 70000);
    payload_init(&new, "s1", 3, 70000);
    index_world_put(world, B, &old, &old_ref);
    proxy_hold(proxy, PROXY_HOLD_TO_CLIENT);
    slow_put_start(&lost, world->run[A], "s1", 2 * world->cluster.lease_ttl_ms);
    pthread_join(lost.thread, NULL);
    CHECK(is_undecided(lost.status), "%s", feature_strerror(lost.status));
    if (a_comes_back_first) {
        proxy_hold(proxy, PROXY_OPEN);
        WAIT_UNTIL(cluster_log_has(&world->cluster, A, "serving again"), PATIENCE_MS);
    }
    index_world_put(world, C, &new, &new_ref);
    for (uint32_t i = 0; i < INDEX_NODES; i++)
        CHECK(world_try_get(world->run[i], by_ref(old_ref), 2000) != FEATURE_OK,
              "node %s still gives what c's put superseded", world->cluster.nodes[i].name);
    proxy_hold(proxy, PROXY_OPEN);
    WAIT_UNTIL(world_try_get(world->run[A], by_id("s1"), 1000) == FEATURE_OK, PATIENCE_MS);
    index_world_await_current(world, &new, new_ref);
    index_world_abort(world, B, "s1");
    feature_ref_free(old_ref);
    feature_ref_free(new_ref);
    payload_deinit(&old);
    payload_deinit(&new);
    payload_deinit(&lost.payload);
}

NODE_FAULT(a_put_whose_answer_was_lost_hides_nothing_from_the_next, .proxied = true, SHORT) {
    check_lost_answer(world, false);
}
NODE_FAULT(a_put_whose_answer_was_lost_is_settled_by_its_node, .proxied = true, SHORT) {
    check_lost_answer(world, true);
}

/* b holds a sample and is out of reach. a's put of it cannot be answered yet; neither can c's,
 * which replaces a's: b still gives the oldest. */
NODE_FAULT(a_put_over_one_not_yet_answered_waits_for_the_oldest_home, .proxied = true, SHORT) {
    struct proxy *proxy = &world->cluster.proxies[B].peers;
    struct slow_put middle;
    struct payload old, new;
    struct feature_ref *old_ref = NULL;
    payload_init(&old, "s1", 2, 70000);
    payload_init(&new, "s1", 3, 70000);
    index_world_put(world, B, &old, &old_ref);
    proxy_hold(proxy, PROXY_HOLD_BOTH);
    slow_put_start(&middle, world->run[A], "s1", PATIENCE_MS);
    WAIT_UNTIL(cluster_numbers(&world->cluster, A, "run").resident == 1, PATIENCE_MS);
    int status = payload_put(&new, world->run[C], 1000, NULL);
    CHECK(status != FEATURE_OK || world_try_get(world->run[B], by_ref(old_ref), 1000) != FEATURE_OK,
          "c's put was answered, and b still gives the oldest");
    proxy_hold(proxy, PROXY_OPEN);
    pthread_join(middle.thread, NULL);
    index_world_settle(world); /* c's put may have been given up, and lands */
    for (uint32_t i = 0; i < INDEX_NODES; i++) {
        WAIT_UNTIL(world_try_get(world->run[i], by_ref(old_ref), 1000) == FEATURE_E_NOT_FOUND,
                   20000);
        CHECK_OK(feature_release(index_world_view(world, i, &new, by_id("s1")),
                                 FEATURE_RELEASE_RETURNED));
        CHECK(middle.status != FEATURE_OK ||
                  world_try_get(world->run[i], by_ref(middle.ref), 1000) == FEATURE_E_NOT_FOUND,
              "node %s still gives the middle one", world->cluster.nodes[i].name);
    }
    WAIT_UNTIL(index_world_resident(world) == 1, PATIENCE_MS);
    index_world_abort(world, A, "s1");
    feature_ref_free(old_ref);
    feature_ref_free(middle.ref);
    payload_deinit(&old);
    payload_deinit(&new);
    payload_deinit(&middle.payload);
}

/* ---- killed ---- */

NODE_FAULT(a_killed_broker_comes_back_empty_and_serves, SHORT) {
    struct traffic traffic;
    traffic_start(&traffic, world);
    traffic_await_all(&traffic);
    traffic.homes_may_die = true;
    cluster_node_kill(&world->cluster, A);
    cluster_node_start(&world->cluster, A);
    uint64_t recovered_ms = traffic_await_all(&traffic);
    traffic_stop(&traffic, "broker killed and restarted", recovered_ms);
}

/* ---- cut off ---- */

/* Node a without etcd: what another node superseded meanwhile is retired, the rest goes on. */
static void check_without_etcd(struct index_world *world, enum proxy_hold hold, const char *what) {
    struct proxy *proxy = &world->cluster.proxies[A].etcd;
    struct traffic traffic;
    struct payload kept, old, new, refused;
    struct feature_ref *kept_ref = NULL, *old_ref = NULL, *new_ref = NULL;
    payload_init(&kept, "kept", 1, 70000);
    payload_init(&old, "superseded", 2, 70000);
    payload_init(&new, "superseded", 3, 70000);
    payload_init(&refused, "refused", 4, 1000);
    index_world_put(world, A, &kept, &kept_ref);
    index_world_put(world, A, &old, &old_ref);
    traffic_start(&traffic, world);
    traffic_await_all(&traffic);
    uint64_t begun_ms = check_now_ms();
    traffic.homes_may_die = true;
    proxy_hold(proxy, hold);
    index_world_put(world, B, &new, &new_ref);
    for (uint32_t i = 0; i < INDEX_NODES; i++)
        CHECK(world_try_get(world->run[i], by_ref(old_ref), 1000) != FEATURE_OK,
              "node %s gets what was superseded", world->cluster.nodes[i].name);
    WAIT_UNTIL(world_try_get(world->run[A], by_ref(kept_ref), 1000) == FEATURE_E_UNAVAILABLE,
               20000);
    CHECK_STATUS(FEATURE_E_UNAVAILABLE, payload_put(&refused, world->run[A], 500, NULL));
    let_pass_until(begun_ms + outage_ms(world));
    proxy_hold(proxy, PROXY_OPEN);
    uint64_t recovered_ms = traffic_await_all(&traffic);
    index_world_await(world, by_ref(old_ref), FEATURE_E_NOT_FOUND);
    index_world_await_current(world, &new, new_ref);
    index_world_await_current(world, &kept, kept_ref);
    traffic_stop(&traffic, what, recovered_ms);
    index_world_abort(world, B, "kept");
    index_world_abort(world, A, "superseded");
    feature_ref_free(kept_ref);
    feature_ref_free(old_ref);
    feature_ref_free(new_ref);
    payload_deinit(&kept);
    payload_deinit(&old);
    payload_deinit(&new);
    payload_deinit(&refused);
}

NODE_FAULT(a_node_cut_off_from_etcd_fences_itself_and_comes_back, .proxied = true, SHORT) {
    check_without_etcd(world, PROXY_HOLD_BOTH, "cut off from etcd for 3 x TTL");
}
NODE_FAULT(a_node_whose_requests_do_not_reach_etcd_fences_itself, .proxied = true, SHORT) {
    check_without_etcd(world, PROXY_HOLD_TO_SERVER, "requests to etcd held for 3 x TTL");
}
NODE_FAULT(a_node_that_etcds_answers_do_not_reach_fences_itself, .proxied = true, SHORT) {
    check_without_etcd(world, PROXY_HOLD_TO_CLIENT, "answers of etcd held for 3 x TTL");
}

/* Two nodes, so that every connection through the proxies is one between them. */
static void check_without_peers(struct index_world *world, enum proxy_hold to_a,
                                enum proxy_hold to_b, const char *what) {
    struct cluster_proxies *proxies = world->cluster.proxies;
    struct traffic traffic;
    struct payload old, new, own[2];
    struct feature_ref *old_ref = NULL;
    payload_init(&old, "superseded", 2, 70000);
    payload_init(&new, "superseded", 3, 70000);
    payload_init(&own[A], "a's own", 4, 70000);
    payload_init(&own[B], "b's own", 5, 70000);
    index_world_put(world, A, &old, &old_ref);
    traffic_start(&traffic, world);
    traffic_await_all(&traffic);
    uint64_t begun_ms = check_now_ms();
    proxy_hold(&proxies[A].peers, to_a);
    proxy_hold(&proxies[B].peers, to_b);
    int status = payload_put(&new, world->run[B], 1000, NULL);
    if (status == FEATURE_OK)
        CHECK(world_try_get(world->run[A], by_ref(old_ref), 1000) != FEATURE_OK,
              "b's put was answered, and a still gives what it superseded");
    for (uint32_t i = 0; i < 2; i++) { /* what concerns one node alone goes on */
        index_world_put(world, i, &own[i], NULL);
        CHECK_OK(feature_release(index_world_view(world, i, &own[i], by_id(own[i].sample_id)),
                                 FEATURE_RELEASE_CONSUMED));
    }
    let_pass_until(begun_ms + outage_ms(world));
    proxy_hold(&proxies[A].peers, PROXY_OPEN);
    proxy_hold(&proxies[B].peers, PROXY_OPEN);
    uint64_t recovered_ms = traffic_await_all(&traffic);
    WAIT_UNTIL(world_try_get(world->run[A], by_ref(old_ref), 1000) == FEATURE_E_NOT_FOUND,
               PATIENCE_MS);
    WAIT_UNTIL(world_try_get(world->run[B], by_ref(old_ref), 1000) == FEATURE_E_NOT_FOUND,
               PATIENCE_MS);
    for (uint32_t i = 0; i < 2; i++)
        CHECK_OK(feature_release(index_world_view(world, i, &new, by_id("superseded")),
                                 FEATURE_RELEASE_RETURNED));
    traffic_stop(&traffic, what, recovered_ms);
    index_world_abort(world, A, "superseded");
    feature_ref_free(old_ref);
    payload_deinit(&old);
    payload_deinit(&new);
    payload_deinit(&own[A]);
    payload_deinit(&own[B]);
}

NODE_FAULT(nodes_cut_off_from_each_other_go_on_alone_and_meet_again, .nodes = 2, .proxied = true,
           SHORT) {
    check_without_peers(world, PROXY_HOLD_BOTH, PROXY_HOLD_BOTH, "cut off from peers for 3 x TTL");
}
NODE_FAULT(what_a_node_says_not_reaching_its_peer_is_healed_too, .nodes = 2, .proxied = true,
           SHORT) {
    check_without_peers(world, PROXY_HOLD_TO_CLIENT, PROXY_HOLD_TO_SERVER,
                        "one way to a peer cut off for 3 x TTL");
}
