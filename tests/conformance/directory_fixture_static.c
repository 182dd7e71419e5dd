/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "conformance/directory_suite.h"

struct cluster {
    struct directory *nodes[DIRECTORY_SUITE_NODES];
    uint64_t now_ns;
};

static struct directory *make_node(uint32_t self, const struct directory_events *events,
                                   void *owner) {
    char names[DIRECTORY_SUITE_NODES][16], addresses[DIRECTORY_SUITE_NODES][32];
    struct directory_peer peers[DIRECTORY_SUITE_NODES];
    size_t peer_count = 0;
    for (uint32_t i = 0; i < DIRECTORY_SUITE_NODES; i++) {
        directory_suite_node_name(i, names[i]);
        directory_suite_node_address(i, addresses[i]);
        if (i != self)
            peers[peer_count++] =
                (struct directory_peer){.node = names[i], .address = addresses[i]};
    }
    struct directory *d;
    cr_assert_eq(
        directory_static_new(names[self], peers, peer_count, 1700000000000u, events, owner, &d), 0);
    return d;
}

static void *set_up(const struct directory_events *events,
                    void *const owners[DIRECTORY_SUITE_NODES]) {
    struct cluster *cluster = calloc(1, sizeof *cluster);
    for (uint32_t i = 0; i < DIRECTORY_SUITE_NODES; i++)
        cluster->nodes[i] = make_node(i, events, owners[i]);
    return cluster;
}

static struct directory *node(void *data, uint32_t i) {
    return ((struct cluster *)data)->nodes[i];
}

static void step(void *data) {
    struct cluster *cluster = data;
    cluster->now_ns += 1000000;
    for (uint32_t i = 0; i < DIRECTORY_SUITE_NODES; i++)
        if (cluster->nodes[i])
            cluster->nodes[i]->ops->tick(cluster->nodes[i], cluster->now_ns);
}

static void destroy_node(void *data, uint32_t i) {
    struct cluster *cluster = data;
    if (cluster->nodes[i])
        cluster->nodes[i]->ops->destroy(cluster->nodes[i]);
    cluster->nodes[i] = NULL;
}

static void tear_down(void *data) {
    for (uint32_t i = 0; i < DIRECTORY_SUITE_NODES; i++)
        destroy_node(data, i);
    free(data);
}

const struct directory_fixture directory_fixture_static = {
    .name = "static",
    .patience = 10,
    .set_up = set_up,
    .node = node,
    .step = step,
    .destroy_node = destroy_node,
    .tear_down = tear_down,
};
