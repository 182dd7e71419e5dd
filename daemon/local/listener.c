/* SPDX-License-Identifier: Apache-2.0
 *
 *   ACCEPTING <-> PAUSED (no descriptors left) -> STOPPED -> closed
 *
 * STOPPED (listener_stop_accepting()): the descriptor is closed and the file removed; sessions that
 * are there go on. Closed: both handles and all sessions are gone, and the listener is freed.
 *
 * The socket is bound under umask 0177 and gets its group and mode before listen(), so that nobody
 * connects who may not.
 *
 * The last few descriptors of the process are kept (open_files.h): whoever comes when only those
 * are left is refused with a sentence that says so, unless it is an admin, who may come to see who
 * has all the others.
 */
#include "local/listener.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "local/access.h"
#include "local/open_files.h"
#include "local/socket_file.h"
#include "ops/log.h"

#define ACCEPTS_PER_WAKE_UP 16u
#define BACKLOG             128
#define PAUSE_MS            100u
#define GROUPS_MAX          256u

struct listener {
    struct sessions sessions;
    struct socket_file file;
    int fd;       /* -1 when STOPPED */
    bool starved; /* out of descriptors since the last client: said once */
    uid_t own_uid;
    struct config_ids allow_uids, allow_gids;
    uv_poll_t poll;
    uv_timer_t pause;
    uint8_t open_parts; /* poll, pause, sessions: what must close before this is freed */
    void (*closed)(void *owner);
    void *owner;
};

static const struct session_backend broker_backend = {
    .open = broker_session_open,
    .request = broker_session_request,
    .close = broker_session_close,
    .name = broker_session_name,
    .park = broker_session_park,
    .claimed = broker_session_claimed,
    .resume = broker_session_resume,
    .keep = broker_session_keep,
    .recalled = broker_session_recalled,
    .admin = broker_is_admin,
    .account = broker_session_account,
};

/* ---- who may connect ---- */

/* The client's groups at the time of connect(): the primary one and, where the kernel tells
 * (SO_PEERGROUPS, Linux 4.13), the others. */
static size_t listener_peer_groups(int fd, gid_t primary, gid_t groups[GROUPS_MAX]) {
    socklen_t bytes = (GROUPS_MAX - 1) * sizeof groups[0];
    if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups + 1, &bytes) < 0)
        bytes = 0;
    groups[0] = primary;
    return 1 + bytes / sizeof groups[0];
}

/* Groups are asked for only where they matter, for most brokers have no list of groups. */
static bool listener_admits(const struct listener *listener, int fd, const struct ucred *peer) {
    gid_t groups[GROUPS_MAX];
    size_t group_count = 0;
    if (listener->allow_gids.count > 0)
        group_count = listener_peer_groups(fd, peer->gid, groups);
    return access_allowed(&listener->allow_uids, &listener->allow_gids, listener->own_uid,
                          peer->uid, groups, group_count);
}

static bool listener_knows_admin(const struct listener *listener, uid_t uid) {
    const struct sessions *sessions = &listener->sessions;
    return sessions->backend->admin && sessions->backend->admin(sessions->broker, uid);
}

/* Takes fd. The refusal itself needs the descriptor for a while; of those that are kept only a part
 * may be spent on refusals. */
static void listener_refuse(struct listener *listener, int fd, const struct ucred *peer,
                            Fb__Status status, const char *sentence) {
    log_limited(LOG_LEVEL_WARNING, peer->uid, "local: pid %d uid %u gid %u refused: %s",
                (int)peer->pid, peer->uid, peer->gid, sentence);
    bool held_back = open_files_is_kept(fd) && listener->sessions.refused >= open_files_refusals();
    if (held_back || session_refuse(&listener->sessions, fd, peer->uid, status, sentence))
        close(fd);
}

/* Takes fd. The order of the checks is the order in which a person would want to hear of them: who
 * you are, whether there is room for anybody, whether the broker admits you. */
static void listener_greet(struct listener *listener, int fd) {
    struct ucred peer = {0};
    socklen_t bytes = sizeof peer;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) < 0) {
        listener_refuse(listener, fd, &peer, FB__STATUS__DENIED,
                        "its credentials are not to be had");
        return;
    }
    if (!listener_admits(listener, fd, &peer)) {
        char sentence[128];
        snprintf(sentence, sizeof sentence,
                 "neither allow_uids nor allow_gids in the broker's configuration names uid %u",
                 peer.uid);
        listener_refuse(listener, fd, &peer, FB__STATUS__DENIED, sentence);
        return;
    }
    if (open_files_is_kept(fd) && !listener_knows_admin(listener, peer.uid)) {
        char sentence[320];
        open_files_sentence(sentence, sizeof sentence);
        listener_refuse(listener, fd, &peer, FB__STATUS__FULL, sentence);
        return;
    }
    const struct broker_credentials credentials = {
        .uid = peer.uid, .gid = peer.gid, .pid = peer.pid};
    char why[320];
    int error = session_new(&listener->sessions, fd, &credentials, why, sizeof why);
    if (error == -EBUSY)
        listener_refuse(listener, fd, &peer, FB__STATUS__FULL, why);
    else if (error)
        listener_refuse(listener, fd, &peer, FB__STATUS__UNAVAILABLE, strerror(-error));
}

