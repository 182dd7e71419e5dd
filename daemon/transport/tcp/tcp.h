/* SPDX-License-Identifier: Apache-2.0
 *
 * TCP: one control and one bulk socket per connection, so that bulk bytes never delay a message.
 * Bytes of a read go from the region to the socket and from the socket straight into the landing
 * range.
 *
 * Circle: control.c, reader.c, server.c: the control socket brings requests and refusals of reads
 * to the server and the reader, and they answer and ask over the control socket.
 */
#ifndef FEATURED_TRANSPORT_TCP_H
#define FEATURED_TRANSPORT_TCP_H

#include "transport/transport.h"

/* A transport_constructor. */
int transport_tcp_new(const struct transport_setup *setup, struct transport **out, char *why,
                      size_t why_bytes);

#endif
