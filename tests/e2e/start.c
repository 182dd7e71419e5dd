/* SPDX-License-Identifier: Apache-2.0
 *
 * Starting where something is in the way: another broker, closed descriptors, a memory limit, a log
 * that nobody reads. Brokers are started by hand here; each test has a directory of its own.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/checks.h"
#include "support/cluster.h"
#include "support/wire.h"

static char directory[] = "/tmp/featured-start-XXXXXX";
static char featured[4096], featurectl[4096];
static char socket_path[96], config_path[96], log_path[96];

static void set_up(void) {
    CHECK(mkdtemp(directory) != NULL, "%s", strerror(errno));
    cluster_program("featured", featured);
    cluster_program("featurectl", featurectl);
    snprintf(socket_path, sizeof socket_path, "%s/a.sock", directory);
    snprintf(config_path, sizeof config_path, "%s/a.conf", directory);
    snprintf(log_path, sizeof log_path, "%s/log", directory);
}

static void tear_down(void) {
    struct process_output result;
    process_run(&result, (const char *[]){"/bin/rm", "-r", directory, NULL}, 20000);
    process_output_deinit(&result);
}

TestSuite(start, .init = set_up, .fini = tear_down, .timeout = 120);

static void write_text(const char *path, const char *text) {
    FILE *file = fopen(path, "we");
    CHECK(file != NULL && fputs(text, file) >= 0 && fclose(file) == 0, "%s: %s", path,
          strerror(errno));
}

static void configure(const char *more) {
    char text[2048];
    snprintf(text, sizeof text,
             "[node]\nname = a\n[local]\nsocket = %s\n[memory]\nmax_resident_bytes = 64MiB\n"
             "prefault = off\n%s",
             socket_path, more);
    write_text(config_path, text);
}

static void start(struct process *broker) {
    process_spawn(broker, (const char *[]){featured, "--config", config_path, NULL}, log_path);
}

/* `shell` starts "$0" with "$1" as its configuration; "$2" is a path for it to use. */
static void start_by_shell(struct process *broker, const char *shell, const char *path) {
    process_spawn(broker,
                  (const char *[]){"/bin/sh", "-c", shell, featured, config_path, path, NULL},
                  log_path);
}

static bool status_is_told(struct process_output *result) {
    process_run(result, (const char *[]){featurectl, "--socket", socket_path, "status", NULL},
                20000);
    return result->status == 0;
}

static bool serves(void) {
    struct process_output result;
    bool good = status_is_told(&result);
    process_output_deinit(&result);
    return good;
}

static void end(struct process *broker) {
    int status = -1;
    process_signal(broker, SIGTERM);
    CHECK(process_wait(broker, 20000, &status), "it does not end");
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "wait status 0x%x: %s", status,
          check_read_text(log_path));
}

/* What featured says as it refuses to start, with these words in it. */
static void check_refused(const char *option, const char *const words[]) {
    struct process_output result;
    process_run(&result, (const char *[]){featured, "--config", config_path, option, NULL}, 20000);
    CHECK(result.status == 1 || result.status == 2, "status %d: %s", result.status, result.err);
    for (size_t i = 0; words[i]; i++)
        CHECK(strstr(result.err, words[i]) != NULL, "no \"%s\" in: %s", words[i], result.err);
    process_output_deinit(&result);
}

static void send_garbage(int times) {
    for (int i = 0; i < times; i++) {
        struct wire wire;
        wire_connect(&wire, socket_path);
        wire_send_bytes(&wire, "garbage", 7);
        CHECK(wire_closed(&wire, 20000), "garbage is taken");
        wire_close(&wire);
    }
}

/* ---- two at once ---- */

static void leave_a_stale_socket(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    unlink(socket_path);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", socket_path);
    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0, "%s",
          strerror(errno));
    close(fd);
}

Test(start, two_at_one_moment_on_a_stale_socket_leave_one) {
    configure("[store run]\nmax_resident_bytes = 4MiB\nlanding_bytes = 0\nmax_samples = 16\n");
    for (int round = 0; round < 20; round++) {
        struct process brokers[2];
        int status = -1;
        leave_a_stale_socket();
        start(&brokers[0]);
        start(&brokers[1]);
        WAIT_UNTIL(!process_running(&brokers[0]) || !process_running(&brokers[1]), 20000);
        int left = process_running(&brokers[0]) ? 0 : 1;
        CHECK(process_wait(&brokers[1 - left], 20000, &status), "still there");
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 1, "wait status 0x%x", status);
        CHECK(strstr(check_read_text(log_path), "another daemon"), "%s", check_read_text(log_path));
        WAIT_UNTIL(serves(), 20000);
        end(&brokers[left]);
    }
}

