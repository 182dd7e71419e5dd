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
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/log.h"
#include "transport/rdma/rdma_internal.h"

enum {
    CONTROL_SLOTS = 64,
    CONTROL_SLOT_BYTES = 16 * 1024,
    BULK_SLOTS = 4, /* they carry the handshake alone */
    BULK_SLOT_BYTES = 1024,
    LINGER_MS = 1000,
    RESOLVE_MS = 2000,
    STRANGERS_MAX = 128, /* each holds a QP */
    COMPLETIONS_PER_POLL = 32,
};
/* Finite on purpose: 7 means for ever. 4.096 us * 2^16 * (6 + 1) is about 2 s until a silent peer
 * is noticed; a link that is down for less is survived. */
enum { ACK_TIMEOUT = 16, RETRIES = 6, RNR_RETRIES = 6 };

/* ---- birth and end ---- */

static struct rdma_link *link_new(struct rdma *rdma, enum handshake_kind kind, uint64_t time_ms) {
    struct rdma_link *link = calloc(1, sizeof *link);
    struct handshake *handshake = calloc(1, sizeof(*handshake));
    if (link == NULL || handshake == NULL) {
        free(link);
        free(handshake);
        return NULL;
    }
    link->rdma = rdma;
    link->kind = kind;
    link->handshake = handshake;
    uv_update_time(rdma->loop); /* the owner may have been busy for longer than the deadline */
    link->deadline_ms = uv_now(rdma->loop) + time_ms;
    TAILQ_INIT(&link->posted);
    TAILQ_INSERT_TAIL(&rdma->links, link, all);
    rdma_watch_time(rdma);
    return link;
}

static void link_drop_handshake(struct rdma_link *link) {
    if (link->handshake != NULL)
        handshake_deinit(link->handshake);
    free(link->handshake);
    link->handshake = NULL;
}

static bool link_is_stranger(const struct rdma_link *link) {
    return link->accepted_here && link->conn == NULL && link->phase != RLINK_CLOSED;
}

void rlink_close(struct rdma_link *link) {
    struct rdma *rdma = link->rdma;
    if (link->phase == RLINK_CLOSED)
        return;
    rdma->stranger_count -= link_is_stranger(link);
    link->phase = RLINK_CLOSED;
    if (link->qp != NULL)
        ibv_destroy_qp(link->qp);
    if (link->cq != NULL)
        ibv_destroy_cq(link->cq);
    link->qp = NULL;
    link->cq = NULL;
    rstream_stop(&link->stream);
    if (link->conn != NULL)
        rreader_rail_lost(link);
    if (link->id != NULL) {
        rdma_disconnect(link->id); /* lets the other side know at once */
        rdma_destroy_id(link->id);
    }
    link->id = NULL;
    link_drop_handshake(link);
    TAILQ_REMOVE(&rdma->links, link, all);
    TAILQ_INSERT_TAIL(&rdma->closed_links, link, all);
    rdma_soon(rdma);
}

void rlink_free(struct rdma_link *link) {
    TAILQ_REMOVE(&link->rdma->closed_links, link, all);
    rstream_deinit(&link->stream);
    explicit_bzero(link, sizeof *link);
    free(link);
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
        rdma_log_stranger(link->rdma, link, why);
    rlink_close(link);
    if (conn != NULL)
        rconn_link_lost(conn, link, status, why);
}

void rlink_linger(struct rdma_link *link) {
    link->rdma->stranger_count += link->conn != NULL && link->accepted_here;
    link->conn = NULL;
    link->phase = RLINK_LINGER;
    link->deadline_ms = uv_now(link->rdma->loop) + LINGER_MS;
    rdma_watch_time(link->rdma);
    rstream_flush(link);
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
                   link->rdma->options.handshake_timeout_ms);
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
    struct handshake *h = link->handshake;
    handshake_keys(h, link->out.key, link->in.key);
    link->out.keyed = link->in.keyed = link->rdma->options.cluster_key != NULL;
    if (!link->conn->accepted_here)
        link->conn->id = h->connection_id;
    if (h->kind == HANDSHAKE_CONTROL)
        link->conn->hello = h->theirs;
    link_drop_handshake(link);
    link->phase = RLINK_OPEN;
    rconn_link_open(link);
}

