/* SPDX-License-Identifier: Apache-2.0
 *
 * Which transports this node runs, from its configuration and its devices.
 */
#ifndef FEATURED_TRANSPORTS_H
#define FEATURED_TRANSPORTS_H

#include <uv.h>

#include "config.h"
#include "transport/transport.h"

/* RDMA and TCP, or one of them alone, behind one transport. Logs why RDMA is left out. 0 or -errno
 * with a sentence in why: RDMA is required and cannot be had. */
int transports_new(uv_loop_t *loop, const struct config *config,
                   const struct transport_options *options, const struct transport_events *events,
                   void *owner, struct transport **out, char *why, size_t why_bytes);

#endif
