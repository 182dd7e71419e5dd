/* SPDX-License-Identifier: Apache-2.0
 *
 * A stream of bytes over SEND and RECV. It knows its QP and nothing of who uses it, so what goes
 * wrong is an errno for the caller.
 */
#ifndef FEATURED_TRANSPORT_RDMA_STREAM_H
#define FEATURED_TRANSPORT_RDMA_STREAM_H

#include "transport/rdma/rdma_internal.h"

/* The link has its device. */
int rstream_init(struct rdma_link *link, uint32_t slots, uint32_t slot_bytes);
/* The QP is gone: lets go of the device. What has come in stays until rstream_deinit. */
void rstream_stop(struct rdma_link *link);
void rstream_deinit(struct rdma_stream *stream);
/* Posts every receive; the QP is in INIT. */
int rstream_start(struct rdma_link *link);
/* Queues bytes behind what is queued. 0 or -ENOMEM. */
int rstream_write(struct rdma_link *link, const struct iovec *parts, int count);
/* Sends what credits and slots allow. 0 or the errno of posting it. */
int rstream_flush(struct rdma_link *link);
/* Bytes of a receive have come in: they are in stream.received, the slot is posted again. 0;
 * -EPROTO: it carries no credits; -ENOMEM; or the errno of posting the slot. */
int rstream_on_receive(struct rdma_link *link, const struct ibv_wc *wc);
void rstream_on_sent(struct rdma_link *link);

#endif
