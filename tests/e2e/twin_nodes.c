/* SPDX-License-Identifier: Apache-2.0
 *
 * Two brokers of one name, alive at once (a machine was cloned): both say so, in the log, in
 * status, nodes and doctor, and the second does not push out the first. A restart is not called so.
 */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "e2e/ctl.h"
#include "support/checks.h"
#include "support/payload.h"

#define PATIENCE_MS 60000u
#define BOTH_LIVE   "both live"

enum { FIRST = 0, SECOND = 1, CLONE = 2 };

static const char ini[] = "[store run]\n";

static void status_text(const struct cluster *cluster, uint32_t node, const char *key,
                        char out[1024]) {
    struct process_output output;
    CTL(&output, cluster, node, "status", "--json");
    json_t *rows = ctl_rows_of(&output);
    snprintf(out, 1024, "%s", ctl_text(json_array_get(rows, 0), key));
    json_decref(rows);
}

static bool status_says(const struct cluster *cluster, uint32_t node, const char *key,
                        const char *words) {
    char text[1024];
    status_text(cluster, node, key, text);
    return words != NULL ? strstr(text, words) != NULL : *text == '\0';
}

static void doctor_fails(const struct cluster *cluster, uint32_t node) {
    struct process_output output;
    CTL(&output, cluster, node, "doctor", "--json");
    json_t *rows = ctl_rows_of(&output);
    json_t *row = ctl_row(rows, "check", "node names");
    CHECK(!strcmp(ctl_text(row, "verdict"), "fail") && strstr(ctl_text(row, "found"), BOTH_LIVE),
          "%s: %s", ctl_text(row, "verdict"), ctl_text(row, "found"));
    json_decref(rows);
}

static void nodes_says(const struct cluster *cluster, uint32_t node, const char *name,
                       const char *words) {
    struct process_output output;
    CTL(&output, cluster, node, "nodes", "--json");
    json_t *rows = ctl_rows_of(&output);
    const char *twin = ctl_text(ctl_row(rows, "node", name), "twin");
    CHECK(strstr(twin, words) != NULL, "%s", twin);
    json_decref(rows);
}

static int put(const struct cluster *cluster, uint32_t node) {
    struct payload payload;
    struct feature *feature = cluster_connect(cluster, node);
    struct feature_store *store = cluster_open(feature, "run", false);
    payload_init(&payload, "s1", 1, 70000);
    int status = payload_put(&payload, store, 3000, NULL);
    char words[1024];
    snprintf(words, sizeof words, "%s", feature_last_error());
    CHECK(status == FEATURE_OK || strstr(words, BOTH_LIVE), "%s", words);
    feature_store_close(store);
    feature_disconnect(feature);
    payload_deinit(&payload);
    return status;
}

static uint64_t incarnation_of(struct cluster *cluster, uint32_t node) {
    return cluster_health(cluster, node).incarnation;
}

static char *record_of_a(struct cluster *cluster) {
    return etcd_server_ctl(&cluster->etcd, (const char *[]){"get", "/featured/test/nodes/a", NULL});
}

static bool record_names(struct cluster *cluster, uint64_t incarnation) {
    char text[32], *record = record_of_a(cluster);
    snprintf(text, sizeof text, "\"incarnation\":\"%" PRIx64, incarnation); /* not padded */
    bool names = strstr(record, text) != NULL;
    free(record);
    return names;
}

/* Nodes a and b on an etcd; then b is started again as a second a. */
static void start_twins(struct cluster *cluster) {
    cluster_start(cluster, &(struct cluster_options){.nodes = 2,
                                                     .ini = ini,
                                                     .etcd_members = 1,
                                                     .lease_ttl_ms = CLUSTER_TTL_SHORT_MS});
    cluster_node_terminate(cluster, SECOND);
    cluster_reconfigure(cluster, SECOND, "[node]\nname = a\n");
    cluster_node_start(cluster, SECOND);
}

static void expect_twins(struct cluster *cluster, uint32_t first, uint32_t second) {
    char incarnation[32];
    WAIT_UNTIL(status_says(cluster, first, "twin", BOTH_LIVE), PATIENCE_MS);
    WAIT_UNTIL(status_says(cluster, second, "twin", BOTH_LIVE), PATIENCE_MS);
    snprintf(incarnation, sizeof incarnation, "%" PRIu64, incarnation_of(cluster, first));
    CHECK(status_says(cluster, second, "twin", incarnation), "the first's incarnation is missing");
    CHECK(status_says(cluster, second, "twin", cluster->nodes[first].address),
          "the first's address is missing");
    snprintf(incarnation, sizeof incarnation, "%" PRIu64, incarnation_of(cluster, second));
    CHECK(status_says(cluster, first, "twin", incarnation), "the second's incarnation is missing");
    for (uint32_t i = 0; i < 2; i++) {
        CHECK(cluster_log_has(cluster, i, BOTH_LIVE), "the log of %u does not say so", i);
        doctor_fails(cluster, i);
        nodes_says(cluster, i, "a", BOTH_LIVE);
    }
}

