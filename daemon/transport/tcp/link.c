/* SPDX-License-Identifier: Apache-2.0
 *
 * One socket. CONNECTING -> HANDSHAKE -> OPEN -> CLOSED; an accepted one starts at HANDSHAKE as a
 * stranger (no conn), joins its connection when it has proved itself, and is timed out before that.
 * CLOSED holds from tcp_link_close: the fd is gone, so no byte moves any more; the struct lives
 * until libuv has let go of its handles (uv_refs).
 *
 * The sockets stay raw (uv_poll, not uv_tcp): only so can bulk bytes go to and from their final
 * place.
 */
#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "transport/tcp/tcp_internal.h"

/* An attacker's silent sockets push each other out; an honest handshake takes milliseconds. */
enum { STRANGERS_MAX = 256 };
/* A dead peer is noticed after about 5 + 3 * 2 seconds, should nothing else notice it before. */
enum { KEEPALIVE_IDLE_S = 5, KEEPALIVE_INTERVAL_S = 2, KEEPALIVE_PROBES = 3 };

static void link_on_timeout(uv_timer_t *timer);
static void link_on_poll(uv_poll_t *poll, int status, int events);

/* ---- birth and end ---- */

static struct tcp_link *link_new(struct tcp *tcp, uint32_t timeout_ms) {
    struct tcp_link *link = calloc(1, sizeof *link);
    if (link == NULL)
        return NULL;
    link->handshake = calloc(1, sizeof *link->handshake);
    if (link->handshake == NULL) {
        free(link);
        return NULL;
    }
    link->tcp = tcp;
    link->fd = -1;
    uv_timer_init(tcp->loop, &link->timer);
    link->timer.data = link;
    link->timeout_ms = timeout_ms;
    uv_timer_start(&link->timer, link_on_timeout, timeout_ms, 0);
    link->uv_refs = 1;
    tcp->link_count++;
    return link;
}

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
    int r = uv_poll_init(link->tcp->loop, &link->poll, fd);
    if (r < 0)
        return r;
    link->poll.data = link;
    link->uv_refs++;
    return 0;
}

static void link_on_handle_closed(uv_handle_t *handle) {
    struct tcp_link *link = handle->data;
    struct tcp *tcp = link->tcp;
    if (--link->uv_refs > 0)
        return;
    if (link->conn != NULL)
        tcp_conn_unref(link->conn);
    explicit_bzero(link, sizeof *link);
    free(link);
    tcp->link_count--;
    tcp_maybe_destroyed(tcp);
}

static void link_add_stranger(struct tcp_link *link) {
    TAILQ_INSERT_TAIL(&link->tcp->strangers, link, strangers);
    link->tcp->stranger_count++;
}

static void link_remove_stranger(struct tcp_link *link) {
    TAILQ_REMOVE(&link->tcp->strangers, link, strangers);
    link->tcp->stranger_count--;
}

static void link_drop_handshake(struct tcp_link *link) {
    if (link->handshake == NULL)
        return;
    handshake_deinit(link->handshake);
    free(link->handshake);
    link->handshake = NULL;
}

void tcp_link_close(struct tcp_link *link) {
    if (link->phase == LINK_CLOSED)
        return;
    if (link->conn == NULL)
        link_remove_stranger(link);
    link->phase = LINK_CLOSED;
    link_drop_handshake(link);
    uv_close((uv_handle_t *)&link->timer, link_on_handle_closed);
    if (link->poll.data != NULL)
        uv_close((uv_handle_t *)&link->poll, link_on_handle_closed);
    if (link->fd >= 0)
        close(link->fd);
    link->fd = -1;
}

/* Something went wrong on this socket before it was open. */
static void link_fail(struct tcp_link *link, int status, const char *why) {
    if (link->conn != NULL) {
        if (!tcp_conn_give_up_data(link->conn, link, why))
            tcp_conn_fail(link->conn, status, "%s", why);
        return;
    }
    tcp_log_stranger(link->tcp, link->fd, why);
    tcp_link_close(link);
}

static void link_on_timeout(uv_timer_t *timer) {
    struct tcp_link *link = timer->data;
    char why[96];
    snprintf(why, sizeof why, "%s timed out after %" PRIu32 " ms",
             link->phase == LINK_CONNECTING ? "connect" : "handshake", link->timeout_ms);
    link_fail(link, -ETIMEDOUT, why);
}

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
    struct handshake *h = link->handshake;
    handshake_keys(h, link->out.key, link->in.key);
    link->out.keyed = link->in.keyed = link->tcp->options.cluster_key != NULL;
    link->conn->id = h->connection_id;
    if (h->kind == HANDSHAKE_CONTROL)
        link->conn->hello = h->theirs;
    link_drop_handshake(link);
    link->phase = LINK_OPEN;
    tcp_conn_link_open(link->conn, link);
}

/* Sends what there is; false when some of it has to wait for room. */
static bool link_handshake_flush(struct tcp_link *link) {
    const uint8_t *out;
    size_t left = handshake_output(link->handshake, &out);
    if (left == 0)
        return true;
    ssize_t sent = send(link->fd, out, left, MSG_NOSIGNAL);
    if (sent > 0)
        handshake_sent(link->handshake, (size_t)sent);
    return handshake_output(link->handshake, &out) == 0;
}

