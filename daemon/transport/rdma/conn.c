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
 * The end: connection.h says how it goes. What "everything at once" means here is that each QP is
 * destroyed (rconn_stop). From the loop (rconn_end), reads are reported, then `closed`, and the
 * connection is freed.
 */
#include "transport/rdma/conn.h"

#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "transport/address.h"
#include "transport/rdma/conn_rails.h"
#include "transport/rdma/control.h"
#include "transport/rdma/link.h"
#include "transport/rdma/reader.h"
#include "transport/rdma/routes.h"
#include "transport/rdma/turn.h"

static struct rdma_conn *conn_new(struct rdma *rdma, bool accepted_here) {
    struct rdma_conn *conn = calloc(1, sizeof *conn);
    if (conn == NULL)
        return NULL;
    conn->rdma = rdma;
    uv_update_time(rdma->base.loop);
    /* Twice the time of one handshake: there are two in a row, on the control QP and on the bulk
     * ones, which run side by side. */
    conn->deadline_ms =
        uv_now(rdma->base.loop) + 2 * (uint64_t)rdma->base.options.handshake_timeout_ms;
    read_queue_init(&conn->reads, rdma->base.options.reads_per_connection);
    TAILQ_INIT(&conn->again);
    TAILQ_INIT(&conn->openings);
    connection_init(&conn->base, &rdma->base, accepted_here);
    rdma_watch_time(rdma);
    return conn;
}

static void conn_free(struct rdma_conn *conn) {
    struct endpoint *endpoint = conn->base.endpoint;
    connection_deinit(&conn->base);
    free(conn);
    endpoint_release(endpoint);
}

/* ---- the end ---- */

/* Destroying the QPs is what makes the end certain: after it, this node neither reads nor is read
 * over this connection. Links are freed from the loop, and so is the connection: rdma_soon(). */
void rconn_stop(struct connection *base) {
    struct rdma_conn *conn = container_of(base, struct rdma_conn, base);
    if (conn->control != NULL)
        rlink_close(conn->control);
    for (uint32_t i = 0; i < RAILS_MAX; i++)
        if (conn->bulk[i] != NULL)
            rlink_close(conn->bulk[i]);
    lookup_cancel(&conn->lookup);
    rdma_soon(conn->rdma);
}

void rconn_end(struct rdma_conn *conn) {
    if (lookup_is_under_way(&conn->lookup))
        return; /* libuv still holds it; conn_on_looked_up comes back here */
    rcontrol_end(conn);
    rreader_end(conn);
    connection_raise_closed(&conn->base);
    conn_free(conn);
}

/* Each link has a deadline of its own. This one is for a connection whose links stand and whose
 * other side still says nothing: a home that never sends RAILS, an asker that never sends READY. */
void rconn_check_time(struct rdma_conn *conn, uint64_t now_ms) {
    rrail_check_time(conn, now_ms);
    if (!conn->base.up && !conn->base.closing && now_ms >= conn->deadline_ms)
        connection_fail(&conn->base, -ETIMEDOUT, "connect to %s: not up after %" PRIu32 " ms",
                        conn->address, 2 * conn->rdma->base.options.handshake_timeout_ms);
}

/* ---- dialling ---- */

/* Dials the next target that can be dialled; false: there is none. Addresses for which not even the
 * resolution can be begun are passed over. */
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

/* Only the first address of a name is dialled: the other ways to the node are the rails that it has
 * told (routes.c), and those are known better than what a name server lists. */
static void conn_dial(struct rdma_conn *conn, const struct addrinfo *addresses) {
    struct sockaddr_storage resolved = {0};
    int r;
    memcpy(&resolved, addresses->ai_addr, addresses->ai_addrlen);
    conn->target_count = rroute_targets(conn->rdma, conn->address, &resolved, conn->targets);
    if (!conn_dial_next(conn, &r))
        connection_fail(&conn->base, r, "connect to %s: %s", conn->address, strerror(-r));
}

static void conn_on_looked_up(struct lookup *lookup, int status, struct addrinfo *addresses) {
    struct rdma_conn *conn = container_of(lookup, struct rdma_conn, lookup);
    if (status < 0)
        connection_fail(&conn->base, -EHOSTUNREACH, "cannot resolve %s: %s", conn->address,
                        uv_strerror(status));
    else if (!conn->base.closing)
        conn_dial(conn, addresses);
    uv_freeaddrinfo(addresses);
    rdma_soon(conn->rdma);
}

/* The connection is announced from the start, because the owner holds it from the return on. So a
 * failure that happens before that, with an address in numbers, still comes as an event:
 * rconn_stop() leaves it to the loop. */
int rconn_dial(struct rdma *rdma, const char *address, void *user, struct rdma_conn **out) {
    struct rdma_conn *conn = conn_new(rdma, false);
    struct addrinfo *found;
    if (conn == NULL)
        return -ENOMEM;
    connection_belongs_to(&conn->base, user);
    snprintf(conn->address, sizeof conn->address, "%s", address);
    int r = lookup_start(&conn->lookup, rdma->base.loop, address, conn_on_looked_up, &found);
    if (r < 0) {
        conn_free(conn);
        return r;
    }
    if (found != NULL) {
        conn_dial(conn, found);
        freeaddrinfo(found);
    }
    *out = conn;
    return 0;
}

/* Nothing is said twice: the owner's first message may come before ACCEPTED, and then ACCEPTED
 * finds the connection up. */
