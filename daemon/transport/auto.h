/* SPDX-License-Identifier: Apache-2.0
 *
 * RDMA where both nodes have it, TCP where not: a transport made of the two. It listens on both
 * (the same port number), dials RDMA first and TCP when that fails before the connection is up.
 * While a dialled connection is over TCP for that reason, RDMA is tried again in the background,
 * with back-off; when it works, `better` is raised once. What a connection became shows in its
 * transport_info. Either may be missing: a node with one alone speaks through this too, so that the
 * keys of regions have one form everywhere.
 */
#ifndef FEATURED_PEER_TRANSPORT_AUTO_H
#define FEATURED_PEER_TRANSPORT_AUTO_H

#include <uv.h>

#include "transport/transport.h"

struct transport_auto;

enum { AUTO_RETRY_FIRST_MS = 1000, AUTO_RETRY_MAX_MS = 60000 };

/* To be done in this order: new; make rdma and tcp with the events and owners that this gives;
 * join, which hands them over. One of them may be NULL. */
int transport_auto_new(uv_loop_t *loop, const struct transport_events *events, void *owner,
                       struct transport_auto **out);
const struct transport_events *transport_auto_events(void);
void *transport_auto_rdma_owner(struct transport_auto *both);
void *transport_auto_tcp_owner(struct transport_auto *both);
struct transport *transport_auto_join(struct transport_auto *both, struct transport *rdma,
                                      struct transport *tcp);
/* Of one that was never joined. */
void transport_auto_free(struct transport_auto *both);

#endif
