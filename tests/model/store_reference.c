/* SPDX-License-Identifier: Apache-2.0
 *
 * The operations of the reference, one after the other as the contract has them.
 */
#include "model/store_reference_state.h"

#include <string.h>

enum store_result ref_reserve(struct ref *ref, uint32_t holder, const struct ref_put *put,
                              uint64_t now_ns, struct store_refusal *refusal) {
    struct ref_limits limits = ref->holders[holder].limits;
    struct ref_waiter w = {.kind = REF_PUT,
                           .holder = holder,
                           .align = put->align,
                           .tensors = put->tensors,
                           .tag = put->tag,
                           .deadline_ns = put->deadline_ns,
                           .bytes = refstate_up(put->bytes, 64),
                           .serial = put->serial,
                           .id = put->id};
    uint64_t reserved = refstate_count_waiters(ref, REF_PUT, holder), queued = 0;
    EACH (s, ref->samples)
        reserved +=
            refstate_live(s) && !s->landing && s->state == STORE_PLANNED && s->holder == holder;
    if (w.bytes > ref->options.max_resident_bytes)
        return refstate_refuse(refusal, STORE_E_TOO_LARGE, STORE_CAUSE_QUOTA,
                               ref->options.max_resident_bytes, refstate_bytes_of(ref, false),
                               w.bytes);
    if (w.bytes > ref->account->limit_bytes)
        return refstate_refuse(refusal, STORE_E_TOO_LARGE, STORE_CAUSE_NODE_QUOTA,
                               ref->account->limit_bytes, ref->account->used_bytes, w.bytes);
    if (reserved >= limits.reservations)
        return refstate_refuse(refusal, STORE_E_LIMIT, STORE_CAUSE_SESSION_RESERVATIONS,
                               limits.reservations, reserved, 1);
    enum store_result result;
    if (refstate_count_waiters(ref, REF_PUT, STORE_NO_HOLDER))
        refstate_settle(ref, now_ns);
    uint32_t ahead = refstate_count_waiters(ref, REF_PUT, STORE_NO_HOLDER);
    if (ahead && !refstate_lets_pass(ref, REF_PUT, now_ns))
        result = refstate_refuse(refusal, STORE_E_FULL, STORE_CAUSE_QUEUE, ref->options.max_waiters,
                                 ahead, 1);
    else
        result = refstate_try_take(ref, &w, now_ns, refusal);
    if (result != STORE_E_FULL || put->deadline_ns <= now_ns)
        return result;
    EACH (q, ref->waiters)
        queued += q->kind == REF_PUT && !q->ready && q->holder == holder ? q->bytes : 0;
    if (queued + w.bytes > limits.queued_bytes)
        return refstate_refuse(refusal, STORE_E_LIMIT, STORE_CAUSE_SESSION_QUEUED,
                               limits.queued_bytes, queued, w.bytes);
    return refstate_enqueue(ref, &w, now_ns, refusal);
}

static struct ref_sample *reservation(struct ref *ref, uint32_t holder, uint64_t token) {
    EACH (s, ref->samples)
        if (refstate_live(s) && !s->landing && s->state == STORE_PLANNED && s->token == token &&
            s->holder == holder && token)
            return s;
    return NULL;
}

enum store_result ref_seal(struct ref *ref, uint32_t holder, uint64_t token,
                           uint32_t checksums_bytes, uint64_t generation) {
    struct ref_sample *s = reservation(ref, holder, token);
    if (!s)
        return STORE_E_NOT_FOUND;
    if ((checksums_bytes && checksums_bytes != 8 * s->tensors) || !generation ||
        ref_by_generation(ref, generation))
        return STORE_E_INVALID;
    s->state = STORE_SEALED;
    s->generation = generation;
    return STORE_OK;
}

