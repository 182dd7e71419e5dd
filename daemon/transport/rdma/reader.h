/* SPDX-License-Identifier: Apache-2.0
 *
 * Our reads: cut into chunks, spread over the rails.
 */
#ifndef FEATURED_TRANSPORT_RDMA_READER_H
#define FEATURED_TRANSPORT_RDMA_READER_H

#include "transport/rdma/rdma_internal.h"

int rreader_add(struct rdma_conn *conn, const struct transport_read *ask);
/* Posts what the rails have room for. */
void rreader_post(struct rdma_conn *conn);
/* The same, after reporting reads that were refused. From the loop only. */
void rreader_run(struct rdma_conn *conn);
void rreader_on_opened(struct rdma_conn *conn, uint32_t handle, int status, uint64_t bytes);
void rreader_on_segment(struct rdma_conn *conn, const struct rwire_segment *segment);
void rreader_on_gone(struct rdma_conn *conn, uint32_t handle);
/* The READ with this number, and all before it on the rail, have landed. */
void rreader_on_landed(struct rdma_link *link, uint64_t number);
/* The rail is gone: what was posted there is posted on the others. */
void rreader_rail_lost(struct rdma_link *link);
/* Their memory is no longer read through their rail of this number, until they tell its keys again.
 */
void rreader_forget_keys(struct rdma_conn *conn, uint32_t their_rail);
/* Reports every read as ended with the connection. */
void rreader_end(struct rdma_conn *conn);

#endif
