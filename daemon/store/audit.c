/* SPDX-License-Identifier: Apache-2.0
 *
 * Checks that everything derived agrees with the slots that it derives from.
 *
 * The slots are the truth: states, leases, waiters, names. Lists, hashes, counters and totals are
 * kept beside them for speed, and are changed in many places. A mistake there shows late and far
 * away, as a sample that is never freed or as memory that is given out twice. So the tests call
 * this after each step: it walks the slots, counts what must be in each list, hash and total
 * (struct tally), and compares. It takes O(slots) time and no memory of its own.
 *
 * The first thing found wrong is told, with the number of the slot.
 */
#include <stdarg.h>
#include <stdio.h>

#include "store/store_internal.h"

/* What was counted from the slots alone. */
struct tally {
    uint64_t home_bytes, landing_bytes, idle_bytes, leased_bytes, reserved_bytes;
    uint64_t state_bytes[STORE_GONE + 1];
    uint64_t home[STORE_GONE + 1], landing, gone, tombstones, hashed, extents;
    uint64_t resident, idle, leases_of_samples;
    uint64_t live, ended, queued, chunks, references;
};

struct audit {
    const struct store *store;
    char *why;
    size_t why_bytes;
    struct tally sum;
};

static bool __attribute__((format(printf, 2, 3)))
audit_wrong(struct audit *audit, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(audit->why, audit->why_bytes, format, args);
    va_end(args);
    return false;
}

/* Lists that belong to one name or one holder are short; those of the whole store are only counted.
 */
static bool audit_in_list(const struct store *store, const struct list *list, size_t link_offset,
                          uint32_t wanted) {
    for (uint32_t at = list->head; at != NONE;) {
        if (at == wanted)
            return true;
        at = ((const struct link *)((const char *)sample_at(store, at) + link_offset))->next;
    }
    return false;
}

/* What must hold of one sample slot in the state that it is in. */
static bool audit_state(struct audit *audit, uint32_t i) {
    const struct store *store = audit->store;
    const struct sample_slot *s = sample_at(store, i);
    const struct name_slot *name = name_at(store, s->name);
    enum store_state state = sample_state(s);
    bool landing = sample_flag(s, WORD_LANDING);
    if (state == STORE_RETIRED && !s->lease_count)
        return audit_wrong(audit, "sample slot %u is RETIRED without a lease", i);
    if (s->lease_count && state != STORE_RESIDENT && state != STORE_RETIRED)
        return audit_wrong(audit, "sample slot %u has leases in state %d", i, (int)state);
    if (!landing && (state == STORE_RESIDENT) != (name->resident == i))
        return audit_wrong(audit, "sample slot %u and its name disagree about being resident", i);
    bool pending = !landing && (state == STORE_PLANNED || state == STORE_SEALED);
    if (pending && !audit_in_list(store, &name->pending, SAMPLE_BY_NAME, i))
        return audit_wrong(audit, "sample slot %u is not among its name's pending ones", i);
    if (!landing && state == STORE_PLANNED &&
        !audit_in_list(store, &holder_at(store, s->holder)->reservations, SAMPLE_BY_HOLDER, i))
        return audit_wrong(audit, "sample slot %u is not among its holder's reservations", i);
    if (s->hashed && sample_by_generation(store, s->generation) != i)
        return audit_wrong(audit, "sample slot %u is not found by its generation", i);
    return true;
}

/* The extent is in the map at the place that the slot names; its bytes and pieces of spec are added
 * up. */
static bool audit_bytes(struct audit *audit, uint32_t i) {
    const struct store *store = audit->store;
    const struct sample_slot *s = sample_at(store, i);
    bool landing = sample_flag(s, WORD_LANDING);
    const struct extent_map *map = landing ? landing_map(store) : home_map(store);
    if (extent_offset(map, s->extent) != s->extent_offset ||
        extent_bytes(map, s->extent) != s->extent_bytes)
        return audit_wrong(audit, "sample slot %u does not own its extent", i);
    *(landing ? &audit->sum.landing_bytes : &audit->sum.home_bytes) += s->extent_bytes;
    audit->sum.state_bytes[sample_state(s)] += landing ? 0 : s->extent_bytes;
    audit->sum.leased_bytes += !landing && s->lease_count ? s->extent_bytes : 0;
    for (uint32_t c = s->chunk; c != NONE; c = chunk_at(store, c)->next)
        audit->sum.chunks++;
    return true;
}

/* A GONE slot has no bytes left, so only its state is checked. It is not in the list of tombstones
 * while its effect still waits in the queue. */
