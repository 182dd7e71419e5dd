/* SPDX-License-Identifier: Apache-2.0
 *
 * One QP and its CM id. RESOLVING -> CONNECTING -> HANDSHAKE -> OPEN -> CLOSED; an accepted one
 * starts at HANDSHAKE as a stranger (no conn), joins its connection when it has proved itself, and
 * is timed out before that. LINGER: it has been refused and the refusal is on its way out.
 *
 * The QP is made by hand rather than by rdma_create_qp: so it lives on our own context, and it
 * comes up with no remote access at all. What librdmacm would have set (REMOTE_READ and
 * REMOTE_WRITE) would let a stranger with a guessed rkey read before his handshake; REMOTE_READ is
 * added when the handshake is proven, REMOTE_WRITE never.
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
/* Of a QP that gets no acknowledgement. The device waits 4.096 us * 2^16 = 0.27 s before each of 6
 * repetitions, which is about 2 s until a silent peer is noticed; a link that is down for less is
 * survived. 7 repetitions would mean "for ever" to some devices (rxe takes it so), and a dead peer
 * would hold its reader for ever. RNR (the receiver has no slot) does not happen, because a SEND
 * needs a credit; its retries are finite all the same, for a peer that breaks the rule. */
enum { ACK_TIMEOUT = 16, RETRIES = 6, RNR_RETRIES = 6 };

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

void rlink_close(struct rdma_link *link) {
    struct rdma *rdma = link->rdma;
    if (link->phase == RLINK_CLOSED)
        return;
    strangers_remove(&rdma->base.strangers, &link->stranger);
    link->phase = RLINK_CLOSED;
    /* The QP first: when ibv_destroy_qp() returns, no READ writes here and none is answered from
     * here. A QP that is only moved to the error state can still have packets in the device. */
    if (link->qp != NULL)
        ibv_destroy_qp(link->qp);
    if (link->cq != NULL)
        ibv_destroy_cq(link->cq);
    link->qp = NULL;
    link->cq = NULL;
    rstream_stop(&link->stream);
    if (link->conn != NULL)
        rdma->upper->closed(link);
    if (link->id != NULL) {
        rdma_disconnect(link->id); /* lets the other side know at once */
        rdma_destroy_id(link->id);
    }
    link->id = NULL;
    proving_free(link->handshake);
    link->handshake = NULL;
    TAILQ_REMOVE(&rdma->links, link, all);
    TAILQ_INSERT_TAIL(&rdma->closed_links, link, all);
    rdma_soon(rdma);
}

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

static int link_create_queue_pair(struct rdma_link *link, uint32_t slots, uint32_t depth) {
    struct rdma_device *device = link->device;
    uint32_t sends = slots + depth + 1;
    link->cq = ibv_create_cq(device->verbs, (int)(sends + slots), link, device->channel, 0);
    if (link->cq == NULL)
        return -errno;
    if (ibv_req_notify_cq(link->cq, 0) != 0)
        return -EIO;
    struct ibv_qp_init_attr want = {
        .send_cq = link->cq,
        .recv_cq = link->cq,
        .cap = {.max_send_wr = sends, .max_recv_wr = slots, .max_send_sge = 1, .max_recv_sge = 1},
        .qp_type = IBV_QPT_RC,
    };
    link->qp = ibv_create_qp(device->pd, &want);
    return link->qp == NULL ? -errno : 0;
}

static int link_modify(struct rdma_link *link, enum ibv_qp_state state, uint8_t depth) {
    struct ibv_qp_attr attributes = {.qp_state = state};
    int mask = 0;
    if (rdma_init_qp_attr(link->id, &attributes, &mask) < 0)
        return -errno;
    mask &= ~0xe00000; /* bits that the kernel's ucma sets for RoCE and modify_qp does not know */
    if (state == IBV_QPS_INIT)
        attributes.qp_access_flags = 0;
    if (state == IBV_QPS_RTR)
        attributes.max_dest_rd_atomic = depth;
    if (state == IBV_QPS_RTS) {
        attributes.max_rd_atomic = depth;
        attributes.timeout = ACK_TIMEOUT;
        attributes.retry_cnt = RETRIES;
        attributes.rnr_retry = RNR_RETRIES;
        mask |= IBV_QP_MAX_QP_RD_ATOMIC | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY;
    }
    return -ibv_modify_qp(link->qp, &attributes, mask);
}

