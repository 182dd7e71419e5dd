/* SPDX-License-Identifier: Apache-2.0
 *
 * TCP: one control and one bulk socket per connection, so that bulk bytes never delay a message.
 * Bytes of a read go from the region to the socket and from the socket straight into the landing
 * range.
 */
#ifndef FEATURED_PEER_TRANSPORT_TCP_H
#define FEATURED_PEER_TRANSPORT_TCP_H

#include <uv.h>

#include "transport/transport.h"

/* options, events: copied. 0 or -errno. */
int transport_tcp_new(uv_loop_t *loop, const struct transport_options *options,
                      const struct transport_events *events, void *owner, struct transport **out);

#endif
