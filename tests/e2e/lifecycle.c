/* SPDX-License-Identifier: Apache-2.0
 *
 * Start, reload, drain, restart.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/checks.h"
#include "support/world.h"

#define MIB 1048576u

static void run_featured(struct process_output *result, const char *config_path,
                         const char *option) {
    char program[4096];
    cluster_program("featured", program);
    process_run(result, (const char *[]){program, "--config", config_path, option, NULL}, 20000);
}

/* ---- configuration ---- */

Test(lifecycle, check_config_names_file_and_line, .timeout = 60) {
    static const struct {
        const char *text, *where, *what;
    } cases[] = {
        {"[node]\nname = a\n[local]\nsokket = /tmp/x\n", ":4", "sokket"},
        {"[node]\nname = a\n\n[memory]\nmax_resident_bytes = many\n", ":5", "max_resident_bytes"},
        {"[node]\nname = a\n[stores]\nreaders = 0\n", ":4", "readers"},
        {"[nodes]\nname = a\n", ":1", "nodes"},
        {"[store run]\npolicy = sometimes\n", ":2", "policy"},
        {"[node]\nname = -bad-\n", ":2", "name"},
    };
    char path[] = "/tmp/featured-conf-XXXXXX";
    int fd = mkstemp(path);
    CHECK(fd >= 0, "%s", strerror(errno));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct process_output result;
        CHECK(ftruncate(fd, 0) == 0 && pwrite(fd, cases[i].text, strlen(cases[i].text), 0) ==
                                           (ssize_t)strlen(cases[i].text),
              "%s", strerror(errno));
        run_featured(&result, path, "--check-config");
        CHECK(result.status != 0, "accepted:\n%s", cases[i].text);
        const char *at = strstr(result.err, path);
        CHECK(at != NULL &&
                  strncmp(at + strlen(path), cases[i].where, strlen(cases[i].where)) == 0 &&
                  strstr(at, cases[i].what) != NULL,
              "\"%s\" does not say %s%s and %s", result.err, path, cases[i].where, cases[i].what);
        process_output_deinit(&result);
    }
    close(fd);
    unlink(path);
}

Test(lifecycle, check_config_accepts_a_good_file, .timeout = 60) {
    struct cluster cluster;
    struct process_output result;
    cluster_start(&cluster,
                  &(struct cluster_options){.nodes = 2, .ini = "[store run]\nreaders = 2\n"});
    run_featured(&result, cluster.nodes[0].config_path,
                 "--check-config"); /* beside the running broker */
    CHECK(result.status == 0, "%s", result.err);
    process_output_deinit(&result);
    cluster_stop(&cluster);
}

/* ---- one socket, one broker ---- */

Test(lifecycle, a_second_broker_refuses_the_socket_of_a_live_one, .timeout = 60) {
    struct cluster cluster;
    struct process_output result;
    cluster_start(&cluster, &(struct cluster_options){.nodes = 1, .ini = "[store run]\n"});
    struct feature *feature = cluster_connect(&cluster, 0);
    run_featured(&result, cluster.nodes[0].config_path, NULL);
    CHECK(result.status != 0 && strstr(result.err, cluster.nodes[0].socket_path) != NULL,
          "status %d: %s", result.status, result.err);
    process_output_deinit(&result);
    struct feature_store *store =
        cluster_open(feature, "run", false); /* the first one is unharmed */
    CHECK_STATUS(FEATURE_E_NOT_FOUND, feature_exists(store, by_id("s1")));
    feature_disconnect(feature);
    feature = cluster_connect(&cluster, 0);
    feature_disconnect(feature);
    cluster_stop(&cluster);
}

