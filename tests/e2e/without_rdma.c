/* SPDX-License-Identifier: Apache-2.0
 *
 * A machine without libibverbs: the broker speaks TCP and says so in one line, unless its
 * configuration asks for RDMA. The library is hidden by a file of its name that is no library,
 * which the loader finds first (LD_LIBRARY_PATH).
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "e2e/ctl.h"
#include "support/checks.h"
#include "support/cluster.h"

#define MISSING "the RDMA libraries of this machine cannot be loaded ("

static const char fake[] = "this is no library\n";

static void hide_the_library(const struct cluster *cluster) {
    setenv("LD_LIBRARY_PATH", cluster->directory, 1); /* of the brokers that start from now on */
}

static void run(const char *ini, struct cluster *cluster) {
    struct cluster_options options = {
        .nodes = 2, .ini = ini, .files = {{"libibverbs.so.1", fake}}, .unconnected = true};
    cluster_start(cluster, &options);
    for (uint32_t node = 0; node < 2; node++)
        cluster_node_terminate(cluster, node);
    hide_the_library(cluster);
}

Test(without_rdma, two_brokers_find_each_other_over_tcp, .timeout = 120) {
    struct cluster cluster;
    struct process_output result;
    run("[store run]\nmax_resident_bytes = 4MiB\nlanding_bytes = 4MiB\nmax_samples = 16\n",
        &cluster);
    cluster_node_start(&cluster, 0);
    cluster_node_start(&cluster, 1);
    cluster_await_peer(&cluster, 0, 1);
    CTL(&result, &cluster, 0, "nodes", "--json");
    CHECK(result.status == 0 && strstr(result.out, "tcp") != NULL, "%s%s", result.out, result.err);
    process_output_deinit(&result);
    CHECK(cluster_log_has(&cluster, 0, "peers over TCP alone: " MISSING), "not in the log");
    cluster_stop(&cluster);
}

static void check_does_not_start(struct cluster *cluster, const char *peers) {
    char featured[4096];
    struct process_output result;
    cluster_reconfigure(cluster, 0, peers);
    cluster_program("featured", featured);
    process_run(&result,
                (const char *[]){featured, "--config", cluster->nodes[0].config_path, NULL}, 20000);
    CHECK(result.status == 1, "status %d: %s", result.status, result.err);
    CHECK(strstr(result.err, "[peers] RDMA is required and cannot be had: " MISSING) != NULL, "%s",
          result.err);
    process_output_deinit(&result);
}

Test(without_rdma, what_asks_for_rdma_does_not_start, .timeout = 120) {
    struct cluster cluster;
    run("[store run]\nmax_resident_bytes = 4MiB\nlanding_bytes = 4MiB\nmax_samples = 16\n",
        &cluster);
    check_does_not_start(&cluster, "[peers]\ntransport = rdma\n");
    check_does_not_start(&cluster, "[peers]\ntransport = auto\nrequire_rdma = on\n");
    cluster_stop(&cluster);
}
