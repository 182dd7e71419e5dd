/* SPDX-License-Identifier: Apache-2.0
 *
 * Holders: whoever can hold leases and reservations in one store. A session has one holder in each
 * store that it has opened, and a connection of a peer broker has one for the leases of its
 * clients.
 *
 * A holder is closed when its owner is dead or has left. Contract: a dead holder consumes nothing.
 * Its leases end as returned, so that the samples can be read again by others, its reservations end
 * without having become visible, and its waits are forgotten.
 */
#include "store/store_internal.h"

/* The account is charged by what the holder will hold, not by the holder itself. */
enum store_result store_holder_open(struct store *store, uint64_t owner, struct account *account,
                                    uint32_t *holder_out) {
    uint32_t index = pool_take(store, &store->holders);
    if (index == NONE)
        return STORE_E_LIMIT;
    *holder_at(store, index) = (struct holder_slot){.owner = owner,
                                                    .account = account,
                                                    .leases = LIST_EMPTY,
                                                    .reservations = LIST_EMPTY,
                                                    .waiters = LIST_EMPTY};
    store_in_order(); /* the commit point: from here on the slot is somebody's */
    holder_at(store, index)->open = 1;
    *holder_out = index;
    return STORE_OK;
}

/* Closing goes in parts, because one holder can have a million leases and the loop must not stand
 * still for that long. The caller says how many may end now, and calls again in a later turn. */
bool store_holder_close_some(struct store *store, uint32_t index, uint32_t budget,
                             uint64_t now_ns) {
    struct holder_slot *holder = holder_at(store, index);
    /* Waiters go first and all at once: a wait that stayed could still be granted a lease or room,
     * which would then have to be ended, too. Their number is bounded by the limits on requests. */
    while (holder->waiters.head != NONE)
        waiter_forget(store, holder->waiters.head, STORE_PRODUCER_DIED, now_ns);
    for (; holder->leases.head != NONE && budget; budget--)
        lease_end(store, holder->leases.head, STORE_RETURNED, true, now_ns);
    for (; holder->reservations.head != NONE && budget; budget--)
        sample_end(store, holder->reservations.head, STORE_PRODUCER_DIED, now_ns);
    /* Freed room goes to those who wait only at the end: settling in between would look at the line
     * once per lease. */
    bool closed = holder->leases.head == NONE && holder->reservations.head == NONE;
    if (closed) {
        holder->open = 0;
        pool_give(store, &store->holders, index);
    }
    store_settle(store, now_ns);
    return closed;
}

void store_holder_close(struct store *store, uint32_t holder, uint64_t now_ns) {
    while (!store_holder_close_some(store, holder, UINT32_MAX, now_ns))
        ;
}

/* ---- after store_attach() ---- */
/* False: nobody's. What it holds is put into its lists later. */
bool holder_restore(struct store *store, uint32_t index) {
    struct holder_slot *holder = holder_at(store, index);
    if (!holder->open)
        return false;
    holder->account = NULL;
    holder->reserved_bytes = 0;
    holder->lease_count = holder->reservation_count = 0;
    holder->leases = holder->reservations = holder->waiters = LIST_EMPTY;
    return true;
}

/* The cursor is the holder shown last + 1. */
bool store_holder_next(const struct store *store, uint32_t *cursor, uint32_t *holder_out,
                       uint64_t *owner_out) {
    while (*cursor < store->holders.touched) {
        uint32_t index = (*cursor)++;
        if (!holder_at(store, index)->open)
            continue;
        *holder_out = index;
        *owner_out = holder_at(store, index)->owner;
        return true;
    }
    return false;
}

/* A holder without an account charges nobody, so that until it is adopted its leases may end like
 * those of any other. */
void store_holder_adopt(struct store *store, uint32_t index, uint64_t owner,
                        struct account *account) {
    struct holder_slot *holder = holder_at(store, index);
    holder->owner = owner;
    holder->account = account;
    account_add(account, CHARGE_LEASES, holder->lease_count);
    account_add(account, CHARGE_RESERVATIONS, holder->reservation_count);
    account_add(account, CHARGE_RESERVED_BYTES, holder->reserved_bytes);
}