Test(twin, the_second_in_etcd_waits_and_both_say_so, .timeout = 120) {
    struct cluster cluster;
    start_twins(&cluster);
    uint64_t incarnation = incarnation_of(&cluster, FIRST);
    expect_twins(&cluster, FIRST, SECOND);
    CHECK_STATUS(FEATURE_E_UNAVAILABLE, put(&cluster, SECOND));
    CHECK_STATUS(FEATURE_OK, put(&cluster, FIRST));
    check_pause(2 * CLUSTER_TTL_SHORT_MS);
    CHECK(record_names(&cluster, incarnation), "the first was pushed out");
    CHECK(!cluster_log_has(&cluster, FIRST, ": fenced: "), "the first was fenced");
    CHECK(!cluster_log_has(&cluster, SECOND, "before a restart"), "a twin is called a restart");
    CHECK_STATUS(FEATURE_OK, put(&cluster, FIRST));
    cluster_node_terminate(&cluster, FIRST);
    WAIT_UNTIL(status_says(&cluster, SECOND, "trouble", NULL), PATIENCE_MS);
    CHECK_STATUS(FEATURE_OK, put(&cluster, SECOND));
    WAIT_UNTIL(status_says(&cluster, SECOND, "twin", NULL), PATIENCE_MS);
    CHECK(cluster_log_has(&cluster, SECOND, "this node is a member now"), "not said to be over");
    cluster_stop(&cluster);
}

Test(twin, a_first_that_was_killed_makes_room_when_its_lease_ends, .timeout = 120) {
    struct cluster cluster;
    start_twins(&cluster);
    expect_twins(&cluster, FIRST, SECOND);
    cluster_node_kill(&cluster, FIRST);
    WAIT_UNTIL(status_says(&cluster, SECOND, "trouble", NULL), PATIENCE_MS);
    CHECK_STATUS(FEATURE_OK, put(&cluster, SECOND));
    cluster_stop(&cluster);
}

/* It cannot answer whoever looks for it; and when it goes on, the name is the other's. */
Test(twin, a_first_that_was_stopped_comes_back_as_the_second, .timeout = 120) {
    struct cluster cluster;
    cluster_start(&cluster, &(struct cluster_options){.nodes = 2,
                                                      .ini = ini,
                                                      .etcd_members = 1,
                                                      .lease_ttl_ms = CLUSTER_TTL_SHORT_MS});
    cluster_node_terminate(&cluster, SECOND);
    cluster_node_freeze(&cluster, FIRST);
    cluster_reconfigure(&cluster, SECOND, "[node]\nname = a\n");
    cluster_node_start(&cluster, SECOND);
    uint64_t incarnation = incarnation_of(&cluster, SECOND);
    WAIT_UNTIL(record_names(&cluster, incarnation), PATIENCE_MS);
    cluster_node_thaw(&cluster, FIRST);
    expect_twins(&cluster, SECOND, FIRST);
    CHECK_STATUS(FEATURE_E_UNAVAILABLE, put(&cluster, FIRST));
    CHECK_STATUS(FEATURE_OK, put(&cluster, SECOND));
    CHECK(record_names(&cluster, incarnation), "the one that had the name was pushed out");
    cluster_node_terminate(&cluster, SECOND);
    WAIT_UNTIL(status_says(&cluster, FIRST, "trouble", NULL), PATIENCE_MS);
    cluster_stop(&cluster);
}

Test(twin, a_restart_is_no_twin, .timeout = 120) {
    struct cluster cluster;
    cluster_start(&cluster, &(struct cluster_options){.nodes = 2,
                                                      .ini = ini,
                                                      .etcd_members = 1,
                                                      .lease_ttl_ms = CLUSTER_TTL_SHORT_MS});
    uint64_t before_ms = check_now_ms();
    cluster_node_kill(&cluster, FIRST);
    cluster_node_start(&cluster, FIRST);
    WAIT_UNTIL(status_says(&cluster, FIRST, "trouble", "it joins when") ||
                   record_names(&cluster, incarnation_of(&cluster, FIRST)),
               PATIENCE_MS);
    WAIT_UNTIL(record_names(&cluster, incarnation_of(&cluster, FIRST)), PATIENCE_MS);
    cr_log_info("a member again after %" PRIu64 " ms", check_now_ms() - before_ms);
    cluster_await_peer(&cluster, SECOND, FIRST);
    CHECK_STATUS(FEATURE_OK, put(&cluster, FIRST));
    CHECK(cluster_log_has(&cluster, FIRST, "before a restart"), "a restart is not called one");
    for (uint32_t i = 0; i < 2; i++) {
        CHECK(!cluster_log_has(&cluster, i, BOTH_LIVE), "a restart is called a twin");
        CHECK(status_says(&cluster, i, "twin", NULL), "a restart is called a twin");
    }
    cluster_stop(&cluster);
}

