/* SPDX-License-Identifier: Apache-2.0
 *
 * Where a pidfd comes from: SO_PEERPIDFD (Linux 6.5), which names the process that connected
 * whatever its namespace; else pidfd_open() of the pid in SO_PEERCRED. The latter may, for a client
 * that died before it was accepted, name another process that got its pid: then nothing tells of
 * the death but the socket.
 *
 * Why at all: see death.h.
 */
#include "local/death.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "proto/container.h"

#define PID_FS_MAGIC 0x50494446ul /* linux/magic.h of 6.9 and later */

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

int death_peer_pidfd(int socket_fd, pid_t pid) {
    int pidfd;
    socklen_t bytes = sizeof pidfd;
    if (getsockopt(socket_fd, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &bytes) == 0)
        return pidfd; /* close-on-exec, as all pidfds */
    if (errno == ESRCH || errno == EMFILE || errno == ENFILE)
        return -errno;
    if (pid <= 0)
        return -ENOPROTOOPT;
    pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    return pidfd < 0 ? -errno : pidfd;
}

/* proc(5): the fdinfo of a pidfd, and of nothing else, has a line "Pid:", with 0 for a process that
 * our pid namespace does not have and -1 for a dead one. */
bool death_is_pidfd(int fd, pid_t pid) {
    char path[64], line[128];
    bool is_pidfd = false;
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    while (!is_pidfd && fgets(line, sizeof line, file)) {
        long named;
        is_pidfd = sscanf(line, "Pid: %ld", &named) == 1 && (named == pid || named == -1);
    }
    fclose(file);
    return is_pidfd;
}

/* From Linux 6.9 on pidfds lie in a file system of their own, in which each process has an inode
 * number that is never used again. */
enum death_same death_same(int pidfd, int other) {
    struct statfs system;
    struct stat one, two;
    if (pidfd < 0 || other < 0 || fstatfs(pidfd, &system) < 0 ||
        (unsigned long)system.f_type != PID_FS_MAGIC || fstat(pidfd, &one) < 0 ||
        fstat(other, &two) < 0)
        return DEATH_UNKNOWN;
    return one.st_dev == two.st_dev && one.st_ino == two.st_ino ? DEATH_SAME : DEATH_ANOTHER;
}

bool death_is_dead(int pidfd) {
    struct pollfd watched = {.fd = pidfd, .events = POLLIN};
    return poll(&watched, 1, 0) > 0;
}

/* Told once: the poll is stopped, because a pidfd stays readable for ever once its process is dead.
 */
static void death_on_death(uv_poll_t *poll, int status, int events) {
    struct death_watch *watch = container_of(poll, struct death_watch, poll);
    (void)status;
    (void)events;
    uv_poll_stop(poll);
    watch->died(watch->owner);
}

int death_watch_start(struct death_watch *watch, uv_loop_t *loop, int pidfd,
                      void (*died)(void *owner), void *owner) {
    int error = uv_poll_init(loop, &watch->poll, pidfd);
    if (error) {
        close(pidfd);
        return error;
    }
    watch->pidfd = pidfd;
    watch->watching = true;
    watch->died = died;
    watch->owner = owner;
    watch->poll.data = owner;
    uv_poll_start(&watch->poll, UV_READABLE, death_on_death);
    return 0;
}

bool death_watch_stop(struct death_watch *watch, uv_close_cb closed) {
    if (!watch->watching)
        return false;
    watch->watching = false;
    uv_close((uv_handle_t *)&watch->poll, closed);
    close(watch->pidfd);
    return true;
}