void rconn_on_accepted(struct rdma_conn *conn) {
    if (conn->base.up)
        return;
    if (conn->base.accepted_here || !conn->ready_sent) {
        connection_fail_frame(&conn->base, "out of order");
        return;
    }
    conn->base.up = true;
    rrail_plan_mending(conn);
    connection_raise_up(&conn->base);
}

/* ---- accepting ---- */

static void conn_join(struct rdma_link *link, struct rdma_conn *conn) {
    strangers_remove(&link->rdma->base.strangers, &link->stranger);
    link->conn = conn;
}

static void conn_adopt_control(struct rdma_link *link) {
    struct rdma *rdma = link->rdma;
    struct rdma_conn *conn = endpoint_has_room(&rdma->base) ? conn_new(rdma, true) : NULL;
    if (conn == NULL) {
        handshake_refuse(link->handshake, HANDSHAKE_REFUSE_LIMIT);
        return;
    }
    conn_join(link, conn);
    conn->control = link;
    connection_give_id(&conn->base);
    handshake_accept(link->handshake, conn->base.id);
}

/* A bulk link on a rail that has one already takes its place: the asker dials a rail again only
 * when it has seen the old QP fail, and we may not have noticed yet. Ending the old one can end the
 * connection (it was the last), so that is looked at afterwards. */
static void conn_adopt_bulk(struct rdma_link *link) {
    struct connection *base = endpoint_find(&link->rdma->base, link->handshake->connection_id);
    struct rdma_conn *conn = base != NULL ? container_of(base, struct rdma_conn, base) : NULL;
    if (conn != NULL && conn->bulk[link->rail] != NULL)
        rlink_fail(conn->bulk[link->rail], -ECONNRESET, "the other side connected it anew");
    if (conn == NULL || conn->base.closing) {
        handshake_refuse(link->handshake, HANDSHAKE_REFUSE_CONNECTION);
        return;
    }
    conn_join(link, conn);
    conn->bulk[link->rail] = link;
    handshake_accept(link->handshake, conn->base.id);
}

/* The kind of a link is said twice, in the private data of the REQ (which decides on slots and
 * READs) and in the handshake (which is proven). They must agree. */
void rconn_adopt(struct rdma_link *link) {
    if (link->handshake->kind != link->kind)
        handshake_refuse(link->handshake, HANDSHAKE_REFUSE_CONNECTION);
    else if (link->kind == HANDSHAKE_CONTROL)
        conn_adopt_control(link);
    else
        conn_adopt_bulk(link);
}

/* The refusal has to leave over the control QP, which would be destroyed with the connection. So
 * the link is taken out of the connection first and lingers by itself. */
static void conn_refuse(struct rdma_conn *conn) {
    struct rdma_link *control = conn->control;
    rcontrol_send(conn, RWIRE_REFUSED, NULL, 0);
    if (conn->base.closing)
        return;
    conn->control = NULL;
    rlink_linger(control);
    connection_fail(&conn->base, -ECONNREFUSED, "refused by the owner");
}

/* At least one bulk link must stand: an asker that says READY without one would get a connection
 * over which it can read nothing, and its reads would wait for ever. */
void rconn_on_ready(struct rdma_conn *conn) {
    if (!conn->base.accepted_here || conn->base.up || rconn_rails_up(conn) == 0) {
        connection_fail_frame(&conn->base, "out of order");
        return;
    }
    bool wanted = connection_offer(&conn->base);
    if (conn->base.closing)
        return;
    if (wanted)
        rcontrol_send(conn, RWIRE_ACCEPTED, NULL, 0);
    else
        conn_refuse(conn);
}

/* ---- links ---- */

/* The addresses are those of the control QP; those of the rails are listed by rrail_query(). */
void rconn_link_open(struct rdma_link *link) {
    struct rdma_conn *conn = link->conn;
    if (link->kind == HANDSHAKE_BULK) {
        rrail_open(link);
        return;
    }
    address_format(rdma_get_local_addr(link->id), conn->base.counters.local);
    address_format(rdma_get_peer_addr(link->id), conn->base.counters.remote);
    if (conn->base.accepted_here)
        rrail_send_list(conn);
}

/* A bulk link is a rail less. The control link is the end, unless nothing has been built on it yet:
 * then the node is dialled at the next of its addresses. -EPERM is not a matter of the address
 * (wrong secret, limit), so it is not tried elsewhere. */
void rconn_link_lost(struct rdma_conn *conn, struct rdma_link *link, int status, const char *why) {
    int r;
    if (conn->base.closing)
        return;
    if (link != conn->control) {
        rrail_lost(conn, link, status, why);
        return;
    }
    conn->control = NULL;
    if (!conn->base.accepted_here)
        rroute_failed(conn->rdma, conn->address);
    if (conn->base.up || conn->base.accepted_here)
        connection_fail(&conn->base, status, "%s", why);
    else if (conn->rails_known || status == -EPERM || !conn_dial_next(conn, &r))
        connection_fail(&conn->base, status, "connect to %s: %s", conn->address, why);
}

/* ---- what others may know ---- */

void rconn_query(const struct rdma_conn *conn, struct transport_info *out) {
    *out = conn->base.counters;
    out->reads_in_flight = read_queue_count(&conn->reads);
    if (conn->control != NULL)
        out->send_queued_bytes = byte_queue_bytes(&conn->control->stream.unsent);
    rrail_query(conn, out);
}
