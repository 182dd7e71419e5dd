/* SPDX-License-Identifier: Apache-2.0
 *
 * The making and unmaking of what the files of this folder keep in the broker.
 */
#include <stdlib.h>

#include "exchange/exchange.h"
#include "exchange/publish_set.h"

struct exchange *exchange_new(struct broker *broker) {
    struct exchange *exchange = calloc(1, sizeof *exchange);
    if (!exchange)
        return NULL;
    exchange->broker = broker;
    TAILQ_INIT(&exchange->askings);
    TAILQ_INIT(&exchange->fetches);
    TAILQ_INIT(&exchange->nodes);
    TAILQ_INIT(&exchange->held_checks);
    TAILQ_INIT(&exchange->index_checks);
    twin_init(exchange);
    held_checks_init(exchange);
    exchange->publishings = publish_set_new();
    exchange->sweep = sweep_new(broker);
    if (exchange->publishings && exchange->sweep)
        return exchange;
    publish_set_free(exchange->publishings);
    free(exchange->sweep);
    free(exchange);
    return NULL;
}

void exchange_end(struct broker *broker) {
    publishings_free(broker);
    held_checks_drop_due(broker);
    reconcile_free(broker);
    nodes_free(broker);
    sweep_free(broker);
}

void exchange_free(struct broker *broker) {
    remote_leases_free(broker);
    free(broker->exchange);
}
