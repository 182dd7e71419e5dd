/* SPDX-License-Identifier: Apache-2.0
 *
 * A limit is a child process and the socket to it. The child keeps that socket alone (no other
 * descriptor of ours stays open through it) and ends when the socket does, or with its parent.
 */
#include "bench/limits.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/bench.h"

static void *warm_buffer(size_t bytes) {
    void *buffer = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (buffer == MAP_FAILED)
        return NULL;
    memset(buffer, 0x5a, bytes);
    return buffer;
}

static int receive_all(int fd, void *buffer, size_t bytes) {
    for (size_t done = 0; done < bytes;) {
        const size_t left = bytes - done;
        const ssize_t got = recv(fd, (char *)buffer + done,
                                 left < LIMITS_CHUNK_BYTES ? left : LIMITS_CHUNK_BYTES, 0);
        if (got <= 0)
            return -1;
        done += (size_t)got;
    }
    return 0;
}

static int send_all(int fd, const void *buffer, size_t bytes) {
    for (size_t done = 0; done < bytes;) {
        const size_t left = bytes - done;
        const ssize_t sent =
            send(fd, (const char *)buffer + done,
                 left < LIMITS_CHUNK_BYTES ? left : LIMITS_CHUNK_BYTES, MSG_NOSIGNAL);
        if (sent <= 0)
            return -1;
        done += (size_t)sent;
    }
    return 0;
}

static void serve_echo(int fd) {
    char message[LIMITS_PING_BYTES];
    while (receive_all(fd, message, sizeof message) == 0)
        if (send_all(fd, message, sizeof message) != 0)
            return;
}

static void serve_stream(int fd, size_t bytes_max) {
    const void *buffer = warm_buffer(bytes_max);
    uint64_t bytes;
    while (buffer != NULL && receive_all(fd, &bytes, sizeof bytes) == 0)
        if (bytes > bytes_max || send_all(fd, buffer, (size_t)bytes) != 0)
            return;
}

/* bytes: 0 = echo. Takes child_fd. */
static int start_child(struct limit *limit, int child_fd, enum cpu_role place, size_t bytes) {
    const pid_t parent = getpid();
    limit->pid = fork();
    if (limit->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent || dup2(child_fd, STDERR_FILENO + 1) < 0)
            _exit(1);
        cpus_take_place(place);
        close_range(STDERR_FILENO + 2, ~0u, 0);
        if (bytes == 0)
            serve_echo(STDERR_FILENO + 1);
        else
            serve_stream(STDERR_FILENO + 1, bytes);
        _exit(0);
    }
    close(child_fd);
    if (limit->pid < 0) {
        close(limit->fd);
        return bench_fail("fork: %s", strerror(errno));
    }
    return 0;
}

int limit_open_unix(struct limit *limit, enum cpu_role place) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
        return bench_fail("socketpair: %s", strerror(errno));
    *limit = (struct limit){.fd = pair[0]};
    return start_child(limit, pair[1], place, 0);
}

static void no_delay(int fd) {
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
}

/* Both ends of one loopback connection; -1 with errno. */
static int tcp_pair(int pair[2]) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof address;
    const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    pair[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    pair[1] = -1;
    if (listener >= 0 && pair[0] >= 0 &&
        bind(listener, (struct sockaddr *)&address, sizeof address) == 0 &&
        listen(listener, 1) == 0 &&
        getsockname(listener, (struct sockaddr *)&address, &bytes) == 0 &&
        connect(pair[0], (struct sockaddr *)&address, sizeof address) == 0)
        pair[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (listener >= 0)
        close(listener);
    if (pair[1] < 0) {
        if (pair[0] >= 0)
            close(pair[0]);
        return -1;
    }
    no_delay(pair[0]);
    no_delay(pair[1]);
    return 0;
}

static int open_tcp(struct limit *limit, enum cpu_role place, size_t bytes) {
    int pair[2];
    if (tcp_pair(pair) != 0)
        return bench_fail("a loopback TCP connection: %s", strerror(errno));
    *limit = (struct limit){.fd = pair[0]};
    return start_child(limit, pair[1], place, bytes);
}

int limit_open_tcp(struct limit *limit, enum cpu_role place) {
    return open_tcp(limit, place, 0);
}

int limit_open_stream(struct limit *limit, enum cpu_role place, size_t bytes) {
    if (open_tcp(limit, place, bytes) != 0)
        return -1;
    limit->buffer = warm_buffer(bytes);
    limit->buffer_bytes = bytes;
    if (limit->buffer != NULL)
        return 0;
    limit_close(limit);
    return bench_fail("no memory for %zu bytes to receive into", bytes);
}

void limit_close(struct limit *limit) {
    if (limit->pid > 0) {
        close(limit->fd);
        waitpid(limit->pid, NULL, 0);
    }
    if (limit->buffer != NULL)
        munmap(limit->buffer, limit->buffer_bytes);
    *limit = (struct limit){0};
}

int limit_ping(void *context) {
    const struct limit *limit = context;
    char message[LIMITS_PING_BYTES] = {0};
    if (send_all(limit->fd, message, sizeof message) != 0 ||
        receive_all(limit->fd, message, sizeof message) != 0)
        return bench_fail("the echo process went away");
    return 0;
}

int limit_stream(void *context) {
    const struct limit *limit = context;
    const uint64_t bytes = limit->buffer_bytes;
    if (send_all(limit->fd, &bytes, sizeof bytes) != 0 ||
        receive_all(limit->fd, limit->buffer, limit->buffer_bytes) != 0)
        return bench_fail("the streaming process went away");
    return 0;
}
