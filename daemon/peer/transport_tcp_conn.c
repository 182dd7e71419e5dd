/* SPDX-License-Identifier: Apache-2.0
 *
 * One connection: a control and a bulk link. Dialled: resolve the name -> control handshake -> bulk
 * dialled with the id from the control handshake -> bulk handshake -> up. Accepted: the control
 * link proves itself (the connection exists, unannounced) -> a bulk link proves itself and names it
 * -> `accepted`. Messages are read from the moment it is up; before that an open control link is
 * watched only for its end.
 *
 * The end, whatever the cause: `closing` is set and both sockets are closed at once, so that no
 * byte moves any more; when libuv has let go of the last link (refs == 0; that is a callback of the
 * loop, never inside an operation), reads are reported, then `closed` if the owner ever heard of
 * the connection, and it is freed.
 */
#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "transport_tcp_address.h"
#include "transport_tcp_internal.h"

struct tcp_conn *tcp_conn_new(struct tcp *tcp, bool accepted_here) {
    struct tcp_conn *conn = calloc(1, sizeof *conn);
    if (conn == NULL)
        return NULL;
    conn->reads = calloc(tcp->options.reads_per_connection, sizeof(*conn->reads));
    if (conn->reads == NULL) {
        free(conn);
        return NULL;
    }
    conn->tcp = tcp;
    conn->accepted_here = accepted_here;
    TAILQ_INIT(&conn->waiting);
    TAILQ_INIT(&conn->serves);
    conn->counters.transport = "tcp";
    LIST_INSERT_HEAD(&tcp->conns, conn, all);
    tcp->accepted_count += accepted_here;
    return conn;
}

static void conn_free(struct tcp_conn *conn) {
    LIST_REMOVE(conn, all);
    conn->tcp->accepted_count -= conn->accepted_here;
    if (conn->addresses != NULL)
        uv_freeaddrinfo(conn->addresses);
    byte_queue_deinit(&conn->received);
    byte_queue_deinit(&conn->unsent);
    free(conn->reads);
    free(conn);
}

/* ---- the end ---- */

void tcp_conn_unref(struct tcp_conn *conn) {
    struct tcp *tcp = conn->tcp;
    if (--conn->refs > 0 || !conn->closing)
        return;
    tcp_server_end(conn);
    tcp_reader_end(conn);
    if (conn->announced)
        tcp->events.closed(tcp->owner, conn->user, conn->why);
    conn_free(conn);
    tcp_maybe_destroyed(tcp);
}

void tcp_conn_fail(struct tcp_conn *conn, int status, const char *format, ...) {
    va_list arguments;
    if (conn->closing)
        return;
    conn->closing = true;
    conn->end_status = status;
    va_start(arguments, format);
    vsnprintf(conn->why, sizeof conn->why, format, arguments);
    va_end(arguments);
    if (conn->control != NULL)
        tcp_link_close(conn->control);
    if (conn->bulk != NULL)
        tcp_link_close(conn->bulk);
    if (conn->resolve.data != NULL)
        uv_cancel((uv_req_t *)&conn->resolve);
}

/* "connect to 10.0.0.1:7000: connection refused" */
void tcp_conn_fail_errno(struct tcp_conn *conn, const char *doing, int error) {
    char text[96];
    snprintf(text, sizeof text, "%s", strerror(error));
    text[0] = (char)tolower((unsigned char)text[0]);
    if (conn->up)
        tcp_conn_fail(conn, -error, "%s: %s", doing, text);
    else
        tcp_conn_fail(conn, -error, "%s %s: %s", doing, conn->address, text);
}

bool tcp_conn_received(struct tcp_conn *conn, ssize_t got) {
    if (got < 0 && errno != EAGAIN && errno != EINTR)
        tcp_conn_fail_errno(conn, "receive", errno);
    if (got == 0)
        tcp_conn_fail(conn, -ECONNRESET, "the other side closed the connection");
    return got > 0;
}

void tcp_conn_fail_frame(struct tcp_conn *conn, const char *what) {
    tcp_conn_fail(conn, -EPROTO, "peer sent a bad frame: %s", what);
}

bool tcp_conn_usable(const struct tcp_conn *conn) {
    /* The owner of an accepted connection may use it from within `accepted`. */
    return !conn->closing && (conn->up || (conn->accepted_here && conn->bulk != NULL));
}

/* ---- dialling ---- */

static void dial_from(struct tcp_conn *conn, struct addrinfo *address, int error) {
    for (; address != NULL; address = address->ai_next) {
        conn->remote = address;
        error = -tcp_link_dial(conn, HANDSHAKE_CONTROL, &conn->control);
        if (error == 0)
            return;
    }
    tcp_conn_fail_errno(conn, "connect to", error);
}

void tcp_conn_unreachable(struct tcp_conn *conn, struct tcp_link *link, int error) {
    if (link == conn->bulk) {
        tcp_conn_fail_errno(conn, "connect bulk socket to", error);
        return;
    }
    conn->control = NULL;
    tcp_link_close(link);
    dial_from(conn, conn->remote->ai_next, error);
}

