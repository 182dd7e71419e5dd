/* SPDX-License-Identifier: Apache-2.0
 *
 * One socket of a connection, from connect() or accept() through the handshake to its end.
 */
#ifndef FEATURED_TRANSPORT_TCP_LINK_H
#define FEATURED_TRANSPORT_TCP_LINK_H

#include <netdb.h>

#include "transport/tcp/tcp_internal.h"

/* Strangers hold a socket each. An attacker's silent ones push each other out; an honest handshake
 * takes milliseconds, so 256 at a time are many brokers that all start at once. */
enum { TCP_STRANGERS_MAX = 256 };

/* An accepted socket of someone unproven; takes the fd, also on failure. 0 or -errno. */
int tcp_link_accept(struct tcp *tcp, int fd);
/* A later failure comes as an event. 0 or -errno. */
int tcp_link_dial(struct tcp_conn *conn, enum handshake_kind kind, const struct addrinfo *to,
                  uint32_t timeout_ms, struct tcp_link **out);
/* Adds to or takes from what the socket is watched for: UV_READABLE, ... */
void tcp_link_watch(struct tcp_link *link, int events, bool on);
/* A stranger proved himself and is of this connection from here on. */
void tcp_link_join(struct tcp_link *link, struct tcp_conn *conn);
/* Closes the fd now, so that no byte moves any more, and lets go of the rest on the loop. */
void tcp_link_close(struct tcp_link *link);

#endif
