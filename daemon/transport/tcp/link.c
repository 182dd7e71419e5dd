/* SPDX-License-Identifier: Apache-2.0
 *
 * One socket. CONNECTING -> HANDSHAKE -> OPEN -> CLOSED; an accepted one starts at HANDSHAKE as a
 * stranger (no conn), joins its connection when it has proved itself, and is timed out before that.
 * CLOSED holds from tcp_link_close: the fd is gone, so no byte moves any more; the struct lives
 * until libuv has let go of its handles (uv_refs).
 *
 * The sockets stay raw (uv_poll, not uv_tcp). uv_tcp would read into buffers of its own, and the
 * bytes of a sample would be copied once more; with recvmsg() and sendmsg() they go to and from
 * their final place.
 */
#include "transport/tcp/link.h"

#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "transport/address.h"
#include "transport/proving.h"

/* A machine that loses its power says nothing. The kernel notices after about 5 + 3 * 2 seconds
 * without an answer, should the pings of the layer above not notice it before. */
enum { KEEPALIVE_IDLE_S = 5, KEEPALIVE_INTERVAL_S = 2, KEEPALIVE_PROBES = 3 };

static void link_on_timeout(uv_timer_t *timer);
static void link_on_poll(uv_poll_t *poll, int status, int events);

/* ---- birth and end ---- */

/* Takes the handshake, also on failure (NULL: it could not be made). */
static struct tcp_link *link_new(struct tcp *tcp, struct handshake *handshake,
                                 uint32_t timeout_ms) {
    struct tcp_link *link = handshake != NULL ? calloc(1, sizeof *link) : NULL;
    if (link == NULL) {
        proving_free(handshake);
        return NULL;
    }
    link->tcp = tcp;
    link->handshake = handshake;
    link->fd = -1;
    uv_timer_init(tcp->base.loop, &link->timer);
    link->timer.data = link;
    link->timeout_ms = timeout_ms;
    uv_timer_start(&link->timer, link_on_timeout, timeout_ms, 0);
    link->uv_refs = 1;
    endpoint_hold(&tcp->base);
    return link;
}

/* TCP_NODELAY: a request of a few bytes must not wait for the acknowledgement of the one before. */
static void link_set_socket_options(int fd) {
    int on = 1, idle = KEEPALIVE_IDLE_S, interval = KEEPALIVE_INTERVAL_S, probes = KEEPALIVE_PROBES;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
}

static int link_take_fd(struct tcp_link *link, int fd) {
    link->fd = fd;
    link_set_socket_options(fd);
    int r = uv_poll_init(link->tcp->base.loop, &link->poll, fd);
    if (r < 0)
        return r;
    link->poll.data = link;
    link->polled = true;
    link->uv_refs++;
    return 0;
}

/* The timer and the poll handle end one by one; the second of them frees the link. */
static void link_on_handle_closed(uv_handle_t *handle) {
    struct tcp_link *link = handle->data;
    struct tcp *tcp = link->tcp;
    if (--link->uv_refs > 0)
        return;
    if (link->conn != NULL)
        tcp->link_events->gone(link);
    explicit_bzero(link, sizeof *link); /* the keys of its seals */
    free(link);
    endpoint_release(&tcp->base);
}

void tcp_link_close(struct tcp_link *link) {
    if (link->phase == LINK_CLOSED)
        return;
    strangers_remove(&link->tcp->base.strangers, &link->stranger);
    link->phase = LINK_CLOSED;
    proving_free(link->handshake);
    link->handshake = NULL;
    /* The poll handle before its fd: libuv takes it out of epoll by number, and the number may be
     * another socket's as soon as the fd is closed. */
    uv_close((uv_handle_t *)&link->timer, link_on_handle_closed);
    if (link->polled)
        uv_close((uv_handle_t *)&link->poll, link_on_handle_closed);
    if (link->fd >= 0)
        close(link->fd);
    link->fd = -1;
}

static void link_log_stranger(const struct tcp_link *link, const char *why) {
    struct strangers *strangers = &link->tcp->base.strangers;
    uint64_t now_ms = uv_now(link->tcp->base.loop);
    char local[ADDRESS_BYTES], remote[ADDRESS_BYTES], listener[ADDRESS_BYTES + 16];
    if (!strangers_may_log(strangers, now_ms))
        return;
    address_of_socket(link->fd, local, remote);
    snprintf(listener, sizeof listener, "peer listener %s", local);
    strangers_log(strangers, now_ms, listener, remote, why);
}