enum store_result ref_publish(struct ref *ref, uint64_t generation, uint64_t now_ns,
                              uint64_t *superseded) {
    struct ref_sample *s = ref_by_generation(ref, generation);
    *superseded = 0;
    if (!s || s->landing || (s->state != STORE_SEALED && s->state != STORE_RESIDENT))
        return STORE_E_NOT_FOUND;
    if (s->state == STORE_RESIDENT)
        return STORE_OK;
    struct ref_sample *older = refstate_resident_of(ref, s->id);
    if (older) {
        *superseded = older->generation;
        refstate_retire(ref, older, STORE_SUPERSEDED, now_ns);
    }
    s->state = STORE_RESIDENT;
    s->since_ns = now_ns;
    s->idle_order = ++ref->order;
    ref->puts++;
    refstate_wake(ref, generation, s->id, s);
    refstate_step(ref);
    refstate_settle(ref, now_ns);
    return STORE_OK;
}

bool ref_reserve_ended(struct ref *ref, uint64_t token) {
    EACH (s, ref->samples)
        if (s->serial && s->token == token && token && s->state == STORE_GONE &&
            s->reason == STORE_RESERVE_ENDED)
            return true;
    return false;
}

void ref_cancel(struct ref *ref, uint32_t holder, uint64_t token, uint64_t now_ns) {
    struct ref_sample *s = reservation(ref, holder, token);
    if (s)
        refstate_gone(ref, s, STORE_CANCELLED, now_ns);
    refstate_step(ref);
    refstate_settle(ref, now_ns);
}

static void unseal(struct ref *ref, struct ref_sample *s, enum store_reason reason,
                   uint64_t now_ns) {
    uint64_t generation = s->generation;
    refstate_gone(ref, s, reason, now_ns);
    refstate_wake(ref, generation, -1, NULL);
}

enum store_result ref_unseal(struct ref *ref, uint64_t generation, uint64_t now_ns) {
    struct ref_sample *s = ref_by_generation(ref, generation);
    if (!s || s->state != STORE_SEALED)
        return STORE_E_NOT_FOUND;
    unseal(ref, s, STORE_CANCELLED, now_ns);
    refstate_step(ref);
    refstate_settle(ref, now_ns);
    return STORE_OK;
}

enum store_result ref_get(struct ref *ref, uint32_t holder, int id, const struct store_get *get,
                          uint64_t now_ns, struct ref_lease **lease,
                          struct store_refusal *refusal) {
    uint64_t generation = get->generation;
    struct ref_sample *s =
        generation ? ref_by_generation(ref, generation) : refstate_resident_of(ref, id);
    bool arriving = s && s->landing && s->state == STORE_PLANNED;
    bool readable = s && s->state == STORE_RESIDENT;
    bool over = s && (s->state == STORE_RETIRED || s->state == STORE_GONE);
    if (!readable && !arriving && (over || get->deadline_ns <= now_ns))
        return STORE_E_NOT_FOUND;
    uint32_t limit = ref->holders[holder].limits.leases;
    uint32_t wanted = refstate_leases_of(ref, holder) +
                      refstate_count_waiters(ref, REF_GET_ID, holder) +
                      refstate_count_waiters(ref, REF_GET_GENERATION, holder);
    if (wanted >= limit)
        return refstate_refuse(refusal, STORE_E_LIMIT, STORE_CAUSE_SESSION_LEASES, limit, wanted,
                               1);
    if (!readable) {
        struct ref_waiter w = {.kind = generation ? REF_GET_GENERATION : REF_GET_ID,
                               .holder = holder,
                               .tag = get->tag,
                               .cookie = get->cookie,
                               .deadline_ns = arriving ? UINT64_MAX : get->deadline_ns,
                               .generation = generation,
                               .id = id};
        return refstate_enqueue(ref, &w, now_ns, refusal);
    }
    *lease = refstate_grant(ref, s, holder, get->cookie);
    if (!*lease)
        return refstate_refuse(refusal, STORE_E_FULL, STORE_CAUSE_LEASES, ref->options.max_leases,
                               refstate_lease_slots_used(ref), 1);
    return STORE_OK;
}

bool ref_cancel_wait(struct ref *ref, uint32_t holder, uint64_t tag, uint64_t now_ns) {
    struct ref_waiter *found = NULL;
    EACH (w, ref->waiters)
        if (w->kind && w->holder == holder && w->tag == tag &&
            !(holder == STORE_NO_HOLDER && w->ready) && (!found || w->order < found->order))
            found = w;
    if (!found)
        return false;
    refstate_forget(ref, found, STORE_CANCELLED, now_ns);
    refstate_step(ref);
    refstate_settle(ref, now_ns);
    return true;
}

