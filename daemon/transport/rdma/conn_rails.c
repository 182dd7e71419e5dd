/* SPDX-License-Identifier: Apache-2.0
 *
 * The rails of one connection: bulk[i] is the QP on our rail i. The asker dials them: all pairs at
 * the start, and from then on, with back-off, those that are missing, so that a rail that comes
 * back is used again. The home tells where it accepts them (RAILS), again when a rail of its
 * appears.
 *
 * The keys of their memory on a rail are forgotten with the QP: the device behind it may have been
 * exchanged. Both sides tell theirs again when a QP joins a connection that is up.
 */
#include "transport/rdma/conn_rails.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "ops/log.h"
#include "transport/rdma/control.h"
#include "transport/rdma/link.h"
#include "transport/rdma/pairing.h"
#include "transport/rdma/reader.h"
#include "transport/rdma/routes.h"
#include "transport/rdma/turn.h"

/* A rail that was lost is dialled again after 1 s, then after 2, 4, ... 16 s. Each attempt costs
 * both nodes a QP and a handshake, and a cable that is out stays out for minutes. */
enum { MEND_FIRST_MS = 1000, MEND_MAX_MS = 16000 };

/* Up means that its handshake is done: a QP that is still being dialled carries no reads. */
uint32_t rconn_rails_up(const struct rdma_conn *conn) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < RAILS_MAX; i++)
        count += conn->bulk[i] != NULL && conn->bulk[i]->phase == RLINK_OPEN;
    return count;
}

/* ---- dialling ---- */

/* Which rails of theirs are to be dialled from which of ours. Rails that are in use already are
 * left out on both sides, so that what is left is paired among itself and a pair that stands is
 * never taken apart. */
static uint32_t conn_rails_find_missing(const struct rdma_conn *conn, int pairs_out[RAILS_MAX]) {
    struct sockaddr_storage ours[RAILS_MAX], theirs[RAILS_MAX];
    memcpy(theirs, conn->their_rails, sizeof theirs);
    for (uint32_t i = 0; i < RAILS_MAX; i++) {
        bool is_free = conn->rdma->rails[i].device != NULL && conn->bulk[i] == NULL;
        ours[i] = conn->rdma->rails[i].address;
        if (!is_free)
            ours[i].ss_family = AF_UNSPEC;
        if (conn->bulk[i] != NULL)
            theirs[conn->bulk[i]->their_rail].ss_family = AF_UNSPEC;
    }
    return rdma_pair_rails(ours, RAILS_MAX, theirs, RAILS_MAX, pairs_out);
}

/* Kept in words for featurectl, and once more for the sentence that the connection ends with if
 * this was its last rail. */
static void conn_rails_note_failure(struct rdma_conn *conn, uint32_t rail, const char *why) {
    struct transport_rail_info *info = &conn->rail_info[rail];
    info->errors++;
    snprintf(info->last_failure, sizeof info->last_failure, "%s", why);
    snprintf(conn->last_rail_failure, sizeof conn->last_rail_failure, "%.45s: %.80s",
             conn->rdma->rails[rail].text, why);
}

/* A dial can end the whole connection (its link fails at once, and it was the last hope), hence the
 * look at `closing` in the loop. */
static void conn_rails_dial_missing(struct rdma_conn *conn) {
    int pairs[RAILS_MAX];
    conn_rails_find_missing(conn, pairs);
    for (uint32_t i = 0; i < RAILS_MAX && !conn->base.closing; i++) {
        if (pairs[i] < 0)
            continue;
        int r = rlink_dial(conn, HANDSHAKE_BULK, &conn->rdma->rails[i],
                           &conn->their_rails[pairs[i]], &conn->bulk[i]);
        if (r < 0)
            conn_rails_note_failure(conn, i, strerror(-r));
        else
            conn->bulk[i]->their_rail = (uint32_t)pairs[i];
    }
}

/* Every bulk link stands or has failed: says so to the home. Waiting for all of them, not for the
 * first, lets the first read use all rails; a rail that hangs costs its handshake's timeout once.
 */