/* Something went wrong on this socket before it was open. */
static void link_fail(struct tcp_link *link, int status, const char *why) {
    if (link->conn != NULL) {
        link->tcp->link_events->failed(link, status, why);
        return;
    }
    link_log_stranger(link, why);
    tcp_link_close(link);
}

/* One timer for connecting and handshake together: a peer cannot gain time by being slow in both.
 */
static void link_on_timeout(uv_timer_t *timer) {
    struct tcp_link *link = container_of(timer, struct tcp_link, timer);
    char why[96];
    snprintf(why, sizeof why, "%s timed out after %" PRIu32 " ms",
             link->phase == LINK_CONNECTING ? "connect" : "handshake", link->timeout_ms);
    link_fail(link, -ETIMEDOUT, why);
}

/* uv_poll_start() with other events replaces what was watched before. */
void tcp_link_watch(struct tcp_link *link, int events, bool on) {
    int wanted = on ? link->events | events : link->events & ~events;
    if (wanted == link->events)
        return;
    link->events = wanted;
    if (wanted == 0)
        uv_poll_stop(&link->poll);
    else
        uv_poll_start(&link->poll, wanted, link_on_poll);
}

/* ---- handshake ---- */

static void link_become_open(struct tcp_link *link) {
    const struct handshake *h = link->handshake;
    struct connection *conn = &link->conn->base;
    proving_make_seals(h, &link->tcp->base.options, &link->out, &link->in);
    conn->id = h->connection_id;
    if (h->kind == HANDSHAKE_CONTROL)
        conn->hello = h->theirs;
    proving_free(link->handshake);
    link->handshake = NULL;
    link->phase = LINK_OPEN;
    link->tcp->link_events->open(link);
}

/* A refusal may not have left, if the socket was full: then the other side sees an end without a
 * reason, which is better than to wait for a stranger. */
static void link_end_handshake(struct tcp_link *link) {
    char why[sizeof link->handshake->why];
    memcpy(why, link->handshake->why, sizeof why); /* the handshake ends with the link */
    link_fail(link, -ECONNREFUSED, why);
}

/* Sends what there is; false when some of it has to wait for room. A broken socket shows when it is
 * read, or as an event of its own. */
static bool link_send_handshake(struct tcp_link *link) {
    struct handshake *h = link->handshake;
    const uint8_t *out;
    size_t left = handshake_output(h, &out);
    ssize_t sent = send(link->fd, out, left, MSG_NOSIGNAL);
    if (sent > 0)
        handshake_sent(h, (size_t)sent);
    bool all = sent == (ssize_t)left;
    if (!all && h->state == HANDSHAKE_FAILED)
        link_end_handshake(link);
    else
        tcp_link_watch(link, UV_WRITABLE, !all);
    return all;
}

/* Takes at most the bytes of one message, never more than belong to the handshake: what follows are
 * frames, or a chunk that has its final place. False when there is nothing more to do for now. */
static bool link_receive_handshake(struct tcp_link *link) {
    uint8_t *into;
    size_t want = handshake_want(link->handshake, &into);
    ssize_t got = recv(link->fd, into, want, 0);
    if (got > 0) {
        handshake_received(link->handshake, (size_t)got);
        return true;
    }
    if (got == 0)
        link_fail(link, -ECONNRESET, "the other side closed the connection during the handshake");
    else if (errno != EAGAIN && errno != EINTR)
        link_fail(link, -ECONNRESET, "connection lost during the handshake");
    return false;
}

/* Runs the handshake as far as the socket allows. */
static void link_prove(struct tcp_link *link) {
    bool goes_on = true;
    while (goes_on && link->phase == LINK_HANDSHAKE) {
        switch (proving_next(link->handshake)) {
        case PROVING_ADOPT:
            link->tcp->link_events->proven(link);
            break;
        case PROVING_SEND:
            goes_on = link_send_handshake(link);
            break;
        case PROVING_END:
            link_end_handshake(link);
            break;
        case PROVING_OPEN:
            link_become_open(link);
            break;
        case PROVING_RECEIVE:
            goes_on = link_receive_handshake(link);
            break;
        }
    }
}

