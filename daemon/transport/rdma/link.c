/* SPDX-License-Identifier: Apache-2.0
 *
 * One QP and its CM id. RESOLVING -> CONNECTING -> HANDSHAKE -> OPEN -> CLOSED; an accepted one
 * starts at HANDSHAKE as a stranger (no conn), joins its connection when it has proved itself, and
 * is timed out before that. LINGER: it has been refused and the refusal is on its way out.
 *
 * CLOSED holds from rlink_close: the QP is destroyed, so it moves no byte any more; the struct is
 * freed at the next turn of the loop, because callers further up still hold it.
 */
#include "transport/rdma/link.h"

#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "transport/proving.h"
#include "transport/rdma/device.h"
#include "transport/rdma/qp.h"
#include "transport/rdma/rails.h"
#include "transport/rdma/stream.h"
#include "transport/rdma/turn.h"

enum {
    /* Of the stream on a control QP: 1 MiB in each direction, the size of the largest message. A
     * sender that is not acknowledged has at most so much on its way. */
    CONTROL_SLOTS = 64,
    CONTROL_SLOT_BYTES = 16 * 1024,
    /* A bulk QP carries the handshake alone as a stream: four messages below 1 KiB. */
    BULK_SLOTS = 4,
    BULK_SLOT_BYTES = 1024,
    /* How long a refusal may take to leave. Its receiver posts its slots before it sends anything,
     * so the SEND completes within a round trip, unless the other side has died. */
    LINGER_MS = 1000,
    /* Of the CM's address and route resolution: both ask the neighbour (ARP) at most. */
    RESOLVE_MS = 2000,
    COMPLETIONS_PER_POLL = 32,
};
/* ---- birth and end ---- */

/* Takes the handshake, also on failure (NULL: it could not be made). */
static struct rdma_link *link_new(struct rdma *rdma, enum handshake_kind kind,
                                  struct handshake *handshake) {
    struct rdma_link *link = handshake != NULL ? calloc(1, sizeof *link) : NULL;
    if (link == NULL) {
        proving_free(handshake);
        return NULL;
    }
    link->rdma = rdma;
    link->kind = kind;
    link->handshake = handshake;
    uv_update_time(rdma->base.loop); /* the owner may have been busy for longer than the deadline */
    link->deadline_ms = uv_now(rdma->base.loop) + rdma->base.options.handshake_timeout_ms;
    TAILQ_INIT(&link->posted);
    TAILQ_INSERT_TAIL(&rdma->links, link, all);
    endpoint_hold(&rdma->base);
    rdma_watch_time(rdma);
    return link;
}

/* The order is the whole point of this function. The QP goes first, then what it used. The
 * registration of its buffers (rstream_stop) must outlive the QP, or the device would still write
 * there. What was posted is handed back (`closed`) when nothing of it can land any more, so that
 * the same bytes may be read over another rail into the same place. The CM is told last:
 * rdma_disconnect() sends a message, and the other side ends its QP then instead of after its
 * retries, 2 s later. The struct stays until the next turn of the loop. */
void rlink_close(struct rdma_link *link) {
    struct rdma *rdma = link->rdma;
    if (link->phase == RLINK_CLOSED)
        return;
    strangers_remove(&rdma->base.strangers, &link->stranger);
    link->phase = RLINK_CLOSED;
    /* The QP first: when ibv_destroy_qp() returns, no READ writes here and none is answered from
     * here. A QP that is only moved to the error state can still have packets in the device. */
    if (link->qp != NULL)
        rdma->lib.ibv_destroy_qp(link->qp);
    if (link->cq != NULL)
        rdma->lib.ibv_destroy_cq(link->cq);
    link->qp = NULL;
    link->cq = NULL;
    rstream_stop(link);
    if (link->conn != NULL)
        rdma->upper->closed(link);
    if (link->id != NULL) {
        rdma->lib.rdma_disconnect(link->id); /* lets the other side know at once */
        rdma->lib.rdma_destroy_id(link->id);
    }
    link->id = NULL;
    proving_free(link->handshake);
    link->handshake = NULL;
    TAILQ_REMOVE(&rdma->links, link, all);
    TAILQ_INSERT_TAIL(&rdma->closed_links, link, all);
    rdma_soon(rdma);
}