/* ---- a fixed list of peers ---- */

/* A copy of node a, with another socket and peers' port; more: added to its configuration. */
static void start_clone(struct cluster *cluster, const char *more) {
    const struct node *first = &cluster->nodes[FIRST];
    struct node *clone = &cluster->nodes[CLONE];
    char text[256];
    uint32_t port = 0;
    *clone = (struct node){.name = "a", .ini = first->ini};
    CHECK(sscanf(strchr(first->address, ':'), ":%u", &port) == 1, "%s", first->address);
    snprintf(clone->socket_path, sizeof clone->socket_path, "%s/clone.sock", cluster->directory);
    snprintf(clone->config_path, sizeof clone->config_path, "%s/clone.conf", cluster->directory);
    snprintf(clone->log_path, sizeof clone->log_path, "%s/clone.log", cluster->directory);
    snprintf(clone->address, sizeof clone->address, "%.*s:%u", (int)strcspn(first->address, ":"),
             first->address, port + 100);
    snprintf(text, sizeof text, "[local]\nsocket = %%D/clone.sock\n[peers]\nlisten = %s\n",
             clone->address);
    config_text_add(&clone->ini, text, cluster->directory);
    config_text_add(&clone->ini, more, cluster->directory);
    config_text_write(&clone->ini, clone->config_path);
    cluster_node_start(cluster, CLONE);
}

static void start_static(struct cluster *cluster) {
    cluster_start(cluster, &(struct cluster_options){.nodes = 2, .ini = ini});
}

Test(twin, a_peer_that_two_of_one_name_ask_tells_both, .timeout = 120) {
    struct cluster cluster;
    start_static(&cluster);
    start_clone(&cluster, NULL);
    WAIT_UNTIL(status_says(&cluster, SECOND, "twin", "node a, and both live"), PATIENCE_MS);
    WAIT_UNTIL(status_says(&cluster, FIRST, "twin", "node b says: two brokers"), PATIENCE_MS);
    WAIT_UNTIL(status_says(&cluster, CLONE, "twin", "node b says: two brokers"), PATIENCE_MS);
    for (uint32_t i = 0; i < 3; i++) {
        CHECK(cluster_log_has(&cluster, i, BOTH_LIVE), "the log of %u does not say so", i);
        doctor_fails(&cluster, i);
        nodes_says(&cluster, i, "a", BOTH_LIVE);
    }
    cluster_node_terminate(&cluster, CLONE);
    for (uint32_t i = 0; i < 2; i++)
        WAIT_UNTIL(status_says(&cluster, i, "twin", NULL), PATIENCE_MS);
    WAIT_UNTIL(cluster_log_has(&cluster, SECOND, "one broker calls itself so again"), PATIENCE_MS);
    WAIT_UNTIL(cluster_log_has(&cluster, FIRST, "no other broker of this name"), PATIENCE_MS);
    cluster_stop(&cluster);
}

Test(twin, a_broker_that_meets_its_own_name_says_so, .timeout = 120) {
    struct cluster cluster;
    char more[128];
    start_static(&cluster);
    snprintf(more, sizeof more, "[peer b]\naddress = %s\n", cluster.nodes[FIRST].address);
    start_clone(&cluster, more); /* takes a for b */
    WAIT_UNTIL(status_says(&cluster, FIRST, "twin", BOTH_LIVE), PATIENCE_MS);
    WAIT_UNTIL(status_says(&cluster, CLONE, "twin", BOTH_LIVE), PATIENCE_MS);
    CHECK(status_says(&cluster, CLONE, "twin", cluster.nodes[FIRST].address), "no address");
    CHECK(cluster_log_has(&cluster, FIRST, BOTH_LIVE) &&
              cluster_log_has(&cluster, CLONE, BOTH_LIVE),
          "a log does not say so");
    cluster_node_terminate(&cluster, CLONE);
    WAIT_UNTIL(status_says(&cluster, FIRST, "twin", NULL), PATIENCE_MS);
    cluster_stop(&cluster);
}

Test(twin, a_restart_of_a_peer_is_no_twin, .timeout = 120) {
    struct cluster cluster;
    start_static(&cluster);
    for (int i = 0; i < 3; i++) {
        cluster_node_kill(&cluster, FIRST);
        cluster_node_start(&cluster, FIRST);
        cluster_await_peer(&cluster, SECOND, FIRST);
    }
    check_pause(2000); /* ten pings */
    for (uint32_t i = 0; i < 2; i++) {
        CHECK(!cluster_log_has(&cluster, i, BOTH_LIVE), "a restart is called a twin");
        CHECK(status_says(&cluster, i, "twin", NULL), "a restart is called a twin");
    }
    cluster_stop(&cluster);
}