/* Peers may read through this QP from here on. */
static int link_allow_reads(struct rdma_link *link) {
    struct ibv_qp_attr attributes = {.qp_access_flags = IBV_ACCESS_REMOTE_READ};
    return link->kind == HANDSHAKE_BULK ? -ibv_modify_qp(link->qp, &attributes, IBV_QP_ACCESS_FLAGS)
                                        : 0;
}

static uint8_t link_least(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t smallest = a < b ? a : b;
    smallest = smallest < c ? smallest : c;
    return (uint8_t)(smallest < UINT8_MAX ? smallest : UINT8_MAX);
}

static uint8_t link_reads_out_max(const struct rdma_link *link, uint32_t theirs) {
    return link_least((uint32_t)link->device->limits.max_qp_init_rd_atom,
                      link->rdma->rdma_options.reads_in_flight_max, theirs);
}

static uint8_t link_reads_in_max(const struct rdma_link *link, uint32_t theirs) {
    return link_least((uint32_t)link->device->limits.max_qp_rd_atom, UINT8_MAX, theirs);
}

/* The id is bound to a device: makes the QP, in INIT, with every receive posted. */
static int link_prepare(struct rdma_link *link) {
    bool control = link->kind == HANDSHAKE_CONTROL;
    uint32_t slots = control ? CONTROL_SLOTS : BULK_SLOTS;
    int rail = rrails_of_id(link->rdma, link->id);
    if (rail < 0)
        return -EADDRNOTAVAIL;
    link->rail = (uint32_t)rail;
    link->device = link->rdma->rails[rail].device;
    link->posted_max = link_reads_out_max(link, UINT8_MAX);
    int r = rstream_init(&link->stream, link->device->pd, slots,
                         control ? CONTROL_SLOT_BYTES : BULK_SLOT_BYTES);
    if (r == 0)
        r = link_create_queue_pair(link, slots, control ? 0 : link->posted_max);
    if (r == 0)
        r = link_modify(link, IBV_QPS_INIT, 0);
    return r == 0 ? rstream_start(link) : r;
}

static int link_become_ready(struct rdma_link *link, const struct rdma_conn_param *theirs,
                             const struct rwire_private *data) {
    uint32_t slot_bytes = link->stream.slot_bytes;
    link->their_rail = data->rail;
    link->stream.credits = data->slots;
    link->stream.send_bytes_max = data->slot_bytes < slot_bytes ? data->slot_bytes : slot_bytes;
    link->posted_max = link_reads_out_max(link, theirs->initiator_depth);
    int r = link_modify(link, IBV_QPS_RTR, link_reads_in_max(link, theirs->responder_resources));
    return r == 0 ? link_modify(link, IBV_QPS_RTS, (uint8_t)link->posted_max) : r;
}

