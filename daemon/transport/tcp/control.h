/* SPDX-License-Identifier: Apache-2.0
 *
 * The control socket of a connection, and what all users of its sockets need.
 */
#ifndef FEATURED_TRANSPORT_TCP_CONTROL_H
#define FEATURED_TRANSPORT_TCP_CONTROL_H

#include <sys/types.h>

#include "transport/tcp/tcp_internal.h"

/* 0, -EMSGSIZE, -ENOBUFS, or -ENOTCONN when the connection has failed. */
int tcp_control_send(struct tcp_conn *conn, enum wire_type type, const struct iovec *parts,
                     int part_count);
void tcp_control_ready(struct tcp_conn *conn, int events);

/* Ends the connection for an errno of one of its sockets. */
void tcp_control_fail_errno(struct tcp_conn *conn, const char *doing, int error);
/* What recv() said, errno as it left it: true when bytes came. False: nothing to do now, or the
 * connection has failed. */
bool tcp_control_came(struct tcp_conn *conn, ssize_t got);

#endif
