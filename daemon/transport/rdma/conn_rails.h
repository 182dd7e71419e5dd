/* SPDX-License-Identifier: Apache-2.0
 *
 * The bulk links of one connection: dialled, mended, counted.
 */
#ifndef FEATURED_TRANSPORT_RDMA_CONN_RAILS_H
#define FEATURED_TRANSPORT_RDMA_CONN_RAILS_H

#include "transport/rdma/rdma_internal.h"

uint32_t rconn_rails_up(const struct rdma_conn *conn);
void rconn_on_rails(struct rdma_conn *conn, const uint8_t *body, size_t bytes);
/* Tells the asker where bulk links are accepted. */
void rrail_send_list(struct rdma_conn *conn);
/* There is a rail more on this node: connections may use it. */
void rrail_appeared(struct rdma *rdma);
void rrail_open(struct rdma_link *link);
void rrail_lost(struct rdma_conn *conn, struct rdma_link *link, int status, const char *why);
/* If rails are missing, they will be dialled soon. */
void rrail_plan_mending(struct rdma_conn *conn);
void rrail_check_time(struct rdma_conn *conn, uint64_t now_ms);
void rrail_query(const struct rdma_conn *conn, struct transport_info *out);

#endif
