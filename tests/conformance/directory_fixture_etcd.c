/* SPDX-License-Identifier: Apache-2.0
 *
 * Fencing takes most of a lease's 10 s: a directory whose record was taken away behind its back
 * registers again at once, so it is cut off from etcd too.
 */
#include <stdlib.h>

#include "conformance/directory_etcd_world.h"
#include "conformance/directory_suite.h"

static void *set_up(const struct directory_events *events,
                    void *const owners[DIRECTORY_SUITE_NODES]) {
    static const struct etcd_world_options options = {
        .members = 1, .lease_ttl_s = 10, .request_timeout_ms = 3000, .give_up_ms = 1500};
    struct etcd_world *world = calloc(1, sizeof *world);
    etcd_world_init(world, &options);
    for (uint32_t i = 0; i < DIRECTORY_SUITE_NODES; i++)
        etcd_world_add(world, i, events, owners[i]);
    return world;
}

static struct directory *node(void *data, uint32_t i) {
    return ((struct etcd_world *)data)->nodes[i];
}

static void step(void *data) {
    etcd_world_step(data);
}

static void destroy_node(void *data, uint32_t i) {
    etcd_world_destroy_node(data, i);
}

static void tear_down(void *data) {
    etcd_world_deinit(data);
    free(data);
}

static void set_reachable(void *data, uint32_t i, bool reachable) {
    struct etcd_world *world = data;
    tcp_proxy_set(world->proxies[i], reachable ? TCP_PROXY_OPEN : TCP_PROXY_CUT);
}

static void set_fenced(void *data, uint32_t i, bool fenced) {
    set_reachable(data, i, !fenced);
    if (fenced)
        etcd_world_revoke(data, i);
}

const struct directory_fixture directory_fixture_etcd = {
    .name = "etcd",
    .has_index = true,
    .patience = 30000,
    .set_up = set_up,
    .node = node,
    .step = step,
    .destroy_node = destroy_node,
    .tear_down = tear_down,
    .set_fenced = set_fenced,
    .set_reachable = set_reachable,
};
