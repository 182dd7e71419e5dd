/* SPDX-License-Identifier: Apache-2.0 */
#include "support/world.h"

#include "support/checks.h"

void world_run(uint32_t nodes, const char *ini, void (*body)(struct world *world)) {
    struct world world = {.consumer_node = nodes - 1};
    cluster_start(&world.cluster, &(struct cluster_options){.nodes = nodes, .ini = ini});
    world.producer_feature = cluster_connect(&world.cluster, world.producer_node);
    world.consumer_feature = cluster_connect(&world.cluster, world.consumer_node);
    world.producer = cluster_open(world.producer_feature, "run", false);
    world.consumer = cluster_open(world.consumer_feature, "run", true);
    world.consumer_writer = cluster_open(world.consumer_feature, "run", false);
    body(&world);
    feature_disconnect(world.consumer_feature);
    feature_disconnect(world.producer_feature);
    for (uint32_t i = 0; i < nodes; i++)
        if (world.cluster.nodes[i].process.pid != 0)
            cluster_await_empty(&world.cluster, i);
    cluster_stop(&world.cluster);
}

void world_settle(struct world *world) {
    CHECK_OK(feature_drain(world->consumer_feature, 20000));
    CHECK_OK(feature_drain(world->producer_feature, 20000));
}

struct store_numbers world_home(struct world *world) {
    return cluster_numbers(&world->cluster, world->producer_node, "run");
}

int world_try_get(struct feature_store *store, const struct feature_key *key,
                  uint32_t deadline_ms) {
    struct feature_get_options options = {.size = sizeof options, .deadline_ms = deadline_ms};
    struct feature_view *view = NULL;
    int status = feature_get(store, key, &options, &view);
    if (status == FEATURE_OK)
        feature_release(view, FEATURE_RELEASE_RETURNED);
    return status;
}
