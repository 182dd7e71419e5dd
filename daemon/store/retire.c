/* SPDX-License-Identifier: Apache-2.0
 *
 * Retiring on demand: ack, abort, supersede from elsewhere; max-hold gc; drop.
 *
 * Nothing here waits for readers. A generation is RETIRED at once, which means that nobody gets a
 * new lease on it, and its bytes are free when the last lease ends (samples.c).
 */
#include <string.h>

#include "store/store_internal.h"

/* A generation alone is unique in the cluster; the id is compared, too, when the caller gives one,
 * so that a ref that was put together wrongly retires nothing. */
static bool retire_name_is(const struct store *store, uint32_t index, const char *id,
                           uint32_t id_bytes) {
    const struct name_slot *name = name_at(store, index);
    return !id_bytes || (name->id_bytes == id_bytes && !memcmp(name->id, id, id_bytes));
}

/* False: it is on no way to being readable, so there is nothing to be done. A PLANNED one has no
 * generation yet and cannot be named by one. */
static bool retire_home(struct store *store, uint32_t index, enum store_reason reason,
                        uint64_t now_ns) {
    uint64_t generation = sample_at(store, index)->generation;
    switch (sample_state(sample_at(store, index))) {
    case STORE_RESIDENT:
        sample_retire(store, index, reason, now_ns);
        return true;
    case STORE_SEALED: /* it will never be RESIDENT, whatever its publish says */
        sample_end(store, index, reason, now_ns);
        waiters_wake(store, generation, NONE, NONE, now_ns);
        return true;
    default:
        return false;
    }
}

/* Absent is a success: what is to be gone is gone. A landing copy is not retired here: only its
 * home may retire a generation, and the home will say so. */
enum store_result store_retire(struct store *store, const char *sample_id, uint32_t sample_id_bytes,
                               uint64_t generation, enum store_reason reason, uint64_t now_ns,
                               bool *retired_out) {
    uint32_t index = NONE;
    *retired_out = false;
    if (generation) {
        index = sample_by_generation(store, generation);
        if (index != NONE &&
            !retire_name_is(store, sample_at(store, index)->name, sample_id, sample_id_bytes))
            index = NONE;
    } else {
        uint32_t name = name_find(store, sample_id, sample_id_bytes);
        index = name == NONE ? NONE : name_at(store, name)->resident;
    }
    if (index != NONE && !sample_flag(sample_at(store, index), WORD_LANDING))
        *retired_out = retire_home(store, index, reason, now_ns);
    store_settle(store, now_ns);
    return STORE_OK;
}

/* The list is in the order in which generations became resident, so the walk ends at the first one
 * that is not too old. Those that are leased are passed over. The cursor remembers where the last
 * call's budget ended: otherwise ten thousand leased ones at the front would use up every budget,
 * and what is behind them would never be looked at. */
uint32_t store_gc(struct store *store, uint64_t max_hold_ns, uint64_t now_ns, uint32_t budget) {
    uint32_t freed = 0;
    if (!max_hold_ns)
        max_hold_ns = store->options.max_hold_ns;
    if (!max_hold_ns || now_ns <= max_hold_ns)
        return 0;
    uint32_t at = store->gc_cursor != NONE ? store->gc_cursor : store->resident.head;
    for (; at != NONE && budget; budget--) {
        const struct sample_slot *sample = sample_at(store, at);
        uint32_t next = sample->age.next;
        if (sample_stamp(sample)->since_ns >= now_ns - max_hold_ns)
            next = NONE; /* it and all behind it are younger */
        else if (!sample->lease_count) {
            sample_retire(store, at, STORE_MAX_HOLD, now_ns);
            freed++;
        }
        at = next;
    }
    store->gc_cursor = at;
    store_settle(store, now_ns);
    return freed;
}

void store_gc_restart(struct store *store) {
    store->gc_cursor = NONE;
}

bool store_gc_goes_on(const struct store *store) {
    return store->gc_cursor != NONE;
}

/* Generations that are RETIRED already wait for their readers only; a GONE slot is a tombstone.
 * Both stay as they are. */
static void retire_drop_slot(struct store *store, uint32_t index, uint64_t now_ns) {
    struct sample_slot *sample = sample_at(store, index);
    bool landing = sample_flag(sample, WORD_LANDING);
    switch (sample_state(sample)) {
    case STORE_PLANNED:
        if (landing) { /* a transfer writes there: freed when it ends */
            word_flag(&sample->word, WORD_DROPPED);
            return;
        }
        /* fall through */
    case STORE_SEALED:
        sample_end(store, index, STORE_DROPPED, now_ns);
        return;
    case STORE_RESIDENT:
        sample_retire(store, index, STORE_DROPPED, now_ns);
        return;
    default:
        return;
    }
}

/* Waiters first: whoever waits for room or for a sample must not be granted what is about to be
 * dropped. */
bool store_drop_some(struct store *store, uint64_t *cursor, uint32_t budget, uint64_t now_ns) {
    if (!*cursor)
        waiters_fail_all(store);
    for (; *cursor < store->samples.touched && budget; budget--)
        retire_drop_slot(store, (uint32_t)(*cursor)++, now_ns);
    return *cursor >= store->samples.touched;
}

void store_drop(struct store *store, uint64_t now_ns) {
    uint64_t cursor = 0;
    while (!store_drop_some(store, &cursor, UINT32_MAX, now_ns))
        ;
}