Test(start, the_second_names_the_first_and_what_they_share) {
    struct process first;
    char pid[32], more[512], secret[96];
    snprintf(secret, sizeof secret, "%s/secret", directory);
    write_text(secret, "a secret of the whole cluster\n");
    CHECK(chmod(secret, 0600) == 0, "%s", strerror(errno));
    snprintf(more, sizeof more, "[peers]\nlisten = 127.0.0.1:0\ncluster_secret_file = %s\n",
             secret);
    configure(more);
    start(&first);
    WAIT_UNTIL(serves(), 20000);
    snprintf(pid, sizeof pid, "pid %d", (int)first.pid);
    check_refused(NULL, (const char *[]){socket_path, pid, "[local] socket", NULL});

    /* another socket, the same port for peers */
    const char *said = strstr(check_read_text(log_path), "listening for peers at ");
    CHECK(said != NULL, "%s", check_read_text(log_path));
    char address[64];
    CHECK(sscanf(said, "listening for peers at %63s", address) == 1, "%s", said);
    snprintf(socket_path, sizeof socket_path, "%s/b.sock", directory);
    snprintf(more, sizeof more, "[peers]\nlisten = %s\ncluster_secret_file = %s\n", address,
             secret);
    configure(more);
    check_refused(NULL, (const char *[]){address, "in use", "[peers] listen", NULL});
    end(&first);
}

/* ---- the socket's place ---- */

Test(start, a_socket_path_that_cannot_be_is_explained) {
    configure("");
    CHECK(mkdir(socket_path, 0700) == 0, "%s", strerror(errno));
    check_refused(NULL, (const char *[]){socket_path, "is a directory", "rmdir", NULL});
    CHECK(rmdir(socket_path) == 0, "%s", strerror(errno));
    snprintf(socket_path, sizeof socket_path, "%s/none/a.sock", directory);
    configure("");
    check_refused(NULL, (const char *[]){"/none does not exist", "mkdir", NULL});
    memset(socket_path, 'x', sizeof socket_path - 1);
    configure("");
    check_refused("--check-config", (const char *[]){":4:", "socket", NULL});
}

/* ---- descriptors ---- */

static void check_is_null_device(const struct process *broker, int fd) {
    char path[64], target[64];
    snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)broker->pid, fd);
    ssize_t bytes = readlink(path, target, sizeof target - 1);
    target[bytes > 0 ? bytes : 0] = '\0';
    CHECK(strcmp(target, "/dev/null") == 0, "descriptor %d is %s", fd, target);
}

/* A log line written to what libuv had opened there ended in the loop's own descriptors. */
Test(start, closed_descriptors_get_the_null_device) {
    struct process broker;
    configure("[store run]\nmax_resident_bytes = 4MiB\nlanding_bytes = 0\n");
    start_by_shell(&broker, "exec \"$0\" --config \"$1\" <&- >&- 2>&-", "");
    WAIT_UNTIL(serves(), 20000);
    for (int fd = 0; fd < 3; fd++)
        check_is_null_device(&broker, fd);
    process_signal(&broker, SIGHUP); /* a line */
    CHECK(serves(), "it serves no more");
    end(&broker);
}

Test(start, programs_with_closed_output_fail_and_spoil_nothing) {
    struct process program;
    struct process broker;
    int status = -1;
    configure("");
    start(&broker);
    WAIT_UNTIL(serves(), 20000);
    process_spawn(&program,
                  (const char *[]){"/bin/sh", "-c", "exec \"$0\" --socket \"$1\" status >&-",
                                   featurectl, socket_path, NULL},
                  log_path);
    CHECK(process_wait(&program, 20000, &status), "it does not end");
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) != 0, "output lost, status 0x%x", status);
    end(&broker);
}

Test(start, the_limit_of_open_files_is_raised_as_far_as_it_may_be) {
    struct process broker;
    char path[64];
    configure("");
    start_by_shell(&broker, "ulimit -S -n 100 && ulimit -H -n 500 && exec \"$0\" -c \"$1\"", "");
    WAIT_UNTIL(serves(), 20000);
    snprintf(path, sizeof path, "/proc/%d/limits", (int)broker.pid);
    const char *line = strstr(check_read_text(path), "Max open files");
    unsigned soft = 0;
    CHECK(line && sscanf(line, "Max open files %u", &soft) == 1 && soft == 500, "%.80s", line);
    const char *said;
    WAIT_UNTIL((said = check_read_text(log_path)) && strstr(said, "RLIMIT_NOFILE") &&
                   strstr(said, "max_sessions = 1024"),
               20000);
    end(&broker);
}

