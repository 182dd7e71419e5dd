/* SPDX-License-Identifier: Apache-2.0
 *
 * States: none (pid 0) -> running -> reaped (pid 0 again). Only process_wait() reaps, so that a pid
 * is never signalled after it was given back to the kernel.
 */
#include "support/process.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/checks.h"

#define CHANNEL_FD 3

/* In the child: dies with its parent, keeps stdin, stdout, stderr and `keep` (moved to CHANNEL_FD).
 * Whoever started the tests may ignore signals, as a shell does for what runs in its background; a
 * child would inherit that, and a test that interrupts it would wait in vain. */
static void settle_in(pid_t parent, int keep) {
    static const int restored[] = {SIGINT, SIGQUIT, SIGHUP, SIGTERM, SIGPIPE};
    for (size_t i = 0; i < sizeof restored / sizeof restored[0]; i++)
        signal(restored[i], SIG_DFL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(127);
    if (keep >= 0 && keep != CHANNEL_FD)
        dup2(keep, CHANNEL_FD);
    syscall(SYS_close_range, keep >= 0 ? CHANNEL_FD + 1 : CHANNEL_FD, UINT_MAX, 0);
}

static void started(struct process *out, pid_t pid, int channel) {
    CHECK(pid > 0, "fork: %s", strerror(errno));
    *out = (struct process){.pid = pid, .channel = channel};
    out->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    CHECK(out->pidfd >= 0, "pidfd_open: %s", strerror(errno));
}

static _Noreturn void become(const char *const argv[], int out_fd, int err_fd, pid_t parent) {
    dup2(out_fd, STDOUT_FILENO);
    dup2(err_fd, STDERR_FILENO);
    settle_in(parent, -1);
    execv(argv[0], (char *const *)argv);
    dprintf(STDERR_FILENO, "%s: %s\n", argv[0], strerror(errno));
    _exit(127);
}

void process_spawn(struct process *out, const char *const argv[], const char *output_path) {
    int log_fd = open(output_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    CHECK(log_fd >= 0, "%s: %s", output_path, strerror(errno));
    pid_t parent = getpid(), pid = fork();
    if (pid == 0)
        become(argv, log_fd, log_fd, parent);
    close(log_fd);
    started(out, pid, -1);
}

void process_fork(struct process *out, int (*body)(int channel, void *context), void *context) {
    int ends[2];
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0, "%s", strerror(errno));
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) {
        settle_in(parent, ends[1]);
        _exit(body(CHANNEL_FD, context));
    }
    close(ends[1]);
    started(out, pid, ends[0]);
}

bool process_running(const struct process *process) {
    struct pollfd ended = {.fd = process->pidfd, .events = POLLIN};
    return process->pid != 0 && poll(&ended, 1, 0) == 0;
}

bool process_wait(struct process *process, uint32_t deadline_ms, int *status_out) {
    struct pollfd ended = {.fd = process->pidfd, .events = POLLIN};
    CHECK(process->pid != 0, "no such process");
    if (poll(&ended, 1, (int)deadline_ms) <= 0)
        return false;
    int status = 0;
    CHECK(waitpid(process->pid, &status, 0) == process->pid, "waitpid: %s", strerror(errno));
    close(process->pidfd);
    if (process->channel >= 0)
        close(process->channel);
    *process = (struct process){.pidfd = -1, .channel = -1};
    if (status_out != NULL)
        *status_out = status;
    return true;
}

void process_signal(const struct process *process, int signal_number) {
    CHECK(process->pid > 0, "no such process");
    CHECK(kill(process->pid, signal_number) == 0, "kill: %s", strerror(errno));
}

pid_t process_child(const struct process *process) {
    char path[64];
    int pid = 0;
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", process->pid, process->pid);
    FILE *file = fopen(path, "re");
    if (!file || fscanf(file, "%d", &pid) != 1)
        pid = 0;
    if (file)
        fclose(file);
    return pid;
}

void process_kill(struct process *process) {
    if (process->pid == 0)
        return;
    process_signal(process, SIGKILL);
    CHECK(process_wait(process, 10000, NULL), "pid %d outlives SIGKILL", process->pid);
}

void process_join(struct process *process, uint32_t deadline_ms) {
    int status = 0;
    CHECK(process_wait(process, deadline_ms, &status), "helper still runs after %u ms",
          deadline_ms);
    CHECK(status == 0, "helper ended with wait status 0x%x", status);
}

/* ---- programs run to their end ---- */

static int scratch_file(void) {
    int fd = (int)syscall(SYS_memfd_create, "output", 1u /* MFD_CLOEXEC */);
    CHECK(fd >= 0, "memfd_create: %s", strerror(errno));
    return fd;
}

static char *read_back(int fd, size_t *bytes_out) {
    struct stat facts;
    CHECK(fstat(fd, &facts) == 0, "%s", strerror(errno));
    char *text = calloc(1, (size_t)facts.st_size + 1);
    CHECK(text != NULL && pread(fd, text, (size_t)facts.st_size, 0) == facts.st_size, "short read");
    close(fd);
    if (bytes_out != NULL)
        *bytes_out = (size_t)facts.st_size;
    return text;
}

void process_run(struct process_output *result, const char *const argv[], uint32_t deadline_ms) {
    int out_fd = scratch_file(), err_fd = scratch_file(), status = 0;
    struct process process;
    pid_t parent = getpid(), pid = fork();
    if (pid == 0)
        become(argv, out_fd, err_fd, parent);
    started(&process, pid, -1);
    bool ended = process_wait(&process, deadline_ms, &status);
    if (!ended)
        process_kill(&process);
    *result = (struct process_output){.status = WIFEXITED(status) ? WEXITSTATUS(status)
                                                                  : 128 + WTERMSIG(status)};
    result->out = read_back(out_fd, &result->out_bytes);
    result->err = read_back(err_fd, NULL);
    CHECK(ended, "%s %s still runs after %u ms: %s%s", argv[0], argv[1] != NULL ? argv[1] : "",
          deadline_ms, result->out, result->err);
}

void process_output_deinit(struct process_output *result) {
    free(result->out);
    free(result->err);
    *result = (struct process_output){0};
}

/* ---- channel ---- */

void channel_send(int channel, const void *data, size_t bytes) {
    CHECK(send(channel, data, bytes, MSG_NOSIGNAL) == (ssize_t)bytes, "send: %s", strerror(errno));
}

bool channel_pending(int channel, uint32_t wait_ms) {
    struct pollfd readable = {.fd = channel, .events = POLLIN};
    return poll(&readable, 1, (int)wait_ms) > 0;
}

size_t channel_receive(int channel, void *buffer, size_t room, uint32_t deadline_ms) {
    CHECK(channel_pending(channel, deadline_ms), "no message within %u ms", deadline_ms);
    ssize_t got = recv(channel, buffer, room, 0);
    return got < 0 ? 0 : (size_t)got;
}

void channel_say(int channel, const char *word) {
    channel_send(channel, word, strlen(word));
}

void channel_expect(int channel, const char *word, uint32_t deadline_ms) {
    char got[256] = {0};
    size_t bytes = channel_receive(channel, got, sizeof got - 1, deadline_ms);
    CHECK(bytes == strlen(word) && memcmp(got, word, bytes) == 0,
          "\"%s\" came, \"%s\" was expected", got, word);
}
