/* SPDX-License-Identifier: Apache-2.0
 *
 * How this node is, in its own words: for its clients, and for other brokers that list the members.
 * Nothing is kept for it: every number is read where its owner keeps it, at the moment it is asked
 * for.
 *
 * A new counter is a row in metrics_table.c. The row says how it is called and shown, and goes
 * along with the number, so that featurectl need not know it.
 */
#include <string.h>

#include "exchange/exchange_internal.h"
#include "exchange/metrics_table.h"

/* ---- counters ---- */

/* Those rows of the node's metrics that have a name here, in their order. */
static void health_add_counter(struct health *health, const struct metric *row,
                               const struct measured_node *node) {
    size_t at = health->reply.n_counters++;
    Fb__Counter *counter = health->counter_pointers[at] = &health->counters[at];
    uint64_t value;
    memcpy(&value, (const char *)node + row->offset, sizeof value);
    fb__counter__init(counter);
    counter->name = (char *)row->status_name;
    counter->label = (char *)row->status_label;
    counter->unit = row->unit == METRIC_NS      ? FB__COUNTER__UNIT__MS
                    : row->unit == METRIC_BYTES ? FB__COUNTER__UNIT__BYTES
                                                : FB__COUNTER__UNIT__TIMES;
    counter->value = row->unit == METRIC_NS ? value / NS_PER_MS : value;
}

static void health_fill_counters(const struct broker *broker, struct health *health) {
    struct measured_node node;
    metrics_measure_node(broker, &node);
    health->reply.counters = health->counter_pointers;
    for (size_t i = 0; i < metrics_of_node_count; i++)
        if (metrics_of_node[i].status_name && health->reply.n_counters < HEALTH_COUNTERS_MAX)
            health_add_counter(health, &metrics_of_node[i], &node);
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
