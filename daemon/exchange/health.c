/* SPDX-License-Identifier: Apache-2.0
 *
 * How this node is, in its own words: for its clients, and for other brokers that list the members.
 * Nothing is kept for it: every number is read where its owner keeps it, at the moment it is asked
 * for.
 */
#include <string.h>

#include "exchange/exchange_internal.h"

/* The reply is made of pointers into *health and into the broker, so that it costs no memory: a
 * node that is short of it can still say how it is. */
void health_fill(const struct broker *broker, struct health *health) {
    Fb__HealthReply *to = &health->reply;
    fb__health_reply__init(to);
    to->store_names = health->stores;
    for (uint32_t i = 0; i < broker->space_end; i++) {
        const struct space *space = &broker->spaces[i];
        struct store_totals totals;
        if (!space->used)
            continue;
        store_totals(space->store, &totals);
        to->leases += totals.leases;
        to->resident_samples += totals.resident - totals.landing;
        if (!space->dropped) /* its samples still count, its name is free */
            health->stores[to->n_store_names++] = (char *)space->name;
    }
    to->stores = to->n_store_names;
    to->node = (char *)broker->config->node;
    to->incarnation = broker->options.incarnation;
    to->broker_version = (char *)FEATURED_VERSION;
    to->uptime_ms = (broker->now_ns - broker->started_ns) / NS_PER_MS;
    to->resident_bytes = broker->account.used_bytes;
    to->max_resident_bytes = broker->account.limit_bytes;
    to->sessions = broker->session_count;
    to->max_sessions = broker->config->max_sessions;
    to->max_release_pending = broker->limits.of[ACCOUNT_NODE][CHARGE_PENDING_ENDS];
    to->release_pending = broker->exchange->release_pending;
    to->index_pending = broker->directory->ops->pending(broker->directory);
    to->draining = broker->draining;
    to->twin = (char *)peers_twin(broker->peers);
    if (!*to->twin)
        to->twin = (char *)peers_rival(broker->peers, NULL);
    to->trouble = (char *)broker_trouble(broker, "", health->trouble);
    for (struct peer *peer = peers_next(broker->peers, NULL); peer;
         peer = peers_next(broker->peers, peer))
        to->odd_answers += peer_odd_answers(peer);
    to->directory = (char *)broker->directory->ops->name;
    to->loop_lag_ms = turns_recent_ns(broker) / NS_PER_MS;
    to->loop_lag_longest_ms = broker->turns.longest_ns / NS_PER_MS;
    const char *why = broker_not_ready_why(broker, health->not_ready);
    to->ready = !why;
    if (why)
        to->not_ready_why = (char *)why;
    to->log_dropped = log_dropped();
}
