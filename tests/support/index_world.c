/* SPDX-License-Identifier: Apache-2.0 */
#include "index_world.h"

#include <string.h>

#include "checks.h"

#define SETTLE_MS 20000u
#define GET_MS    5000u

static const char stores_ini[] = "[store run]\n[store acked]\npolicy = on-ack\n";

void index_world_start(struct index_world *world, const struct cluster_options *options) {
    struct cluster_options with_stores = *options;
    with_stores.ini = stores_ini;
    *world = (struct index_world){0};
    cluster_start(&world->cluster, &with_stores);
    for (uint32_t i = 0; i < options->nodes; i++) {
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

void index_world_expect(struct index_world *world, struct feature_key key, int status) {
    for (uint32_t i = 0; i < world->cluster.count; i++) {
        int got = world_try_get(world->run[i], key, GET_MS);
        CHECK(got == status, "node %s: %s, expected %s: %s", world->cluster.nodes[i].name,
              feature_strerror(got), feature_strerror(status),
              got == FEATURE_OK ? "it succeeded" : feature_last_error());
    }
}

void index_world_expect_current(struct index_world *world, const struct payload *payload,
                                const struct feature_ref *ref) {
    for (uint32_t i = 0; i < world->cluster.count; i++) {
        struct feature_view *view = payload_view(payload, world->run[i], by_id(payload->sample_id));
        const struct feature_ref *got = feature_view_ref(view);
        CHECK(feature_ref_generation(got) == feature_ref_generation(ref) &&
                  strcmp(feature_ref_home(got), feature_ref_home(ref)) == 0,
              "node %s gets another generation of %s", world->cluster.nodes[i].name,
              payload->sample_id);
        CHECK_OK(feature_release(view, FEATURE_RETURNED));
        payload_check_get(payload, world->run[i], by_ref(ref), FEATURE_RETURNED);
    }
}

uint64_t index_world_resident(struct index_world *world) {
    uint64_t resident = 0;
    for (uint32_t i = 0; i < world->cluster.count; i++) {
        struct store_numbers numbers = cluster_numbers(&world->cluster, i, "run");
        resident += numbers.resident - numbers.landing;
    }
    return resident;
}