void ref_release(struct ref *ref, uint32_t holder, struct ref_lease *l, enum store_how how,
                 uint64_t now_ns) {
    if (l->live && l->holder == holder) {
        refstate_end_lease(ref, l, how, true, now_ns);
    } else if (!l->live && how == STORE_CONSUMED_BY_READER && l->how == STORE_RETURNED) {
        struct ref_sample *s = ref_by_serial(ref, l->sample_serial);
        l->how = STORE_CONSUMED_BY_READER;
        if (l->cookie && !l->effect_pending) { /* its owner was told `returned` */
            l->effect_pending = true;
            refstate_effect(ref, STORE_EFFECT_LEASE_ENDED, l->serial);
        }
        if (s && s->state == STORE_RESIDENT) {
            s->consumed++;
            refstate_after_reader(ref, s, now_ns);
        }
    }
    refstate_step(ref);
    refstate_settle(ref, now_ns);
}

bool ref_retire(struct ref *ref, int id, uint64_t generation, enum store_reason reason,
                uint64_t now_ns) {
    struct ref_sample *s =
        generation ? ref_by_generation(ref, generation) : refstate_resident_of(ref, id);
    bool hit =
        s && !s->landing && s->id == id && (s->state == STORE_RESIDENT || s->state == STORE_SEALED);
    if (hit && s->state == STORE_RESIDENT)
        refstate_retire(ref, s, reason, now_ns);
    else if (hit)
        unseal(ref, s, reason, now_ns);
    refstate_step(ref);
    refstate_settle(ref, now_ns);
    return hit;
}

uint32_t ref_gc(struct ref *ref, uint64_t max_hold_ns, uint64_t now_ns) {
    uint32_t freed = 0;
    if (!max_hold_ns)
        max_hold_ns = ref->options.max_hold_ns;
    if (!max_hold_ns)
        return 0;
    for (struct ref_sample *oldest;; freed++) {
        oldest = NULL;
        EACH (s, ref->samples)
            if (refstate_live(s) && !s->landing && s->state == STORE_RESIDENT && !s->leases &&
                now_ns - s->since_ns > max_hold_ns &&
                (!oldest || s->idle_order < oldest->idle_order))
                oldest = s;
        if (!oldest)
            break;
        refstate_retire(ref, oldest, STORE_MAX_HOLD, now_ns);
        refstate_step(ref);
    }
    refstate_settle(ref, now_ns);
    return freed;
}

void ref_drop(struct ref *ref, uint64_t now_ns) {
    EACH (w, ref->waiters)
        if (w->kind && !w->ready)
            refstate_answer(ref, w, STORE_E_NOT_FOUND);
    for (unsigned i = 0; i < ref->seen_count;
         i++) { /* in the order in which the store shows them */
        struct ref_sample *s = ref_by_serial(ref, ref->seen[i].serial);
        if (s->state == STORE_RESIDENT)
            refstate_retire(ref, s, STORE_DROPPED, now_ns);
        else if (s->landing && s->state == STORE_PLANNED)
            s->dropped = true;
        else if (s->state == STORE_PLANNED || s->state == STORE_SEALED)
            refstate_gone(ref, s, STORE_DROPPED, now_ns);
        refstate_step(ref);
    }
}

void ref_holder_close(struct ref *ref, uint32_t holder, uint64_t now_ns) {
    for (struct ref_waiter *oldest;;) {
        oldest = NULL;
        EACH (w, ref->waiters)
            if (w->kind && w->holder == holder && (!oldest || w->order < oldest->order))
                oldest = w;
        if (!oldest)
            break;
        refstate_forget(ref, oldest, STORE_PRODUCER_DIED, now_ns);
        refstate_step(ref);
    }
    for (struct ref_lease *oldest;;) {
        oldest = NULL;
        EACH (l, ref->leases)
            if (l->serial && l->live && l->holder == holder &&
                (!oldest || l->serial < oldest->serial))
                oldest = l;
        if (!oldest)
            break;
        refstate_end_lease(ref, oldest, STORE_RETURNED, true, now_ns);
        refstate_step(ref);
    }
    for (struct ref_sample *oldest;;) {
        oldest = NULL;
        EACH (s, ref->samples)
            if (refstate_live(s) && !s->landing && s->state == STORE_PLANNED &&
                s->holder == holder && (!oldest || s->order < oldest->order))
                oldest = s;
        if (!oldest)
            break;
        refstate_gone(ref, oldest, STORE_PRODUCER_DIED, now_ns);
        refstate_step(ref);
    }
    ref->holders[holder].open = false;
    refstate_step(ref);
    refstate_settle(ref, now_ns);
}