static void link_fill_param(struct rdma_link *link, uint8_t data[RWIRE_PRIVATE_BYTES],
                            const struct rdma_conn_param *theirs, struct rdma_conn_param *out) {
    struct rwire_private private = {(uint8_t)link->kind, (uint8_t)link->rail,
                                    (uint16_t)link->stream.slots, link->stream.slot_bytes};
    rwire_private_encode(&private, data);
    *out = (struct rdma_conn_param){
        .private_data = data,
        .private_data_len = RWIRE_PRIVATE_BYTES,
        .responder_resources =
            link_reads_in_max(link, theirs != NULL ? theirs->responder_resources : UINT8_MAX),
        .initiator_depth =
            link_reads_out_max(link, theirs != NULL ? theirs->initiator_depth : UINT8_MAX),
        .retry_count = RETRIES,
        .rnr_retry_count = RNR_RETRIES,
        .qp_num = link->qp->qp_num,
    };
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
    int r = link_allow_reads(link);
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

static int link_accept_request(struct rdma_link *link, const struct rdma_conn_param *theirs,
                               const struct rwire_private *data) {
    uint8_t bytes[RWIRE_PRIVATE_BYTES];
    struct rdma_conn_param param;
    int r = link_prepare(link);
    if (r == 0)
        r = link_become_ready(link, theirs, data);
    if (r < 0)
        return r;
    link->phase = RLINK_HANDSHAKE;
    link_fill_param(link, bytes, theirs, &param);
    return rdma_accept(link->id, &param) < 0 ? -errno : 0;
}

void rlink_on_request(struct rdma *rdma, const struct rdma_cm_event *event) {
    struct rwire_private data;
    const char *bad = rwire_private_decode(event->param.conn.private_data,
                                           event->param.conn.private_data_len, &data);
    struct rdma_link *link = NULL;
    if (bad == NULL && !rdma->base.destroying)
        link = link_new(rdma, (enum handshake_kind)data.kind,
                        proving_new_answerer(&rdma->base.options));
    if (link == NULL) {
        rdma_reject(event->id, NULL, 0);
        rdma_destroy_id(event->id);
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
        rdma_reject(link->id, NULL, 0);
        rlink_fail(link, r, "cannot accept: %s", strerror(-r));
    }
}

/* ---- dialling ---- */

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
    if (rdma_create_id(rdma->channel, &link->id, link, RDMA_PS_TCP) < 0) {
        int error = errno;
        link->id = NULL;
        rlink_close(link);
        return -error;
    }
    if (rdma_resolve_addr(link->id, from != NULL ? (struct sockaddr *)&source : NULL,
                          (struct sockaddr *)to, RESOLVE_MS) < 0) {
        int error = errno;
        rlink_close(link);
        return -error;
    }
    link->conn = conn;
    *out = link;
    return 0;
}

static int link_request(struct rdma_link *link) {
    uint8_t bytes[RWIRE_PRIVATE_BYTES];
    struct rdma_conn_param param;
    int r = link_prepare(link);
    if (r < 0)
        return r;
    link->phase = RLINK_CONNECTING;
    link_fill_param(link, bytes, NULL, &param);
    return rdma_connect(link->id, &param) < 0 ? -errno : 0;
}

static void link_on_response(struct rdma_link *link, const struct rdma_conn_param *theirs) {
    struct rwire_private data;
    const char *bad = rwire_private_decode(theirs->private_data, theirs->private_data_len, &data);
    if (bad != NULL) {
        rlink_fail(link, -EPROTO, "peer sent a bad answer: %s", bad);
        return;
    }
    int r = link_become_ready(link, theirs, &data);
    if (r == 0 && rdma_establish(link->id) < 0)
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

static void link_on_resolved(struct rdma_link *link) {
    int r = link_request(link);
    if (r == -EADDRNOTAVAIL)
        rlink_fail(link, r, "no RDMA rail of this node leads there");
    else if (r < 0)
        rlink_fail(link, r, "cannot set up a QP: %s", strerror(-r));
}

void rlink_on_cm_event(struct rdma_link *link, const struct rdma_cm_event *event) {
    switch (event->event) {
    case RDMA_CM_EVENT_ADDR_RESOLVED:
        if (rdma_resolve_route(link->id, RESOLVE_MS) < 0)
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

static void link_on_failure(struct rdma_link *link, const struct ibv_wc *wc) {
    int status = wc->status == IBV_WC_RETRY_EXC_ERR    ? -ETIMEDOUT
                 : wc->status == IBV_WC_REM_ACCESS_ERR ? -EACCES
                                                       : -EIO;
    if (status == -ETIMEDOUT)
        rlink_fail(link, status, "no answer: %d retries exceeded", RETRIES);
    else if (status == -EACCES)
        rlink_fail(link, status, "the other side no longer lets us read its memory");
    else
        rlink_fail(link, status, "%s", ibv_wc_status_str(wc->status));
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

/* What has come in is looked at, what can go out goes. */
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
