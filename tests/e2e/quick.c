/* SPDX-License-Identifier: Apache-2.0
 *
 * `featured --quick`, as somebody uses it who has just installed it; and --end-with, by which a
 * program has a broker of its own.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/checks.h"
#include "support/cluster.h"
#include "support/payload.h"

static char directory[] = "/tmp/featured-quick-XXXXXX";
static char featured[4096];
static char socket_path[96], log_path[96];

static void set_up(void) {
    CHECK(mkdtemp(directory) != NULL, "%s", strerror(errno));
    cluster_program("featured", featured);
    snprintf(socket_path, sizeof socket_path, "%s/featured/featured.sock", directory);
    snprintf(log_path, sizeof log_path, "%s/log", directory);
    setenv("XDG_RUNTIME_DIR", directory, 1);
}

static void tear_down(void) {
    struct process_output result;
    process_run(&result, (const char *[]){"/bin/rm", "-rf", directory, NULL}, 20000);
    process_output_deinit(&result);
}

TestSuite(quick, .init = set_up, .fini = tear_down, .timeout = 120);

static const char *read_log(void) {
    static char text[65536];
    int fd = open(log_path, O_RDONLY | O_CLOEXEC);
    ssize_t bytes = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    text[bytes > 0 ? bytes : 0] = '\0';
    if (fd >= 0)
        close(fd);
    return text;
}

static bool exists(const char *path) {
    struct stat facts;
    return stat(path, &facts) == 0;
}

static void start(struct process *broker, const char *const argv[]) {
    process_spawn(broker, argv, log_path);
    WAIT_UNTIL(strstr(read_log(), "Ctrl-C stops it") != NULL || !process_running(broker), 20000);
    CHECK(process_running(broker), "%s", read_log());
}

static void end(struct process *broker, int signal_number) {
    int status = -1;
    process_signal(broker, signal_number);
    CHECK(process_wait(broker, 20000, &status), "it does not end");
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "wait status 0x%x: %s", status,
          read_log());
}

/* A store is made, a sample put and got: all that a user does first. */
static void put_and_get(const char *path) {
    struct feature *feature;
    struct feature_store *store;
    struct feature_store_options settings = FEATURE_STORE_OPTIONS_INIT;
    struct payload payload;
    CHECK_OK(feature_connect(
        &(struct feature_options){.size = sizeof(struct feature_options), .socket_path = path},
        &feature));
    CHECK_OK(feature_store_create(feature, "run0", &settings));
    store = cluster_open(feature, "run0", false);
    payload_init(&payload, "s1", 1, 100000);
    CHECK_OK(payload_put(&payload, store, 20000, NULL));
    payload_check_get(&payload, store, FEATURE_BY_ID("s1"), FEATURE_RELEASE_CONSUMED);
    payload_deinit(&payload);
    feature_store_close(store);
    feature_disconnect(feature);
}

Test(quick, it_says_how_to_connect_and_one_can) {
    struct process broker;
    char line[160];
    start(&broker, (const char *[]){featured, "--quick", NULL});
    snprintf(line, sizeof line, "    export FEATURED_SOCKET=%s\n", socket_path);
    CHECK(strstr(read_log(), line) != NULL, "no \"%s\" in %s", line, read_log());
    put_and_get(socket_path);
    end(&broker, SIGINT);
    CHECK(!exists(socket_path), "the socket is left");
}

Test(quick, a_second_one_is_refused_and_told_of_the_first) {
    struct process broker;
    struct process_output result;
    char pid[32];
    start(&broker, (const char *[]){featured, "--quick", NULL});
    process_run(&result, (const char *[]){featured, "--quick", NULL}, 20000);
    snprintf(pid, sizeof pid, "pid %d,", (int)broker.pid);
    CHECK(result.status == 1, "status %d", result.status);
    CHECK(strstr(result.err, "another daemon") != NULL && strstr(result.err, pid) != NULL, "%s",
          result.err);
    process_output_deinit(&result);
    put_and_get(socket_path);
    end(&broker, SIGTERM);
}

Test(quick, it_ends_when_its_terminal_is_closed) {
    struct process broker;
    start(&broker, (const char *[]){featured, "--quick", NULL});
    end(&broker, SIGHUP);
}

Test(quick, a_file_goes_before_its_defaults_and_the_path_before_the_file) {
    struct process broker;
    char config[96], option[128], path[96];
    snprintf(config, sizeof config, "%s/conf", directory);
    snprintf(path, sizeof path, "%s/here.sock", directory);
    snprintf(option, sizeof option, "--quick=%s", path);
    FILE *file = fopen(config, "we");
    CHECK(file != NULL, "%s", strerror(errno));
    fprintf(file, "[local]\nsocket = %s/not-here.sock\n[stores]\nmax_resident_bytes = 20MiB\n",
            directory);
    fclose(file);
    start(&broker, (const char *[]){featured, option, "--config", config, NULL});
    CHECK(strstr(read_log(), "up to 20 MiB of samples in a store") != NULL, "%s", read_log());
    put_and_get(path);
    end(&broker, SIGTERM);
}

/* ---- a broker of a program's own ---- */

/* Starts a broker that ends with this process, in DIRECTORY/own, and a child that is there until
 * the test has closed the channel. */
static int own_broker(int channel, void *context) {
    char option[128], with[32];
    snprintf(option, sizeof option, "--quick=%s/own/s", directory);
    snprintf(with, sizeof with, "--end-with=%d", (int)getpid());
    if (fork() == 0) {
        int log = open(log_path, O_WRONLY | O_CREAT | O_APPEND, 0600);
        dup2(log, STDOUT_FILENO);
        dup2(log, STDERR_FILENO);
        close(channel);
        execl(featured, featured, option, with, (char *)NULL);
        _exit(127);
    }
    for (int i = 0; i < 2; i++) {
        pid_t child = fork();
        if (child == 0) {
            char word;
            _exit(i == 0 ? 0 : (int)read(channel, &word, 1)); /* 0 bytes: the test has closed it */
        }
        if (i == 0)
            waitpid(child, NULL, 0);
    }
    (void)context;
    channel_say(channel, "started");
    pause();
    return 0;
}

Test(quick, a_programs_own_broker_goes_with_the_program_and_not_with_its_children) {
    struct process program;
    char own[96], path[96];
    snprintf(own, sizeof own, "%s/own", directory);
    snprintf(path, sizeof path, "%s/s", own);
    CHECK(mkdir(own, 0700) == 0, "%s", strerror(errno));
    process_fork(&program, own_broker, NULL);
    channel_expect(program.channel, "started", 20000);
    WAIT_UNTIL(strstr(read_log(), "Ctrl-C stops it") != NULL, 20000);
    put_and_get(path);
    process_signal(&program, SIGKILL);
    WAIT_UNTIL(!exists(own), 20000);
    process_kill(&program);
}

Test(quick, a_process_that_has_not_started_it_is_not_waited_for) {
    struct process_output result;
    char own[96];
    snprintf(own, sizeof own, "--quick=%s/s", directory);
    process_run(&result, (const char *[]){featured, own, "--end-with=1", NULL}, 20000);
    CHECK(result.status == 1 && strstr(result.err, "--end-with=1: this process is not") != NULL,
          "status %d: %s", result.status, result.err);
    process_output_deinit(&result);
}