enum store_result ref_land(struct ref *ref, const struct ref_put *put, uint64_t generation,
                           uint64_t origin, uint64_t now_ns, struct store_refusal *refusal) {
    struct ref_waiter w = {.kind = REF_LAND,
                           .holder = STORE_NO_HOLDER,
                           .align = put->align,
                           .tensors = put->tensors,
                           .tag = put->tag,
                           .deadline_ns = put->deadline_ns,
                           .generation = generation,
                           .origin = origin,
                           .bytes = refstate_up(put->bytes, 64),
                           .serial = put->serial,
                           .id = put->id};
    enum store_result result;
    if (w.bytes > ref->options.landing_bytes)
        return refstate_refuse(refusal, STORE_E_TOO_LARGE, STORE_CAUSE_LANDING,
                               ref->options.landing_bytes, refstate_bytes_of(ref, true), w.bytes);
    if (refstate_count_waiters(ref, REF_LAND, STORE_NO_HOLDER))
        refstate_settle(ref, now_ns);
    uint32_t ahead = refstate_count_waiters(ref, REF_LAND, STORE_NO_HOLDER);
    if (ahead && !refstate_lets_pass(ref, REF_LAND, now_ns))
        result = refstate_refuse(refusal, STORE_E_FULL, STORE_CAUSE_QUEUE, ref->options.max_waiters,
                                 ahead, 1);
    else
        result = refstate_try_take(ref, &w, now_ns, refusal);
    if (result == STORE_E_FULL && put->deadline_ns > now_ns)
        result = refstate_enqueue(ref, &w, now_ns, refusal);
    refstate_settle(ref, now_ns);
    return result;
}

enum store_result ref_land_done(struct ref *ref, uint64_t generation, bool keep, uint64_t now_ns) {
    struct ref_sample *s = ref_by_generation(ref, generation);
    if (!s || !s->landing || s->state != STORE_PLANNED)
        return STORE_E_NOT_FOUND;
    if (s->dropped) {
        ref_land_failed(ref, generation, now_ns);
        return STORE_E_NOT_FOUND;
    }
    s->state = STORE_RESIDENT;
    s->since_ns = now_ns;
    s->idle_order = ++ref->order;
    s->cached = keep;
    refstate_wake(ref, generation, -1, s);
    if (!s->leases && !keep)
        refstate_retire(ref, s, STORE_UNCACHED, now_ns);
    refstate_step(ref);
    refstate_settle(ref, now_ns);
    return STORE_OK;
}

enum store_result ref_land_failed(struct ref *ref, uint64_t generation, uint64_t now_ns) {
    struct ref_sample *s = ref_by_generation(ref, generation);
    bool there = s && s->landing && (s->state == STORE_PLANNED || s->state == STORE_RESIDENT);
    if (there && s->state == STORE_PLANNED) {
        refstate_gone(ref, s, s->dropped ? STORE_DROPPED : STORE_FETCH_FAILED, now_ns);
        refstate_wake(ref, generation, -1, NULL);
    } else if (there) {
        refstate_retire(ref, s, STORE_FETCH_FAILED, now_ns);
    }
    refstate_step(ref);
    refstate_settle(ref, now_ns);
    return there ? STORE_OK : STORE_E_NOT_FOUND;
}