static void conn_rails_check_ready(struct rdma_conn *conn) {
    if (conn->base.closing || !conn->rails_known || conn->ready_sent)
        return;
    for (uint32_t i = 0; i < RAILS_MAX; i++)
        if (conn->bulk[i] != NULL && conn->bulk[i]->phase < RLINK_OPEN)
            return;
    if (rconn_rails_up(conn) == 0) {
        connection_fail(&conn->base, -EHOSTUNREACH, "connect to %s: no rail leads there: %s",
                        conn->address, conn->last_rail_failure);
        return;
    }
    conn->ready_sent = true;
    rcontrol_send(conn, RWIRE_READY, NULL, 0);
}

/* ---- mending ---- */

static void conn_rails_mend_after(struct rdma_conn *conn, uint64_t wait_ms) {
    conn->mend_wait_ms = wait_ms;
    conn->mend_ms = uv_now(conn->rdma->base.loop) + wait_ms;
    rdma_watch_time(conn->rdma);
}

/* The asker mends, not the home: it has dialled before, so the route and the firewall allow that
 * direction. */
void rrail_plan_mending(struct rdma_conn *conn) {
    int pairs[RAILS_MAX];
    if (conn->base.up && !conn->base.accepted_here && !conn->base.closing &&
        conn_rails_find_missing(conn, pairs) > 0)
        conn_rails_mend_after(conn, MEND_FIRST_MS);
}

/* The pause doubles only while rails are missing. When none is, mend_ms stays 0, and the next loss
 * begins with the short pause again. */
void rrail_check_time(struct rdma_conn *conn, uint64_t now_ms) {
    if (conn->mend_ms == 0 || now_ms < conn->mend_ms || conn->base.closing)
        return;
    uint64_t longer_ms = 2 * conn->mend_wait_ms;
    int pairs[RAILS_MAX];
    conn->mend_ms = 0;
    conn_rails_dial_missing(conn);
    for (uint32_t i = 0; i < RAILS_MAX && conn->mend_ms == 0; i++)
        if (conn->bulk[i] != NULL && conn->bulk[i]->phase < RLINK_OPEN)
            conn_rails_mend_after(conn, longer_ms < MEND_MAX_MS ? longer_ms : MEND_MAX_MS);
    if (conn->mend_ms == 0 && conn_rails_find_missing(conn, pairs) > 0)
        conn_rails_mend_after(conn, longer_ms < MEND_MAX_MS ? longer_ms : MEND_MAX_MS);
}

/* ---- the lists of rails ---- */

/* The first list starts the bulk links. A later one tells of a rail that has appeared at the home.
 */
void rconn_on_rails(struct rdma_conn *conn, const uint8_t *body, size_t bytes) {
    if (conn->base.accepted_here || rwire_rails_decode(body, bytes, conn->their_rails) < 0) {
        connection_fail_frame(&conn->base, "list of rails");
        return;
    }
    rroute_learn(conn->rdma, conn->address, conn->their_rails);
    if (conn->rails_known) {
        rrail_plan_mending(conn);
        return;
    }
    snprintf(conn->last_rail_failure, sizeof conn->last_rail_failure,
             "no rails of the two nodes fit together");
    conn_rails_dial_missing(conn);
    conn->rails_known = true;
    conn_rails_check_ready(conn);
}

/* Every rail of ours that listens, at its place in the array: its place is its number, by which
 * SEGMENT frames name its rkey. Rails that do not listen leave a hole. */
void rrail_send_list(struct rdma_conn *conn) {
    uint8_t body[RAILS_MAX * RWIRE_RAIL_BYTES];
    struct sockaddr_storage none = {.ss_family = AF_UNSPEC};
    for (uint32_t i = 0; i < RAILS_MAX; i++) {
        const struct rdma_rail *rail = &conn->rdma->rails[i];
        rwire_rail_encode(rail->listener != NULL ? &rail->address : &none,
                          body + (size_t)i * RWIRE_RAIL_BYTES);
    }
    struct iovec part = {body, sizeof body};
    rcontrol_send(conn, RWIRE_RAILS, &part, 1);
}

