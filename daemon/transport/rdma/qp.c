/* SPDX-License-Identifier: Apache-2.0
 *
 * What ibverbs and the CM are told of a QP: RESET -> INIT -> RTR -> RTS, as the IB specification
 * names its states. In INIT it can have receives posted, from RTR on it receives, in RTS it sends.
 *
 * The QP is made by hand rather than by rdma_create_qp: so it lives on our own context, and it
 * comes up with no remote access at all. What librdmacm would have set (REMOTE_READ and
 * REMOTE_WRITE) would let a stranger with a guessed rkey read before his handshake; REMOTE_READ is
 * added when the handshake is proven, REMOTE_WRITE never.
 */
#include "transport/rdma/qp.h"

#include <errno.h>

/* Of a QP that gets no acknowledgement. The device waits 4.096 us * 2^16 = 0.27 s before each of 6
 * repetitions, which is about 2 s until a silent peer is noticed; a link that is down for less is
 * survived. 7 repetitions would mean "for ever" to some devices (rxe takes it so), and a dead peer
 * would hold its reader for ever. RNR (the receiver has no slot) does not happen, because a SEND
 * needs a credit; its retries are finite all the same, for a peer that breaks the rule. */
enum { ACK_TIMEOUT = 16, RNR_RETRIES = 6 };

/* One completion queue serves both directions, so that what a peer said before it went (a RECV) is
 * seen before the failure of our own SENDs. Its size is that of both queues together: a completion
 * queue that overflows is a fatal error of the device. The queue is armed here once; link.c arms it
 * again before each time it drains it. One SEND more than slots and READs is for the empty SEND
 * that carries credits alone. */
int rqp_create(struct rdma_link *link, uint32_t slots, uint32_t depth) {
    struct rdma_device *device = link->device;
    uint32_t sends = slots + depth + 1;
    link->cq = link->rdma->lib.ibv_create_cq(device->verbs, (int)(sends + slots), link,
                                             device->channel, 0);
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
    link->qp = link->rdma->lib.ibv_create_qp(device->pd, &want);
    return link->qp == NULL ? -errno : 0;
}

/* rdma_init_qp_attr() fills in what only the CM knows (the path, the QP number of the other side,
 * the first packet numbers). What is changed here is what librdmacm would have decided for us: the
 * access flags, how many READs at once, and how long to wait for an acknowledgement. */
int rqp_modify(struct rdma_link *link, enum ibv_qp_state state, uint8_t depth) {
    struct ibv_qp_attr attributes = {.qp_state = state};
    int mask = 0;
    if (link->rdma->lib.rdma_init_qp_attr(link->id, &attributes, &mask) < 0)
        return -errno;
    mask &= ~0xe00000; /* bits that the kernel's ucma sets for RoCE and modify_qp does not know */
    if (state == IBV_QPS_INIT)
        attributes.qp_access_flags = 0;
    if (state == IBV_QPS_RTR)
        attributes.max_dest_rd_atomic = depth;
    if (state == IBV_QPS_RTS) {
        attributes.max_rd_atomic = depth;
        attributes.timeout = ACK_TIMEOUT;
        attributes.retry_cnt = RDMA_RETRIES;
        attributes.rnr_retry = RNR_RETRIES;
        mask |= IBV_QP_MAX_QP_RD_ATOMIC | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY;
    }
    return -link->rdma->lib.ibv_modify_qp(link->qp, &attributes, mask);
}

/* The access flags of a QP may be changed in RTS, too, so this happens in the middle of the
 * connection, at the moment when the other side has proved itself. The control QP never gets the
 * right: an rkey that is told over it must be used on a bulk QP, whose end is what the home waits
 * for before it reuses memory. */
int rqp_allow_reads(struct rdma_link *link) {
    struct ibv_qp_attr attributes = {.qp_access_flags = IBV_ACCESS_REMOTE_READ};
    return link->kind == HANDSHAKE_BULK
               ? -link->rdma->lib.ibv_modify_qp(link->qp, &attributes, IBV_QP_ACCESS_FLAGS)
               : 0;
}

/* The CM carries these numbers in one byte each. */
static uint8_t qp_least(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t smallest = a < b ? a : b;
    smallest = smallest < c ? smallest : c;
    return (uint8_t)(smallest < UINT8_MAX ? smallest : UINT8_MAX);
}

/* The responder keeps a record of each READ that it has not answered whole, and has room for
 * max_qp_rd_atom of them (16 on most devices). A requester that posts more is held back by its own
 * device, not by an error; so this number is about fairness and delay, not about safety. */
uint8_t rqp_reads_out_max(const struct rdma_link *link, uint32_t theirs) {
    return qp_least((uint32_t)link->device->limits.max_qp_init_rd_atom,
                    link->rdma->rdma_options.reads_in_flight_max, theirs);
}

static uint8_t qp_reads_in_max(const struct rdma_link *link, uint32_t theirs) {
    return qp_least((uint32_t)link->device->limits.max_qp_rd_atom, UINT8_MAX, theirs);
}

/* The numbers of an event are from the receiver's point of view: `initiator_depth` is how many
 * READs we may ask at once, because it is what the other side offered to answer
 * (rdma_get_cm_event(3)). A peer whose slots are smaller than ours gets SENDs of its size; one with
 * larger slots gets our size, because our send slots are no larger. */
int rqp_connect(struct rdma_link *link, const struct rdma_conn_param *theirs,
                const struct rwire_private *data) {
    uint32_t slot_bytes = link->stream.slot_bytes;
    link->their_rail = data->rail;
    link->stream.credits = data->slots;
    link->stream.send_bytes_max = data->slot_bytes < slot_bytes ? data->slot_bytes : slot_bytes;
    link->posted_max = rqp_reads_out_max(link, theirs->initiator_depth);
    int r = rqp_modify(link, IBV_QPS_RTR, qp_reads_in_max(link, theirs->responder_resources));
    return r == 0 ? rqp_modify(link, IBV_QPS_RTS, (uint8_t)link->posted_max) : r;
}

void rqp_fill_param(struct rdma_link *link, uint8_t data[RWIRE_PRIVATE_BYTES],
                    const struct rdma_conn_param *theirs, struct rdma_conn_param *out) {
    struct rwire_private private = {(uint8_t)link->kind, (uint8_t)link->rail,
                                    (uint16_t)link->stream.slots, link->stream.slot_bytes};
    rwire_private_encode(&private, data);
    *out = (struct rdma_conn_param){
        .private_data = data,
        .private_data_len = RWIRE_PRIVATE_BYTES,
        .responder_resources =
            qp_reads_in_max(link, theirs != NULL ? theirs->responder_resources : UINT8_MAX),
        .initiator_depth =
            rqp_reads_out_max(link, theirs != NULL ? theirs->initiator_depth : UINT8_MAX),
        .retry_count = RDMA_RETRIES,
        .rnr_retry_count = RNR_RETRIES,
        .qp_num = link->qp->qp_num,
    };
}
