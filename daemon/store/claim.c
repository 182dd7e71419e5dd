/* SPDX-License-Identifier: Apache-2.0
 *
 * A client has lost its connection and comes back to its session. Some of what it was granted it
 * may never have heard of: the answer was on its way when the connection broke. Nobody will release
 * such a lease. So the client says all that it holds, and the rest of its holder ends:
 *
 *   store_claim_begin()   no lease and no reservation of the holder is marked
 *   store_claim_lease()   marks one that the client knows, and so store_claim_reservation()
 *   store_claim_end()     ends those without a mark
 *
 * The marks mean nothing between store_claim_end() and the next store_claim_begin(), and none has
 * to be taken away when a slot is used anew.
 */
#include "store/store_internal.h"

void store_claim_begin(struct store *store, uint32_t holder) {
    const struct holder_slot *slot = holder_at(store, holder);
    for (uint32_t i = slot->leases.head; i != NONE; i = lease_at(store, i)->by_holder.next)
        lease_at(store, i)->claimed = false;
    for (uint32_t i = slot->reservations.head; i != NONE; i = sample_at(store, i)->by_holder.next)
        sample_at(store, i)->claimed = false;
}

void store_claim_lease(struct store *store, uint32_t holder, uint64_t hi, uint64_t lo) {
    uint32_t index = lease_find(store, hi, lo);
    if (index == NONE || lease_state(lease_at(store, index)) != LEASE_LIVE ||
        lease_at(store, index)->holder != holder)
        return;
    lease_at(store, index)->claimed = true;
}

void store_claim_reservation(struct store *store, uint32_t holder, uint64_t reservation) {
    uint32_t index = reservation_find(store, holder, reservation);
    if (index != NONE)
        sample_at(store, index)->claimed = true;
}

/* The next one is looked up first: the end of a lease takes it off the list. */
uint32_t store_claim_end(struct store *store, uint32_t holder, uint64_t now_ns) {
    uint32_t ended = 0, next;
    for (uint32_t i = holder_at(store, holder)->leases.head; i != NONE; i = next) {
        next = lease_at(store, i)->by_holder.next;
        if (lease_at(store, i)->claimed)
            continue;
        lease_end(store, i, STORE_RETURNED, true, now_ns);
        ended++;
    }
    for (uint32_t i = holder_at(store, holder)->reservations.head; i != NONE; i = next) {
        next = sample_at(store, i)->by_holder.next;
        if (sample_at(store, i)->claimed)
            continue;
        sample_end(store, i, STORE_PRODUCER_DIED, now_ns);
        ended++;
    }
    store_settle(store, now_ns);
    return ended;
}
