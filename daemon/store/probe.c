/* SPDX-License-Identifier: Apache-2.0
 *
 * Looking without touching: nothing here changes the store. Probes take no lease and delay no free
 * (contract).
 *
 * Walks over all slots keep a cursor that the caller holds, not the store, so that any number of
 * them can go on at the same time and an abandoned one costs nothing. A walk sees every slot that
 * does not change while it lasts; one that changes is seen before or after its change.
 */
#include <string.h>

#include "store/store_internal.h"

#define SKIP_MAX 4096u

/* A GONE slot has no extent any more, and the number that is left in it may be another sample's
 * place by now. */
static void probe_describe(const struct store *store, uint32_t index, struct store_info *out) {
    const struct sample_slot *sample = sample_at(store, index);
    bool gone = sample_state(sample) == STORE_GONE;
    *out = (struct store_info){.slot = index,
                               .state = sample_state(sample),
                               .reason = sample_reason(sample),
                               .generation = sample->generation,
                               .origin = sample->origin,
                               .landing = sample_flag(sample, WORD_LANDING),
                               .cached = sample_flag(sample, WORD_CACHED),
                               .since_ns = sample_stamp(sample)->since_ns,
                               .place = sample_place(sample),
                               .leases = sample->lease_count,
                               .consumed = sample->consumed};
    if (gone)
        out->place.offset = 0;
    if (out->state == STORE_PLANNED && sample->holder != STORE_NO_HOLDER)
        out->owner = holder_at(store, sample->holder)->owner;
    name_copy(store, sample->name, out->sample_id);
}

/* Newest SEALED, else newest PLANNED: the one that is closest to being readable. The list is in
 * order of reservation. */
static uint32_t probe_newest_pending(const struct store *store, const struct name_slot *name) {
    for (uint32_t at = name->pending.tail; at != NONE; at = sample_at(store, at)->by_name.prev)
        if (sample_state(sample_at(store, at)) == STORE_SEALED)
            return at;
    return name->pending.tail;
}

/* What a person means by "the sample of that name": the readable one; else the one that is on its
 * way; else the last one that there was. */
static uint32_t probe_find_by_id(const struct store *store, const char *id, uint32_t id_bytes) {
    uint32_t index = name_find(store, id, id_bytes);
    if (index == NONE)
        return NONE;
    const struct name_slot *name = name_at(store, index);
    if (name->resident != NONE)
        return name->resident;
    uint32_t pending = probe_newest_pending(store, name);
    return pending != NONE ? pending : name->gone;
}

bool store_stat(const struct store *store, const char *sample_id, uint32_t sample_id_bytes,
                uint64_t generation, struct store_info *out) {
    uint32_t index = generation ? sample_by_generation(store, generation)
                                : probe_find_by_id(store, sample_id, sample_id_bytes);
    if (index == NONE)
        return false;
    probe_describe(store, index, out);
    return true;
}

/* Sizes are set even when the bytes do not fit, so that a caller can make room and ask again. */
bool store_spec(const struct store *store, uint32_t slot, void *spec, uint32_t spec_max,
                uint32_t *spec_bytes, void *checksums, uint32_t checksums_max,
                uint32_t *checksums_bytes) {
    if (slot >= store->samples.touched)
        return false;
    const struct sample_slot *sample = sample_at(store, slot);
    if (sample_state(sample) == STORE_FREE || sample_state(sample) == STORE_GONE)
        return false;
    *spec_bytes = sample->spec_bytes;
    *checksums_bytes = sample->checksums_bytes;
    if (sample->spec_bytes <= spec_max)
        spec_read(store, sample->chunk, 0, spec, sample->spec_bytes);
    if (sample->checksums_bytes <= checksums_max)
        spec_read(store, sample->chunk, sample->spec_bytes, checksums, sample->checksums_bytes);
    return true;
}

/* SKIP_MAX bounds one call: a store of a million slots of which few are used must not hold up the
 * loop. A call that found nothing in its share says so with state FREE. */
bool store_list_next(const struct store *store, uint64_t *cursor, struct store_info *out) {
    for (uint32_t skipped = 0; *cursor < store->samples.touched; skipped++) {
        if (skipped == SKIP_MAX) {
            *out = (struct store_info){.state = STORE_FREE};
            return true;
        }
        uint32_t index = (uint32_t)(*cursor)++;
        if (sample_state(sample_at(store, index)) != STORE_FREE) {
            probe_describe(store, index, out);
            return true;
        }
    }
    return false;
}

static void probe_describe_lease(const struct store *store, const struct lease_slot *lease,
                                 struct store_lease_info *out) {
    *out = (struct store_lease_info){.owner = holder_at(store, lease->holder)->owner,
                                     .generation = lease->generation,
                                     .since_ns = lease->since_ns};
    name_copy(store, sample_at(store, lease->sample)->name, out->sample_id);
}

