/* SPDX-License-Identifier: Apache-2.0
 *
 * What featurectl says of a broker: whether it serves, and no more than the asking user can see.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "e2e/ctl.h"
#include "support/checks.h"
#include "support/world.h"

#define EXIT_UNCHECKED 2
#define EXIT_NOT_READY 3
#define PATIENCE_MS    30000u

#define KEEP "[store run]\npolicy = retain\n"

/* ---- readiness ---- */

static void expect_exit(struct process_output *result, int expected) {
    CHECK(result->status == expected, "exit %d, not %d: %s%s", result->status, expected,
          result->out, result->err);
    process_output_deinit(result);
}

static void check_ready(const struct cluster *cluster, uint32_t node, int expected) {
    struct process_output result;
    CTL(&result, cluster, node, "--json", "status", "--ready");
    json_t *row = json_loads(result.out, 0, NULL);
    CHECK(json_is_boolean(json_object_get(row, "ready")) &&
              json_is_true(json_object_get(row, "ready")) == (expected == 0),
          "%s", result.out);
    if (expected != 0)
        CHECK(*ctl_text(row, "not_ready_why") && strstr(result.err, "NOT_READY") != NULL, "%s",
              result.err);
    json_decref(row);
    expect_exit(&result, expected);
    CTL(&result, cluster, node, "status");
    CHECK(strstr(result.out, expected ? "no: " : "yes") != NULL, "%s", result.out);
    expect_exit(&result, expected);
}

static void ready(struct world *world) {
    check_ready(&world->cluster, 0, 0);
}
Test(ready, a_broker_that_serves_is, .timeout = 120) {
    world_run(1, KEEP, ready);
}

static int ready_exit(const struct cluster *cluster, uint32_t node) {
    struct process_output result;
    CTL(&result, cluster, node, "status", "--ready");
    int status = result.status;
    process_output_deinit(&result);
    return status;
}

/* A node that etcd has forgotten, as far as it knows, promises nothing and is not ready. */
Test(ready, a_broker_that_is_fenced_is_not, .timeout = 180) {
    struct cluster cluster;
    cluster_start(&cluster, &(struct cluster_options){.nodes = 1,
                                                      .etcd_members = 1,
                                                      .lease_ttl_ms = CLUSTER_TTL_SHORT_MS,
                                                      .ini = "[store run]\n"});
    check_ready(&cluster, 0, 0);
    etcd_server_freeze(&cluster.etcd, 0);
    WAIT_UNTIL(ready_exit(&cluster, 0) != 0, PATIENCE_MS);
    check_ready(&cluster, 0, EXIT_NOT_READY);
    etcd_server_thaw(&cluster.etcd, 0);
    WAIT_UNTIL(ready_exit(&cluster, 0) == 0, PATIENCE_MS);
    cluster_stop(&cluster);
}

/* ---- doctor ---- */

/* As a user who is neither root nor the broker's. False: that cannot be done here. */
static bool run_as_nobody(struct process_output *result, const struct cluster *cluster,
                          const char *command) {
    char program[4096];
    cluster_program("featurectl", program);
    if (geteuid() != 0 || access("/usr/bin/setpriv", X_OK) != 0)
        return false;
    process_run(result,
                (const char *[]){"/usr/bin/setpriv", "--reuid=65534", "--regid=65534",
                                 "--clear-groups", program, "--socket",
                                 cluster->nodes[0].socket_path, command, NULL},
                60000);
    bool ran = strstr(result->err, "setpriv:") == NULL; /* it may not read the program */
    if (!ran)
        process_output_deinit(result);
    return ran;
}

static void check_unseen(const struct process_output *result) {
    CHECK(result->status == EXIT_UNCHECKED, "exit %d: %s", result->status, result->out);
    CHECK(strstr(result->out, "not checked: uid 65534") != NULL, "%s", result->out);
    CHECK(strstr(result->out, "run as root") != NULL, "%s", result->out);
    CHECK(strstr(result->out, "  fail  ") == NULL, "%s", result->out);
    CHECK(strstr(result->out, "this shell's") == NULL, "it judges another process: %s",
          result->out);
}

static void doctor(struct world *world) {
    struct process_output result;
    if (!run_as_nobody(&result, &world->cluster, "doctor")) {
        cr_skip_test("takes root, setpriv, and a build that others may read");
        return;
    }
    check_unseen(&result); /* the directory is closed to it */
    process_output_deinit(&result);
    CHECK(chmod(world->cluster.directory, 0711) == 0, "chmod");
    CHECK(run_as_nobody(&result, &world->cluster, "doctor"), "again");
    check_unseen(&result); /* the socket is */
    process_output_deinit(&result);
}
Test(ready, doctor_judges_nothing_that_its_user_cannot_see, .timeout = 120) {
    world_run(1, KEEP, doctor);
}
