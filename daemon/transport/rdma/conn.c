/* SPDX-License-Identifier: Apache-2.0
 *
 * One connection: a control link and one bulk link per pair of rails. Dialled: resolve the name ->
 * control link and its handshake -> RAILS from the home -> a bulk link per pair, each with a
 * handshake that names the connection -> READY when all of them stand or have failed, and one
 * stands -> ACCEPTED: up. Accepted: the control link proves itself (the connection exists,
 * unannounced) -> bulk links join -> READY: `accepted`.
 *
 * A bulk link that fails later is a rail less (rdma_conn_rails.c); the last one, or the control
 * link, ends the connection.
 *
 * The end, whatever the cause: `closing` is set and every QP destroyed at once, so that no byte
 * moves any more in either direction. From the loop (rconn_end), reads are reported, then `closed`
 * if the owner ever heard of the connection, and it is freed.
 */
#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/log.h"
#include "transport/address.h"
#include "transport/rdma/rdma_internal.h"

static struct rdma_conn *conn_new(struct rdma *rdma, bool accepted_here) {
    struct rdma_conn *conn = calloc(1, sizeof *conn);
    if (conn == NULL)
        return NULL;
    conn->rdma = rdma;
    conn->number = rdma->next_conn++;
    conn->accepted_here = accepted_here;
    uv_update_time(rdma->loop);
    conn->deadline_ms = uv_now(rdma->loop) + 2 * (uint64_t)rdma->options.handshake_timeout_ms;
    TAILQ_INIT(&conn->active);
    TAILQ_INIT(&conn->waiting);
    TAILQ_INIT(&conn->again);
    TAILQ_INIT(&conn->openings);
    conn->counters.transport = "rdma";
    LIST_INSERT_HEAD(&rdma->conns, conn, all);
    rdma->accepted_count += accepted_here;
    rdma_watch_time(rdma);
    return conn;
}

static void conn_free(struct rdma_conn *conn) {
    LIST_REMOVE(conn, all);
    conn->rdma->accepted_count -= conn->accepted_here;
    free(conn);
}

/* ---- the end ---- */

void rconn_fail(struct rdma_conn *conn, int status, const char *format, ...) {
    va_list arguments;
    if (conn->closing)
        return;
    conn->closing = true;
    conn->end_status = status;
    va_start(arguments, format);
    vsnprintf(conn->why, sizeof conn->why, format, arguments);
    va_end(arguments);
    if (conn->control != NULL)
        rlink_close(conn->control);
    for (uint32_t i = 0; i < RAILS_MAX; i++)
        if (conn->bulk[i] != NULL)
            rlink_close(conn->bulk[i]);
    if (conn->resolve.data != NULL)
        uv_cancel((uv_req_t *)&conn->resolve);
    rdma_soon(conn->rdma);
}

void rconn_end(struct rdma_conn *conn) {
    struct rdma *rdma = conn->rdma;
    if (conn->resolve.data != NULL)
        return; /* libuv still holds it */
    rcontrol_end(conn);
    rreader_end(conn);
    if (conn->announced)
        rdma->events.closed(rdma->owner, conn->user, conn->why);
    conn_free(conn);
}

void rconn_check_time(struct rdma_conn *conn, uint64_t now_ms) {
    rrail_check_time(conn, now_ms);
    if (!conn->up && !conn->closing && now_ms >= conn->deadline_ms)
        rconn_fail(conn, -ETIMEDOUT, "connect to %s: not up after %" PRIu32 " ms", conn->address,
                   2 * conn->rdma->options.handshake_timeout_ms);
}

bool rconn_usable(const struct rdma_conn *conn) {
    return conn->up && !conn->closing;
}

/* ---- dialling ---- */

