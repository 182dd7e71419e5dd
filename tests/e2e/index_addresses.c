/* SPDX-License-Identifier: Apache-2.0
 *
 * Addresses for messages and for bytes that are not the same: each kind takes its own way, and an
 * advertised data address that nobody can reach is said on both sides, keeps no node from joining
 * and no sample from being read.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "e2e/index_world.h"
#include "support/checks.h"

#define MIB 1048576u

#define ADDRESSES(NAME, ...)                                                                       \
    static void NAME(struct index_world *world);                                                   \
    Test(index_addresses, NAME, .timeout = 120) {                                                  \
        index_world_run(&(struct cluster_options){.etcd_members = 1, __VA_ARGS__}, NAME);          \
    }                                                                                              \
    static void NAME(struct index_world *world)

/* What the node's `featurectl COMMAND` prints holds this text. */
static bool ctl_says(struct index_world *world, uint32_t node, const char *command,
                     const char *text) {
    char program[4096];
    struct process_output output;
    cluster_program("featurectl", program);
    /* Addresses are in columns that only --wide shows. */
    const char *wide = strcmp(command, "nodes") ? NULL : "--wide";
    process_run(&output,
                (const char *[]){program, "--socket", world->cluster.nodes[node].socket_path,
                                 command, wide, NULL},
                20000);
    bool says = strstr(output.out, text) != NULL;
    if (!says)
        fprintf(stderr, "%s%s", output.out, output.err);
    process_output_deinit(&output);
    return says;
}

ADDRESSES(bytes_and_messages_take_their_own_ways, .nodes = 2, .data_apart = true) {
    struct proxy *data = &world->cluster.proxies[A].data;
    struct payload large, small;
    struct feature_ref *ref = NULL;
    payload_init(&large, "large", 1, MIB);
    payload_init(&small, "small", 2, 1000);
    CHECK_OK(payload_put(&large, world->run[A], 0, &ref));
    CHECK_OK(payload_put(&small, world->run[A], 0, NULL));
    payload_check_get(&large, world->run[B], by_ref(ref), FEATURE_RELEASE_RETURNED);
    CHECK(ctl_says(world, B, "nodes", data->address), "the data address is not shown");
    CHECK(ctl_says(world, B, "doctor", "no node misses"), "doctor");
    proxy_hold(data, PROXY_HOLD_BOTH);
    payload_check_get(&small, world->run[B], by_id("small"), FEATURE_RELEASE_RETURNED);
    CHECK(world_try_get(world->run[B], by_ref(ref), 300) != FEATURE_OK, "bytes on another way");
    payload_check_get(&small, world->run[B], by_id("small"), FEATURE_RELEASE_CONSUMED);
    proxy_hold(data, PROXY_OPEN);
    WAIT_UNTIL(world_try_get(world->run[B], by_ref(ref), 2000) == FEATURE_OK, 20000);
    payload_check_get(&large, world->run[B], by_ref(ref), FEATURE_RELEASE_CONSUMED);
    index_world_settle(world);
    feature_ref_free(ref);
    payload_deinit(&large);
    payload_deinit(&small);
}

/* Port 1 of the nodes' own loopback address: refused at once. */
ADDRESSES(a_data_address_that_nobody_reaches_is_said_on_both_sides, .nodes = 2,
          .ini_of = {"[peers]\ndata_address = 127.0.0.1:1\n"}) {
    static const char failure[] = "127.0.0.1:1";
    struct payload payload;
    struct feature_ref *ref = NULL;
    payload_init(&payload, "s1", 1, MIB);
    WAIT_UNTIL(cluster_log_has(&world->cluster, B,
                               "node a: its data address 127.0.0.1:1 cannot be reached from here"),
               20000);
    WAIT_UNTIL(cluster_log_has(&world->cluster, A,
                               "node b cannot reach the data address of this node, 127.0.0.1:1"),
               20000);
    CHECK(!cluster_log_has(&world->cluster, A, "node b: its data address"), "b has none");
    for (uint32_t i = 0; i < 2; i++) {
        CHECK(ctl_says(world, i, "nodes", failure), "node %u", i);
        CHECK(ctl_says(world, i, "nodes", "refused"), "node %u", i);
        CHECK(ctl_says(world, i, "doctor", "is not reached"), "node %u", i);
    }
    CHECK_OK(payload_put(&payload, world->run[A], 0, &ref)); /* and yet all is well */
    payload_check_get(&payload, world->run[B], by_ref(ref), FEATURE_RELEASE_CONSUMED);
    index_world_settle(world);
    index_world_expect(world, by_ref(ref), FEATURE_E_NOT_FOUND);
    feature_ref_free(ref);
    payload_deinit(&payload);
}

/* Taken by nobody and refused by nobody, as behind a firewall. */
ADDRESSES(a_node_with_a_silent_data_address_joins_and_serves, .nodes = 2, .data_apart = true,
          .etcd_late = true) {
    struct payload payload;
    payload_init(&payload, "s1", 1, MIB);
    proxy_hold(&world->cluster.proxies[A].data, PROXY_HOLD_BOTH);
    etcd_server_restart(&world->cluster.etcd, 0);
    WAIT_UNTIL(cluster_log_has(&world->cluster, B, "its data address"), 20000);
    WAIT_UNTIL(cluster_log_has(&world->cluster, A, "node b cannot reach the data address"), 20000);
    WAIT_UNTIL(payload_put(&payload, world->run[A], 1000, NULL) == FEATURE_OK, 20000);
    payload_check_get(&payload, world->run[B], by_id("s1"), FEATURE_RELEASE_CONSUMED);
    index_world_settle(world);
    payload_deinit(&payload);
}
