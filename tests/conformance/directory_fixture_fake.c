/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "conformance/directory_fake.h"
#include "conformance/directory_suite.h"

#define STEP_NS  1000000u
#define DELAY_NS 3000000u /* answers take three steps */

struct cluster {
    struct directory_fake_cluster *fake;
    struct directory *nodes[DIRECTORY_SUITE_NODES];
    uint64_t now_ns;
};

static void *set_up(const struct directory_events *events,
                    void *const owners[DIRECTORY_SUITE_NODES]) {
    struct cluster *cluster = calloc(1, sizeof *cluster);
    cluster->fake = directory_fake_cluster_new();
    directory_fake_set_delay(cluster->fake, DELAY_NS);
    for (uint32_t i = 0; i < DIRECTORY_SUITE_NODES; i++) {
        char name[16], address[32];
        directory_suite_node_name(i, name);
        directory_suite_node_address(i, address);
        cluster->nodes[i] = directory_fake_new(cluster->fake, name, address,
                                               DIRECTORY_SUITE_INCARNATION(i), events, owners[i]);
    }
    return cluster;
}

static struct directory *node(void *data, uint32_t i) {
    return ((struct cluster *)data)->nodes[i];
}

static void step(void *data) {
    struct cluster *cluster = data;
    cluster->now_ns += STEP_NS;
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
    struct cluster *cluster = data;
    for (uint32_t i = 0; i < DIRECTORY_SUITE_NODES; i++)
        destroy_node(data, i);
    directory_fake_cluster_free(cluster->fake);
    free(cluster);
}

static void set_fenced(void *data, uint32_t i, bool fenced) {
    directory_fake_set_fenced(node(data, i), fenced);
}

static void set_reachable(void *data, uint32_t i, bool reachable) {
    directory_fake_set_reachable(node(data, i), reachable);
}

const struct directory_fixture directory_fixture_fake = {
    .name = "fake",
    .has_index = true,
    .patience = 20,
    .set_up = set_up,
    .node = node,
    .step = step,
    .destroy_node = destroy_node,
    .tear_down = tear_down,
    .set_fenced = set_fenced,
    .set_reachable = set_reachable,
};