Test(lifecycle, a_socket_left_by_a_killed_broker_is_taken_over, .timeout = 60) {
    struct cluster cluster;
    cluster_start(&cluster, &(struct cluster_options){.nodes = 1, .ini = "[store run]\n"});
    cluster_node_kill(&cluster, 0);
    CHECK(access(cluster.nodes[0].socket_path, F_OK) == 0, "the kill removed the socket");
    cluster_node_start(&cluster, 0);
    cluster_node_terminate(&cluster, 0);
    CHECK(access(cluster.nodes[0].socket_path, F_OK) < 0, "a clean end leaves the socket");
    cluster_stop(&cluster);
}

/* ---- SIGHUP ---- */

Test(lifecycle, sighup_rereads_what_can_change, .timeout = 60) {
    struct cluster cluster;
    struct payload payload;
    struct feature_view *reader;
    cluster_start(&cluster, &(struct cluster_options){.nodes = 1, .ini = "[store run]\n"});
    struct feature *feature = cluster_connect(&cluster, 0);
    struct feature_store *store = cluster_open(feature, "run", false);
    payload_init(&payload, "s1", 1, MIB);
    CHECK_OK(payload_put(&payload, store, 0, NULL));
    reader = payload_view(&payload, store, by_id("s1"));
    cluster_reconfigure(&cluster, 0, "[store run]\nreaders = 2\n");
    process_signal(&cluster.nodes[0].process, SIGHUP);

    /* from some moment on the store wants two readers, and nothing of what is there was lost */
    struct feature_info info = FEATURE_INFO_INIT;
    WAIT_UNTIL(feature_stat(store, by_id("s1"), &info, NULL) == FEATURE_OK && info.readers == 2,
               20000);
    CHECK(payload_difference(&payload, reader) == NULL, "%s", payload_difference(&payload, reader));
    CHECK_OK(feature_view_check(reader));
    CHECK_OK(feature_release(reader, FEATURE_RELEASE_CONSUMED));
    payload_check_get(&payload, store, by_id("s1"), FEATURE_RELEASE_CONSUMED);
    CHECK_OK(feature_drain(feature, 20000));
    CHECK_STATUS(FEATURE_E_NOT_FOUND, feature_exists(store, by_id("s1")));
    payload_deinit(&payload);
    feature_disconnect(feature);
    cluster_await_empty(&cluster, 0);
    cluster_stop(&cluster);
}

Test(lifecycle, sighup_with_a_bad_file_changes_nothing, .timeout = 60) {
    struct cluster cluster;
    cluster_start(&cluster, &(struct cluster_options){.nodes = 1, .ini = "[store run]\n"});
    cluster_reconfigure(&cluster, 0, "[store run]\nreaders = none\n");
    process_signal(&cluster.nodes[0].process, SIGHUP);
    WAIT_UNTIL(cluster_log_has(&cluster, 0, "readers"), 20000);
    CHECK(cluster_health(&cluster, 0).draining == false, "draining");
    cluster_stop(&cluster);
}

/* Has the broker read its file again, and waits for a line of its log. */
static void reload(struct cluster *cluster, const char *end_of_it) {
    process_signal(&cluster->nodes[0].process, SIGHUP);
    WAIT_UNTIL(cluster_log_has(cluster, 0, end_of_it), 20000);
}

static const char store_with_secret[] = "[store run]\nsecret_file = %D/run.secret\n";

Test(lifecycle, reload_names_what_it_took_and_what_takes_a_restart, .timeout = 60) {
    struct cluster cluster;
    char path[96];
    cluster_start(&cluster, &(struct cluster_options){
                                .nodes = 1,
                                .ini = store_with_secret,
                                .files = {{"run.secret", "the secret of the store\n"}}});
    reload(&cluster, "a.conf: nothing has changed");

    cluster_reconfigure(&cluster, 0,
                        "[local]\nallow_uids = 0\n[daemon]\ngc_interval = 200ms\n"
                        "[store more]\n");
    reload(&cluster, "[store more]: not there -> added: takes a restart");
    CHECK(cluster_log_has(&cluster, 0, "warning reload: [local] allow_uids: (nothing) -> 0: takes"),
          "allow_uids is not named");
    WAIT_UNTIL(cluster_log_has(&cluster, 0, "[daemon] gc_interval: 100ms -> 200ms: taken"), 20000);

    snprintf(path, sizeof path, "%s/run.secret", cluster.directory);
    FILE *file = fopen(path, "we");
    CHECK(file && fputs("another secret of the store\n", file) >= 0 && fclose(file) == 0, "%s",
          strerror(errno));
    reload(&cluster, "run.secret: has other content than at the start: takes a restart");
    CHECK(!cluster_log_has(&cluster, 0, "another secret"), "a secret is in the log");
    cluster_stop(&cluster);
}

