/* SPDX-License-Identifier: Apache-2.0
 *
 * A stream of bytes over SEND and RECV. Each side has `slots` receives posted and tells the other,
 * as the immediate value of its SENDs, how many it has posted again since it last said so: a SEND
 * is only posted with a credit, so a receive is always there (no RNR). The last credit is kept for
 * a SEND that carries credits alone, so that two sides that both have much to say cannot starve
 * each other; such a SEND is worth sending from half the slots on. SENDs complete in order, so the
 * send slots are a ring.
 */
#include "transport/rdma/stream.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- slots ---- */

/* Receive slots are in front, send slots behind them, in one registration. */
static uint8_t *stream_receive_slot(const struct rdma_stream *stream, uint64_t slot) {
    return stream->memory + slot * stream->slot_bytes;
}

static uint8_t *stream_send_slot(const struct rdma_stream *stream, uint64_t slot) {
    return stream->memory + (stream->slots + slot) * stream->slot_bytes;
}

/* Aligned to pages, because registration pins whole pages, and a page that held something else of
 * the heap, too, would be pinned with it. Set to zero, so that what was in this memory before never
 * leaves in the unused end of a slot. */
int rstream_init(struct rdma_link *link, uint32_t slots, uint32_t slot_bytes) {
    struct rdma_stream *stream = &link->stream;
    size_t bytes = (size_t)2 * slots * slot_bytes;
    if (posix_memalign((void **)&stream->memory, 4096, bytes) != 0)
        return -ENOMEM;
    memset(stream->memory, 0, bytes);
    stream->slots = slots;
    stream->slot_bytes = slot_bytes;
    stream->mr =
        link->rdma->lib.ibv_reg_mr(link->device->pd, stream->memory, bytes, IBV_ACCESS_LOCAL_WRITE);
    return stream->mr == NULL ? -errno : 0;
}

/* The memory and the queues stay until rstream_deinit(): a caller further up may be in the middle
 * of a frame in `received` when the link ends. */
void rstream_stop(struct rdma_link *link) {
    struct rdma_stream *stream = &link->stream;
    if (stream->mr != NULL)
        link->rdma->lib.ibv_dereg_mr(stream->mr);
    stream->mr = NULL;
}

void rstream_deinit(struct rdma_stream *stream) {
    free(stream->memory);
    byte_queue_deinit(&stream->received);
    byte_queue_deinit(&stream->unsent);
    *stream = (struct rdma_stream){0};
}

static int stream_post_receive(struct rdma_link *link, uint64_t slot) {
    struct rdma_stream *stream = &link->stream;
    struct ibv_sge place = {(uintptr_t)stream_receive_slot(stream, slot), stream->slot_bytes,
                            stream->mr->lkey};
    struct ibv_recv_wr wr = {.wr_id = slot, .sg_list = &place, .num_sge = 1}, *bad;
    return -ibv_post_recv(link->qp, &wr, &bad);
}

int rstream_start(struct rdma_link *link) {
    int r = 0;
    for (uint64_t slot = 0; slot < link->stream.slots && r == 0; slot++)
        r = stream_post_receive(link, slot);
    return r;
}

/* ---- out ---- */

/* Copied, even if it could leave at once: the bytes of a SEND must stay where they are until it
 * completes, and the caller's are gone when this returns. Messages are small; samples do not come
 * this way. */
int rstream_write(struct rdma_link *link, const struct iovec *parts, int count) {
    size_t bytes = 0;
    for (int i = 0; i < count; i++)
        bytes += parts[i].iov_len;
    if (byte_queue_reserve(&link->stream.unsent, bytes) < 0)
        return -ENOMEM;
    for (int i = 0; i < count; i++)
        byte_queue_append(&link->stream.unsent, parts[i].iov_base, parts[i].iov_len);
    return 0;
}

/* Each SEND is signalled. A send slot may be written again only when its SEND has completed, and an
 * unsignalled SEND would be known to be complete only by a later one, which may never be sent. */
static int stream_post_send(struct rdma_link *link, uint32_t bytes) {
    struct rdma_stream *stream = &link->stream;
    uint8_t *slot = stream_send_slot(stream, stream->sends % stream->slots);
    struct ibv_sge place = {(uintptr_t)slot, bytes, stream->mr->lkey};
    struct ibv_send_wr wr = {.sg_list = &place,
                             .num_sge = bytes > 0,
                             .opcode = IBV_WR_SEND_WITH_IMM,
                             .send_flags = IBV_SEND_SIGNALED,
                             .imm_data = htonl(stream->owed)},
                       *bad;
    if (bytes > 0)
        memcpy(slot, stream->unsent.data + stream->unsent.begin, bytes);
    int error = ibv_post_send(link->qp, &wr, &bad);
    if (error != 0)
        return -error;
    byte_queue_consume(&stream->unsent, bytes);
    stream->sends++;
    stream->sends_out++;
    stream->credits--;
    stream->owed = 0;
    return 0;
}

/* The first loop keeps one credit back (credits > 1). It is for the second part: a SEND without
 * bytes that gives the other side its credits again. Example of what would happen otherwise: both
 * sides have queued a megabyte, both use their last credit for bytes, and both wait for a credit
 * that the other cannot send any more. */
int rstream_flush(struct rdma_link *link) {
    struct rdma_stream *stream = &link->stream;
    int r = 0;
    while (r == 0 && stream->credits > 1 && stream->sends_out < stream->slots &&
           byte_queue_bytes(&stream->unsent) > 0) {
        size_t bytes = byte_queue_bytes(&stream->unsent);
        r = stream_post_send(link, bytes < stream->send_bytes_max ? (uint32_t)bytes
                                                                  : stream->send_bytes_max);
    }
    if (r == 0 && stream->owed >= stream->slots / 2 && stream->credits > 0 &&
        stream->sends_out < stream->slots)
        r = stream_post_send(link, 0);
    return r;
}

/* SENDs of one QP complete in order, so the oldest slot of the ring is free again, and a count is
 * enough. */
void rstream_on_sent(struct rdma_link *link) {
    link->stream.sends_out--;
}

/* ---- in ---- */

/* The bytes are copied out of the slot and the slot is posted again at once. Keeping the slot until
 * the frame in it has been delivered would save a copy of a few hundred bytes, and would make a
 * frame that spans two slots hold credits back. The immediate value is not covered by a tag, so a
 * forged one could give us credits that do not exist: then a SEND meets no receive (RNR), its
 * retries run out, and the link ends. */
int rstream_on_receive(struct rdma_link *link, const struct ibv_wc *wc) {
    struct rdma_stream *stream = &link->stream;
    if (!(wc->wc_flags & IBV_WC_WITH_IMM) || ntohl(wc->imm_data) > UINT16_MAX)
        return -EPROTO;
    if (byte_queue_reserve(&stream->received, wc->byte_len) < 0)
        return -ENOMEM;
    byte_queue_append(&stream->received, stream_receive_slot(stream, wc->wr_id), wc->byte_len);
    stream->credits += ntohl(wc->imm_data);
    stream->owed++;
    return stream_post_receive(link, wc->wr_id);
}