static bool audit_sample(struct audit *audit, uint32_t i) {
    const struct sample_slot *s = sample_at(audit->store, i);
    struct tally *sum = &audit->sum;
    enum store_state state = sample_state(s);
    bool landing = sample_flag(s, WORD_LANDING);
    if (state == STORE_FREE)
        return true;
    sum->references++;
    sum->hashed += s->hashed;
    sum->leases_of_samples += s->lease_count;
    if (state == STORE_GONE) {
        sum->gone++;
        sum->tombstones += !sample_flag(s, WORD_TELL);
        return audit_state(audit, i);
    }
    *(landing ? &sum->landing : &sum->home[state]) += 1;
    sum->resident += !landing && state == STORE_RESIDENT;
    if (landing && state == STORE_RESIDENT && !s->lease_count) {
        sum->idle++;
        sum->idle_bytes += s->extent_bytes;
    }
    return audit_state(audit, i) && audit_bytes(audit, i);
}

/* Ended leases are tombstones that may outlive their sample; only those that live are checked. */
static bool audit_lease(struct audit *audit, uint32_t i) {
    const struct lease_slot *lease = lease_at(audit->store, i);
    audit->sum.ended += lease_state(lease) == LEASE_ENDED;
    if (lease_state(lease) != LEASE_LIVE)
        return true;
    const struct sample_slot *s = sample_at(audit->store, lease->sample);
    audit->sum.live++;
    if (s->generation != lease->generation || !s->lease_count)
        return audit_wrong(audit, "lease slot %u is on a generation that does not know it", i);
    if (!holder_at(audit->store, lease->holder)->open)
        return audit_wrong(audit, "lease slot %u belongs to a closed holder", i);
    return true;
}

/* One that is ready has left its queue and the heap; one that waits for ever was never in the heap.
 */
static bool audit_waiter(struct audit *audit, uint32_t i) {
    const struct store *store = audit->store;
    const struct waiter_slot *w = waiter_at(store, i);
    if (w->kind == WAITER_FREE)
        return true;
    audit->sum.queued += !w->ready;
    audit->sum.references += w->name != NONE;
    for (uint32_t c = w->chunk; c != NONE; c = chunk_at(store, c)->next)
        audit->sum.chunks++;
    bool heaped = w->heap_at != NONE;
    if (heaped != (!w->ready && w->deadline_ns != UINT64_MAX) ||
        (heaped && u32_at(store, store->heap)[w->heap_at] != i))
        return audit_wrong(audit, "waiter slot %u is misplaced in the deadline heap", i);
    return true;
}

/* How long a list is; UINT64_MAX if it is linked wrongly or runs in a circle. */
static uint64_t audit_count_list(const struct store *store, const struct pool *pool,
                                 size_t link_offset, const struct list *list) {
    uint64_t count = 0;
    uint32_t prev = NONE;
    for (uint32_t at = list->head; at != NONE; count++) {
        const struct link *link =
            store_at(store, pool->offset + (uint64_t)at * pool->stride + link_offset);
        if (link->prev != prev || count > pool->capacity)
            return UINT64_MAX;
        prev = at;
        at = link->next;
    }
    return list->tail == prev ? count : UINT64_MAX;
}

static bool audit_lists(struct audit *audit) {
    const struct store *store = audit->store;
    const struct tally *sum = &audit->sum;
    const struct pool *samples = &store->samples;
    if (audit_count_list(store, samples, SAMPLE_AGE, &store->planned) != sum->home[STORE_PLANNED])
        return audit_wrong(audit, "the planned list does not hold the reservations");
    if (audit_count_list(store, samples, SAMPLE_AGE, &store->retired) != sum->home[STORE_RETIRED])
        return audit_wrong(audit, "the retired list does not hold the retired generations");
    if (audit_count_list(store, samples, SAMPLE_AGE, &store->resident) != sum->resident)
        return audit_wrong(audit, "the age list does not hold the resident generations");
    if (audit_count_list(store, samples, SAMPLE_AGE, &store->idle) != sum->idle)
        return audit_wrong(audit, "the idle list does not hold the idle landing copies");
    if (audit_count_list(store, samples, SAMPLE_AGE, &store->tombstones) != sum->tombstones ||
        store->tombstone_count != sum->tombstones)
        return audit_wrong(audit, "the tombstone list does not hold the tombstones");
    if (store->ended_count > sum->ended || audit_count_list(store, &store->leases, LEASE_BY_HOLDER,
                                                            &store->ended) != store->ended_count)
        return audit_wrong(audit, "the list of ended leases does not hold them");
    /* gc relies on this order: it stops at the first one that is young enough. */
    uint64_t since = 0;
    for (uint32_t at = store->resident.head; at != NONE; at = sample_at(store, at)->age.next) {
        if (sample_stamp(sample_at(store, at))->since_ns < since)
            return audit_wrong(audit, "the age list is not in order at sample slot %u", at);
        since = sample_stamp(sample_at(store, at))->since_ns;
    }
    return true;
}