/* ---- SIGTERM ---- */

Test(lifecycle, sigterm_waits_for_leases_and_takes_no_new_puts, .timeout = 60) {
    struct cluster cluster;
    struct payload payload, other;
    cluster_start(&cluster, &(struct cluster_options){
                                .nodes = 1, .ini = "[store run]\n[daemon]\ndrain_timeout = 60s\n"});
    struct feature *feature = cluster_connect(&cluster, 0);
    struct feature_store *store = cluster_open(feature, "run", false);
    payload_init(&payload, "s1", 2, MIB);
    payload_init(&other, "s2", 3, MIB);
    CHECK_OK(payload_put(&payload, store, 0, NULL));
    struct feature_view *reader = payload_view(&payload, store, by_id("s1"));
    process_signal(&cluster.nodes[0].process, SIGTERM);
    struct feature_health health = {.size = sizeof health};
    WAIT_UNTIL(feature_health(feature, &health) == FEATURE_OK && health.draining, 20000);
    CHECK_STATUS(FEATURE_E_UNAVAILABLE, payload_put(&other, store, 0, NULL));
    CHECK(payload_difference(&payload, reader) == NULL, "%s", payload_difference(&payload, reader));
    CHECK_OK(feature_view_check(reader));
    CHECK(process_running(&cluster.nodes[0].process), "it did not wait for the lease");
    CHECK_OK(feature_release(reader, FEATURE_RELEASE_CONSUMED));
    feature_health(
        feature, &health); /* carries the release along; the broker may be gone before it answers */
    int status = -1;
    CHECK(process_wait(&cluster.nodes[0].process, 20000, &status),
          "it still runs, nothing is leased");
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "wait status 0x%x", status);
    feature_disconnect(feature);
    feature_disconnect(cluster.nodes[0].probe);
    cluster.nodes[0].probe = NULL;
    payload_deinit(&payload);
    payload_deinit(&other);
    cluster_stop(&cluster);
}

Test(lifecycle, sigterm_waits_no_longer_than_drain_timeout, .timeout = 60) {
    struct cluster cluster;
    struct payload payload;
    cluster_start(&cluster,
                  &(struct cluster_options){
                      .nodes = 1, .ini = "[store run]\n[daemon]\ndrain_timeout = 500ms\n"});
    struct feature *feature = cluster_connect(&cluster, 0);
    struct feature_store *store = cluster_open(feature, "run", false);
    payload_init(&payload, "s1", 4, MIB);
    CHECK_OK(payload_put(&payload, store, 0, NULL));
    struct feature_view *reader = payload_view(&payload, store, by_id("s1"));
    uint64_t begin_ms = check_now_ms();
    cluster_node_terminate(&cluster, 0);
    CHECK(check_now_ms() - begin_ms >= 250, "it did not wait for the lease");
    CHECK(payload_difference(&payload, reader) == NULL, "%s", payload_difference(&payload, reader));
    CHECK_OK(feature_view_check(reader)); /* nobody has said that the session is over */
    CHECK_OK(feature_release(reader, FEATURE_RELEASE_CONSUMED));
    feature_disconnect(feature);
    payload_deinit(&payload);
    cluster_stop(&cluster);
}

