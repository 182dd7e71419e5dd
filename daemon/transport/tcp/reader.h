/* SPDX-License-Identifier: Apache-2.0
 *
 * Our reads of the other side's regions.
 */
#ifndef FEATURED_TRANSPORT_TCP_READER_H
#define FEATURED_TRANSPORT_TCP_READER_H

#include "transport/tcp/tcp_internal.h"

int tcp_reader_init(struct tcp_conn *conn); /* 0 or -ENOMEM */
void tcp_reader_deinit(struct tcp_conn *conn);
/* `read` of the table of operations. */
int tcp_reader_add(struct tcp_conn *conn, const struct transport_read *ask);
/* The other side refused a read. NULL, or what is wrong with that. */
const char *tcp_reader_refused(struct tcp_conn *conn, uint64_t id, int status);
/* The bulk socket has bytes. */
void tcp_reader_ready(struct tcp_conn *conn);
/* Reports every read that was under way or waiting as ended with the connection. */
void tcp_reader_end(struct tcp_conn *conn);

#endif
