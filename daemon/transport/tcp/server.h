/* SPDX-License-Identifier: Apache-2.0
 *
 * The other side's reads of our regions.
 */
#ifndef FEATURED_TRANSPORT_TCP_SERVER_H
#define FEATURED_TRANSPORT_TCP_SERVER_H

#include "transport/tcp/tcp_internal.h"

/* Takes on a read, or refuses it. NULL, or what is wrong with the request. */
const char *tcp_server_add(struct tcp_conn *conn, const struct wire_read *read);
/* Sends at most a chunk's worth; watches for room when there is more. */
void tcp_server_send(struct tcp_conn *conn);
bool tcp_server_uses(const struct tcp_conn *conn, uint32_t region);
void tcp_server_end(struct tcp_conn *conn);

#endif
