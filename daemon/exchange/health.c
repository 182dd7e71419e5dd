/* SPDX-License-Identifier: Apache-2.0
 *
 * How this node is, in its own words: for its clients, and for other brokers that list the members.
 * Nothing is kept for it: every number is read where its owner keeps it, at the moment it is asked
 * for.
 */
#include <string.h>

#include "exchange/exchange_internal.h"

/* How often another node answered something else than it was asked, all nodes together. */
static uint64_t health_odd_answers(const struct broker *broker) {
    uint64_t sum = 0;
    for (struct peer *peer = peers_next(broker->peers, NULL); peer;
         peer = peers_next(broker->peers, peer))
        sum += peer_odd_answers(peer);
    return sum;
}

/* What this node counts since its start, one line for each counter: its name for programs, its
 * words for people, and where the number is. `featurectl status` prints every counter that it is
 * told of, so that this line is all that a new one needs. */
#define HEALTH_COUNTERS(COUNTER)                                                                   \
    COUNTER("log_dropped", "log lines dropped", log_dropped())                                     \
    COUNTER("odd_answers", "odd answers", health_odd_answers(broker))

static void health_fill_counters(const struct broker *broker, struct health *health) {
    const struct {
        const char *name, *words;
        uint64_t value;
    } all[] = {
#define HEALTH_COUNTER(name, words, value) {name, words, value},
        HEALTH_COUNTERS(HEALTH_COUNTER)
#undef HEALTH_COUNTER
    };
    _Static_assert(sizeof all / sizeof *all <= HEALTH_COUNTERS_ROOM, "room for every counter");
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        Fb__Counter *counter = health->counter_pointers[i] = &health->counters[i];
        fb__counter__init(counter);
        counter->name = (char *)all[i].name;
        counter->words = (char *)all[i].words;
        counter->value = all[i].value;
    }
    health->reply.n_counters = sizeof all / sizeof *all;
    health->reply.counters = health->counter_pointers;
}

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
    to->directory = (char *)broker->directory->ops->name;
    to->loop_lag_ms = turns_recent_ns(broker) / NS_PER_MS;
    to->loop_lag_longest_ms = broker->turns.longest_ns / NS_PER_MS;
    const char *why = broker_not_ready_why(broker, health->not_ready);
    to->ready = !why;
    if (why)
        to->not_ready_why = (char *)why;
    health_fill_counters(broker, health);
}