/* Not before the next turn of the loop: rlink_fail() may be called from deep inside functions that
 * hold the link, and they look at its phase when they get it back. */
void rlink_free(struct rdma_link *link) {
    struct rdma *rdma = link->rdma;
    TAILQ_REMOVE(&rdma->closed_links, link, all);
    rstream_deinit(&link->stream);
    explicit_bzero(link, sizeof *link); /* the keys of its seals */
    free(link);
    endpoint_release(&rdma->base);
}

static void link_log_stranger(const struct rdma_link *link, const char *why) {
    struct endpoint *endpoint = &link->rdma->base;
    uint64_t now_ms = uv_now(endpoint->loop);
    char host[INET6_ADDRSTRLEN] = "?";
    if (!strangers_may_log(&endpoint->strangers, now_ms))
        return;
    if (link->id != NULL)
        getnameinfo(rdma_get_peer_addr(link->id), sizeof(struct sockaddr_storage), host,
                    sizeof host, NULL, 0, NI_NUMERICHOST);
    strangers_log(&endpoint->strangers, now_ms, "RDMA peer listener", host, why);
}

/* A link that has a connection tells it and leaves the rest to it: for a bulk link that may be a
 * rail less and no more. A stranger's link has nobody to tell, so it is logged here, once a second
 * at most. A link that lingers has been logged when it was refused. */
void rlink_fail(struct rdma_link *link, int status, const char *format, ...) {
    char why[160];
    va_list arguments;
    if (link->phase == RLINK_CLOSED)
        return;
    va_start(arguments, format);
    vsnprintf(why, sizeof why, format, arguments);
    va_end(arguments);
    struct rdma_conn *conn = link->conn;
    if (conn == NULL && link->phase != RLINK_LINGER)
        link_log_stranger(link, why);
    rlink_close(link);
    if (conn != NULL)
        link->rdma->upper->lost(conn, link, status, why);
}

void rlink_flush(struct rdma_link *link) {
    int r = rstream_flush(link);
    if (r < 0)
        rlink_fail(link, r, "cannot post a SEND: %s", strerror(-r));
}

void rlink_linger(struct rdma_link *link) {
    /* It holds a QP and belongs to nobody, so it counts as a stranger (again). */
    if (link->conn != NULL && link->accepted_here)
        strangers_add(&link->rdma->base.strangers, &link->stranger);
    link->conn = NULL;
    link->phase = RLINK_LINGER;
    link->deadline_ms = uv_now(link->rdma->base.loop) + LINGER_MS;
    rdma_watch_time(link->rdma);
    rlink_flush(link);
}

/* The retries of the QP notice a peer that is silent. They do not notice a peer whose device
 * acknowledges and never answers, or a device of ours that has stopped working: hence a clock of
 * our own, for as long as READs are posted. */
static bool link_is_stalled(const struct rdma_link *link, uint64_t now_ms) {
    return link->posted_count > 0 &&
           link->progress_ms + link->rdma->rdma_options.stall_timeout_ms <= now_ms;
}

/* After a pause of our own the device may have gone on: completions are looked at before the clock.
 */
static bool link_came_meanwhile(struct rdma_link *link, uint64_t now_ms) {
    rlink_on_completions(link);
    return link->phase == RLINK_CLOSED || !link_is_stalled(link, now_ms);
}

/* Three deadlines that exclude each other by the phase: a refusal must have left, a handshake must
 * be done, a posted READ must make progress. */
void rlink_check_time(struct rdma_link *link, uint64_t now_ms) {
    if (link->phase == RLINK_LINGER && now_ms >= link->deadline_ms)
        rlink_close(link);
    else if (link->phase < RLINK_OPEN && now_ms >= link->deadline_ms)
        rlink_fail(link, -ETIMEDOUT, "%s timed out after %" PRIu32 " ms",
                   link->phase == RLINK_HANDSHAKE ? "handshake" : "connect",
                   link->rdma->base.options.handshake_timeout_ms);
    else if (link_is_stalled(link, now_ms) && !link_came_meanwhile(link, now_ms))
        rlink_fail(link, -ETIMEDOUT, "no READ completed for %" PRIu64 " ms",
                   now_ms - link->progress_ms);
}

