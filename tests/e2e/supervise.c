/* SPDX-License-Identifier: Apache-2.0
 *
 * `featured --supervise` by its signals: what comes back after a crash, a restart, a mistake in the
 * configuration, and what a real stop is.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/checks.h"
#include "support/cluster.h"
#include "support/process.h"

#define PATIENCE_MS 60000

static char directory[] = "/tmp/featured-supervise-XXXXXX";
static char featured[4096], featurectl[4096];
static char socket_path[96], config_path[96], log_path[96];

static void configure(const char *more) {
    FILE *file = fopen(config_path, "we");
    CHECK(file != NULL, "%s", strerror(errno));
    fprintf(file,
            "[node]\nname = a\n[local]\nsocket = %s\n[memory]\nmax_resident_bytes = 64MiB\n"
            "prefault = off\n[store run]\nmax_resident_bytes = 16MiB\nlanding_bytes = 0\n"
            "max_samples = 1000\n%s",
            socket_path, more);
    CHECK(fclose(file) == 0, "%s", strerror(errno));
}

static void set_up(void) {
    CHECK(mkdtemp(directory) != NULL, "%s", strerror(errno));
    cluster_program("featured", featured);
    cluster_program("featurectl", featurectl);
    snprintf(socket_path, sizeof socket_path, "%s/a.sock", directory);
    snprintf(config_path, sizeof config_path, "%s/a.conf", directory);
    snprintf(log_path, sizeof log_path, "%s/log", directory);
    configure("");
}

static void tear_down(void) {
    struct process_output result;
    process_run(&result, (const char *[]){"/bin/rm", "-r", directory, NULL}, 20000);
    process_output_deinit(&result);
}

TestSuite(supervise, .init = set_up, .fini = tear_down, .timeout = 300);

static void start(struct process *supervisor) {
    process_spawn(supervisor,
                  (const char *[]){featured, "--supervise", "--config", config_path, NULL},
                  log_path);
}

/* What `featurectl COMMAND OPTION VALUE` says; NULL: it failed. */
static const char *ask(const char *command, const char *argument) {
    static char text[16384];
    struct process_output result;
    process_run(&result,
                (const char *[]){featurectl, "--socket", socket_path, command, argument, NULL},
                20000);
    snprintf(text, sizeof text, "%s", result.out);
    bool good = result.status == 0;
    process_output_deinit(&result);
    return good ? text : NULL;
}

static bool serves(void) {
    return ask("status", NULL) != NULL;
}

static void end(struct process *supervisor, int expected) {
    int status = -1;
    process_signal(supervisor, SIGTERM);
    CHECK(process_wait(supervisor, PATIENCE_MS, &status), "it does not end");
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == expected, "wait status 0x%x: %s", status,
          check_read_text(log_path));
}

static char ref[1024]; /* of the sample */

/* Put and seen by featurectl, as an operator would. */
static void put_sample(void) {
    struct process_output result;
    process_run(&result,
                (const char *[]){featurectl, "--socket", socket_path, "put",
                                 "tests/data/sample-002.safetensors", "--store", "run", NULL},
                20000);
    CHECK(result.status == 0, "%s", result.err);
    CHECK(sscanf(result.out, "%1023s", ref) == 1, "%s", result.out);
    process_output_deinit(&result);
}

static bool has_sample(void) {
    const char *said = ask("samples", NULL);
    return said && strstr(said, "sample-002");
}

/* The sample by the ref that its put has returned, as a file of that name. */
static const char *read_back(const char *name) {
    static char path[160];
    struct process_output result;
    snprintf(path, sizeof path, "%s/%s", directory, name);
    process_run(
        &result,
        (const char *[]){featurectl, "--socket", socket_path, "get", ref, "--output", path, NULL},
        20000);
    CHECK(result.status == 0, "%s", result.err);
    process_output_deinit(&result);
    return path;
}

static void expect_same(const char *path, const char *other) {
    struct process_output result;
    process_run(&result, (const char *[]){"/usr/bin/cmp", path, other, NULL}, 20000);
    CHECK(result.status == 0, "%s%s", result.out, result.err);
    process_output_deinit(&result);
}

/* Another broker than `before` serves. */
static void wait_for_next(const struct process *supervisor, pid_t before) {
    pid_t now;
    WAIT_UNTIL((now = process_child(supervisor)) != 0 && now != before && serves(), PATIENCE_MS);
}

Test(supervise, twenty_crashes_lose_nothing) {
    struct process supervisor;
    start(&supervisor);
    WAIT_UNTIL(serves(), PATIENCE_MS);
    put_sample();
    char before[160];
    snprintf(before, sizeof before, "%s", read_back("before"));
    for (unsigned i = 0; i < 20; i++) {
        pid_t broker = process_child(&supervisor);
        CHECK(broker > 0 && kill(broker, SIGKILL) == 0, "pid %d: %s", broker, strerror(errno));
        wait_for_next(&supervisor, broker);
        CHECK(has_sample(), "after crash %u: %s", i + 1, check_read_text(log_path));
    }
    expect_same(before, read_back("after"));
    end(&supervisor, 0);
}

Test(supervise, restarts_the_broker_alone_on_sigusr2_and_drains_on_sigterm) {
    struct process supervisor;
    start(&supervisor);
    WAIT_UNTIL(serves(), PATIENCE_MS);
    put_sample();
    pid_t broker = process_child(&supervisor);
    process_signal(&supervisor, SIGUSR2);
    wait_for_next(&supervisor, broker);
    CHECK(has_sample(), "%s", check_read_text(log_path));
    CHECK(!strstr(check_read_text(log_path), "stopping"), "%s", check_read_text(log_path));
    end(&supervisor, 0);
    CHECK(strstr(check_read_text(log_path), "stopping: no new puts"), "%s",
          check_read_text(log_path));
}

Test(supervise, mends_with_the_configuration) {
    struct process supervisor;
    start(&supervisor);
    WAIT_UNTIL(serves(), PATIENCE_MS);
    put_sample();
    pid_t broker = process_child(&supervisor);
    configure("max_smaples = 7\n");
    process_signal(&supervisor, SIGUSR2);
    WAIT_UNTIL(strstr(check_read_text(log_path), "ended with status 2"), PATIENCE_MS);
    CHECK(!serves(), "with a file that is refused");
    configure("");
    process_signal(&supervisor, SIGHUP);
    wait_for_next(&supervisor, broker);
    CHECK(has_sample(), "%s", check_read_text(log_path));
    end(&supervisor, 0);
}

/* Other limits and sizes are for a store that is made anew; the samples of this one stay. */
Test(supervise, keeps_a_store_whose_sizes_and_limits_are_configured_anew) {
    struct process supervisor;
    start(&supervisor);
    WAIT_UNTIL(serves(), PATIENCE_MS);
    put_sample();
    pid_t broker = process_child(&supervisor);
    configure("max_hold = 1h\n[peers]\nmax_leases_per_peer = 400000\n");
    process_signal(&supervisor, SIGUSR2);
    wait_for_next(&supervisor, broker);
    CHECK(has_sample(), "%s", check_read_text(log_path));
    end(&supervisor, 0);
}

Test(supervise, ends_with_a_first_broker_that_cannot_start) {
    struct process supervisor;
    int status = -1;
    configure("max_smaples = 7\n");
    start(&supervisor);
    CHECK(process_wait(&supervisor, PATIENCE_MS, &status), "it goes on");
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 2, "wait status 0x%x", status);
}
