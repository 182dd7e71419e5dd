/* SPDX-License-Identifier: Apache-2.0
 *
 * Pulling: the caller takes effects out one by one, and with each pull the store catches up with
 * the clock.
 *
 * This file stands above all others of the store. The store has no clock and no timer: nothing ends
 * by itself. The caller asks store_next_deadline_ns(), and when that moment has come it pulls; what
 * is over then ends here, at most EXPIRE_BUDGET of each kind per pull, so that ten thousand waits
 * with one deadline do not stop the loop.
 */
#include "store/store_internal.h"

uint64_t store_next_deadline_ns(const struct store *store) {
    uint64_t waiters_ns = waiters_deadline_ns(store), reserves_ns = reservations_deadline_ns(store);
    return waiters_ns < reserves_ns ? waiters_ns : reserves_ns;
}

/* A generation is retired at once, and the broker is told of that later, here. Between the two the
 * slot must keep the generation and the reason that the broker is to be told. Afterwards the slot
 * becomes a tombstone, at once or when its last lease ends. */
static void pull_sample(struct store *store, uint32_t index, struct store_effect *out) {
    const struct sample_slot *sample = sample_at(store, index);
    *out = (struct store_effect){.kind = STORE_EFFECT_RETIRED,
                                 .holder = STORE_NO_HOLDER,
                                 .generation = sample->generation,
                                 .reason = sample_reason(sample)};
    name_copy(store, sample->name, out->sample_id);
    sample_told(store, index);
}

/* The lease becomes a tombstone that is found by its token, for a late `consumed` (lease.c). */
static void pull_lease(struct store *store, uint32_t index, struct store_effect *out) {
    const struct lease_slot *lease = lease_at(store, index);
    *out = (struct store_effect){.kind = STORE_EFFECT_LEASE_ENDED,
                                 .holder = lease->holder,
                                 .cookie = lease->cookie,
                                 .generation = lease->generation,
                                 .how = lease_how(lease)};
    lease_told(store, index);
}

/* A put or landing was granted room, and before anybody heard of it the room was taken back: the
 * store was dropped, or the landing failed. The slot may even have been given to another generation
 * since. A token names one use of a slot, so comparing it tells. From here on the holder has heard
 * of it, and keeps it over a restart. */
static void pull_grant(struct store *store, const struct waiter_slot *waiter,
                       struct store_effect *out) {
    struct sample_slot *sample = sample_at(store, waiter->granted);
    if (sample_state(sample) != STORE_PLANNED ||
        sample_token(store, waiter->granted) != waiter->token) {
        out->result = STORE_E_NOT_FOUND;
        return;
    }
    word_unflag(&sample->word, WORD_UNHEARD);
    out->reservation =
        (struct store_reservation){.token = waiter->token, .place = sample_place(sample)};
}

/* The answer is put together only now, because a reservation that was granted may be gone again. */
static void pull_waiter(struct store *store, uint32_t index, struct store_effect *out) {
    const struct waiter_slot *waiter = waiter_at(store, index);
    *out = (struct store_effect){.kind = waiter->kind == WAITER_PUT    ? STORE_EFFECT_PUT
                                         : waiter->kind == WAITER_LAND ? STORE_EFFECT_LAND
                                                                       : STORE_EFFECT_GET,
                                 .holder = waiter->holder,
                                 .tag = waiter->tag,
                                 .cookie = waiter->cookie,
                                 .result = waiter->result,
                                 .refusal = waiter->refusal,
                                 .generation = waiter->generation};
    if (waiter->result == STORE_OK && out->kind == STORE_EFFECT_GET) {
        word_unflag(&lease_at(store, waiter->granted)->word, WORD_UNHEARD);
        lease_describe(store, waiter->granted, &out->lease);
        out->generation = out->lease.generation;
    } else if (waiter->result == STORE_OK) {
        pull_grant(store, waiter, out);
    }
    waiter_free(store, index);
}

/* The order matters. Reservations that stand for too long end first, for their room may be what a
 * waiting put needs in order not to time out. Then all who wait are served with the room that is
 * there, including what other stores of the node have given back. Only those who still wait after
 * that, with their time over, learn that they were refused; and because they left the line, those
 * behind them may fit now, hence the second settling. */
bool store_next_effect(struct store *store, uint64_t now_ns, struct store_effect *out) {
    reservations_expire(store, now_ns);
    store_settle(store, now_ns); /* another store of the node may have given bytes back */
    if (store_next_deadline_ns(store) <= now_ns) {
        waiters_expire(store, now_ns);
        store_settle(store, now_ns);
    }
    uint32_t index;
    switch (effect_take(store, &index)) {
    case EFFECT_OF_SAMPLE:
        pull_sample(store, index, out);
        return true;
    case EFFECT_OF_LEASE:
        pull_lease(store, index, out);
        return true;
    case EFFECT_OF_WAITER:
        pull_waiter(store, index, out);
        return true;
    case EFFECT_NONE:
        break;
    }
    return false;
}
