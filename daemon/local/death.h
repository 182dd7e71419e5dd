/* SPDX-License-Identifier: Apache-2.0
 *
 * The death of a client's process. A socket does not tell it: a forked child has a copy, and the
 * socket ends with the last of them. A pidfd becomes readable when the last thread of the process
 * has exited, reaped or not. One descriptor per session; without one (none to be had, an old
 * kernel) the session has its socket alone.
 */
#ifndef FEATURED_LOCAL_DEATH_H
#define FEATURED_LOCAL_DEATH_H

#include <stdbool.h>
#include <sys/types.h>
#include <uv.h>

/* All zero = not watching. */
struct death_watch {
    uv_poll_t poll;
    int pidfd;
    bool watching;
    void (*died)(void *owner);
    void *owner;
};

/* A pidfd of the process that connected this socket, whose pid SO_PEERCRED tells (0 = not of our
 * pid namespace). -ESRCH: it is dead. -ENOPROTOOPT: it has to send one itself. Else -errno. */
int death_peer_pidfd(int socket_fd, pid_t pid);
/* True if fd is a pidfd, and of that pid as we see it. */
bool death_is_pidfd(int fd, pid_t pid);

/* Do these pidfds mean the same process? Kernels before 6.9 do not tell; -1 is no pidfd. */
enum death_same { DEATH_UNKNOWN, DEATH_SAME, DEATH_ANOTHER };
enum death_same death_same(int pidfd, int other);
bool death_is_dead(int pidfd);

/* Takes pidfd. died(owner) is called once, from the loop. 0, or -errno; pidfd is then closed. */
int death_watch_start(struct death_watch *watch, uv_loop_t *loop, int pidfd,
                      void (*died)(void *owner), void *owner);
/* Closes what is watched; closed() is called with the handle, whose data is owner, if this says
 * true: it was watching. */
bool death_watch_stop(struct death_watch *watch, uv_close_cb closed);

#endif
