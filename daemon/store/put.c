/* SPDX-License-Identifier: Apache-2.0
 *
 * Putting: reserve -> seal -> publish, or cancel or unseal on the way.
 *
 *   store_reserve   room and a slot are taken: PLANNED, invisible, owned by the holder
 *   store_seal      all bytes are written: SEALED under a generation, invisible, owned by nobody
 *   store_publish   the directory knows it: RESIDENT, readable; an older generation is retired
 *   store_cancel    the holder gave up, or died: PLANNED -> GONE
 *   store_unseal    the directory refused it: SEALED -> GONE
 *
 * Between seal and publish the broker asks the directory, which may take seconds. In that time the
 * bytes are complete, so the death of their producer does not matter any more; that is why seal
 * takes the sample from its holder.
 *
 * Contract: memory that is short never costs a resident sample its place. A put waits or is
 * refused.
 */
#include "store/store_internal.h"

/* What no waiting can help: the sample is larger than the store or the node could ever hold, or its
 * holder has all the reservations that it may have. */
static enum store_result put_check_limits(const struct store *store, uint32_t holder,
                                          uint64_t bytes, struct store_refusal *refusal) {
    const struct store_options *options = &store->options;
    const struct holder_slot *h = holder_at(store, holder);
    if (bytes > options->max_resident_bytes)
        return refuse(refusal, STORE_E_TOO_LARGE, STORE_CAUSE_QUOTA, options->max_resident_bytes,
                      store->home_bytes, bytes);
    if (options->account && bytes > options->account->limit_bytes)
        return refuse(refusal, STORE_E_TOO_LARGE, STORE_CAUSE_NODE_QUOTA,
                      options->account->limit_bytes, options->account->used_bytes, bytes);
    struct charge_refusal full;
    if (!account_has_room(h->account, CHARGE_RESERVATIONS, 1, &full))
        return refuse_account(refusal, STORE_CAUSE_SESSION_RESERVATIONS, &full);
    return STORE_OK;
}

/* The bytes that are asked for count against the holder while it waits. Otherwise one client could
 * fill the line with puts that nobody can pass. */
static enum store_result put_wait_for_room(struct store *store, uint32_t holder,
                                           const struct store_put *put, uint64_t bytes,
                                           uint64_t now_ns, struct store_refusal *refusal) {
    struct charge_refusal full;
    if (!account_has_room(holder_at(store, holder)->account, CHARGE_QUEUED_BYTES, bytes, &full))
        return refuse_account(refusal, STORE_CAUSE_SESSION_QUEUED, &full);
    uint32_t index;
    enum store_result result = waiter_for_room(store, WAITER_PUT, holder, put, refusal, &index);
    if (result)
        return result;
    waiter_enqueue(store, index, now_ns);
    return STORE_WAIT;
}

static enum store_result put_reserve_now(struct store *store, uint32_t holder,
                                         const struct store_put *put, uint64_t bytes,
                                         uint64_t now_ns, struct store_reservation *out,
                                         struct store_refusal *refusal) {
    struct sample_request request = {.sample_id = put->sample_id,
                                     .sample_id_bytes = put->sample_id_bytes,
                                     .spec = put->spec,
                                     .spec_bytes = put->spec_bytes,
                                     .tensor_count = put->tensor_count,
                                     .extent_bytes = bytes,
                                     .align_bytes = put->align_bytes,
                                     .holder = holder};
    uint32_t index;
    enum store_result result = sample_new(store, &request, now_ns, &index, refusal);
    if (result == STORE_OK)
        *out = (struct store_reservation){.token = sample_token(store, index),
                                          .place = sample_place(sample_at(store, index))};
    return result;
}

/* Room that became free a moment ago belongs to those who wait already, hence the settling before
 * this put is tried. Then either nobody waits, or the line may be passed, or this put has to queue.
 */
enum store_result store_reserve(struct store *store, uint32_t holder, const struct store_put *put,
                                uint64_t now_ns, struct store_reservation *out,
                                struct store_refusal *refusal) {
    *refusal = (struct store_refusal){0};
    if (!put_is_valid(put))
        return STORE_E_INVALID;
    uint64_t bytes = extent_round(put->extent_bytes);
    enum store_result result = put_check_limits(store, holder, bytes, refusal);
    if (result)
        return result;
    if (store->put_waiters)
        store_settle(store, now_ns); /* those who came before have what is free first */
    if (store->put_waiters && !line_lets_pass(store, &store->put_line, store->put_waiters, now_ns))
        result = refuse(refusal, STORE_E_FULL, STORE_CAUSE_QUEUE, store->options.max_waiters,
                        store->put_waiters, 1);
    else
        result = put_reserve_now(store, holder, put, bytes, now_ns, out, refusal);
    if (result != STORE_E_FULL || put->deadline_ns <= now_ns)
        return result;
    return put_wait_for_room(store, holder, put, bytes, now_ns, refusal);
}

/* The checksums have their room since the reservation, so nothing here can fail once the arguments
 * are right. The token of the reservation names one use of its slot: a second seal, or one that
 * comes after a cancel, does not find it.
 *
 * Commit point: SEALED. Before it generation and checksums are of a PLANNED slot, where attach sets
 * them back; its holder is forgotten only after it. */