/* ---- the QP ---- */

/* The id is bound to a device: makes the QP, in INIT, with every receive posted. The receives must
 * be there before the other side can send: it may do so as soon as it has our REQ or REP. Which
 * rail the id uses is asked of librdmacm rather than of the address that was dialled, because
 * routing decides it. */
static int link_prepare(struct rdma_link *link) {
    bool control = link->kind == HANDSHAKE_CONTROL;
    uint32_t slots = control ? CONTROL_SLOTS : BULK_SLOTS;
    int rail = rrails_of_id(link->rdma, link->id);
    if (rail < 0)
        return -EADDRNOTAVAIL;
    link->rail = (uint32_t)rail;
    link->device = link->rdma->rails[rail].device;
    link->posted_max = rqp_reads_out_max(link, UINT8_MAX);
    int r = rstream_init(link, slots, control ? CONTROL_SLOT_BYTES : BULK_SLOT_BYTES);
    if (r == 0)
        r = rqp_create(link, slots, control ? 0 : link->posted_max);
    if (r == 0)
        r = rqp_modify(link, IBV_QPS_INIT, 0);
    return r == 0 ? rstream_start(link) : r;
}

/* ---- handshake ---- */

static void link_become_open(struct rdma_link *link) {
    const struct handshake *h = link->handshake;
    struct connection *conn = &link->conn->base;
    proving_make_seals(h, &link->rdma->base.options, &link->out, &link->in);
    if (!conn->accepted_here)
        conn->id = h->connection_id;
    if (h->kind == HANDSHAKE_CONTROL)
        conn->hello = h->theirs;
    proving_free(link->handshake);
    link->handshake = NULL;
    link->phase = RLINK_OPEN;
    link->rdma->upper->open(link);
}

/* Hands the handshake what has come in, up to the end of the message that it waits for; false:
 * there is nothing. What is behind it stays in the stream: it may be a frame. */
static bool link_receive_handshake(struct rdma_link *link) {
    struct byte_queue *received = &link->stream.received;
    uint8_t *into;
    size_t want = handshake_want(link->handshake, &into), have = byte_queue_bytes(received);
    size_t bytes = want < have ? want : have;
    if (bytes == 0)
        return false;
    memcpy(into, received->data + received->begin, bytes);
    byte_queue_consume(received, bytes);
    handshake_received(link->handshake, bytes);
    return true;
}

static void link_send_handshake(struct rdma_link *link) {
    const uint8_t *out;
    size_t bytes = handshake_output(link->handshake, &out);
    struct iovec part = {(void *)out, bytes};
    if (rstream_write(link, &part, 1) < 0) {
        rlink_fail(link, -ENOMEM, "out of memory for the handshake");
        return;
    }
    handshake_sent(link->handshake, bytes);
    rlink_flush(link);
}

/* A refusal of ours needs the QP until it has left, so a stranger's link lingers. */
static void link_end_handshake(struct rdma_link *link) {
    char why[sizeof link->handshake->why];
    memcpy(why, link->handshake->why, sizeof why); /* the handshake ends with the link */
    if (link->conn != NULL && !link->accepted_here) {
        rlink_fail(link, -EPERM, "%s", why);
        return;
    }
    link_log_stranger(link, why);
    rlink_linger(link);
}

/* The other side has proved itself, so it may read. A home does this before its WELCOME leaves: the
 * reader may post a READ as soon as it has that. False: the link has failed. */
static bool link_let_read(struct rdma_link *link) {
    int r = rqp_allow_reads(link);
    if (r < 0)
        rlink_fail(link, r, "cannot allow reads: %s", strerror(-r));
    return r == 0;
}