/* Takes at most one message's bytes; false when there is nothing more to do for now. */
static bool link_handshake_fill(struct tcp_link *link) {
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

static void link_handshake_end(struct tcp_link *link) {
    char why[sizeof link->handshake->why];
    memcpy(why, link->handshake->why, sizeof why);
    link_handshake_flush(link); /* a refusal, as far as the socket takes it at once */
    link_fail(link, -ECONNREFUSED, why);
}

/* Runs the handshake as far as the socket allows. A broken socket shows in recv. */
static void link_handshake_run(struct tcp_link *link) {
    while (link->phase == LINK_HANDSHAKE) {
        if (link->handshake->state == HANDSHAKE_PROVEN)
            tcp_conn_adopt(link->tcp, link);
        if (link->phase != LINK_HANDSHAKE)
            return;
        if (link->handshake->state == HANDSHAKE_FAILED) {
            link_handshake_end(link);
            return;
        }
        bool flushed = link_handshake_flush(link);
        tcp_link_watch(link, UV_WRITABLE, !flushed);
        if (!flushed)
            return;
        if (link->handshake->state == HANDSHAKE_DONE)
            link_become_open(link);
        else if (!link_handshake_fill(link))
            return;
    }
}

static void link_start_handshake(struct tcp_link *link) {
    link->phase = LINK_HANDSHAKE;
    tcp_link_watch(link, UV_READABLE, true);
    link_handshake_run(link);
}

static struct handshake_params link_handshake_params(const struct tcp *tcp) {
    return (struct handshake_params){tcp->options.cluster_key, tcp->options.hello,
                                     tcp->options.hello_bytes};
}

int tcp_link_accept(struct tcp *tcp, int fd) {
    struct handshake_params params = link_handshake_params(tcp);
    uint8_t nonce[AUTH_NONCE_BYTES];
    if (tcp->stranger_count >= STRANGERS_MAX) {
        struct tcp_link *oldest = TAILQ_FIRST(&tcp->strangers);
        tcp_log_stranger(tcp, oldest->fd, "too many unfinished handshakes, dropping the oldest");
        tcp_link_close(oldest);
    }
    struct tcp_link *link = link_new(tcp, tcp->options.handshake_timeout_ms);
    if (link == NULL) {
        close(fd);
        return -ENOMEM;
    }
    link_add_stranger(link);
    auth_nonce(nonce);
    handshake_answer(link->handshake, &params, nonce);
    int r = link_take_fd(link, fd);
    if (r < 0)
        tcp_link_close(link);
    else
        link_start_handshake(link);
    return r;
}

void tcp_link_join(struct tcp_link *link, struct tcp_conn *conn) {
    link_remove_stranger(link);
    link->conn = conn;
    conn->refs++;
}

/* ---- dialling ---- */

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
    struct handshake_params params = link_handshake_params(conn->tcp);
    uint8_t nonce[AUTH_NONCE_BYTES];
    struct tcp_link *link = link_new(conn->tcp, timeout_ms);
    if (link == NULL)
        return -ENOMEM;
    link->conn = conn;
    conn->refs++;
    auth_nonce(nonce);
    handshake_ask(link->handshake, &params, kind, conn->id, nonce);
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

static void link_on_connected(struct tcp_link *link) {
    int error = 0;
    socklen_t bytes = sizeof error;
    if (getsockopt(link->fd, SOL_SOCKET, SO_ERROR, &error, &bytes) < 0)
        error = errno;
    if (error != 0)
        tcp_conn_unreachable(link->conn, link, error);
    else
        link_start_handshake(link);
}

/* ---- readiness ---- */

static void link_on_open_ready(struct tcp_link *link, int events) {
    struct tcp_conn *conn = link->conn;
    if (conn->up && link == conn->control) {
        tcp_control_ready(conn, events);
        return;
    }
    if (conn->up) {
        if (events & UV_READABLE)
            tcp_reader_ready(conn);
        if (events & UV_WRITABLE && !conn->closing)
            tcp_server_send(conn);
        return;
    }
    /* The control socket's end before the bulk socket is through: that one may still say why. */
    tcp_link_watch(link, UV_DISCONNECT, false);
    if (conn->bulk == NULL)
        tcp_conn_fail(conn, -ECONNRESET, "the other side closed the connection");
}

/* libuv has stopped watching a socket in error. What a handshake still says comes first. */
static void link_on_error(struct tcp_link *link) {
    int error = ECONNRESET;
    socklen_t bytes = sizeof error;
    if (link->phase == LINK_HANDSHAKE)
        link_handshake_run(link);
    if (link->phase == LINK_CLOSED)
        return;
    getsockopt(link->fd, SOL_SOCKET, SO_ERROR, &error, &bytes);
    error = error != 0 ? error : ECONNRESET;
    if (link->conn == NULL)
        link_fail(link, -error, "connection lost during the handshake");
    else if (!tcp_conn_give_up_data(link->conn, link, strerror(error)))
        tcp_conn_fail_errno(link->conn, "connection lost", error);
}

static void link_on_poll(uv_poll_t *poll, int status, int events) {
    struct tcp_link *link = poll->data;
    if (link->phase == LINK_CONNECTING)
        link_on_connected(link);
    else if (status < 0)
        link_on_error(link);
    else if (link->phase == LINK_HANDSHAKE)
        link_handshake_run(link);
    else if (link->phase == LINK_OPEN)
        link_on_open_ready(link, events);
}