/* ---- restart ---- */

static void kill_home(struct cluster *cluster) {
    cluster_node_kill(cluster, 0);
}
static void end_home(struct cluster *cluster) {
    cluster_node_terminate(cluster, 0);
}

static void check_restart(void (*stop)(struct cluster *cluster)) {
    struct cluster cluster;
    struct payload old, new;
    struct feature_ref *old_ref = NULL;
    cluster_start(&cluster,
                  &(struct cluster_options){
                      .nodes = 1, .ini = "[store run]\n[daemon]\ndrain_timeout = 100ms\n"});
    struct feature *feature = cluster_connect(&cluster, 0);
    struct feature_store *store = cluster_open(feature, "run", false);
    payload_init(&old, "old", 5, MIB);
    payload_init(&new, "new", 6, MIB);
    CHECK_OK(payload_put(&old, store, 0, &old_ref));
    struct feature_view *view = payload_view(&old, store, by_ref(old_ref));
    stop(&cluster);
    CHECK_STATUS(FEATURE_E_UNAVAILABLE, payload_put(&new, store, 300, NULL));
    CHECK_OK(feature_view_check(view)); /* it may come back with its memory */
    cluster_node_start(&cluster, 0);

    WAIT_UNTIL(payload_put(&new, store, 1000, NULL) == FEATURE_OK, 20000); /* the same handle */
    payload_check_get(&new, store, by_id("new"), FEATURE_RELEASE_CONSUMED);
    CHECK_STATUS(FEATURE_E_LOST, world_try_get(store, by_ref(old_ref), 5000));
    CHECK(payload_difference(&old, view) == NULL, "%s",
          payload_difference(&old, view)); /* still readable */
    CHECK_STATUS(FEATURE_E_LOST, feature_view_check(view));
    CHECK_OK(feature_release(view, FEATURE_RELEASE_CONSUMED));
    CHECK_OK(feature_drain(feature, 20000));
    feature_ref_free(old_ref);
    payload_deinit(&old);
    payload_deinit(&new);
    feature_disconnect(feature);
    cluster_await_empty(&cluster, 0);
    cluster_stop(&cluster);
}

Test(lifecycle, a_handle_survives_a_killed_broker, .timeout = 60) {
    check_restart(kill_home);
}
Test(lifecycle, a_handle_survives_a_restarted_broker, .timeout = 60) {
    check_restart(end_home);
}

Test(lifecycle, views_outlive_their_connection, .timeout = 60) {
    struct cluster cluster;
    struct payload payload;
    cluster_start(&cluster, &(struct cluster_options){.nodes = 1, .ini = "[store run]\n"});
    struct feature *feature = cluster_connect(&cluster, 0);
    struct feature_store *store = cluster_open(feature, "run", false);
    payload_init(&payload, "s1", 7, MIB);
    CHECK_OK(payload_put(&payload, store, 0, NULL));
    struct feature_view *view = payload_view(&payload, store, by_id("s1"));
    feature_disconnect(feature);
    CHECK(payload_difference(&payload, view) == NULL, "%s", payload_difference(&payload, view));
    CHECK_OK(feature_release(
        view, FEATURE_RELEASE_CONSUMED)); /* came too late: the lease ended as returned */
    WAIT_UNTIL(cluster_numbers(&cluster, 0, "run").leases == 0, 20000);
    CHECK(cluster_numbers(&cluster, 0, "run").resident == 1,
          "consumed by a connection that was gone");
    feature = cluster_connect(&cluster, 0);
    payload_check_get(&payload, cluster_open(feature, "run", false), by_id("s1"),
                      FEATURE_RELEASE_CONSUMED);
    CHECK_OK(feature_drain(feature, 20000));
    feature_disconnect(feature);
    payload_deinit(&payload);
    cluster_await_empty(&cluster, 0);
    cluster_stop(&cluster);
}