/* Dials the next target that can be dialled; false: there is none. */
static bool conn_dial_next(struct rdma_conn *conn, int *status_out) {
    *status_out = -EHOSTUNREACH;
    while (conn->targets_tried < conn->target_count) {
        const struct sockaddr_storage *target = &conn->targets[conn->targets_tried++];
        *status_out = rlink_dial(conn, HANDSHAKE_CONTROL, NULL, target, &conn->control);
        if (*status_out == 0)
            return true;
    }
    return false;
}

static void conn_dial(struct rdma_conn *conn, const struct addrinfo *addresses) {
    struct sockaddr_storage resolved = {0};
    int r;
    memcpy(&resolved, addresses->ai_addr, addresses->ai_addrlen);
    conn->target_count = rroute_targets(conn->rdma, conn->address, &resolved, conn->targets);
    if (!conn_dial_next(conn, &r))
        rconn_fail(conn, r, "connect to %s: %s", conn->address, strerror(-r));
}

static void conn_on_resolved(uv_getaddrinfo_t *request, int status, struct addrinfo *addresses) {
    struct rdma_conn *conn = request->data;
    request->data = NULL;
    if (status < 0)
        rconn_fail(conn, -EHOSTUNREACH, "cannot resolve %s: %s", conn->address,
                   uv_strerror(status));
    else if (!conn->closing)
        conn_dial(conn, addresses);
    uv_freeaddrinfo(addresses);
    rdma_soon(conn->rdma);
}

/* Numbers are dialled at once, names go through libuv's pool. */
static int conn_start_dialling(struct rdma_conn *conn, const struct address *address) {
    struct addrinfo *found,
        hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | AI_NUMERICHOST};
    if (getaddrinfo(address->host, address->port, &hints, &found) == 0) {
        conn_dial(conn, found);
        freeaddrinfo(found);
        return 0;
    }
    hints.ai_flags = AI_NUMERICSERV;
    conn->resolve.data = conn;
    int r = uv_getaddrinfo(conn->rdma->loop, &conn->resolve, conn_on_resolved, address->host,
                           address->port, &hints);
    if (r < 0)
        conn->resolve.data = NULL;
    return r;
}

int rconn_dial(struct rdma *rdma, const char *address, void *user, struct rdma_conn **out) {
    struct address parsed;
    int r = address_parse(address, &parsed);
    if (r < 0)
        return r;
    struct rdma_conn *conn = conn_new(rdma, false);
    if (conn == NULL)
        return -ENOMEM;
    conn->user = user;
    conn->announced = true;
    snprintf(conn->address, sizeof conn->address, "%s", address);
    r = conn_start_dialling(conn, &parsed);
    if (r < 0) {
        conn_free(conn);
        return r;
    }
    *out = conn;
    return 0;
}

void rconn_on_accepted(struct rdma_conn *conn) {
    struct rdma *rdma = conn->rdma;
    if (conn->up)
        return;
    if (conn->accepted_here || !conn->ready_sent) {
        rconn_fail(conn, -EPROTO, "peer sent a bad frame: out of order");
        return;
    }
    conn->up = true;
    rrail_plan_mending(conn);
    rdma->events.up(rdma->owner, conn->user, conn->hello.data, conn->hello.bytes);
}

/* ---- accepting ---- */

static void conn_join(struct rdma_link *link, struct rdma_conn *conn) {
    link->rdma->stranger_count--;
    link->conn = conn;
}

static void conn_adopt_control(struct rdma_link *link) {
    struct rdma *rdma = link->rdma;
    struct rdma_conn *conn = NULL;
    uint8_t random[AUTH_NONCE_BYTES];
    if (rdma->accepted_count < rdma->options.connections_max)
        conn = conn_new(rdma, true);
    if (conn == NULL) {
        handshake_refuse(link->handshake, HANDSHAKE_REFUSE_LIMIT);
        return;
    }
    conn_join(link, conn);
    conn->control = link;
    auth_nonce(random);
    memcpy(&conn->id, random, sizeof conn->id);
    handshake_accept(link->handshake, conn->id);
}

