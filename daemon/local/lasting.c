/* SPDX-License-Identifier: Apache-2.0
 *
 * Sessions that outlive their connections: see lasting.h for the states.
 *
 * The lock. A pidfd lives on when its process calls exec(): the process is the same, but the
 * program that held leases is not there any more. A lock of flock(2) belongs to an open file
 * description, and goes with the last reference to it. So the broker makes a memfd, opens it a
 * second time (a description of its own), locks that one and sends its descriptor to the client.
 * The client maps the page, with MADV_DONTFORK, and closes the descriptor: the mapping is then the
 * only reference. It ends with exec() and with the process, and a forked child has no copy of it.
 * The broker tries to lock the first description: as long as it cannot, the program is there. The
 * page holds nothing, and nobody writes to it.
 *
 * A client that disconnects unmaps the page first, so that its session ends with its connection.
 *
 * The kernel does not tell when a lock becomes free, so that a timer tries: LOOK_FIRST_MS after a
 * session was parked, then ever more rarely. The lock of a program that calls exec() is mostly free
 * a few milliseconds after its socket has ended.
 */
#include "local/lasting.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

#include "local/open_files.h"
#include "local/session_internal.h"
#include "ops/log.h"

#define LOCK_BYTES    4096 /* what can be mapped */
#define LOOK_FIRST_MS 2u
#define LOOK_LAST_MS  500u

/* ---- the lock ---- */

static bool lasting_lock_is_held(const struct lasting *lasting) {
    return flock(lasting->lock_fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK;
}

/* Opened again by its name under /proc: dup() would share the description, and the lock with it. */
static int lasting_open_again(int fd) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int again = open(path, O_RDONLY | O_CLOEXEC);
    return again < 0 ? -errno : again;
}

/* One of the last descriptors is not spent on it (open_files.h). */
int lasting_make_lock(struct lasting *lasting, int *client_fd_out) {
    int fd = memfd_create("featured:session", MFD_CLOEXEC);
    int again = fd < 0 ? -errno : open_files_is_kept(fd) ? -EMFILE : lasting_open_again(fd);
    if (again >= 0 && !ftruncate(fd, LOCK_BYTES) && !flock(again, LOCK_EX | LOCK_NB)) {
        lasting->lock_fd = fd;
        *client_fd_out = again;
        return 0;
    }
    int error = again < 0 ? again : -errno;
    if (again >= 0)
        close(again);
    if (fd >= 0)
        close(fd);
    return error;
}

int lasting_keep(const struct lasting *lasting) {
    const struct session_backend *backend = lasting->set->backend;
    return backend->keep ? backend->keep(lasting->broker, lasting->death.pidfd, lasting->lock_fd)
                         : 0;
}

bool lasting_may_wait(const struct lasting *lasting) {
    return lasting->lock_fd >= 0 && lasting->death.watching && !lasting->dead;
}

/* ---- the end ---- */

static void lasting_free(struct lasting *lasting) {
    struct sessions *set = lasting->set;
    free(lasting);
    set->unfreed--;
    sessions_check_closed(set);
}

static void lasting_on_watch_closed(uv_handle_t *handle) {
    lasting_free(handle->data);
}

/* Freed when libuv has closed the watch on the process. */
void lasting_end(struct lasting *lasting, uint64_t now_ns) {
    LIST_REMOVE(lasting, link);
    lasting->set->backend->close(lasting->broker, now_ns);
    lasting->broker = NULL;
    if (lasting->lock_fd >= 0)
        close(lasting->lock_fd);
    if (!death_watch_stop(&lasting->death, lasting_on_watch_closed))
        lasting_free(lasting);
}

/* What a connected client sent before it died is still read: its connection ends first. */
static void lasting_on_death(void *owner) {
    struct lasting *lasting = owner;
    struct sessions *set = lasting->set;
    log_debug("%s: its process is dead", set->backend->name(lasting->broker));
    lasting->dead = true;
    if (lasting->connection) {
        session_on_death(lasting->connection);
        return;
    }
    uint64_t now_ns = session_clock_now_ns();
    lasting_end(lasting, now_ns);
    session_end_turn(set, true, now_ns);
}

/* ---- parked ---- */

/* Each look is one system call for each parked session, of which there are max_sessions at most. */
static void lasting_on_look(uv_timer_t *timer) {
    struct sessions *set = timer->data;
    struct lasting *lasting, *next;
    uint64_t now_ns = session_clock_now_ns();
    bool ended = false, waits = false;
    for (lasting = LIST_FIRST(&set->lasting); lasting; lasting = next) {
        next = LIST_NEXT(lasting, link);
        if (lasting->connection)
            continue;
        if (lasting_lock_is_held(lasting)) {
            waits = true;
            continue;
        }
        log_debug("%s: its program has ended", set->backend->name(lasting->broker));
        lasting_end(lasting, now_ns);
        ended = true;
    }
    set->look_ms = set->look_ms < LOOK_LAST_MS / 2 ? 2 * set->look_ms : LOOK_LAST_MS;
    if (waits)
        uv_timer_start(timer, lasting_on_look, set->look_ms, 0);
    session_end_turn(set, ended, now_ns);
}