/* A drop answers all who wait, in no particular order. */
void ref_hurry(struct ref *ref, uint64_t tag) {
    for (unsigned i = 0; i < ref->effect_count; i++)
        EACH (w, ref->waiters)
            if (ref->effects[i].kind == STORE_EFFECT_PUT && w->kind &&
                w->order == ref->effects[i].of && w->tag == tag && w->ready &&
                w->result == STORE_E_NOT_FOUND) {
                uint64_t of = ref->effects[i].of;
                refstate_effect_remove(ref, i);
                memmove(&ref->effects[1], &ref->effects[0],
                        ref->effect_count++ * sizeof ref->effects[0]);
                ref->effects[0].kind = STORE_EFFECT_PUT;
                ref->effects[0].of = of;
                return;
            }
}

bool ref_next_effect(struct ref *ref, uint64_t now_ns, struct ref_effect *out) {
    refstate_end_reservations(ref, now_ns);
    refstate_settle(ref, now_ns);
    /* Only when somebody has left the line: settling once more grants nothing, but those who are
     * tried again note newer numbers for a refusal that they may be told much later. */
    if (ref_next_deadline_ns(ref) <= now_ns) {
        refstate_expire(ref, now_ns);
        refstate_settle(ref, now_ns);
    }
    if (!ref->effect_count)
        return false;
    uint64_t of = ref->effects[0].of;
    *out = (struct ref_effect){.kind = ref->effects[0].kind, .serial = of};
    refstate_effect_remove(ref, 0);
    if (out->kind == STORE_EFFECT_RETIRED) {
        struct ref_sample *s = ref_by_serial(ref, of);
        s->effect_pending = false;
        if (s->state == STORE_GONE)
            refstate_bury(ref, s);
    } else if (out->kind == STORE_EFFECT_LEASE_ENDED) {
        struct ref_lease *l = ref_lease_by_serial(ref, of);
        l->effect_pending = false;
        l->ended_order = ++ref->order;
    } else {
        EACH (w, ref->waiters)
            if (w->kind && w->order == of) {
                out->waiter = *w;
                w->kind = 0;
            }
        out->serial = out->waiter.granted;
        out->kind = out->waiter.kind == REF_PUT    ? STORE_EFFECT_PUT
                    : out->waiter.kind == REF_LAND ? STORE_EFFECT_LAND
                                                   : STORE_EFFECT_GET;
        struct ref_sample *s = ref_by_serial(ref, out->serial);
        if (out->waiter.result == STORE_OK && out->kind != STORE_EFFECT_GET &&
            (!s || s->state != STORE_PLANNED))
            out->waiter.result = STORE_E_NOT_FOUND;
    }
    refstate_step(ref);
    return true;
}

void ref_totals(struct ref *ref, struct store_totals *out) {
    *out = (struct store_totals){
        .resident_bytes = refstate_bytes_of(ref, false),
        .landing_used_bytes = refstate_bytes_of(ref, true),
        .max_holders = ref->options.max_holders,
        .max_leases = ref->options.max_leases,
        .max_waiters = ref->options.max_waiters,
        .put_waiters = refstate_count_waiters(ref, REF_PUT, STORE_NO_HOLDER),
        .land_waiters = refstate_count_waiters(ref, REF_LAND, STORE_NO_HOLDER),
        .get_waiters = refstate_count_waiters(ref, REF_GET_ID, STORE_NO_HOLDER) +
                       refstate_count_waiters(ref, REF_GET_GENERATION, STORE_NO_HOLDER),
        .puts = ref->puts,
        .gets = ref->gets,
        .frees = ref->frees,
        .largest_free_bytes = ref_largest_hole(ref, false),
        .reserves_ended = ref->reserves_ended};
    EACH (s, ref->samples) {
        out->tombstones += s->serial && s->state == STORE_GONE;
        out->landing += refstate_live(s) && s->landing;
        out->planned += refstate_live(s) && !s->landing && s->state == STORE_PLANNED;
        out->sealed += refstate_live(s) && !s->landing && s->state == STORE_SEALED;
        out->resident += refstate_live(s) && !s->landing && s->state == STORE_RESIDENT;
        out->retired += refstate_live(s) && !s->landing && s->state == STORE_RETIRED;
    }
    out->reservations = out->planned;
    EACH (l, ref->leases)
        out->leases += l->serial && l->live;
    EACH (h, ref->holders)
        out->holders += h->open;
}