/* Runs the handshake as far as what has come in allows. */
static void link_prove(struct rdma_link *link) {
    bool goes_on = true;
    while (goes_on && link->phase == RLINK_HANDSHAKE) {
        switch (proving_next(link->handshake)) {
        case PROVING_ADOPT:
            if (link_let_read(link))
                link->rdma->upper->proven(link);
            break;
        case PROVING_SEND:
            link_send_handshake(link);
            break;
        case PROVING_END:
            link_end_handshake(link);
            break;
        case PROVING_OPEN:
            if (link->accepted_here || link_let_read(link))
                link_become_open(link);
            break;
        case PROVING_RECEIVE:
            goes_on = link_receive_handshake(link);
            break;
        }
    }
}

/* ---- accepting ---- */

/* The QP goes to RTS before the REP leaves. The specification would have the passive side wait for
 * the RTU; but an answerer sends nothing before it has received HELLO, which proves as well as an
 * RTU that the other side is ready. */
static int link_accept_request(struct rdma_link *link, const struct rdma_conn_param *theirs,
                               const struct rwire_private *data) {
    uint8_t bytes[RWIRE_PRIVATE_BYTES];
    struct rdma_conn_param param;
    int r = link_prepare(link);
    if (r == 0)
        r = rqp_connect(link, theirs, data);
    if (r < 0)
        return r;
    link->phase = RLINK_HANDSHAKE;
    rqp_fill_param(link, bytes, theirs, &param);
    return link->rdma->lib.rdma_accept(link->id, &param) < 0 ? -errno : 0;
}

/* Nothing has been proven yet, so as little as possible is spent: the sizes in the private data are
 * checked, the oldest stranger makes room if there are too many, and a QP is made. An id that is
 * not accepted must be destroyed by us; rdma_reject() alone would leave it behind. */
void rlink_on_request(struct rdma *rdma, const struct rdma_cm_event *event) {
    struct rwire_private data;
    const char *bad = rwire_private_decode(event->param.conn.private_data,
                                           event->param.conn.private_data_len, &data);
    struct rdma_link *link = NULL;
    if (bad == NULL && !rdma->base.destroying)
        link = link_new(rdma, (enum handshake_kind)data.kind,
                        proving_new_answerer(&rdma->base.options));
    if (link == NULL) {
        rdma->lib.rdma_reject(event->id, NULL, 0);
        rdma->lib.rdma_destroy_id(event->id);
        return;
    }
    link->accepted_here = true;
    link->id = event->id;
    link->id->context = link;
    struct stranger *oldest = strangers_add(&rdma->base.strangers, &link->stranger);
    if (oldest != NULL)
        rlink_fail(container_of(oldest, struct rdma_link, stranger), -EMFILE, STRANGERS_TOO_MANY);
    int r = link_accept_request(link, &event->param.conn, &data);
    if (r < 0) {
        rdma->lib.rdma_reject(link->id, NULL, 0);
        rlink_fail(link, r, "cannot accept: %s", strerror(-r));
    }
}

/* ---- dialling ---- */

/* The source address, when a rail is given, picks the device: with two rails in one subnet the
 * routing table would send both QPs over the first. Its port is set to 0, for the port of the
 * rail's address is the one that its listener has. */
int rlink_dial(struct rdma_conn *conn, enum handshake_kind kind, const struct rdma_rail *from,
               const struct sockaddr_storage *to, struct rdma_link **out) {
    struct rdma *rdma = conn->rdma;
    struct sockaddr_storage source = {0};
    if (from != NULL) {
        source = from->address;
        ((struct sockaddr_in *)&source)->sin_port = 0; /* at the same place in both families */
    }
    struct rdma_link *link =
        link_new(rdma, kind, proving_new_asker(&rdma->base.options, kind, conn->base.id));
    if (link == NULL)
        return -ENOMEM;
    if (rdma->lib.rdma_create_id(rdma->channel, &link->id, link, RDMA_PS_TCP) < 0) {
        int error = errno;
        link->id = NULL;
        rlink_close(link);
        return -error;
    }
    if (rdma->lib.rdma_resolve_addr(link->id, from != NULL ? (struct sockaddr *)&source : NULL,
                                    (struct sockaddr *)to, RESOLVE_MS) < 0) {
        int error = errno;
        rlink_close(link);
        return -error;
    }
    link->conn = conn;
    *out = link;
    return 0;
}

