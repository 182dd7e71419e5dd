/* SPDX-License-Identifier: Apache-2.0
 *
 * One connection: a control and a bulk link. Dialled: resolve the name -> control handshake -> bulk
 * dialled with the id from the control handshake -> bulk handshake -> up. Accepted: the control
 * link proves itself (the connection exists, unannounced) -> a bulk link proves itself and names it
 * -> `accepted`. Messages are read from the moment it is up; before that an open control link is
 * watched only for its end.
 *
 * Bulk is dialled at the data address, if there is one. Should that fail before the socket is open,
 * it is dialled where control is, and the reason kept: messages must flow between any two nodes, or
 * nothing could be superseded.
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

#include "transport/address.h"
#include "transport/tcp/tcp_internal.h"

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
    conn->number = tcp->next_number++;
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
    uv_freeaddrinfo(conn->place.addresses);
    uv_freeaddrinfo(conn->data.addresses);
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
        tcp_conn_fail(conn, -error, "%s %s: %s", doing, conn->place.text, text);
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

static bool conn_dial_from(struct tcp_conn *conn, struct tcp_target *target,
                           struct addrinfo *address, int *error) {
    const struct transport_options *options = &conn->tcp->options;
    bool is_data = target == &conn->data;
    for (; address != NULL; address = address->ai_next) {
        target->at = address;
        *error = -tcp_link_dial(conn, is_data ? HANDSHAKE_BULK : HANDSHAKE_CONTROL, address,
                                is_data ? options->data_timeout_ms : options->handshake_timeout_ms,
                                is_data ? &conn->bulk : &conn->control);
        if (*error == 0)
            return true;
    }
    return false;
}

static void conn_dial_bulk_at_place(struct tcp_conn *conn) {
    int r = tcp_link_dial(conn, HANDSHAKE_BULK, conn->place.at,
                          conn->tcp->options.handshake_timeout_ms, &conn->bulk);
    if (r < 0)
        tcp_conn_fail_errno(conn, "connect bulk socket to", -r);
}

static void conn_give_up_data(struct tcp_conn *conn, const char *why) {
    snprintf(conn->counters.data_failure, sizeof conn->counters.data_failure, "%s", why);
    conn->data.text[0] = '\0';
    if (conn->bulk != NULL)
        tcp_link_close(conn->bulk);
    conn->bulk = NULL;
    conn_dial_bulk_at_place(conn);
}

bool tcp_conn_give_up_data(struct tcp_conn *conn, const struct tcp_link *link, const char *why) {
    bool is_data = link == conn->bulk && conn->data.text[0] != '\0';
    if (!is_data || conn->up || conn->closing)
        return false;
    conn_give_up_data(conn, why);
    return true;
}

static void conn_dial_target(struct tcp_conn *conn, struct tcp_target *target,
                             struct addrinfo *from, int error) {
    if (conn_dial_from(conn, target, from, &error))
        return;
    if (target == &conn->data)
        conn_give_up_data(conn, strerror(error));
    else
        tcp_conn_fail_errno(conn, "connect to", error);
}

void tcp_conn_unreachable(struct tcp_conn *conn, struct tcp_link *link, int error) {
    bool is_bulk = link == conn->bulk;
    if (is_bulk && conn->data.text[0] == '\0') {
        tcp_conn_fail_errno(conn, "connect bulk socket to", error);
        return;
    }
    struct tcp_target *target = is_bulk ? &conn->data : &conn->place;
    *(is_bulk ? &conn->bulk : &conn->control) = NULL;
    tcp_link_close(link);
    conn_dial_target(conn, target, target->at->ai_next, error);
}

static void conn_on_resolved(uv_getaddrinfo_t *request, int status, struct addrinfo *addresses) {
    struct tcp_conn *conn = request->data;
    struct tcp_target *target = conn->resolving;
    request->data = NULL;
    target->addresses = addresses;
    if (status < 0 && target == &conn->data && !conn->closing)
        conn_give_up_data(conn, "its name cannot be resolved");
    else if (status < 0)
        tcp_conn_fail(conn, -EHOSTUNREACH, "cannot resolve %s: %s", target->text,
                      uv_strerror(status));
    else if (!conn->closing)
        conn_dial_target(conn, target, addresses, EHOSTUNREACH);
    tcp_conn_unref(conn);
}

/* Numbers are dialled at once, names go through libuv's pool. */
static int conn_resolve_and_dial(struct tcp_conn *conn, struct tcp_target *target) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_NUMERICSERV | AI_NUMERICHOST};
    struct tcp_address address;
    int r = tcp_address_parse(target->text, &address);
    if (r < 0)
        return r;
    if (getaddrinfo(address.host, address.port, &hints, &target->addresses) == 0) {
        conn_dial_target(conn, target, target->addresses, 0);
        return conn->refs > 0 ? 0 : -ENOMEM;
    }
    hints.ai_flags = AI_NUMERICSERV;
    conn->resolve.data = conn;
    conn->resolving = target;
    r = uv_getaddrinfo(conn->tcp->loop, &conn->resolve, conn_on_resolved, address.host,
                       address.port, &hints);
    if (r == 0)
        conn->refs++;
    else
        conn->resolve.data = NULL;
    return r;
}

static void conn_dial_bulk(struct tcp_conn *conn) {
    if (conn->data.text[0] == '\0')
        conn_dial_bulk_at_place(conn);
    else if (conn_resolve_and_dial(conn, &conn->data) < 0)
        conn_give_up_data(conn, "its name cannot be resolved");
}

int tcp_conn_dial(struct tcp *tcp, const char *address, const char *data_address, void *user,
                  struct tcp_conn **out) {
    struct tcp_address parsed;
    int r = tcp_address_parse(address, &parsed);
    if (r == 0 && data_address[0] != '\0')
        r = tcp_address_parse(data_address, &parsed);
    if (r < 0)
        return r;
    struct tcp_conn *conn = tcp_conn_new(tcp, false);
    if (conn == NULL)
        return -ENOMEM;
    conn->user = user;
    conn->announced = true;
    snprintf(conn->place.text, sizeof conn->place.text, "%s", address);
    if (strcmp(address, data_address) != 0)
        snprintf(conn->data.text, sizeof conn->data.text, "%s", data_address);
    r = conn_resolve_and_dial(conn, &conn->place);
    if (r < 0) {
        conn_free(conn);
        return r;
    }
    *out = conn;
    return 0;
}

/* ---- accepting ---- */

static void conn_adopt_control(struct tcp *tcp, struct tcp_link *link) {
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

static struct tcp_conn *conn_find_waiting_for_bulk(struct tcp *tcp, uint64_t id) {
    struct tcp_conn *conn;
    LIST_FOREACH (conn, &tcp->conns, all)
        if (conn->accepted_here && conn->id == id && conn->bulk == NULL && !conn->closing &&
            conn->control->phase == LINK_OPEN)
            return conn;
    return NULL;
}

static void conn_adopt_bulk(struct tcp *tcp, struct tcp_link *link) {
    struct tcp_conn *conn = conn_find_waiting_for_bulk(tcp, link->handshake->connection_id);
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
        conn_adopt_control(tcp, link);
    else
        conn_adopt_bulk(tcp, link);
}

/* ---- becoming usable ---- */

static void conn_become_up(struct tcp_conn *conn) {
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
        conn_become_up(conn);
        return;
    }
    tcp_link_watch(link, UV_DISCONNECT, true);
    tcp_link_watch(link, UV_READABLE, false);
    if (conn->accepted_here)
        return;
    conn_dial_bulk(conn);
}