static bool link_handshake_feed(struct rdma_link *link) {
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

static void link_handshake_flush(struct rdma_link *link) {
    const uint8_t *out;
    size_t bytes = handshake_output(link->handshake, &out);
    struct iovec part = {(void *)out, bytes};
    if (bytes == 0)
        return;
    if (rstream_write(link, &part, 1) < 0) {
        rlink_fail(link, -ENOMEM, "out of memory for the handshake");
        return;
    }
    handshake_sent(link->handshake, bytes);
    rstream_flush(link);
}

static void link_handshake_end(struct rdma_link *link) {
    char why[sizeof link->handshake->why];
    memcpy(why, link->handshake->why, sizeof why);
    if (link->conn != NULL && !link->accepted_here) {
        rlink_fail(link, -EPERM, "%s", why);
        return;
    }
    rdma_log_stranger(link->rdma, link, why);
    rlink_linger(link);
}

/* Runs the handshake as far as what has come in allows. */
static void link_handshake_run(struct rdma_link *link) {
    while (link->phase == RLINK_HANDSHAKE) {
        if (link->handshake->state == HANDSHAKE_PROVEN) {
            int r = link_allow_reads(link);
            if (r < 0) {
                rlink_fail(link, r, "cannot allow reads: %s", strerror(-r));
                return;
            }
            rconn_adopt(link);
        }
        if (link->phase != RLINK_HANDSHAKE)
            return;
        link_handshake_flush(link);
        if (link->phase != RLINK_HANDSHAKE)
            return;
        if (link->handshake->state == HANDSHAKE_FAILED) {
            link_handshake_end(link);
            return;
        }
        if (link->handshake->state == HANDSHAKE_DONE) {
            int r = link->accepted_here ? 0 : link_allow_reads(link);
            if (r < 0)
                rlink_fail(link, r, "cannot allow reads: %s", strerror(-r));
            else
                link_become_open(link);
        } else if (!link_handshake_feed(link)) {
            return;
        }
    }
}

static struct handshake_params link_handshake_params(const struct rdma *rdma) {
    return (struct handshake_params){rdma->options.cluster_key, rdma->options.hello,
                                     rdma->options.hello_bytes};
}

/* ---- accepting ---- */

static struct rdma_link *link_oldest_stranger(struct rdma *rdma) {
    struct rdma_link *link;
    TAILQ_FOREACH (link, &rdma->links, all)
        if (link_is_stranger(link))
            return link;
    return NULL;
}

static int link_accept_request(struct rdma_link *link, const struct rdma_conn_param *theirs,
                               const struct rwire_private *data) {
    uint8_t bytes[RWIRE_PRIVATE_BYTES], nonce[AUTH_NONCE_BYTES];
    struct handshake_params params = link_handshake_params(link->rdma);
    struct rdma_conn_param param;
    auth_nonce(nonce);
    handshake_answer(link->handshake, &params, nonce);
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
    if (bad == NULL && !rdma->destroying)
        link = link_new(rdma, (enum handshake_kind)data.kind, rdma->options.handshake_timeout_ms);
    if (link == NULL) {
        rdma_reject(event->id, NULL, 0);
        rdma_destroy_id(event->id);
        return;
    }
    link->accepted_here = true;
    link->id = event->id;
    link->id->context = link;
    if (rdma->stranger_count++ >= STRANGERS_MAX)
        rlink_fail(link_oldest_stranger(rdma), -EMFILE,
                   "too many unfinished handshakes, dropping the oldest");
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
    struct handshake_params params = link_handshake_params(rdma);
    uint8_t nonce[AUTH_NONCE_BYTES];
    struct sockaddr_storage source = {0};
    if (from != NULL) {
        source = from->address;
        ((struct sockaddr_in *)&source)->sin_port = 0; /* at the same place in both families */
    }
    struct rdma_link *link = link_new(rdma, kind, rdma->options.handshake_timeout_ms);
    if (link == NULL)
        return -ENOMEM;
    auth_nonce(nonce);
    handshake_ask(link->handshake, &params, kind, conn->id, nonce);
    if (rdma_create_id(rdma->channel, &link->id, link, RDMA_PS_TCP) < 0) {
        link->id = NULL;
        rlink_close(link);
        return -errno;
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
    link_handshake_run(link);
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

static void link_on_completion(struct rdma_link *link, const struct ibv_wc *wc) {
    if (wc->status != IBV_WC_SUCCESS)
        link_on_failure(link, wc);
    else if (wc->opcode & IBV_WC_RECV)
        rstream_on_receive(link, wc);
    else if (wc->opcode == IBV_WC_SEND)
        rstream_on_sent(link);
    else
        rreader_on_landed(link, wc->wr_id);
}

/* What has come in is looked at, what can go out goes. */
static void link_run_stream(struct rdma_link *link) {
    if (link->phase == RLINK_HANDSHAKE)
        link_handshake_run(link);
    else if (link->phase == RLINK_OPEN && link->kind == HANDSHAKE_CONTROL)
        rcontrol_received(link->conn);
    if (link->phase != RLINK_CLOSED)
        rstream_flush(link);
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
        rreader_run(link->conn);
}