static void conn_adopt_bulk(struct rdma_link *link) {
    struct rdma_conn *conn;
    LIST_FOREACH (conn, &link->rdma->conns, all)
        if (conn->accepted_here && conn->id == link->handshake->connection_id && !conn->closing)
            break;
    if (conn != NULL && conn->bulk[link->rail] != NULL)
        rlink_fail(conn->bulk[link->rail], -ECONNRESET, "the other side connected it anew");
    if (conn == NULL || conn->closing) {
        handshake_refuse(link->handshake, HANDSHAKE_REFUSE_CONNECTION);
        return;
    }
    conn_join(link, conn);
    conn->bulk[link->rail] = link;
    handshake_accept(link->handshake, conn->id);
}

void rconn_adopt(struct rdma_link *link) {
    if (link->handshake->kind != link->kind)
        handshake_refuse(link->handshake, HANDSHAKE_REFUSE_CONNECTION);
    else if (link->kind == HANDSHAKE_CONTROL)
        conn_adopt_control(link);
    else
        conn_adopt_bulk(link);
}

static void conn_refuse(struct rdma_conn *conn) {
    struct rdma_link *control = conn->control;
    rcontrol_send(conn, RWIRE_REFUSED, NULL, 0);
    if (conn->closing)
        return;
    conn->control = NULL;
    rlink_linger(control);
    rconn_fail(conn, -ECONNREFUSED, "refused by the owner");
}

void rconn_on_ready(struct rdma_conn *conn) {
    struct rdma *rdma = conn->rdma;
    if (!conn->accepted_here || conn->up || rconn_rails_up(conn) == 0) {
        rconn_fail(conn, -EPROTO, "peer sent a bad frame: out of order");
        return;
    }
    conn->up = true; /* the owner may use it from within `accepted` */
    conn->user = rdma->events.accepted(rdma->owner, (struct transport_conn *)conn, conn->hello.data,
                                       conn->hello.bytes);
    conn->announced = conn->user != NULL;
    if (conn->closing)
        return;
    if (conn->announced)
        rcontrol_send(conn, RWIRE_ACCEPTED, NULL, 0);
    else
        conn_refuse(conn);
}

/* ---- links ---- */

static void conn_format_address(const struct sockaddr *address, char out[64]) {
    char host[INET6_ADDRSTRLEN], port[8];
    snprintf(out, 64, "?");
    if (getnameinfo(address, sizeof(struct sockaddr_storage), host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) == 0)
        snprintf(out, 64, address->sa_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

void rconn_link_open(struct rdma_link *link) {
    struct rdma_conn *conn = link->conn;
    if (link->kind == HANDSHAKE_BULK) {
        rrail_open(link);
        return;
    }
    conn_format_address(rdma_get_local_addr(link->id), conn->counters.local);
    conn_format_address(rdma_get_peer_addr(link->id), conn->counters.remote);
    if (conn->accepted_here)
        rrail_send_list(conn);
}

void rconn_link_lost(struct rdma_conn *conn, struct rdma_link *link, int status, const char *why) {
    int r;
    if (conn->closing)
        return;
    if (link != conn->control) {
        rrail_lost(conn, link, status, why);
        return;
    }
    conn->control = NULL;
    if (!conn->accepted_here)
        rroute_failed(conn->rdma, conn->address);
    if (conn->up || conn->accepted_here)
        rconn_fail(conn, status, "%s", why);
    else if (conn->rails_known || status == -EPERM || !conn_dial_next(conn, &r))
        rconn_fail(conn, status, "connect to %s: %s", conn->address, why);
}

/* ---- what others may know ---- */

void rconn_query(const struct rdma_conn *conn, struct transport_info *out) {
    *out = conn->counters;
    out->reads_in_flight = conn->active_count + conn->waiting_count;
    if (conn->control != NULL)
        out->send_queued_bytes = byte_queue_bytes(&conn->control->stream.unsent);
    rrail_query(conn, out);
}
