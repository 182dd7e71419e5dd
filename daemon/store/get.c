/* SPDX-License-Identifier: Apache-2.0
 *
 * Getting: a lease at once, an answer at once, or a place among those who wait for it to be put.
 * And releasing, which ends a lease.
 *
 * A get names a sample by id or by generation. By id it means whatever is resident here under that
 * id; a generation that is only planned or sealed is not readable and is waited for. By generation
 * it means that one alone: once it is retired it never comes back, so that such a get fails at once
 * however long its deadline is (contract: no use after free).
 */
#include "store/store_internal.h"

/* Finds what is asked for. STORE_OK: *sample may be leased. STORE_WAIT: it is a landing copy whose
 * transfer still runs, to be awaited however long that takes; the transfer has a deadline of its
 * own, and its end wakes the waiter in any case. STORE_E_NOT_FOUND: *may_come says whether it makes
 * sense to wait for it. */
static enum store_result get_find(const struct store *store, const struct store_get *get,
                                  uint32_t *sample, bool *may_come) {
    *may_come = true;
    if (!get->generation) {
        uint32_t name = name_find(store, get->sample_id, get->sample_id_bytes);
        *sample = name == NONE ? NONE : name_at(store, name)->resident;
        return *sample == NONE ? STORE_E_NOT_FOUND : STORE_OK;
    }
    *sample = sample_by_generation(store, get->generation);
    if (*sample == NONE)
        return STORE_E_NOT_FOUND;
    switch (sample_state(sample_at(store, *sample))) {
    case STORE_RESIDENT:
        return STORE_OK;
    case STORE_PLANNED: /* only landing copies have a generation by then */
        return STORE_WAIT;
    case STORE_SEALED:
        return STORE_E_NOT_FOUND;
    default:
        *may_come = false;
        return STORE_E_NOT_FOUND;
    }
}

/* Room for a lease was checked for the holder but is not taken: a wait is charged as one lease
 * (waiters.c), so that a holder cannot have more waits than it may have leases. */
static enum store_result get_wait_for_it(struct store *store, uint32_t holder,
                                         const struct store_get *get, uint64_t deadline_ns,
                                         uint64_t now_ns, struct store_refusal *refusal) {
    enum store_result result = waiter_check(store, refusal);
    if (result)
        return result;
    enum waiter_kind kind = get->generation ? WAITER_GET_GENERATION : WAITER_GET_ID;
    uint32_t index = waiter_new(store, kind, holder, get->tag, deadline_ns);
    struct waiter_slot *waiter = waiter_at(store, index);
    waiter->cookie = get->cookie;
    waiter->generation = get->generation;
    if (!get->generation)
        waiter->name = name_ref(store, get->sample_id, get->sample_id_bytes);
    waiter_enqueue(store, index, now_ns);
    return STORE_WAIT;
}

/* The limit of the holder is checked before the wait, too. Otherwise a client would learn only when
 * its sample arrives that it may not have it. */
enum store_result store_get(struct store *store, uint32_t holder, const struct store_get *get,
                            uint64_t now_ns, struct store_lease *out,
                            struct store_refusal *refusal) {
    *refusal = (struct store_refusal){0};
    if (!get->generation && (!get->sample_id_bytes || get->sample_id_bytes > STORE_ID_BYTES_MAX))
        return STORE_E_INVALID;
    uint32_t sample;
    bool may_come;
    enum store_result found = get_find(store, get, &sample, &may_come);
    if (found == STORE_E_NOT_FOUND && (!may_come || get->deadline_ns <= now_ns))
        return found;
    enum store_result result = lease_check(store, holder, refusal);
    if (result)
        return result;
    if (found != STORE_OK)
        return get_wait_for_it(store, holder, get,
                               found == STORE_WAIT ? UINT64_MAX : get->deadline_ns, now_ns,
                               refusal);
    uint32_t lease = lease_grant(store, sample, holder, get->cookie, 0, now_ns);
    if (lease == NONE)
        return refuse(refusal, STORE_E_FULL, STORE_CAUSE_LEASES, store->options.max_leases,
                      store->leases.used - store->ended_count, 1);
    lease_describe(store, lease, out);
    return STORE_OK;
}

/* An unknown lease is a success: it ended long ago, and its tombstone has been freed since. So is a
 * lease of another holder, and nothing happens to it: whoever guesses tokens learns nothing.
 *
 * A lease that has ended can still be said to be consumed, and by any holder: the client
 * reconnected under a new session, or a node forwards what its client said before it died. */
enum store_result store_release(struct store *store, uint32_t holder, uint64_t hi, uint64_t lo,
                                enum store_how how, uint64_t now_ns) {
    uint32_t index = lease_find(store, hi, lo);
    if (index == NONE)
        return STORE_OK;
    struct lease_slot *lease = lease_at(store, index);
    if (lease_state(lease) == LEASE_LIVE) {
        if (lease->holder == holder)
            lease_end(store, index, how, true, now_ns);
    } else if (how == STORE_CONSUMED_BY_READER) {
        lease_late_consumed(store, index, now_ns);
    }
    store_settle(store, now_ns);
    return STORE_OK;
}

uint64_t store_lease_cookie(const struct store *store, uint32_t holder, uint64_t hi, uint64_t lo) {
    uint32_t index = lease_find(store, hi, lo);
    if (index == NONE || lease_state(lease_at(store, index)) != LEASE_LIVE ||
        lease_at(store, index)->holder != holder)
        return 0;
    return lease_at(store, index)->cookie;
}