static void link_start_handshake(struct tcp_link *link) {
    link->phase = LINK_HANDSHAKE;
    tcp_link_watch(link, UV_READABLE, true);
    link_prove(link);
}

/* ---- accepting ---- */

int tcp_link_accept(struct tcp *tcp, int fd) {
    struct tcp_link *link = link_new(tcp, proving_new_answerer(&tcp->base.options),
                                     tcp->base.options.handshake_timeout_ms);
    if (link == NULL) {
        close(fd);
        return -ENOMEM;
    }
    struct stranger *oldest = strangers_add(&tcp->base.strangers, &link->stranger);
    if (oldest != NULL)
        link_fail(container_of(oldest, struct tcp_link, stranger), -EMFILE, STRANGERS_TOO_MANY);
    int r = link_take_fd(link, fd);
    if (r < 0)
        tcp_link_close(link);
    else
        link_start_handshake(link);
    return r;
}

void tcp_link_join(struct tcp_link *link, struct tcp_conn *conn) {
    strangers_remove(&link->tcp->base.strangers, &link->stranger);
    link->conn = conn;
    conn->refs++;
}

/* ---- dialling ---- */

/* EINPROGRESS is the rule; a connect() to this machine may be through at once, and then the socket
 * is writable, which comes to the same. */
static int link_connect_socket(struct tcp_link *link, const struct addrinfo *to) {
    int fd = socket(to->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    int r = link_take_fd(link, fd);
    if (r < 0)
        return r;
    if (connect(fd, to->ai_addr, to->ai_addrlen) < 0 && errno != EINPROGRESS)
        return -errno;
    return 0;
}

int tcp_link_dial(struct tcp_conn *conn, enum handshake_kind kind, const struct addrinfo *to,
                  uint32_t timeout_ms, struct tcp_link **out) {
    struct tcp *tcp = conn->tcp;
    struct tcp_link *link =
        link_new(tcp, proving_new_asker(&tcp->base.options, kind, conn->base.id), timeout_ms);
    if (link == NULL)
        return -ENOMEM;
    link->conn = conn;
    conn->refs++;
    int r = link_connect_socket(link, to);
    if (r < 0) {
        tcp_link_close(link);
        return r;
    }
    link->phase = LINK_CONNECTING;
    tcp_link_watch(link, UV_WRITABLE, true);
    *out = link;
    return 0;
}

/* A socket that was connecting is writable when it is through, whether it succeeded or not:
 * SO_ERROR tells. */
static void link_on_connected(struct tcp_link *link) {
    int error = 0;
    socklen_t bytes = sizeof error;
    if (getsockopt(link->fd, SOL_SOCKET, SO_ERROR, &error, &bytes) < 0)
        error = errno;
    if (error != 0)
        link->tcp->link_events->unreachable(link, error);
    else
        link_start_handshake(link);
}

/* ---- readiness ---- */

/* libuv has stopped watching a socket in error. What a handshake still says comes first: "wrong
 * cluster secret" is a better reason than "connection reset". */
static void link_on_error(struct tcp_link *link) {
    int error = ECONNRESET;
    socklen_t bytes = sizeof error;
    if (link->phase == LINK_HANDSHAKE)
        link_prove(link);
    if (link->phase == LINK_CLOSED)
        return;
    getsockopt(link->fd, SOL_SOCKET, SO_ERROR, &error, &bytes);
    error = error != 0 ? error : ECONNRESET;
    if (link->conn == NULL)
        link_fail(link, -error, "connection lost during the handshake");
    else
        link->tcp->link_events->broken(link, error);
}

/* What an event means depends on the phase. CONNECTING comes before `status`: a refused connect()
 * is reported as an error of the poll, and SO_ERROR says which. */
static void link_on_poll(uv_poll_t *poll, int status, int events) {
    struct tcp_link *link = container_of(poll, struct tcp_link, poll);
    if (link->phase == LINK_CONNECTING)
        link_on_connected(link);
    else if (status < 0)
        link_on_error(link);
    else if (link->phase == LINK_HANDSHAKE)
        link_prove(link);
    else if (link->phase == LINK_OPEN)
        link->tcp->link_events->ready(link, events);
}