/* In INIT and with its receives posted, the QP is announced by the REQ (rdma_connect). It becomes
 * ready when the answer has come, because only the REP says how to reach the other QP. */
static int link_request(struct rdma_link *link) {
    uint8_t bytes[RWIRE_PRIVATE_BYTES];
    struct rdma_conn_param param;
    int r = link_prepare(link);
    if (r < 0)
        return r;
    link->phase = RLINK_CONNECTING;
    rqp_fill_param(link, bytes, NULL, &param);
    return link->rdma->lib.rdma_connect(link->id, &param) < 0 ? -errno : 0;
}

/* We bring the QP to RTS ourselves, so librdmacm does not know that we are ready: rdma_establish()
 * sends the RTU. */
static void link_on_response(struct rdma_link *link, const struct rdma_conn_param *theirs) {
    struct rwire_private data;
    const char *bad = rwire_private_decode(theirs->private_data, theirs->private_data_len, &data);
    if (bad != NULL) {
        rlink_fail(link, -EPROTO, "peer sent a bad answer: %s", bad);
        return;
    }
    int r = rqp_connect(link, theirs, &data);
    if (r == 0 && link->rdma->lib.rdma_establish(link->id) < 0)
        r = -errno;
    if (r < 0) {
        rlink_fail(link, r, "cannot connect the QP: %s", strerror(-r));
        return;
    }
    link->phase = RLINK_HANDSHAKE;
    link_prove(link);
}

/* ---- events ---- */

static void link_on_rejected(struct rdma_link *link, int status) {
    enum { INVALID_SERVICE_ID = 8 }; /* IB specification 12.6.7.2: nobody listens */
    if (status == INVALID_SERVICE_ID)
        rlink_fail(link, -ECONNREFUSED, "connection refused");
    else
        rlink_fail(link, -ECONNREFUSED, "connection rejected, reason %d", status);
}

/* -EADDRNOTAVAIL is the common case of a node whose route to the peer leads over an interface
 * without RDMA. It has a sentence of its own, because the remedy is another address and not another
 * setting. */
static void link_on_resolved(struct rdma_link *link) {
    int r = link_request(link);
    if (r == -EADDRNOTAVAIL)
        rlink_fail(link, r, "no RDMA rail of this node leads there");
    else if (r < 0)
        rlink_fail(link, r, "cannot set up a QP: %s", strerror(-r));
}

/* Events come in the order ADDR_RESOLVED, ROUTE_RESOLVED, CONNECT_RESPONSE for a link that dials;
 * an accepting one gets ESTABLISHED, which says nothing that HELLO does not say better.
 * DISCONNECTED can overtake the completions of what the other side sent last, so those are looked
 * at first. TIMEWAIT_EXIT tells that the QP number could be used again, and we never do that. */
void rlink_on_cm_event(struct rdma_link *link, const struct rdma_cm_event *event) {
    switch (event->event) {
    case RDMA_CM_EVENT_ADDR_RESOLVED:
        if (link->rdma->lib.rdma_resolve_route(link->id, RESOLVE_MS) < 0)
            rlink_fail(link, -errno, "cannot resolve the route: %s", strerror(errno));
        break;
    case RDMA_CM_EVENT_ROUTE_RESOLVED:
        link_on_resolved(link);
        break;
    case RDMA_CM_EVENT_CONNECT_RESPONSE:
        link_on_response(link, &event->param.conn);
        break;
    case RDMA_CM_EVENT_REJECTED:
        link_on_rejected(link, event->status);
        break;
    case RDMA_CM_EVENT_ADDR_ERROR:
    case RDMA_CM_EVENT_ROUTE_ERROR:
        rlink_fail(link, -EHOSTUNREACH, "no RDMA route there");
        break;
    case RDMA_CM_EVENT_CONNECT_ERROR:
    case RDMA_CM_EVENT_UNREACHABLE:
        rlink_fail(link, -EHOSTUNREACH, "no answer from the RDMA side of that address");
        break;
    case RDMA_CM_EVENT_DISCONNECTED:
        rlink_on_completions(link); /* what it said before it went, a refusal say */
        rlink_fail(link, -ECONNRESET, "the other side closed the connection");
        break;
    case RDMA_CM_EVENT_DEVICE_REMOVAL:
        if (link->device != NULL)
            rdevice_lost(link->device, "removed");
        else
            rlink_fail(link, -ENODEV, "the RDMA device was removed");
        break;
    default: /* ESTABLISHED, TIMEWAIT_EXIT: nothing to do */
        break;
    }
}