/* The timer is made with the first session that is parked: it is a handle that has to be closed. */
static void lasting_look_soon(struct sessions *set) {
    if (!set->has_look_timer) {
        uv_timer_init(set->loop, &set->look_timer);
        set->look_timer.data = set;
        set->has_look_timer = true;
        set->unfreed++;
    }
    set->look_ms = LOOK_FIRST_MS;
    uv_timer_start(&set->look_timer, lasting_on_look, set->look_ms, 0);
}

void lasting_disconnect(struct lasting *lasting, uint64_t now_ns) {
    struct sessions *set = lasting->set;
    lasting->connection = NULL;
    if (lasting_may_wait(lasting) && !set->closing && lasting_lock_is_held(lasting) &&
        set->backend->park(lasting->broker, now_ns))
        lasting_look_soon(set);
    else
        lasting_end(lasting, now_ns);
}

/* ---- beginning, and coming back ---- */

struct lasting *lasting_new(struct sessions *set, struct broker_session *broker,
                            struct session *connection,
                            const struct broker_credentials *credentials) {
    struct lasting *lasting = calloc(1, sizeof *lasting);
    if (!lasting)
        return NULL;
    *lasting = (struct lasting){.set = set,
                                .broker = broker,
                                .connection = connection,
                                .credentials = *credentials,
                                .lock_fd = -1};
    LIST_INSERT_HEAD(&set->lasting, lasting, link);
    set->unfreed++;
    return lasting;
}

int lasting_watch(struct lasting *lasting, int pidfd) {
    return death_watch_start(&lasting->death, lasting->set->loop, pidfd, lasting_on_death, lasting);
}

/* One whose process died while there was no broker is found dead by its pidfd or its lock, at once.
 */
static void lasting_take_recalled(struct sessions *set, struct broker_session *broker,
                                  const struct broker_credentials *credentials, int pidfd,
                                  int lock_fd) {
    uint64_t now_ns = session_clock_now_ns();
    struct lasting *lasting = lasting_new(set, broker, NULL, credentials);
    if (!lasting) {
        set->backend->close(broker, now_ns);
        if (lock_fd >= 0)
            close(lock_fd);
        if (pidfd >= 0)
            close(pidfd);
        return;
    }
    lasting->lock_fd = lock_fd >= 0 ? lock_fd : -1;
    int error = pidfd >= 0 ? lasting_watch(lasting, pidfd) : pidfd;
    if (error || lock_fd < 0) {
        log_warning("%s: ended: its keeper has lost what tells whether its client lives",
                    set->backend->name(broker));
        lasting_end(lasting, now_ns);
        return;
    }
    lasting_look_soon(set);
}

void sessions_take_recalled(struct sessions *set) {
    struct broker_credentials credentials;
    struct broker_session *broker;
    int pidfd, lock_fd;
    while (set->backend->recalled &&
           (broker = set->backend->recalled(set->broker, &credentials, &pidfd, &lock_fd)))
        lasting_take_recalled(set, broker, &credentials, pidfd, lock_fd);
}

/* A pid is not given to another process while its own lives. So a number that is the same, of a
 * process that is not dead, names the same process; so do pidfds, where the kernel tells them
 * apart. A process of another pid namespace has no number for us (0): there the pidfds decide, and
 * where they cannot, the token alone does. */
static bool lasting_is_of(const struct lasting *lasting,
                          const struct broker_credentials *credentials, int pidfd) {
    return lasting_may_wait(lasting) && !death_is_dead(lasting->death.pidfd) &&
           lasting->credentials.pid == credentials->pid &&
           death_same(lasting->death.pidfd, pidfd) != DEATH_ANOTHER;
}

struct lasting *lasting_find(struct sessions *set, const struct broker_session *broker,
                             const struct broker_credentials *credentials, int pidfd) {
    struct lasting *lasting;
    LIST_FOREACH (lasting, &set->lasting, link)
        if (lasting->broker == broker)
            break;
    if (!lasting || lasting_is_of(lasting, credentials, pidfd))
        return lasting;
    log_limited(LOG_LEVEL_WARNING, credentials->uid,
                "pid %d uid %u named %s, which is another process's: it gets a session of its own",
                (int)credentials->pid, credentials->uid, set->backend->name(broker));
    return NULL;
}