static void on_resolved(uv_getaddrinfo_t *request, int status, struct addrinfo *addresses) {
    struct tcp_conn *conn = request->data;
    request->data = NULL;
    conn->addresses = addresses;
    if (status < 0)
        tcp_conn_fail(conn, -EHOSTUNREACH, "cannot resolve %s: %s", conn->address,
                      uv_strerror(status));
    else if (!conn->closing)
        dial_from(conn, addresses, EHOSTUNREACH);
    tcp_conn_unref(conn);
}

/* Numbers are dialled at once, names go through libuv's pool. */
static int start_dialling(struct tcp_conn *conn, const struct tcp_address *address) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_NUMERICSERV | AI_NUMERICHOST};
    if (getaddrinfo(address->host, address->port, &hints, &conn->addresses) == 0) {
        dial_from(conn, conn->addresses, 0);
        return conn->refs > 0 ? 0 : -ENOMEM;
    }
    hints.ai_flags = AI_NUMERICSERV;
    conn->resolve.data = conn;
    int r = uv_getaddrinfo(conn->tcp->loop, &conn->resolve, on_resolved, address->host,
                           address->port, &hints);
    if (r == 0)
        conn->refs++;
    return r;
}

int tcp_conn_dial(struct tcp *tcp, const char *address, void *user, struct tcp_conn **out) {
    struct tcp_address parsed;
    int r = tcp_address_parse(address, &parsed);
    if (r < 0)
        return r;
    struct tcp_conn *conn = tcp_conn_new(tcp, false);
    if (conn == NULL)
        return -ENOMEM;
    conn->user = user;
    conn->announced = true;
    snprintf(conn->address, sizeof conn->address, "%s", address);
    r = start_dialling(conn, &parsed);
    if (r < 0) {
        conn_free(conn);
        return r;
    }
    *out = conn;
    return 0;
}

/* ---- accepting ---- */

static void adopt_control(struct tcp *tcp, struct tcp_link *link) {
    struct tcp_conn *conn = NULL;
    if (tcp->accepted_count < tcp->options.connections_max)
        conn = tcp_conn_new(tcp, true);
    if (conn == NULL) {
        handshake_refuse(link->handshake, HANDSHAKE_REFUSE_LIMIT);
        return;
    }
    tcp_link_join(link, conn);
    conn->control = link;
    uint8_t random[AUTH_NONCE_BYTES];
    auth_nonce(random);
    memcpy(&conn->id, random, sizeof conn->id);
    handshake_accept(link->handshake, conn->id);
}

static struct tcp_conn *find_waiting_for_bulk(struct tcp *tcp, uint64_t id) {
    struct tcp_conn *conn;
    LIST_FOREACH (conn, &tcp->conns, all)
        if (conn->accepted_here && conn->id == id && conn->bulk == NULL && !conn->closing &&
            conn->control->phase == LINK_OPEN)
            return conn;
    return NULL;
}

static void adopt_bulk(struct tcp *tcp, struct tcp_link *link) {
    struct tcp_conn *conn = find_waiting_for_bulk(tcp, link->handshake->connection_id);
    if (conn == NULL) {
        handshake_refuse(link->handshake, HANDSHAKE_REFUSE_CONNECTION);
        return;
    }
    tcp_link_join(link, conn);
    conn->bulk = link;
    conn->user = tcp->events.accepted(tcp->owner, (struct transport_conn *)conn, conn->hello.data,
                                      conn->hello.bytes);
    conn->announced = conn->user != NULL;
    if (conn->closing) /* by the owner, just now: the handshake is gone with the link */
        return;
    if (conn->announced)
        handshake_accept(link->handshake, conn->id);
    else
        handshake_refuse(link->handshake, HANDSHAKE_REFUSE_OWNER);
}

void tcp_conn_adopt(struct tcp *tcp, struct tcp_link *link) {
    if (link->handshake->kind == HANDSHAKE_CONTROL)
        adopt_control(tcp, link);
    else
        adopt_bulk(tcp, link);
}

/* ---- becoming usable ---- */

static void become_up(struct tcp_conn *conn) {
    struct tcp *tcp = conn->tcp;
    conn->up = true;
    uv_timer_stop(&conn->control->timer);
    uv_timer_stop(&conn->bulk->timer);
    tcp_address_of_socket(conn->control->fd, conn->counters.local, conn->counters.remote);
    tcp_link_watch(conn->control, UV_DISCONNECT, false);
    tcp_link_watch(conn->control, UV_READABLE, true);
    if (conn->unsent.end > conn->unsent.begin) /* by the owner, from within `accepted` */
        tcp_link_watch(conn->control, UV_WRITABLE, true);
    if (!conn->accepted_here)
        tcp->events.up(tcp->owner, conn->user, conn->hello.data, conn->hello.bytes);
}

void tcp_conn_link_open(struct tcp_conn *conn, struct tcp_link *link) {
    if (link == conn->bulk) {
        become_up(conn);
        return;
    }
    tcp_link_watch(link, UV_DISCONNECT, true);
    tcp_link_watch(link, UV_READABLE, false);
    if (conn->accepted_here)
        return;
    int r = tcp_link_dial(conn, HANDSHAKE_BULK, &conn->bulk);
    if (r < 0)
        tcp_conn_fail_errno(conn, "connect bulk socket to", -r);
}
