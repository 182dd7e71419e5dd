/* SPDX-License-Identifier: Apache-2.0
 *
 * A broker that was killed and started again with its memory, under the same incarnation: what
 * there was between it and other brokers is made known again from the node's memory and the stores.
 * The list of all that must be, and why each part is right at every instruction, is
 * docs/RESTART.md.
 *
 * To others the restart is a broken connection. The homes of our leases have ended them as
 * returned, and so has this node ended theirs; what was consumed is said again by its token. The
 * index is compared as after any silence: by the directory, which calls reconcile().
 */
#include "exchange/outbox.h"
#include "exchange/publish.h"
#include "exchange/remote_lease.h"

/* What the store says of leases on landing copies, against what is known of the leases behind them.
 * The effect that tells of an end was lost with the old process when it had not been carried out;
 * one that was carried out changes nothing a second time. */
static void recall_local_leases(struct broker *broker, struct space *space) {
    struct store_cookie cookie;
    uint64_t cursor = 0;
    while (store_cookie_next(space->store, &cursor, &cookie)) {
        struct remote_lease *lease = remote_lease_find(broker, cookie.cookie);
        if (lease && cookie.live)
            lease->seen = true;
        else if (lease)
            outbox_release(broker, cookie.cookie, cookie.how == STORE_CONSUMED_BY_READER);
    }
}

/* A copy whose bytes were on their way lacks some of them, and one that nobody reads and nobody
 * caches would have been dropped with its last reader. */
static void recall_copies(struct broker *broker, struct space *space) {
    uint64_t cursor = 0;
    struct store_info info;
    while (store_list_next(space->store, &cursor, &info))
        if (info.landing && (info.state == STORE_PLANNED ||
                             (info.state == STORE_RESIDENT && !info.cached && !info.leases)))
            store_land_failed(space->store, info.generation, broker->now_ns);
}

void exchange_recall(struct broker *broker) {
    struct exchange *exchange = broker->exchange;
    if (!kept_memory_restarts(broker->kept))
        return;
    exchange->last_transfer = kept_memory_restarts(broker->kept) << 40;
    exchange->has_republished = true; /* by an earlier process, perhaps */
    remote_leases_recall(broker);
    outbox_recall_acks(broker);
    for (uint32_t i = 0; i < broker->space_end; i++) {
        if (!broker->spaces[i].used)
            continue;
        recall_local_leases(broker, &broker->spaces[i]);
        recall_copies(broker, &broker->spaces[i]);
    }
    remote_leases_settle(broker);
    publish_recall(broker);
}