/* The cursor is the lease shown last + 1; if that one has ended, the walk ends with it. */
bool store_slot_lease_next(const struct store *store, uint32_t slot, uint64_t *cursor,
                           struct store_lease_info *out) {
    uint32_t next = NONE, last = (uint32_t)*cursor - 1;
    if (slot >= store->samples.touched || sample_state(sample_at(store, slot)) == STORE_FREE)
        return false;
    if (!*cursor)
        next = sample_at(store, slot)->leases.head;
    else if (last < store->leases.touched && lease_state(lease_at(store, last)) == LEASE_LIVE &&
             lease_at(store, last)->sample == slot)
        next = lease_at(store, last)->by_sample.next;
    if (next == NONE)
        return false;
    probe_describe_lease(store, lease_at(store, next), out);
    *cursor = (uint64_t)next + 1;
    return true;
}

bool store_lease_next(const struct store *store, uint64_t *cursor, struct store_lease_info *out) {
    for (uint32_t skipped = 0; *cursor < store->leases.touched; skipped++) {
        if (skipped == SKIP_MAX) {
            *out = (struct store_lease_info){0};
            return true;
        }
        const struct lease_slot *lease = lease_at(store, (uint32_t)(*cursor)++);
        if (lease_state(lease) == LEASE_LIVE) {
            probe_describe_lease(store, lease, out);
            return true;
        }
    }
    return false;
}

bool store_cookie_next(const struct store *store, uint64_t *cursor, struct store_cookie *out) {
    *out = (struct store_cookie){0};
    for (uint32_t skipped = 0; *cursor < store->leases.touched; skipped++) {
        if (skipped == SKIP_MAX)
            return true;
        const struct lease_slot *lease = lease_at(store, (uint32_t)(*cursor)++);
        if (lease_state(lease) == LEASE_FREE || !lease->cookie)
            continue;
        *out = (struct store_cookie){.cookie = lease->cookie,
                                     .live = lease_state(lease) == LEASE_LIVE,
                                     .how = lease_how(lease)};
        return true;
    }
    return false;
}

void store_totals(const struct store *store, struct store_totals *out) {
    *out = (struct store_totals){.resident_bytes = store->home_bytes,
                                 .landing_used_bytes = store->landing_bytes,
                                 .planned = store->home_count[STORE_PLANNED],
                                 .sealed = store->home_count[STORE_SEALED],
                                 .resident = store->home_count[STORE_RESIDENT],
                                 .retired = store->home_count[STORE_RETIRED],
                                 .landing = store->landing_count,
                                 .tombstones = store->gone_count,
                                 .leases = store->lease_count,
                                 .reservations = store->home_count[STORE_PLANNED],
                                 .holders = store->holders.used,
                                 .max_holders = store->options.max_holders,
                                 .max_leases = store->options.max_leases,
                                 .max_waiters = store->options.max_waiters,
                                 .put_waiters = store->put_waiters,
                                 .get_waiters = store->get_waiters,
                                 .land_waiters = store->land_waiters,
                                 .puts = store->kept.puts,
                                 .gets = store->kept.gets,
                                 .frees = store->kept.frees,
                                 .largest_free_bytes = extent_largest_free(home_map(store)),
                                 .reserves_ended = store->kept.reserves_ended};
}

void store_lives(const struct store *store, struct store_lives *out) {
    *out = store->lives;
}

/* ---- who holds the room ---- */

/* Only the oldest STORE_LOOK_MAX reservations are looked at, so that a refusal costs the same
 * however many there are. Whoever holds much for long is among them. */
static void probe_room_reserver(const struct store *store, struct store_room *out) {
    uint32_t at = store->planned.head;
    for (uint32_t i = 0; at != NONE && i < STORE_LOOK_MAX; i++) {
        const struct sample_slot *sample = sample_at(store, at);
        const struct holder_slot *holder = holder_at(store, sample->holder);
        if (holder->reserved_bytes > out->reserver_bytes) {
            out->has_reserver = true;
            out->reserver = holder->owner;
            out->reserver_bytes = holder->reserved_bytes;
            out->reserver_since_ns = sample_stamp(sample)->since_ns;
        }
        at = sample->age.next;
    }
}

/* The oldest lease on the generation that has waited for its readers for longest. */
static void probe_room_reader(const struct store *store, struct store_room *out) {
    if (store->retired.head == NONE)
        return;
    const struct sample_slot *sample = sample_at(store, store->retired.head);
    const struct lease_slot *lease = lease_at(store, sample->leases.head);
    out->has_reader = true;
    out->reader = holder_at(store, lease->holder)->owner;
    out->reader_since_ns = lease->since_ns;
}

/* Since when it is first, not since when it waits: only the first is in the way of others. */
static void probe_room_first(const struct store *store, struct store_room *out) {
    if (store->put_line.queue.head == NONE)
        return;
    const struct waiter_slot *first = waiter_at(store, store->put_line.queue.head);
    out->has_first = true;
    out->first = holder_at(store, first->holder)->owner;
    out->first_bytes = first->extent_bytes;
    out->first_since_ns = store->put_line.head_since_ns;
}

void store_room(const struct store *store, struct store_room *out) {
    *out = (struct store_room){.reserved_bytes = store->state_bytes[STORE_PLANNED],
                               .sealed_bytes = store->state_bytes[STORE_SEALED],
                               .resident_bytes = store->state_bytes[STORE_RESIDENT],
                               .retired_bytes = store->state_bytes[STORE_RETIRED],
                               .leased_bytes = store->leased_bytes};
    probe_room_reserver(store, out);
    probe_room_reader(store, out);
    probe_room_first(store, out);
}