Test(start, too_little_address_space_is_refused_with_a_line) {
    struct process broker;
    int status = -1;
#ifdef __SANITIZE_ADDRESS__
    cr_skip_test("the sanitizer itself takes terabytes of address space");
#endif
    configure("[store run]\nmax_resident_bytes = 64MiB\nlanding_bytes = 64MiB\n");
    start_by_shell(&broker, "ulimit -v 200000 && exec \"$0\" --config \"$1\"", "");
    CHECK(process_wait(&broker, 20000, &status), "it does not end");
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 2, "wait status 0x%x", status);
    const char *said = check_read_text(log_path);
    CHECK(strstr(said, "RLIMIT_AS") && strstr(said, "ulimit -v"), "%s", said);
}

/* SIGXFSZ would end it without a word. */
Test(start, a_limit_of_file_size_is_refused_with_a_line_and_ends_no_log) {
    struct process broker;
    int status = -1;
    configure("[store run]\nmax_resident_bytes = 64MiB\nlanding_bytes = 0\n");
    start_by_shell(&broker, "ulimit -f 65536 && exec \"$0\" --config \"$1\"", ""); /* 32 MiB */
    CHECK(process_wait(&broker, 20000, &status), "it does not end");
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 2, "wait status 0x%x", status);
    CHECK(strstr(check_read_text(log_path), "RLIMIT_FSIZE"), "%s", check_read_text(log_path));
    configure("");
    CHECK(truncate(log_path, 0) == 0, "%s", strerror(errno));
    start_by_shell(&broker, "ulimit -f 1 && exec \"$0\" --config \"$1\" --verbose", "");
    WAIT_UNTIL(serves(), 20000);
    send_garbage(50); /* more than 512 bytes of log */
    CHECK(serves(), "it serves no more");
    end(&broker);
}

/* ---- a log that nobody reads ---- */

