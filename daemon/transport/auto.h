/* SPDX-License-Identifier: Apache-2.0
 *
 * Several transports behind one, best first: RDMA and then TCP, for example. It listens on all of
 * them (at the same port number), dials the best one first, and the next one when that fails before
 * the connection is up. While a dialled connection is over a transport that was not the first
 * choice, the better ones are tried again in the background, with back-off; when one works,
 * `better` is raised once. What a connection became shows in its transport_info.
 *
 * A list of one is allowed. Both ends of a connection may have different lists: a connection is
 * over a transport that both have, and nothing on the wire depends on a place in the list.
 */
#ifndef FEATURED_TRANSPORT_AUTO_H
#define FEATURED_TRANSPORT_AUTO_H

#include <uv.h>

#include "transport/transport.h"

struct transport_auto;

enum {
    AUTO_TRANSPORTS_MAX = 8,
    AUTO_RETRY_FIRST_MS = 1000, /* first look whether a better transport works by now */
    AUTO_RETRY_MAX_MS = 60000,  /* the pause doubles up to this */
};

/* To be done in this order: new; for each transport, best first, make it with the events and the
 * owner that these give and then add it (one that cannot be made is left out); finish. */
int transport_auto_new(uv_loop_t *loop, const struct transport_events *events, void *owner,
                       struct transport_auto **out);
const struct transport_events *transport_auto_events(void);
/* Of the transport that will be added next. */
void *transport_auto_owner(struct transport_auto *list);
/* Takes the transport, which was made with the owner that transport_auto_owner last returned. At
 * most AUTO_TRANSPORTS_MAX. */
void transport_auto_add(struct transport_auto *list, struct transport *transport);
/* At least one has been added. The list is the transport's from here on. */
struct transport *transport_auto_finish(struct transport_auto *list);
/* Of a list that was never finished: destroys its transports, too. */
void transport_auto_abandon(struct transport_auto *list);

#endif
