/* SPDX-License-Identifier: Apache-2.0
 *
 * A connection: its two sockets, from the first packet to `closed`.
 */
#ifndef FEATURED_TRANSPORT_TCP_CONN_H
#define FEATURED_TRANSPORT_TCP_CONN_H

#include "transport/tcp/tcp_internal.h"

extern const struct tcp_link_events tcp_conn_link_events;

/* data_address: "" = the same. 0, -EINVAL, -ENOMEM or an errno of the first connect(). */
int tcp_conn_dial(struct tcp *tcp, const char *address, const char *data_address, void *user,
                  struct tcp_conn **out);
/* `stop` of the medium: closes both sockets. */
void tcp_conn_stop(struct connection *conn);

#endif
