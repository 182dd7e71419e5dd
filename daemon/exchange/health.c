/* SPDX-License-Identifier: Apache-2.0
 *
 * How this node is, in its own words: for its clients, and for other brokers that list the members.
 * Nothing is kept for it: every number is read where its owner keeps it, at the moment it is asked
 * for.
 *
 * A new counter is a row in the table `counters` and the function that reads it. The row says how
 * it is called and shown, and goes along with the number, so that featurectl need not know it.
 */
#include <string.h>

#include "exchange/exchange_internal.h"

/* ---- counters ---- */

static uint64_t health_log_dropped(const struct broker *broker) {
    (void)broker; /* the log is the process's */
    return log_dropped();
}

static uint64_t health_loop_lag_ms(const struct broker *broker) {
    return turns_recent_ns(broker) / NS_PER_MS;
}

static uint64_t health_loop_lag_longest_ms(const struct broker *broker) {
    return broker->turns.longest_ns / NS_PER_MS;
}

/* Of other brokers, that were not answers to what this one had asked (believe.c). */
static uint64_t health_odd_answers(const struct broker *broker) {
    uint64_t count = 0;
    for (struct peer *peer = peers_next(broker->peers, NULL); peer;
         peer = peers_next(broker->peers, peer))
        count += peer_odd_answers(peer);
    return count;
}

/* In the order in which featurectl status shows them. A name is for programs and is never changed;
 * it ends with its unit. */
static const struct {
    const char *name, *label;
    Fb__Counter__Unit unit;
    uint64_t (*read)(const struct broker *broker);
} counters[] = {
    {"log_dropped", "log lines dropped", FB__COUNTER__UNIT__TIMES, health_log_dropped},
    {"loop_lag_ms", "longest turn, last minute", FB__COUNTER__UNIT__MS, health_loop_lag_ms},
    {"loop_lag_longest_ms", "longest turn", FB__COUNTER__UNIT__MS, health_loop_lag_longest_ms},
    {"odd_answers", "odd answers", FB__COUNTER__UNIT__TIMES, health_odd_answers},
};
#define COUNTERS_COUNT (sizeof counters / sizeof *counters)
_Static_assert(COUNTERS_COUNT <= HEALTH_COUNTERS_MAX, "struct health has room for all counters");

static void health_fill_counters(const struct broker *broker, struct health *health) {
    for (size_t i = 0; i < COUNTERS_COUNT; i++) {
        Fb__Counter *counter = health->counter_pointers[i] = &health->counters[i];
        fb__counter__init(counter);
        counter->name = (char *)counters[i].name;
        counter->label = (char *)counters[i].label;
        counter->unit = counters[i].unit;
        counter->value = counters[i].read(broker);
    }
    health->reply.n_counters = COUNTERS_COUNT;
    health->reply.counters = health->counter_pointers;
}

/* ---- the whole ---- */

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
        to->resident_samples += totals.resident; /* copies of others' samples are not among them */
        if (!space->dropped)                     /* its samples still count, its name is free */
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
    const char *why = broker_not_ready_why(broker, health->not_ready);
    to->ready = !why;
    if (why)
        to->not_ready_why = (char *)why;
    health_fill_counters(broker, health);
}
