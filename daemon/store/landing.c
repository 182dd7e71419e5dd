/* SPDX-License-Identifier: Apache-2.0
 *
 * Landing copies: bytes of a generation whose home is another node, in a region of their own.
 *
 *   store_land ---> PLANNED ---store_land_done---> RESIDENT ---unused, or room is needed---> GONE
 *                      \-----store_land_failed-----------------------------------------------^
 *
 * The home alone decides about the generation. Here a copy lives as long as somebody reads it, or,
 * when it is kept as a cache, until another landing needs the room. A landing never takes room from
 * what is at home here, nor the other way round: the two regions do not overlap.
 *
 * A copy whose transfer still runs is never freed while bytes may still be written to it. If the
 * store is dropped meanwhile the copy is only marked (WORD_DROPPED), and is freed when the transfer
 * ends.
 */
#include "store/store_internal.h"

/* A landing waits without a holder: the broker asked for it, on behalf of all who want this
 * generation. */
static enum store_result landing_wait_for_room(struct store *store, const struct store_land *land,
                                               uint64_t now_ns, struct store_refusal *refusal) {
    uint32_t index;
    enum store_result result =
        waiter_for_room(store, WAITER_LAND, STORE_NO_HOLDER, &land->put, refusal, &index);
    if (result)
        return result;
    waiter_at(store, index)->generation = land->generation;
    waiter_at(store, index)->origin = land->origin;
    waiter_enqueue(store, index, now_ns);
    return STORE_WAIT;
}

static enum store_result landing_land_now(struct store *store, const struct store_land *land,
                                          uint64_t bytes, uint64_t now_ns, struct place *place_out,
                                          struct store_refusal *refusal) {
    const struct store_put *put = &land->put;
    struct sample_request request = {.sample_id = put->sample_id,
                                     .sample_id_bytes = put->sample_id_bytes,
                                     .spec = put->spec,
                                     .spec_bytes = put->spec_bytes,
                                     .tensor_count = put->tensor_count,
                                     .extent_bytes = bytes,
                                     .align_bytes = put->align_bytes,
                                     .landing = true,
                                     .holder = STORE_NO_HOLDER,
                                     .generation = land->generation,
                                     .origin = land->origin};
    uint32_t index;
    enum store_result result = sample_new_landing(store, &request, now_ns, &index, refusal);
    if (result == STORE_OK)
        *place_out = sample_place(sample_at(store, index));
    return result;
}

/* The same rule as for puts (store_reserve()): whoever came before has what is free first, and a
 * newcomer may pass only while the line allows it. store_settle() comes at the end because an
 * eviction frees slots and pieces of specs as well, which a put may be waiting for. */
enum store_result store_land(struct store *store, const struct store_land *land, uint64_t now_ns,
                             struct place *place_out, struct store_refusal *refusal) {
    *refusal = (struct store_refusal){0};
    if (!put_is_valid(&land->put) || !land->generation)
        return STORE_E_INVALID;
    uint64_t bytes = extent_round(land->put.extent_bytes);
    if (bytes > store->options.landing_bytes)
        return refuse(refusal, STORE_E_TOO_LARGE, STORE_CAUSE_LANDING, store->options.landing_bytes,
                      store->landing_bytes, bytes);
    enum store_result result;
    if (store->land_waiters)
        store_settle(store, now_ns);
    if (store->land_waiters &&
        !line_lets_pass(store, &store->land_line, store->land_waiters, now_ns))
        result = refuse(refusal, STORE_E_FULL, STORE_CAUSE_QUEUE, store->options.max_waiters,
                        store->land_waiters, 1);
    else
        result = landing_land_now(store, land, bytes, now_ns, place_out, refusal);
    if (result == STORE_E_FULL && land->put.deadline_ns > now_ns)
        result = landing_wait_for_room(store, land, now_ns, refusal);
    store_settle(store, now_ns); /* an eviction freed slots or chunks */
    return result;
}

static uint32_t landing_find(const struct store *store, uint64_t generation,
                             enum store_state state) {
    uint32_t index = sample_by_generation(store, generation);
    if (index == NONE || !sample_flag(sample_at(store, index), WORD_LANDING) ||
        sample_state(sample_at(store, index)) != state)
        return NONE;
    return index;
}

/* The copy joins the idle list before its waiters are woken, because lease_grant() takes it out of
 * there. If nobody waits and it is no cache it is of no use to anybody and goes at once; this
 * happens when all readers gave up during the transfer. */
enum store_result store_land_done(struct store *store, uint64_t generation, const void *checksums,
                                  uint32_t checksums_bytes, bool keep_cached, uint64_t now_ns) {
    uint32_t index = landing_find(store, generation, STORE_PLANNED);
    if (index == NONE)
        return STORE_E_NOT_FOUND;
    struct sample_slot *sample = sample_at(store, index);
    if (checksums_bytes && checksums_bytes != sample->tensor_count * 8)
        return STORE_E_INVALID;
    /* Dropped during the transfer: complete, and yet nobody may have it. */
    if (sample_flag(sample, WORD_DROPPED))
        return store_land_failed(store, generation, now_ns), STORE_E_NOT_FOUND;
    spec_write(store, sample->chunk, sample->spec_bytes, checksums, checksums_bytes);
    sample->checksums_bytes = (uint16_t)checksums_bytes;
    if (keep_cached)
        word_flag(&sample->word, WORD_CACHED);
    list_append(store, &store->samples, SAMPLE_AGE, &store->idle, index);
    store->idle_bytes += sample->extent_bytes;
    sample_commit(store, index, STORE_RESIDENT, STORE_REASON_NONE, now_ns);
    waiters_wake(store, generation, NONE, index, now_ns);
    if (!sample->lease_count && !keep_cached)
        sample_retire(store, index, STORE_UNCACHED, now_ns);
    store_settle(store, now_ns);
    return STORE_OK;
}

/* Also called for a copy that is RESIDENT: its home said that it is not valid any more, or its
 * checksum is wrong. Readers that hold a lease keep their bytes; nobody gets a new one. */
enum store_result store_land_failed(struct store *store, uint64_t generation, uint64_t now_ns) {
    uint32_t planned = landing_find(store, generation, STORE_PLANNED);
    uint32_t resident = landing_find(store, generation, STORE_RESIDENT);
    if (planned != NONE) {
        bool dropped = sample_flag(sample_at(store, planned), WORD_DROPPED);
        sample_end(store, planned, dropped ? STORE_DROPPED : STORE_FETCH_FAILED, now_ns);
        waiters_wake(store, generation, NONE, NONE, now_ns);
    } else if (resident != NONE) {
        sample_retire(store, resident, STORE_FETCH_FAILED, now_ns);
    }
    store_settle(store, now_ns);
    return planned == NONE && resident == NONE ? STORE_E_NOT_FOUND : STORE_OK;
}

bool store_has_landing(const struct store *store, uint64_t generation) {
    return landing_find(store, generation, STORE_PLANNED) != NONE ||
           landing_find(store, generation, STORE_RESIDENT) != NONE;
}
