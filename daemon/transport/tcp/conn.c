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
 * The end: connection.h says how it goes. Here `refs` counts what libuv still holds of the
 * connection; the callback of the loop that brings it to 0 reports the end and frees it.
 */
#include "transport/tcp/conn.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "transport/address.h"
#include "transport/tcp/control.h"
#include "transport/tcp/link.h"
#include "transport/tcp/reader.h"
#include "transport/tcp/server.h"

/* The slots of reads are made with the connection, so that a read can fail for want of memory only
 * before it is asked for. */
static struct tcp_conn *conn_new(struct tcp *tcp, bool accepted_here) {
    struct tcp_conn *conn = calloc(1, sizeof *conn);
    if (conn == NULL)
        return NULL;
    conn->tcp = tcp;
    if (tcp_reader_init(conn) < 0) {
        free(conn);
        return NULL;
    }
    TAILQ_INIT(&conn->serves);
    connection_init(&conn->base, &tcp->base, accepted_here);
    return conn;
}

static void conn_free(struct tcp_conn *conn) {
    struct endpoint *endpoint = conn->base.endpoint;
    connection_deinit(&conn->base);
    uv_freeaddrinfo(conn->place.addresses);
    uv_freeaddrinfo(conn->data.addresses);
    byte_queue_deinit(&conn->received);
    byte_queue_deinit(&conn->unsent);
    tcp_reader_deinit(conn);
    free(conn);
    endpoint_release(endpoint);
}

/* ---- the end ---- */

/* The last reference of a connection that is closing. Serving ends first: a read of theirs needs no
 * report. Then our reads are reported, then the end itself. */
static void conn_unref(struct tcp_conn *conn) {
    if (--conn->refs > 0 || !conn->base.closing)
        return;
    tcp_server_end(conn);
    tcp_reader_end(conn);
    connection_raise_closed(&conn->base);
    conn_free(conn);
}

/* Either socket may be missing: the connection may end while it is still being dialled. */
void tcp_conn_stop(struct connection *base) {
    struct tcp_conn *conn = container_of(base, struct tcp_conn, base);
    if (conn->control != NULL)
        tcp_link_close(conn->control);
    if (conn->bulk != NULL)
        tcp_link_close(conn->bulk);
    lookup_cancel(&conn->lookup);
}

/* ---- dialling ---- */

