/* SPDX-License-Identifier: Apache-2.0
 *
 * One QP, from the CM's request through the handshake to its end.
 */
#ifndef FEATURED_TRANSPORT_RDMA_LINK_H
#define FEATURED_TRANSPORT_RDMA_LINK_H

#include "transport/rdma/rdma_internal.h"

/* Each stranger holds a QP with its buffers, which is more than a socket: fewer than over TCP. */
enum { RDMA_STRANGERS_MAX = 128 };

/* Dials; from: one of our rails, or NULL for whichever leads there. 0 or -errno. */
int rlink_dial(struct rdma_conn *conn, enum handshake_kind kind, const struct rdma_rail *from,
               const struct sockaddr_storage *to, struct rdma_link **out);
/* A CM event of this link; of a listener: a new one. */
void rlink_on_cm_event(struct rdma_link *link, const struct rdma_cm_event *event);
void rlink_on_request(struct rdma *rdma, const struct rdma_cm_event *event);
/* Drains the completion queue. */
void rlink_on_completions(struct rdma_link *link);
/* Destroys the QP now: from here on it moves no byte in either direction. */
void rlink_close(struct rdma_link *link);
/* Of a closed one. */
void rlink_free(struct rdma_link *link);
/* Sends what the stream of the link holds, as far as credits allow. */
void rlink_flush(struct rdma_link *link);
/* Ends once what has been queued is out, or after a moment. */
void rlink_linger(struct rdma_link *link);
/* Something went wrong on this QP. */
void rlink_fail(struct rdma_link *link, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void rlink_check_time(struct rdma_link *link, uint64_t now_ms);

#endif
