/* SPDX-License-Identifier: Apache-2.0 */
#include "e2e/index_world.h"

#include <string.h>

#include "support/checks.h"

#define SETTLE_MS 60000u
#define GET_MS    5000u

static const char stores_ini[] = "[store run]\n[store acked]\npolicy = on-ack\n";

void index_world_start(struct index_world *world, const struct cluster_options *options) {
    struct cluster_options all = *options;
    all.ini = stores_ini;
    all.nodes = all.nodes != 0 ? all.nodes : INDEX_NODES;
    all.etcd_members = all.etcd_members != 0 ? all.etcd_members : 1;
    *world = (struct index_world){0};
    cluster_start(&world->cluster, &all);
    for (uint32_t i = 0; i < all.nodes; i++) {
        world->features[i] = cluster_connect(&world->cluster, i);
        world->run[i] = cluster_open(world->features[i], "run", false);
        world->acked[i] = cluster_open(world->features[i], "acked", false);
    }
}

void index_world_stop(struct index_world *world) {
    for (uint32_t i = 0; i < world->cluster.count; i++)
        feature_disconnect(world->features[i]);
    for (uint32_t i = 0; i < world->cluster.count; i++)
        if (world->cluster.nodes[i].process.pid != 0)
            cluster_await_empty(&world->cluster, i);
    cluster_etcd_await_no_samples(&world->cluster);
    cluster_stop(&world->cluster);
}

void index_world_run(const struct cluster_options *options,
                     void (*body)(struct index_world *world)) {
    struct index_world world;
    index_world_start(&world, options);
    body(&world);
    index_world_stop(&world);
}

void index_world_settle(struct index_world *world) {
    for (uint32_t i = 0; i < world->cluster.count; i++)
        CHECK_OK(feature_drain(world->features[i], SETTLE_MS));
}

void index_world_await(struct index_world *world, const struct feature_key *key, int status) {
    for (uint32_t i = 0; i < world->cluster.count; i++)
        WAIT_UNTIL(world_try_get(world->run[i], key, GET_MS) == status, SETTLE_MS);
}

void index_world_put(struct index_world *world, uint32_t node, const struct payload *payload,
                     struct feature_ref **ref_out) {
    uint64_t end_ms = check_now_ms() + SETTLE_MS;
    int status;
    while ((status = payload_put(payload, world->run[node], GET_MS, ref_out)) != FEATURE_OK) {
        CHECK(status == FEATURE_E_UNAVAILABLE || status == FEATURE_E_TIMEOUT, "%s: %s",
              feature_strerror(status), feature_last_error());
        CHECK(check_now_ms() < end_ms, "%s is never put: %s", payload->sample_id,
              feature_last_error());
    }
}

static bool is_refusal(int status) {
    return status == FEATURE_E_UNAVAILABLE || status == FEATURE_E_TIMEOUT ||
           status == FEATURE_E_LOST;
}

struct feature_view *index_world_view(struct index_world *world, uint32_t node,
                                      const struct payload *payload,
                                      const struct feature_key *key) {
    uint64_t end_ms = check_now_ms() + SETTLE_MS;
    struct feature_get_options options = {.size = sizeof options, .deadline_ms = GET_MS};
    struct feature_view *view = NULL;
    int status;
    while ((status = feature_get(world->run[node], key, &options, &view)) != FEATURE_OK) {
        CHECK(is_refusal(status) && check_now_ms() < end_ms, "node %s: %s: %s: %s",
              world->cluster.nodes[node].name, payload->sample_id, feature_strerror(status),
              feature_last_error());
        check_pause(5);
    }
    const char *why = payload_difference(payload, view);
    CHECK(why == NULL, "sample %s: %s", payload->sample_id, why);
    return view;
}

void index_world_abort(struct index_world *world, uint32_t node, const char *sample_id) {
    const struct feature_key *key = by_id(sample_id);
    WAIT_UNTIL(feature_abort(world->run[node], key, 1, NULL) == FEATURE_OK, SETTLE_MS);
}

void index_world_expect(struct index_world *world, const struct feature_key *key, int status) {
    for (uint32_t i = 0; i < world->cluster.count; i++) {
        int got = world_try_get(world->run[i], key, GET_MS);
        CHECK(got == status, "node %s: %s, expected %s: %s", world->cluster.nodes[i].name,
              feature_strerror(got), feature_strerror(status),
              got == FEATURE_OK ? "it succeeded" : feature_last_error());
    }
}

typedef struct feature_view *view_fn(struct index_world *world, uint32_t node,
                                     const struct payload *payload, const struct feature_key *key);

static struct feature_view *view_now(struct index_world *world, uint32_t node,
                                     const struct payload *payload, const struct feature_key *key) {
    return payload_view(payload, world->run[node], key);
}

static void check_current(struct index_world *world, const struct payload *payload,
                          const struct feature_ref *ref, view_fn *view_of) {
    for (uint32_t i = 0; i < world->cluster.count; i++) {
        struct feature_view *view = view_of(world, i, payload, by_id(payload->sample_id));
        const struct feature_ref *got = feature_view_ref(view);
        CHECK(feature_ref_generation(got) == feature_ref_generation(ref) &&
                  strcmp(feature_ref_home(got), feature_ref_home(ref)) == 0,
              "node %s gets another generation of %s", world->cluster.nodes[i].name,
              payload->sample_id);
        CHECK_OK(feature_release(view, FEATURE_RELEASE_RETURNED));
        CHECK_OK(
            feature_release(view_of(world, i, payload, by_ref(ref)), FEATURE_RELEASE_RETURNED));
    }
}

void index_world_expect_current(struct index_world *world, const struct payload *payload,
                                const struct feature_ref *ref) {
    check_current(world, payload, ref, view_now);
}

void index_world_await_current(struct index_world *world, const struct payload *payload,
                               const struct feature_ref *ref) {
    check_current(world, payload, ref, index_world_view);
}

uint64_t index_world_resident(struct index_world *world) {
    uint64_t resident = 0;
    for (uint32_t i = 0; i < world->cluster.count; i++) {
        struct store_numbers numbers = cluster_numbers(&world->cluster, i, "run");
        resident += numbers.resident - numbers.landing;
    }
    return resident;
}