enum store_result store_seal(struct store *store, uint32_t holder, uint64_t reservation,
                             const void *checksums, uint32_t checksums_bytes, uint64_t generation,
                             uint64_t now_ns) {
    uint32_t index = reservation_find(store, holder, reservation);
    if (index == NONE)
        return STORE_E_NOT_FOUND;
    struct sample_slot *sample = sample_at(store, index);
    if ((checksums_bytes && checksums_bytes != sample->tensor_count * 8) || !generation ||
        sample_by_generation(store, generation) != NONE)
        return STORE_E_INVALID;
    spec_write(store, sample->chunk, sample->spec_bytes, checksums, checksums_bytes);
    sample->checksums_bytes = (uint16_t)checksums_bytes;
    sample->generation = generation;
    sample_unreserve(store, index);
    sample_commit(store, index, STORE_SEALED, STORE_REASON_NONE, now_ns);
    sample->holder = STORE_NO_HOLDER;
    sample_hash(store, index);
    return STORE_OK;
}

/* The commit comes last: with it the generation is readable, and by then its name must lead to it.
 */
static void put_make_resident(struct store *store, uint32_t index, uint64_t now_ns) {
    struct sample_slot *sample = sample_at(store, index);
    struct name_slot *name = name_at(store, sample->name);
    list_remove(store, &store->samples, SAMPLE_BY_NAME, &name->pending, index);
    list_append(store, &store->samples, SAMPLE_AGE, &store->resident, index);
    name->resident = index;
    store->kept.puts++;
    sample_commit(store, index, STORE_RESIDENT, STORE_REASON_NONE, now_ns);
}

/* Commit point: RESIDENT of the new generation. From then on the older one has lost, and if the
 * process dies before it is RETIRED attach finds two resident generations of one id and retires the
 * older. The other way round a death in between would leave the id without any. */
enum store_result store_publish(struct store *store, uint64_t generation, uint64_t now_ns,
                                uint64_t *superseded_out) {
    *superseded_out = 0;
    uint32_t index = sample_by_generation(store, generation);
    if (index == NONE || sample_flag(sample_at(store, index), WORD_LANDING))
        return STORE_E_NOT_FOUND;
    enum store_state state = sample_state(sample_at(store, index));
    if (state == STORE_RESIDENT) /* said twice */
        return STORE_OK;
    if (state != STORE_SEALED)
        return STORE_E_NOT_FOUND;
    uint32_t name = sample_at(store, index)->name;
    uint32_t older = name_at(store, name)->resident;
    put_make_resident(store, index, now_ns);
    if (older != NONE) {
        *superseded_out = sample_at(store, older)->generation;
        sample_retire(store, older, STORE_SUPERSEDED, now_ns);
    }
    waiters_wake(store, generation, name, index, now_ns);
    store_settle(store, now_ns);
    return STORE_OK;
}

uint64_t store_reserves_ended(const struct store *store) {
    return store->kept.reserves_ended;
}

/* A GONE slot keeps its use count, and with it the token, until the tombstone is reused. */
bool store_reserve_ended(const struct store *store, uint64_t reservation) {
    uint32_t index = (uint32_t)reservation - 1;
    if (index >= store->samples.touched || sample_token(store, index) != reservation)
        return false;
    const struct sample_slot *sample = sample_at(store, index);
    return sample_state(sample) == STORE_GONE && sample_reason(sample) == STORE_RESERVE_ENDED;
}

/* ---- reservations do not stand for ever ---- */

/* max_hold is how long a finished sample may lie unread. A reservation may not lie longer than
 * that, so the smaller of the two counts; 0 means no bound in both. */
static uint64_t put_reserve_bound_ns(const struct store *store) {
    uint64_t reserve_ns = store->options.max_reserve_ns, hold_ns = store->options.max_hold_ns;
    if (!reserve_ns || (hold_ns && hold_ns < reserve_ns))
        return hold_ns;
    return reserve_ns;
}

/* The planned list is in the order in which reservations were made, and one bound holds for all:
 * the first one ends first. */
uint64_t reservations_deadline_ns(const struct store *store) {
    uint64_t bound_ns = put_reserve_bound_ns(store);
    if (store->planned.head == NONE || !bound_ns)
        return UINT64_MAX;
    return sample_stamp(sample_at(store, store->planned.head))->since_ns + bound_ns;
}

void reservations_expire(struct store *store, uint64_t now_ns) {
    for (uint32_t i = 0; i < EXPIRE_BUDGET && reservations_deadline_ns(store) <= now_ns; i++) {
        sample_end(store, store->planned.head, STORE_RESERVE_ENDED, now_ns);
        store->kept.reserves_ended++;
    }
}

enum store_result store_cancel(struct store *store, uint32_t holder, uint64_t reservation,
                               uint64_t now_ns) {
    uint32_t index = reservation_find(store, holder, reservation);
    if (index != NONE)
        sample_end(store, index, STORE_CANCELLED, now_ns);
    store_settle(store, now_ns);
    return STORE_OK;
}

enum store_result store_unseal(struct store *store, uint64_t generation, uint64_t now_ns) {
    uint32_t index = sample_by_generation(store, generation);
    if (index == NONE || sample_state(sample_at(store, index)) != STORE_SEALED)
        return STORE_E_NOT_FOUND;
    sample_end(store, index, STORE_CANCELLED, now_ns);
    waiters_wake(store, generation, NONE, NONE, now_ns);
    store_settle(store, now_ns);
    return STORE_OK;
}