/* Each name is found by its id, and its references are those that samples and waiters hold. */
static bool audit_names(struct audit *audit) {
    const struct store *store = audit->store;
    uint64_t names = 0, references = 0;
    for (uint32_t b = 0; b <= store->name_mask; b++)
        for (uint32_t at = u32_at(store, store->name_hash)[b] - 1; at != NONE;
             at = name_at(store, at)->hash_next, names++) {
            references += name_at(store, at)->references;
            if (name_find(store, name_at(store, at)->id, name_at(store, at)->id_bytes) != at)
                return audit_wrong(audit, "name slot %u is not found by its id", at);
        }
    if (names != store->names.used || references != audit->sum.references)
        return audit_wrong(audit, "names are leaked or freed too early");
    return true;
}

static bool audit_holders(struct audit *audit) {
    const struct store *store = audit->store;
    uint64_t open = 0, leases = 0, reservations = 0;
    for (uint32_t i = 0; i < store->holders.touched; i++) {
        const struct holder_slot *h = holder_at(store, i);
        if (!h->open)
            continue;
        open++;
        leases += h->lease_count;
        reservations += h->reservation_count;
        audit->sum.reserved_bytes += h->reserved_bytes;
        if (audit_count_list(store, &store->leases, LEASE_BY_HOLDER, &h->leases) !=
                h->lease_count ||
            audit_count_list(store, &store->samples, SAMPLE_BY_HOLDER, &h->reservations) !=
                h->reservation_count)
            return audit_wrong(audit, "holder slot %u's counts and lists disagree", i);
    }
    if (open != store->holders.used || leases != audit->sum.live ||
        reservations != audit->sum.home[STORE_PLANNED])
        return audit_wrong(audit, "the holders do not hold what is held");
    return true;
}

/* The counters that probes and refusals show, against the sums. */
static bool audit_totals(struct audit *audit) {
    const struct store *store = audit->store;
    const struct tally *sum = &audit->sum;
    for (int state = STORE_PLANNED; state < STORE_GONE; state++)
        if (sum->state_bytes[state] != store->state_bytes[state])
            return audit_wrong(audit, "%lu bytes in state %d, counted %lu",
                               (unsigned long)sum->state_bytes[state], state,
                               (unsigned long)store->state_bytes[state]);
    if (sum->leased_bytes != store->leased_bytes ||
        sum->reserved_bytes != sum->state_bytes[STORE_PLANNED])
        return audit_wrong(audit, "leased or reserved bytes do not add up");
    for (int state = STORE_PLANNED; state < STORE_GONE; state++)
        if (sum->home[state] != store->home_count[state])
            return audit_wrong(audit, "%lu generations in state %d, counted %lu",
                               (unsigned long)sum->home[state], state,
                               (unsigned long)store->home_count[state]);
    if (sum->landing != store->landing_count || sum->gone != store->gone_count)
        return audit_wrong(audit, "landing copies or tombstones are counted wrongly");
    if (sum->live != store->lease_count || sum->leases_of_samples != sum->live)
        return audit_wrong(audit, "leases are counted wrongly");
    if (sum->queued != store->put_waiters + store->get_waiters + store->land_waiters)
        return audit_wrong(audit, "waiters are counted wrongly");
    if (sum->chunks != store->chunks.used)
        return audit_wrong(audit, "spec chunks are leaked or shared");
    if (sum->home_bytes != store->home_bytes || sum->landing_bytes != store->landing_bytes ||
        sum->idle_bytes != store->idle_bytes ||
        extent_used_bytes(home_map(store)) != sum->home_bytes ||
        extent_used_bytes(landing_map(store)) != sum->landing_bytes)
        return audit_wrong(audit, "bytes in use do not add up");
    return true;
}

static bool audit_slots(struct audit *audit) {
    const struct store *store = audit->store;
    for (uint32_t i = 0; i < store->samples.touched; i++)
        if (!audit_sample(audit, i))
            return false;
    for (uint32_t i = 0; i < store->leases.touched; i++)
        if (!audit_lease(audit, i))
            return false;
    for (uint32_t i = 0; i < store->waiters.touched; i++)
        if (!audit_waiter(audit, i))
            return false;
    return true;
}

const char *store_audit(const struct store *store, char *why, size_t why_bytes) {
    struct audit audit = {.store = store, .why = why, .why_bytes = why_bytes};
    const char *broken = extent_audit(home_map(store));
    if (!broken)
        broken = extent_audit(landing_map(store));
    if (broken) {
        audit_wrong(&audit, "%s", broken);
        return why;
    }
    bool fine = audit_slots(&audit) && audit_lists(&audit) && audit_names(&audit) &&
                audit_holders(&audit) && audit_totals(&audit);
    return fine ? NULL : why;
}