/* ---- completions ---- */

/* The first failed completion tells the cause; those behind it say "flushed" and are not looked at,
 * because the link is closed by then. REM_ACCESS_ERR means that the home has deregistered the
 * memory or taken the right away: that is not a fault of the rail, and the connection ends
 * (conn_rails_out). */
static void link_on_failure(struct rdma_link *link, const struct ibv_wc *wc) {
    int status = wc->status == IBV_WC_RETRY_EXC_ERR    ? -ETIMEDOUT
                 : wc->status == IBV_WC_REM_ACCESS_ERR ? -EACCES
                                                       : -EIO;
    if (status == -ETIMEDOUT)
        rlink_fail(link, status, "no answer: %d retries exceeded", RDMA_RETRIES);
    else if (status == -EACCES)
        rlink_fail(link, status, "the other side no longer lets us read its memory");
    else
        rlink_fail(link, status, "%s", link->rdma->lib.ibv_wc_status_str(wc->status));
}

static void link_on_receive(struct rdma_link *link, const struct ibv_wc *wc) {
    int r = rstream_on_receive(link, wc);
    if (r == -EPROTO)
        rlink_fail(link, r, "peer sent a bad message: no credits in it");
    else if (r == -ENOMEM)
        rlink_fail(link, r, "out of memory for %u received bytes", wc->byte_len);
    else if (r < 0)
        rlink_fail(link, r, "cannot post a RECV: %s", strerror(-r));
}

/* A failed completion has no opcode that could be trusted, so its status comes first. */
static void link_on_completion(struct rdma_link *link, const struct ibv_wc *wc) {
    if (wc->status != IBV_WC_SUCCESS)
        link_on_failure(link, wc);
    else if (wc->opcode & IBV_WC_RECV)
        link_on_receive(link, wc);
    else if (wc->opcode == IBV_WC_SEND)
        rstream_on_sent(link);
    else
        link->rdma->upper->landed(link, wc->wr_id);
}

/* What has come in is looked at, what can go out goes: the receives may have brought credits, so
 * SENDs that waited for them leave now. */
static void link_run_stream(struct rdma_link *link) {
    if (link->phase == RLINK_HANDSHAKE)
        link_prove(link);
    else if (link->phase == RLINK_OPEN && link->kind == HANDSHAKE_CONTROL)
        link->rdma->upper->received(link);
    if (link->phase != RLINK_CLOSED)
        rlink_flush(link);
    if (link->phase == RLINK_LINGER && link->stream.sends_out == 0 &&
        byte_queue_bytes(&link->stream.unsent) == 0)
        rlink_close(link);
}

/* Armed before it is drained: a completion that comes between the last ibv_poll_cq() and a later
 * arming would raise no event, and the link would sleep on it. The other order costs an event now
 * and then that finds nothing. After each batch the stream is run, so that a long row of
 * completions does not keep credits from a peer that waits for them. */
void rlink_on_completions(struct rdma_link *link) {
    struct ibv_wc done[COMPLETIONS_PER_POLL];
    int count;
    if (link->cq == NULL || ibv_req_notify_cq(link->cq, 0) != 0)
        return;
    do {
        count = ibv_poll_cq(link->cq, COMPLETIONS_PER_POLL, done);
        for (int i = 0; i < count && link->phase != RLINK_CLOSED; i++)
            link_on_completion(link, &done[i]);
        if (link->phase != RLINK_CLOSED)
            link_run_stream(link);
    } while (count > 0 && link->phase != RLINK_CLOSED);
    if (link->phase != RLINK_CLOSED && link->conn != NULL && link->kind == HANDSHAKE_BULK)
        link->rdma->upper->has_room(link);
}
