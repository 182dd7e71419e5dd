/* SPDX-License-Identifier: Apache-2.0
 *
 * The making and unmaking of what the files of this folder keep in the broker. The order in which a
 * broker ends is fixed, because what is under way here names peers, stores and the directory:
 *
 *   exchange_release_peers()  the peers and the transport go; the directory may still answer
 *   exchange_end()            the directory is gone: what waited for it ends, and lets go of stores
 *   (the stores go)           leases on landing copies end with them, and name remote leases
 *   exchange_free()           what is left
 */
#include <stdlib.h>

#include "exchange/exchange_internal.h"

struct exchange *exchange_new(struct broker *broker) {
    struct exchange *exchange = calloc(1, sizeof *exchange);
    if (!exchange)
        return NULL;
    exchange->broker = broker;
    TAILQ_INIT(&exchange->askings);
    TAILQ_INIT(&exchange->fetches);
    TAILQ_INIT(&exchange->held_checks);
    TAILQ_INIT(&exchange->index_checks);
    twin_init(exchange);
    held_walk_init(exchange);
    exchange->roster = roster_new();
    exchange->publishings = publishings_new();
    exchange->sweep = sweep_new(broker);
    if (exchange->roster && exchange->publishings && exchange->sweep)
        return exchange;
    roster_free(exchange->roster);
    supersede_set_free(exchange->publishings);
    free(exchange->sweep);
    free(exchange);
    return NULL;
}

void exchange_release_peers(struct broker *broker) {
    broker->exchange->closing = true; /* first: records in the node's memory stay */
    for (struct peer *peer = peers_next(broker->peers, NULL); peer;
         peer = peers_next(broker->peers, peer))
        outbox_free(peer);
}

void exchange_end(struct broker *broker) {
    publishings_free(broker);
    held_checks_free(broker);
    reconcile_free(broker);
    sweep_free(broker);
}

void exchange_free(struct broker *broker) {
    remote_leases_free(broker);
    roster_free(broker->exchange->roster);
    free(broker->exchange);
}