Test(start, log_that_nobody_reads_stops_neither_clients_nor_the_end) {
    struct process broker;
    char fifo[96], byte;
    configure("[store run]\n[daemon]\nlog_level = debug\n"); /* debug lines are not limited */
    snprintf(fifo, sizeof fifo, "%s/fifo", directory);
    CHECK(mkfifo(fifo, 0600) == 0, "%s", strerror(errno));
    int reader = open(fifo, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    CHECK(reader >= 0, "%s", strerror(errno));
    fcntl(reader, F_SETPIPE_SZ, 4096);
    while (write(reader, "x", 1) == 1) /* full from the first line on */
        ;
    start_by_shell(&broker, "exec \"$0\" --config \"$1\" 2> \"$2\"", fifo);
    WAIT_UNTIL(serves(), 20000);
    send_garbage(3000);
    struct process_output result;
    WAIT_UNTIL(status_is_told(&result) && strstr(result.out, "log lines dropped"), 20000);
    const char *dropped = strstr(result.out, "log lines dropped");
    CHECK(strtoul(dropped + strlen("log lines dropped"), NULL, 10) > 0, "%s", result.out);
    process_output_deinit(&result);
    end(&broker);
    CHECK(read(reader, &byte, 1) == 1 && byte == 'x', "the pipe was not full");
    close(reader);
}

Test(start, log_lines_that_clients_cause_are_limited) {
    struct process broker;
    configure("[store run]\n");
    start(&broker);
    WAIT_UNTIL(serves(), 20000);
    send_garbage(500);
    end(&broker);
    const char *text = check_read_text(log_path);
    size_t lines = 0;
    for (const char *at = text; (at = strstr(at, "closed: ")); at++)
        lines++;
    CHECK(lines >= 5 && lines <= 40, "%zu lines of 500 sessions", lines);
}

/* ---- cgroups ---- */

static char group[160];

/* A memory cgroup of version 1 or 2 with a limit of its own; false where there can be none. */
static bool make_group(const char *limit) {
    char file[256];
    bool version_1 = access("/sys/fs/cgroup/memory/cgroup.procs", W_OK) == 0;
    snprintf(group, sizeof group, "/sys/fs/cgroup/%sfeatured-test-%d", version_1 ? "memory/" : "",
             (int)getpid());
    if (mkdir(group, 0755) < 0)
        return false;
    snprintf(file, sizeof file, "%s/%s", group, version_1 ? "memory.limit_in_bytes" : "memory.max");
    int fd = open(file, O_WRONLY | O_CLOEXEC);
    bool good = fd >= 0 && write(fd, limit, strlen(limit)) == (ssize_t)strlen(limit);
    if (fd >= 0)
        close(fd);
    if (!good)
        rmdir(group);
    return good;
}

#define INTO_GROUP "echo $$ > \"$2/cgroup.procs\" && exec \"$0\" --config \"$1\""

static int run_in_group(const char *shell) {
    struct process broker;
    int status = -1;
    start_by_shell(&broker, shell, group);
    CHECK(process_wait(&broker, 60000, &status), "it goes on");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void remove_group(void) {
    WAIT_UNTIL(rmdir(group) == 0, 20000);
}

Test(start, cgroup_smaller_than_the_stores_is_refused_with_a_sentence) {
    if (!make_group("268435456"))
        cr_skip_test("no memory cgroup can be made here");
    configure("[store s]\nmax_resident_bytes = 512MiB\nlanding_bytes = 0\n");
    int checked = run_in_group(INTO_GROUP " --check-config");
    int started = run_in_group(INTO_GROUP);
    remove_group();
    CHECK(checked == 2 && started == 2, "--check-config %d, start %d", checked, started);
    const char *said = check_read_text(log_path);
    const char *words[] = {"memory limit", "cgroup", "256 MiB", "512 MiB", "MemoryMax="};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        CHECK(strstr(said, words[i]) != NULL, "no \"%s\" in: %s", words[i], said);
}

/* The stores fit, but not beside the broker: nothing is touched in advance, nothing is killed. */
Test(start, cgroup_that_is_tight_is_told_of_and_not_filled_in_advance) {
    struct process broker;
    struct process_output result;
    if (!make_group("268435456"))
        cr_skip_test("no memory cgroup can be made here");
    char text[1024];
    snprintf(text, sizeof text,
             "[node]\nname = a\n[local]\nsocket = %s\n[store s]\nmax_resident_bytes = 250MiB\n"
             "landing_bytes = 0\n",
             socket_path);
    write_text(config_path, text);
    start_by_shell(&broker, INTO_GROUP, group);
    WAIT_UNTIL(serves(), 20000);
    bool told = status_is_told(&result) && strstr(result.out, "128.0 MiB");
    CHECK(told, "max_resident_bytes is not half of the cgroup's: %s", result.out);
    process_output_deinit(&result);
    process_run(&result,
                (const char *[]){featurectl, "--socket", socket_path, "store", "create", "big",
                                 "--max-resident-bytes", "1GiB", NULL},
                20000);
    CHECK(result.status != 0 && strstr(result.err, "memory limit"), "%d %s", result.status,
          result.err);
    process_output_deinit(&result);
    end(&broker);
    remove_group();
    const char *said = check_read_text(log_path);
    CHECK(strstr(said, "may kill the broker") && strstr(said, "not touched in advance"), "%s",
          said);
}

/* ---- trust ---- */

Test(start, trust_in_peers_needs_a_secret_also_on_loopback) {
    configure("[peers]\nlisten = 127.0.0.1:0\n");
    const char *words[] = {"[peers] listen", "cluster_secret_file", "/dev/urandom", NULL};
    check_refused("--check-config", words);
    check_refused(NULL, words);
}

static int check_as_nobody(int channel, void *context) {
    (void)context, (void)channel;
    if (setgid(65534) < 0 || setuid(65534) < 0)
        return 1;
    struct process_output result;
    process_run(&result,
                (const char *[]){featured, "--config", config_path, "--check-config", NULL}, 20000);
    channel_send(channel, result.err, strlen(result.err) + 1);
    int status = result.status;
    process_output_deinit(&result);
    return status;
}

/* Of --check-config as uid and gid 65534, without other groups. */
static int status_as_nobody(char said[4096]) {
    struct process helper;
    int status = -1;
    process_fork(&helper, check_as_nobody, NULL);
    channel_receive(helper.channel, said, 4096, 20000);
    CHECK(process_wait(&helper, 20000, &status) && WIFEXITED(status), "0x%x", status);
    return WEXITSTATUS(status);
}

Test(start, trust_in_a_secret_as_kubernetes_mounts_it) {
    char secret[128], link[128], more[512], said[4096];
    if (geteuid() != 0)
        cr_skip_test("needs root");
    snprintf(secret, sizeof secret, "%s/..data_1", directory);
    snprintf(link, sizeof link, "%s/cluster.secret", directory);
    write_text(secret, "a secret of the whole cluster\n");
    CHECK(symlink("..data_1", link) == 0 && chown(secret, 0, 65534) == 0 &&
              chmod(secret, 0440) == 0 && chmod(directory, 0755) == 0,
          "%s", strerror(errno));
    snprintf(
        more, sizeof more,
        "[peers]\nlisten = 127.0.0.1:0\ncluster_secret_file = %s\n[store s]\nsecret_file = %s\n",
        link, link);
    configure(more);
    CHECK(status_as_nobody(said) == 0, "%s", said);
    CHECK(chmod(secret, 0444) == 0, "%s", strerror(errno));
    CHECK(status_as_nobody(said) == 2 && strstr(said, "mode 0444"), "%s", said);
    CHECK(chown(secret, 1, 65534) == 0 && chmod(secret, 0440) == 0, "%s", strerror(errno));
    CHECK(status_as_nobody(said) == 2 && strstr(said, "another user owns it"), "%s", said);
}