/* Homes tell their askers, askers look whether the new rail of ours has a partner over there.
 * Connections whose control link is still in its handshake will send or get the list anyway. */
void rrail_appeared(struct rdma *rdma) {
    struct rdma_conn *conn;
    for (conn = rdma_next_conn(rdma, NULL); conn != NULL; conn = rdma_next_conn(rdma, conn)) {
        bool told =
            !conn->base.closing && conn->control != NULL && conn->control->phase == RLINK_OPEN;
        if (told && conn->base.accepted_here)
            rrail_send_list(conn);
        else if (told)
            rrail_plan_mending(conn);
    }
}

/* ---- links come and go ---- */

/* On a connection that is up, the keys of our memory on this rail must be told again: the other
 * side forgot them with the old QP, and the device behind the rail may be another one now. */
void rrail_open(struct rdma_link *link) {
    struct rdma_conn *conn = link->conn;
    struct transport_rail_info *info = &conn->rail_info[link->rail];
    const struct rdma_rail *rail = &link->rdma->rails[link->rail];
    snprintf(info->name, sizeof info->name, "%.24s/%u", link->device->name, rail->port);
    snprintf(info->local, sizeof info->local, "%s", rail->text);
    info->mtu_bytes = rail->mtu_bytes;
    link->opened = true;
    if (!conn->base.up) {
        conn_rails_check_ready(conn);
        return;
    }
    log_info("rail %s to %s is used again", info->name, conn->base.counters.remote);
    rcontrol_announce_all(conn);
    rdma_soon(link->rdma);
}

/* -EACCES is not a fault of the rail: the home no longer lets us read that memory, and reading it
 * over another rail would fail there in the same way, rail after rail. */
static void conn_rails_out(struct rdma_conn *conn, uint32_t rail, int status, const char *why) {
    uint32_t left = rconn_rails_up(conn);
    if (left == 0 || status == -EACCES) {
        connection_fail(&conn->base, status, "%s", why);
        return;
    }
    log_warning("rail %s to %s is out: %s; %" PRIu32 " left, reads go on there",
                conn->rail_info[rail].name, conn->base.counters.remote, why, left);
    rdma_soon(conn->rdma);
}

/* Called for a link that is closed already, so nothing of it lands any more. A QP that was never
 * open (`opened`) is an attempt that failed and says nothing about reads that were under way. */
void rrail_lost(struct rdma_conn *conn, struct rdma_link *link, int status, const char *why) {
    uint32_t rail = 0;
    while (rail < RAILS_MAX && conn->bulk[rail] != link)
        rail++;
    if (rail == RAILS_MAX)
        return;
    conn->bulk[rail] = NULL;
    rreader_forget_keys(conn, link->their_rail);
    conn_rails_note_failure(conn, rail, why);
    if (!conn->base.up) {
        conn_rails_check_ready(conn);
        return;
    }
    if (link->opened)
        conn_rails_out(conn, rail, status, why);
    if (conn->mend_ms == 0)
        rrail_plan_mending(conn);
}

/* ---- what others may know ---- */

/* A rail that has never stood has no name and is not listed; one that stood and is lost is, as
 * down, with its reason. */
void rrail_query(const struct rdma_conn *conn, struct transport_info *info) {
    snprintf(info->detail, sizeof info->detail, "%" PRIu32 " rails", rconn_rails_up(conn));
    for (uint32_t i = 0; i < RAILS_MAX; i++) {
        const struct rdma_link *link = conn->bulk[i];
        struct transport_rail_info *rail = &info->rails[info->rail_count];
        if (conn->rail_info[i].name[0] == '\0')
            continue;
        *rail = conn->rail_info[i];
        rail->up = link != NULL && link->phase == RLINK_OPEN;
        info->rail_count++;
    }
}