/* Dials the first address of the list that takes a connect(); false: none does. */
static bool conn_dial_from(struct tcp_conn *conn, struct tcp_target *target,
                           struct addrinfo *address, int *error) {
    const struct transport_options *options = &conn->tcp->base.options;
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

/* The address that the control socket got through to, not the name again: a name may stand for
 * several machines. */
static void conn_dial_bulk_at_place(struct tcp_conn *conn) {
    int r = tcp_link_dial(conn, HANDSHAKE_BULK, conn->place.at,
                          conn->tcp->base.options.handshake_timeout_ms, &conn->bulk);
    if (r < 0)
        tcp_control_fail_errno(conn, "connect bulk socket to", -r);
}

/* The reason goes into transport_info; the layer above logs it, and tells the other node, whose
 * administrator has to mend it. */
static void conn_give_up_data(struct tcp_conn *conn, const char *why) {
    struct transport_info *counters = &conn->base.counters;
    snprintf(counters->data_failure, sizeof counters->data_failure, "%s", why);
    conn->data.text[0] = '\0';
    if (conn->bulk != NULL)
        tcp_link_close(conn->bulk);
    conn->bulk = NULL;
    conn_dial_bulk_at_place(conn);
}

/* A socket of the connection failed before it was open. True: it was being dialled at the data
 * address, which is given up; the bulk socket is dialled where messages go. */
static bool conn_gives_up_data(struct tcp_conn *conn, const struct tcp_link *link,
                               const char *why) {
    bool is_data = link == conn->bulk && conn->data.text[0] != '\0';
    if (!is_data || conn->open || conn->base.closing)
        return false;
    conn_give_up_data(conn, why);
    return true;
}

/* error: what to say when there was no address left to try. */
static void conn_dial_target(struct tcp_conn *conn, struct tcp_target *target,
                             struct addrinfo *from, int error) {
    if (conn_dial_from(conn, target, from, &error))
        return;
    if (target == &conn->data)
        conn_give_up_data(conn, strerror(error));
    else
        tcp_control_fail_errno(conn, "connect to", error);
}

/* Names are looked up again for each connection, so a node may move. */
static void conn_on_looked_up(struct lookup *lookup, int status, struct addrinfo *addresses) {
    struct tcp_conn *conn = container_of(lookup, struct tcp_conn, lookup);
    struct tcp_target *target = conn->looked_up;
    target->addresses = addresses;
    if (status < 0 && target == &conn->data && !conn->base.closing)
        conn_give_up_data(conn, "its name cannot be resolved");
    else if (status < 0)
        connection_fail(&conn->base, -EHOSTUNREACH, "cannot resolve %s: %s", target->text,
                        uv_strerror(status));
    else if (!conn->base.closing)
        conn_dial_target(conn, target, addresses, EHOSTUNREACH);
    conn_unref(conn);
}

static int conn_look_up_and_dial(struct tcp_conn *conn, struct tcp_target *target) {
    conn->looked_up = target;
    int r = lookup_start(&conn->lookup, conn->tcp->base.loop, target->text, conn_on_looked_up,
                         &target->addresses);
    if (r < 0)
        return r;
    if (target->addresses == NULL) { /* a name: conn_on_looked_up goes on */
        conn->refs++;
        return 0;
    }
    conn_dial_target(conn, target, target->addresses, 0);
    /* Even a link that failed at once is held by libuv until the next turn of the loop, and ends
     * the connection then. Without any link there was no memory for one, and nobody would. */
    return conn->refs > 0 ? 0 : -ENOMEM;
}

/* Only now, with the id that the home gave in the control handshake: it is what ties the two
 * sockets together. */
static void conn_dial_bulk(struct tcp_conn *conn) {
    if (conn->data.text[0] == '\0')
        conn_dial_bulk_at_place(conn);
    else if (conn_look_up_and_dial(conn, &conn->data) < 0)
        conn_give_up_data(conn, "its name cannot be resolved");
}

int tcp_conn_dial(struct tcp *tcp, const char *address, const char *data_address, void *user,
                  struct tcp_conn **out) {
    struct address parsed;
    int r = address_parse(address, &parsed);
    if (r == 0 && data_address[0] != '\0')
        r = address_parse(data_address, &parsed);
    if (r < 0)
        return r;
    struct tcp_conn *conn = conn_new(tcp, false);
    if (conn == NULL)
        return -ENOMEM;
    connection_belongs_to(&conn->base, user);
    snprintf(conn->place.text, sizeof conn->place.text, "%s", address);
    if (strcmp(address, data_address) != 0)
        snprintf(conn->data.text, sizeof conn->data.text, "%s", data_address);
    r = conn_look_up_and_dial(conn, &conn->place);
    if (r < 0) {
        conn_free(conn);
        return r;
    }
    *out = conn;
    return 0;
}

/* ---- accepting ---- */

static void conn_adopt_control(struct tcp *tcp, struct tcp_link *link) {
    struct tcp_conn *conn = endpoint_has_room(&tcp->base) ? conn_new(tcp, true) : NULL;
    if (conn == NULL) {
        handshake_refuse(link->handshake, HANDSHAKE_REFUSE_LIMIT);
        return;
    }
    tcp_link_join(link, conn);
    conn->control = link;
    connection_give_id(&conn->base);
    handshake_accept(link->handshake, conn->base.id);
}

/* A second bulk socket for the same connection is refused: it would take over the stream in the
 * middle of a chunk. */
static struct tcp_conn *conn_find_waiting_for_bulk(struct tcp *tcp, uint64_t id) {
    struct connection *base = endpoint_find(&tcp->base, id);
    struct tcp_conn *conn = base != NULL ? container_of(base, struct tcp_conn, base) : NULL;
    return conn != NULL && conn->bulk == NULL && conn->control->phase == LINK_OPEN ? conn : NULL;
}

/* The owner is asked while the handshake of this socket waits. So a refusal can be said in the
 * handshake, where the other side expects one, and an asker never sees a connection up that is
 * closed a moment later. */
static void conn_adopt_bulk(struct tcp *tcp, struct tcp_link *link) {
    struct tcp_conn *conn = conn_find_waiting_for_bulk(tcp, link->handshake->connection_id);
    if (conn == NULL) {
        handshake_refuse(link->handshake, HANDSHAKE_REFUSE_CONNECTION);
        return;
    }
    tcp_link_join(link, conn);
    conn->bulk = link;
    bool wanted = connection_offer(&conn->base);
    if (conn->base.closing) /* by the owner, just now: the handshake is gone with the link */
        return;
    if (wanted)
        handshake_accept(link->handshake, conn->base.id);
    else
        handshake_refuse(link->handshake, HANDSHAKE_REFUSE_OWNER);
}

/* ---- becoming usable ---- */

/* The owner may have sent messages from within `accepted`; they are in `unsent` and leave now. */
static void conn_become_open(struct tcp_conn *conn) {
    struct transport_info *counters = &conn->base.counters;
    conn->open = true;
    uv_timer_stop(&conn->control->timer);
    uv_timer_stop(&conn->bulk->timer);
    address_of_socket(conn->control->fd, counters->local, counters->remote);
    tcp_link_watch(conn->control, UV_DISCONNECT, false);
    tcp_link_watch(conn->control, UV_READABLE, true);
    if (byte_queue_bytes(&conn->unsent) > 0) /* by the owner, from within `accepted` */
        tcp_link_watch(conn->control, UV_WRITABLE, true);
    if (!conn->base.accepted_here)
        connection_raise_up(&conn->base);
}

/* ---- events of the links ---- */

static void conn_on_link_proven(struct tcp_link *link) {
    if (link->handshake->kind == HANDSHAKE_CONTROL)
        conn_adopt_control(link->tcp, link);
    else
        conn_adopt_bulk(link->tcp, link);
}

static void conn_on_link_open(struct tcp_link *link) {
    struct tcp_conn *conn = link->conn;
    if (link == conn->bulk) {
        conn_become_open(conn);
        return;
    }
    /* What the other side may say by now stays in the socket: the owner does not know the
     * connection yet, so there is nobody to hand a message to. */
    tcp_link_watch(link, UV_DISCONNECT, true);
    tcp_link_watch(link, UV_READABLE, false);
    if (!conn->base.accepted_here)
        conn_dial_bulk(conn);
}

/* Tries the next address of the name, or ends. */
static void conn_on_link_unreachable(struct tcp_link *link, int error) {
    struct tcp_conn *conn = link->conn;
    bool is_bulk = link == conn->bulk;
    if (is_bulk && conn->data.text[0] == '\0') {
        tcp_control_fail_errno(conn, "connect bulk socket to", error);
        return;
    }
    struct tcp_target *target = is_bulk ? &conn->data : &conn->place;
    *(is_bulk ? &conn->bulk : &conn->control) = NULL;
    tcp_link_close(link);
    conn_dial_target(conn, target, target->at->ai_next, error);
}

static void conn_on_link_failed(struct tcp_link *link, int status, const char *why) {
    if (!conn_gives_up_data(link->conn, link, why))
        connection_fail(&link->conn->base, status, "%s", why);
}

static void conn_on_link_broken(struct tcp_link *link, int error) {
    if (!conn_gives_up_data(link->conn, link, strerror(error)))
        tcp_control_fail_errno(link->conn, "connection lost", error);
}

static void conn_on_link_ready(struct tcp_link *link, int events) {
    struct tcp_conn *conn = link->conn;
    if (conn->open && link == conn->control) {
        tcp_control_ready(conn, events);
        /* The frames may have brought requests of reads. Their first chunk leaves in the same turn
         * of the loop: waiting for the bulk socket's own event would cost a small read a turn. */
        if (!conn->base.closing && conn->serve_count > 0)
            tcp_server_send(conn);
        return;
    }
    if (conn->open) {
        if (events & UV_READABLE)
            tcp_reader_ready(conn);
        if (events & UV_WRITABLE && !conn->base.closing)
            tcp_server_send(conn);
        return;
    }
    /* The control socket's end before the bulk socket is through: that one may still say why. */
    tcp_link_watch(link, UV_DISCONNECT, false);
    if (conn->bulk == NULL)
        connection_fail(&conn->base, -ECONNRESET, "the other side closed the connection");
}

static void conn_on_link_gone(struct tcp_link *link) {
    conn_unref(link->conn);
}

const struct tcp_link_events tcp_conn_link_events = {
    .proven = conn_on_link_proven,
    .open = conn_on_link_open,
    .unreachable = conn_on_link_unreachable,
    .failed = conn_on_link_failed,
    .broken = conn_on_link_broken,
    .ready = conn_on_link_ready,
    .gone = conn_on_link_gone,
};