/* ---- accepting ---- */

static void listener_on_connection(uv_poll_t *poll, int status, int events);

static void listener_on_pause_over(uv_timer_t *timer) {
    struct listener *listener = timer->data;
    uv_poll_start(&listener->poll, UV_READABLE, listener_on_connection);
}

/* Without descriptors accept4() would fail again at once, and the loop would spin: the socket is
 * looked at again after a while. The line in the log comes once, until a client has been accepted
 * again. */
static void listener_pause(struct listener *listener, int error) {
    if (!listener->starved)
        log_warning("local: accepting paused for %u ms: %s; raise LimitNOFILE or close sessions",
                    PAUSE_MS, strerror(error));
    listener->starved = true;
    uv_poll_stop(&listener->poll);
    uv_timer_start(&listener->pause, listener_on_pause_over, PAUSE_MS, 0);
}

/* At most ACCEPTS_PER_WAKE_UP at a time, so that a storm of connections leaves time for those who
 * are there. ECONNABORTED: that client has left already. */
static void listener_on_connection(uv_poll_t *poll, int status, int events) {
    struct listener *listener = poll->data;
    (void)events;
    (void)status; /* accept4() says it better */
    for (uint32_t i = 0; i < ACCEPTS_PER_WAKE_UP; i++) {
        int fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            listener->starved = false;
            listener_greet(listener, fd);
            continue;
        }
        if (errno == EINTR || errno == ECONNABORTED)
            continue;
        if (errno != EAGAIN)
            listener_pause(listener, errno);
        return;
    }
}

/* ---- creating ---- */

static int listener_start(struct listener *listener, uv_loop_t *loop) {
    int error = uv_poll_init(loop, &listener->poll, listener->fd);
    if (error)
        return error;
    uv_timer_init(loop, &listener->pause);
    listener->poll.data = listener;
    listener->pause.data = listener;
    uv_poll_start(&listener->poll, UV_READABLE, listener_on_connection);
    return 0;
}

/* goto, because the file must be removed while the sessions are still there: the order is that of
 * building, in reverse. */
int listener_new(uv_loop_t *loop, const struct listener_options *options, struct broker *broker,
                 struct listener **out, char *why, size_t why_bytes) {
    struct listener *listener = calloc(1, sizeof *listener);
    const struct session_backend *backend = options->backend ? options->backend : &broker_backend;
    if (!listener ||
        sessions_init(&listener->sessions, loop, broker, backend, &options->sessions)) {
        free(listener);
        snprintf(why, why_bytes, "local socket: out of memory");
        return -ENOMEM;
    }
    listener->own_uid = geteuid();
    listener->allow_uids = *options->allow_uids;
    listener->allow_gids = *options->allow_gids;
    int error = socket_file_listen(&listener->file, options->socket_path, options->socket_mode,
                                   options->socket_group, BACKLOG, why, why_bytes);
    if (error < 0)
        goto fail_sessions;
    listener->fd = error;
    error = listener_start(listener, loop);
    if (error) {
        snprintf(why, why_bytes, "%s: cannot be polled: %s", options->socket_path,
                 strerror(-error));
        goto fail_file;
    }
    sessions_take_recalled(&listener->sessions);
    *out = listener;
    return 0;

fail_file:
    close(listener->fd);
    socket_file_remove(&listener->file);
fail_sessions:
    sessions_deinit(&listener->sessions);
    free(listener);
    return error;
}

/* ---- ending ---- */

/* Removed before it is closed: once nobody listens any more another daemon may take over the path.
 */
void listener_stop_accepting(struct listener *listener) {
    if (listener->fd < 0)
        return;
    uv_poll_stop(&listener->poll);
    uv_timer_stop(&listener->pause);
    socket_file_remove(&listener->file);
    close(listener->fd);
    listener->fd = -1;
}

static void listener_part_closed(void *data) {
    struct listener *listener = data;
    if (--listener->open_parts > 0)
        return;
    void (*closed)(void *owner) = listener->closed;
    void *owner = listener->owner;
    sessions_deinit(&listener->sessions);
    free(listener);
    closed(owner);
}

static void listener_on_handle_closed(uv_handle_t *handle) {
    listener_part_closed(handle->data);
}

/* Three parts close by themselves, and the last one frees the listener. */
void listener_close(struct listener *listener, void (*closed)(void *owner), void *owner) {
    listener_stop_accepting(listener);
    listener->closed = closed;
    listener->owner = owner;
    listener->open_parts = 3;
    uv_close((uv_handle_t *)&listener->poll, listener_on_handle_closed);
    uv_close((uv_handle_t *)&listener->pause, listener_on_handle_closed);
    sessions_close(&listener->sessions, listener_part_closed, listener);
}
