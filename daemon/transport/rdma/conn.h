/* SPDX-License-Identifier: Apache-2.0
 *
 * One connection: its control link, from birth to `closed`.
 */
#ifndef FEATURED_TRANSPORT_RDMA_CONN_H
#define FEATURED_TRANSPORT_RDMA_CONN_H

#include "transport/rdma/rdma_internal.h"

int rconn_dial(struct rdma *rdma, const char *address, void *user, struct rdma_conn **out);
/* An accepted link proved itself: accepts or refuses its handshake, and gives it its connection. */
void rconn_adopt(struct rdma_link *link);
void rconn_link_open(struct rdma_link *link);
/* A link of this connection has failed and been closed. */
void rconn_link_lost(struct rdma_conn *conn, struct rdma_link *link, int status, const char *why);
void rconn_on_ready(struct rdma_conn *conn);
void rconn_on_accepted(struct rdma_conn *conn);
/* `stop` of the medium: destroys every QP of the connection. */
void rconn_stop(struct connection *conn);
/* Reports the end of a connection that connection_fail has ended, and frees it. */
void rconn_end(struct rdma_conn *conn);
void rconn_check_time(struct rdma_conn *conn, uint64_t now_ms);
void rconn_query(const struct rdma_conn *conn, struct transport_info *out);

#endif
