/* SPDX-License-Identifier: Apache-2.0 */
#include "store_reference.h"

#include <string.h>

#define EACH(p, array)                                                                             \
    for (__typeof__(&(array)[0]) p = (array); p < (array) + sizeof(array) / sizeof(*(array)); p++)

/* ---- finding ---- */
struct ref_sample *ref_by_serial(struct ref *ref, uint64_t serial) {
    EACH (s, ref->samples)
        if (s->serial == serial)
            return s;
    return NULL;
}

/* A landing copy may come more than once: the newer one hides the older. */
struct ref_sample *ref_by_generation(struct ref *ref, uint64_t generation) {
    EACH (s, ref->samples)
        if (s->serial && generation && s->generation == generation && !s->hidden)
            return s;
    return NULL;
}

static struct ref_sample *resident_of(struct ref *ref, int id) {
    EACH (s, ref->samples)
        if (s->serial && !s->landing && s->id == id && s->state == STORE_RESIDENT)
            return s;
    return NULL;
}

struct ref_sample *ref_by_id(struct ref *ref, int id) {
    struct ref_sample *best = resident_of(ref, id);
    for (enum store_state state = STORE_SEALED; !best && state >= STORE_PLANNED; state--)
        EACH (s, ref->samples)
            if (s->serial && !s->landing && s->id == id && s->state == state &&
                (!best || s->order > best->order))
                best = s;
    EACH (s, ref->samples)
        if (!best && s->serial && s->id == id && s->was_last)
            return s;
    return best;
}

struct ref_lease *ref_lease_by_serial(struct ref *ref, uint64_t serial) {
    EACH (l, ref->leases)
        if (l->serial == serial)
            return l;
    return NULL;
}

static bool live(const struct ref_sample *s) {
    return s->serial && s->state != STORE_GONE;
}

static uint64_t bytes_of(const struct ref *ref, bool landing) {
    uint64_t sum = 0;
    EACH (s, ref->samples)
        if (live(s) && s->landing == landing)
            sum += s->bytes;
    return sum;
}

static uint32_t count_waiters(const struct ref *ref, enum ref_kind kind, uint32_t holder) {
    uint32_t n = 0;
    EACH (w, ref->waiters)
        n += w->kind == kind && !w->ready && (holder == STORE_NO_HOLDER || w->holder == holder);
    return n;
}

static uint32_t count_all_waiters(const struct ref *ref) {
    uint32_t n = 0;
    EACH (w, ref->waiters)
        n += w->kind != 0;
    return n;
}

/* ---- places ---- */
static uint64_t up(uint64_t value, uint64_t align) {
    return (value + align - 1) / align * align;
}

/* End of the hole that begins at `from`: the lowest extent behind it, or the end of the region. */
static uint64_t hole_end(const struct ref *ref, uint64_t from, uint64_t end) {
    EACH (s, ref->samples)
        if (live(s) && s->offset >= from && s->offset < end)
            end = s->offset;
    return end;
}

/* Calls for each hole; returns the largest usable one under `align`. */
static uint64_t largest_aligned(const struct ref *ref, bool landing, uint32_t align) {
    uint64_t base = landing ? ref->options.max_resident_bytes : 0;
    uint64_t end = base + (landing ? ref->options.landing_bytes : ref->options.max_resident_bytes);
    uint64_t largest = 0;
    for (int i = -1; i < REF_SAMPLES; i++) { /* a hole begins at the base or behind an extent */
        const struct ref_sample *s = i < 0 ? NULL : &ref->samples[i];
        if (s && (!live(s) || s->landing != landing))
            continue;
        uint64_t from = s ? s->offset + s->bytes : base, to = hole_end(ref, from, end);
        if (up(from, align) < to && to - up(from, align) > largest)
            largest = to - up(from, align);
    }
    return largest;
}

uint64_t ref_largest_hole(const struct ref *ref, bool landing) {
    return largest_aligned(ref, landing, 64);
}

static void check_place(struct ref *ref, const struct ref_sample *new, uint32_t align) {
    uint64_t base = new->landing ? ref->options.max_resident_bytes : 0;
    uint64_t end =
        base + (new->landing ? ref->options.landing_bytes : ref->options.max_resident_bytes);
    if (new->offset % align || new->offset < base || new->offset + new->bytes > end)
        ref->broken = "an extent is misaligned or outside its region";
    EACH (s, ref->samples)
        if (s != new &&live(s) &&
            s->offset < new->offset + new->bytes &&new->offset < s->offset + s->bytes)
            ref->broken = "an extent lies over another that is in use";
}

/* ---- effects ---- */
static void effect(struct ref *ref, enum store_effect_kind kind, uint64_t of) {
    if (ref->effect_count == REF_EFFECTS) {
        ref->broken = "the reference has no room for one more effect";
        return;
    }
    ref->effects[ref->effect_count].kind = kind;
    ref->effects[ref->effect_count++].of = of;
}

static void effect_remove(struct ref *ref, unsigned at) {
    memmove(&ref->effects[at], &ref->effects[at + 1],
            (--ref->effect_count - at) * sizeof ref->effects[0]);
}

/* ---- the end of a generation ---- */
static void bury(struct ref *ref, struct ref_sample *s) {
    uint32_t tombs = 0;
    struct ref_sample *oldest = NULL;
    s->tomb_order = ++ref->order;
    EACH (t, ref->samples)
        if (t->serial && t->state == STORE_GONE && !t->effect_pending) {
            tombs++;
            if (!oldest || t->tomb_order < oldest->tomb_order)
                oldest = t;
        }
    if (tombs > ref->options.max_tombstones)
        memset(oldest, 0, sizeof *oldest);
}

static void mark_last(struct ref *ref, struct ref_sample *s) {
    if (s->landing)
        return;
    EACH (t, ref->samples)
        if (t->id == s->id)
            t->was_last = false;
    s->was_last = true;
}

static void gone(struct ref *ref, struct ref_sample *s, enum store_reason reason, uint64_t now_ns) {
    if (s->state != STORE_RETIRED) {
        mark_last(ref, s);
        s->since_ns = now_ns;
    }
    if (!s->landing)
        ref->account->used_bytes -= s->bytes;
    s->state = STORE_GONE;
    s->reason = reason;
    if (!s->effect_pending)
        bury(ref, s);
}

static void retire(struct ref *ref, struct ref_sample *s, enum store_reason reason,
                   uint64_t now_ns) {
    mark_last(ref, s);
    s->state = STORE_RETIRED;
    s->reason = reason;
    s->since_ns = now_ns;
    if (!s->landing) {
        ref->frees++;
        s->effect_pending = true;
        effect(ref, STORE_EFFECT_RETIRED, s->serial);
    }
    if (!s->leases)
        gone(ref, s, reason, now_ns);
}

/* ---- leases ---- */
static uint32_t lease_slots_used(const struct ref *ref) {
    uint32_t n = 0;
    EACH (l, ref->leases)
        n += l->serial && (l->live || l->effect_pending);
    return n;
}

static uint32_t leases_of(const struct ref *ref, uint32_t holder) {
    uint32_t n = 0;
    EACH (l, ref->leases)
        n += l->serial && l->live && l->holder == holder;
    return n;
}

static struct ref_lease *grant(struct ref *ref, struct ref_sample *s, uint32_t holder,
                               uint64_t cookie) {
    struct ref_lease *slot = NULL;
    if (lease_slots_used(ref) >= ref->options.max_leases)
        return NULL;
    EACH (l, ref->leases)
        if (!l->live && !l->effect_pending && (!slot || l->ended_order < slot->ended_order))
            slot = l;
    *slot = (struct ref_lease){.serial = ++ref->lease_serial,
                               .sample_serial = s->serial,
                               .generation = s->generation,
                               .cookie = cookie,
                               .live = true,
                               .holder = holder};
    s->leases++;
    ref->gets++;
    return slot;
}

static void after_reader(struct ref *ref, struct ref_sample *s, uint64_t now_ns) {
    if (s->leases)
        return;
    if (s->state == STORE_RETIRED)
        gone(ref, s, s->reason, now_ns);
    else if (s->state == STORE_RESIDENT && s->landing && !s->cached)
        retire(ref, s, STORE_UNCACHED, now_ns);
    else if (s->state == STORE_RESIDENT && !s->landing && ref->options.policy == STORE_ON_RELEASE &&
             s->consumed >= ref->options.readers)
        retire(ref, s, STORE_CONSUMED, now_ns);
}

static void end_lease(struct ref *ref, struct ref_lease *l, enum store_how how, bool tell,
                      uint64_t now_ns) {
    struct ref_sample *s = ref_by_serial(ref, l->sample_serial);
    l->live = false;
    l->how = how;
    l->ended_order = ++ref->order;
    s->leases--;
    s->consumed += how == STORE_CONSUMED_BY_READER;
    if (!s->leases && s->landing)
        s->idle_order = ++ref->order;
    if (tell && l->cookie) {
        l->effect_pending = true;
        effect(ref, STORE_EFFECT_LEASE_ENDED, l->serial);
    }
    after_reader(ref, s, now_ns);
}

/* ---- taking room ---- */
static enum store_result refuse(struct store_refusal *refusal, enum store_result result,
                                enum store_cause cause, uint64_t limit, uint64_t used,
                                uint64_t asked) {
    *refusal = (struct store_refusal){.cause = cause, .limit = limit, .used = used, .asked = asked};
    return result;
}

static enum store_result room(struct ref *ref, const struct ref_waiter *w,
                              struct store_refusal *refusal) {
    bool landing = w->kind == REF_LAND;
    uint32_t slots = 0;
    EACH (s, ref->samples)
        slots += s->serial && (s->state != STORE_GONE || s->effect_pending);
    if (slots >= ref->options.max_samples)
        return refuse(refusal, STORE_E_FULL, STORE_CAUSE_SAMPLES, ref->options.max_samples, slots,
                      1);
    uint64_t used = bytes_of(ref, landing), limit = ref->options.max_resident_bytes;
    if (!landing && used + w->bytes > limit)
        return refuse(refusal, STORE_E_FULL, STORE_CAUSE_QUOTA, limit, used, w->bytes);
    if (!landing && ref->account->used_bytes + w->bytes > ref->account->limit_bytes)
        return refuse(refusal, STORE_E_FULL, STORE_CAUSE_NODE_QUOTA, ref->account->limit_bytes,
                      ref->account->used_bytes, w->bytes);
    if (largest_aligned(ref, landing, w->align) >= w->bytes)
        return STORE_OK;
    if (landing)
        return refuse(refusal, STORE_E_FULL, STORE_CAUSE_LANDING, ref->options.landing_bytes, used,
                      w->bytes);
    return refuse(refusal, STORE_E_FULL, STORE_CAUSE_FRAGMENTED, ref_largest_hole(ref, false), used,
                  w->bytes);
}

static void take(struct ref *ref, const struct ref_waiter *w, uint64_t now_ns) {
    struct ref_sample *slot = ref_by_serial(ref, 0);
    struct ref_sample *older = ref_by_generation(ref, w->generation);
    if (older)
        older->hidden = true;
    *slot = (struct ref_sample){.serial = w->serial,
                                .landing = w->kind == REF_LAND,
                                .state = STORE_PLANNED,
                                .generation = w->generation,
                                .origin = w->origin,
                                .offset = UINT64_MAX / 2,
                                .bytes = w->bytes,
                                .since_ns = now_ns,
                                .order = ++ref->order,
                                .id = w->id,
                                .holder = w->holder,
                                .tensors = w->tensors};
    if (!slot->landing)
        ref->account->used_bytes += slot->bytes;
    for (unsigned i = 0; i < ref->seen_count; i++)
        if (ref->seen[i].serial == w->serial)
            slot->offset = ref->seen[i].offset;
    check_place(ref, slot, w->align);
}

/* Longest idle first, and only while freeing them all could make enough room. */
static bool evict(struct ref *ref, const struct ref_waiter *w, uint64_t now_ns) {
    struct ref_sample *oldest = NULL;
    uint64_t busy = 0;
    EACH (s, ref->samples) {
        bool idle = live(s) && s->landing && s->state == STORE_RESIDENT && !s->leases;
        busy += live(s) && s->landing && !idle ? s->bytes : 0;
        if (idle && (!oldest || s->idle_order < oldest->idle_order))
            oldest = s;
    }
    if (!oldest || busy + w->bytes > ref->options.landing_bytes)
        return false;
    retire(ref, oldest, STORE_UNCACHED, now_ns);
    return true;
}

static enum store_result try_take(struct ref *ref, const struct ref_waiter *w, uint64_t now_ns,
                                  struct store_refusal *refusal) {
    enum store_result result;
    struct ref_sample *there = ref_by_generation(ref, w->generation);
    if (w->kind == REF_LAND && there &&
        (!there->landing || there->state == STORE_PLANNED || there->state == STORE_RESIDENT))
        return STORE_E_EXISTS;
    while ((result = room(ref, w, refusal)) == STORE_E_FULL && w->kind == REF_LAND)
        if (!evict(ref, w, now_ns))
            break;
    if (result == STORE_OK)
        take(ref, w, now_ns);
    return result;
}

/* ---- waiting ---- */
static struct ref_waiter *oldest_waiter(struct ref *ref, enum ref_kind kind) {
    struct ref_waiter *oldest = NULL;
    EACH (w, ref->waiters)
        if (w->kind == kind && !w->ready && (!oldest || w->order < oldest->order))
            oldest = w;
    return oldest;
}

static void answer(struct ref *ref, struct ref_waiter *w, enum store_result result) {
    w->ready = true;
    w->result = result;
    effect(ref, STORE_EFFECT_PUT, w->order); /* the kind of the wait says which effect it is */
}

static void settle(struct ref *ref, uint64_t now_ns) {
    for (enum ref_kind kind = REF_PUT; kind <= REF_LAND; kind++)
        for (struct ref_waiter *w; (w = oldest_waiter(ref, kind));) {
            enum store_result result = try_take(ref, w, now_ns, &w->refusal);
            if (result == STORE_E_FULL)
                break;
            if (result == STORE_OK) {
                w->refusal = (struct store_refusal){0};
                w->granted = w->serial;
            }
            answer(ref, w, result);
        }
}

static enum store_result enqueue(struct ref *ref, const struct ref_waiter *w,
                                 struct store_refusal *refusal) {
    uint32_t used = count_all_waiters(ref);
    if (used >= ref->options.max_waiters)
        return refuse(refusal, STORE_E_FULL, STORE_CAUSE_WAITERS, ref->options.max_waiters, used,
                      1);
    EACH (slot, ref->waiters)
        if (!slot->kind) {
            *slot = *w;
            slot->refusal = *refusal;
            slot->order = ++ref->order;
            return STORE_WAIT;
        }
    return STORE_E_INVALID;
}

static void wake(struct ref *ref, uint64_t generation, int id, struct ref_sample *s) {
    for (;;) {
        struct ref_waiter *next = NULL;
        EACH (w, ref->waiters)
            if (!w->ready &&
                ((w->kind == REF_GET_GENERATION && w->generation == generation) ||
                 (w->kind == REF_GET_ID && w->id == id)) &&
                (!next || w->order < next->order))
                next = w;
        if (!next)
            return;
        struct ref_lease *l = s ? grant(ref, s, next->holder, next->cookie) : NULL;
        next->granted = l ? l->serial : 0;
        if (s && !l)
            refuse(&next->refusal, STORE_E_FULL, STORE_CAUSE_LEASES, ref->options.max_leases,
                   lease_slots_used(ref), 1);
        answer(ref, next, l ? STORE_OK : s ? STORE_E_FULL : STORE_E_NOT_FOUND);
    }
}

uint64_t ref_next_deadline_ns(const struct ref *ref) {
    uint64_t earliest = UINT64_MAX;
    EACH (w, ref->waiters)
        if (w->kind && !w->ready && w->deadline_ns < earliest)
            earliest = w->deadline_ns;
    return earliest;
}

static void expire(struct ref *ref, uint64_t now_ns) {
    for (;;) {
        struct ref_waiter *next = NULL;
        EACH (w, ref->waiters)
            if (w->kind && !w->ready && w->deadline_ns <= now_ns &&
                (!next || w->deadline_ns < next->deadline_ns ||
                 (w->deadline_ns == next->deadline_ns && w->order < next->order)))
                next = w;
        if (!next)
            return;
        bool for_room = next->kind == REF_PUT || next->kind == REF_LAND;
        if (for_room && oldest_waiter(ref, next->kind) != next)
            refuse(&next->refusal, STORE_E_FULL, STORE_CAUSE_QUEUE, ref->options.max_waiters,
                   count_waiters(ref, next->kind, STORE_NO_HOLDER), 1);
        answer(ref, next, for_room ? STORE_E_FULL : STORE_E_TIMEOUT);
    }
}

static void forget(struct ref *ref, struct ref_waiter *w, enum store_reason reason,
                   uint64_t now_ns) {
    for (unsigned i = 0; w->ready && i < ref->effect_count; i++)
        if (ref->effects[i].kind == STORE_EFFECT_PUT && ref->effects[i].of == w->order)
            effect_remove(ref, i);
    if (w->ready && w->result == STORE_OK && w->kind <= REF_LAND) {
        struct ref_sample *s = ref_by_serial(ref, w->granted);
        if (s && s->state == STORE_PLANNED)
            gone(ref, s, reason, now_ns);
    } else if (w->ready && w->result == STORE_OK) {
        end_lease(ref, ref_lease_by_serial(ref, w->granted), STORE_RETURNED, false, now_ns);
    }
    w->kind = 0;
}

/* ---- the operations ---- */
enum store_result ref_reserve(struct ref *ref, uint32_t holder, const struct ref_put *put,
                              uint64_t now_ns, struct store_refusal *refusal) {
    struct store_limits limits = ref->holders[holder].limits;
    struct ref_waiter w = {.kind = REF_PUT,
                           .holder = holder,
                           .align = put->align,
                           .tensors = put->tensors,
                           .tag = put->tag,
                           .deadline_ns = put->deadline_ns,
                           .bytes = up(put->bytes, 64),
                           .serial = put->serial,
                           .id = put->id};
    uint64_t reserved = count_waiters(ref, REF_PUT, holder), queued = 0;
    EACH (s, ref->samples)
        reserved += live(s) && !s->landing && s->state == STORE_PLANNED && s->holder == holder;
    EACH (q, ref->waiters)
        queued += q->kind == REF_PUT && !q->ready && q->holder == holder ? q->bytes : 0;
    if (w.bytes > ref->options.max_resident_bytes)
        return refuse(refusal, STORE_E_TOO_LARGE, STORE_CAUSE_QUOTA,
                      ref->options.max_resident_bytes, bytes_of(ref, false), w.bytes);
    if (w.bytes > ref->account->limit_bytes)
        return refuse(refusal, STORE_E_TOO_LARGE, STORE_CAUSE_NODE_QUOTA, ref->account->limit_bytes,
                      ref->account->used_bytes, w.bytes);
    if (reserved >= limits.reservations)
        return refuse(refusal, STORE_E_LIMIT, STORE_CAUSE_SESSION_RESERVATIONS, limits.reservations,
                      reserved, 1);
    enum store_result result;
    uint32_t ahead = count_waiters(ref, REF_PUT, STORE_NO_HOLDER);
    if (ahead)
        result =
            refuse(refusal, STORE_E_FULL, STORE_CAUSE_QUEUE, ref->options.max_waiters, ahead, 1);
    else
        result = try_take(ref, &w, now_ns, refusal);
    if (result != STORE_E_FULL || put->deadline_ns <= now_ns)
        return result;
    if (queued + w.bytes > limits.queued_bytes)
        return refuse(refusal, STORE_E_LIMIT, STORE_CAUSE_SESSION_QUEUED, limits.queued_bytes,
                      queued, w.bytes);
    return enqueue(ref, &w, refusal);
}

static struct ref_sample *reservation(struct ref *ref, uint32_t holder, uint64_t token) {
    EACH (s, ref->samples)
        if (live(s) && !s->landing && s->state == STORE_PLANNED && s->token == token &&
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
    struct ref_sample *older = resident_of(ref, s->id);
    if (older) {
        *superseded = older->generation;
        retire(ref, older, STORE_SUPERSEDED, now_ns);
    }
    s->state = STORE_RESIDENT;
    s->since_ns = now_ns;
    s->idle_order = ++ref->order;
    ref->puts++;
    wake(ref, generation, s->id, s);
    settle(ref, now_ns);
    return STORE_OK;
}

void ref_cancel(struct ref *ref, uint32_t holder, uint64_t token, uint64_t now_ns) {
    struct ref_sample *s = reservation(ref, holder, token);
    if (s)
        gone(ref, s, STORE_CANCELLED, now_ns);
    settle(ref, now_ns);
}

static void unseal(struct ref *ref, struct ref_sample *s, enum store_reason reason,
                   uint64_t now_ns) {
    uint64_t generation = s->generation;
    gone(ref, s, reason, now_ns);
    wake(ref, generation, -1, NULL);
}

enum store_result ref_unseal(struct ref *ref, uint64_t generation, uint64_t now_ns) {
    struct ref_sample *s = ref_by_generation(ref, generation);
    if (!s || s->state != STORE_SEALED)
        return STORE_E_NOT_FOUND;
    unseal(ref, s, STORE_CANCELLED, now_ns);
    settle(ref, now_ns);
    return STORE_OK;
}

enum store_result ref_get(struct ref *ref, uint32_t holder, int id, uint64_t generation,
                          uint64_t deadline_ns, uint64_t tag, uint64_t cookie, uint64_t now_ns,
                          struct ref_lease **lease, struct store_refusal *refusal) {
    struct ref_sample *s = generation ? ref_by_generation(ref, generation) : resident_of(ref, id);
    bool arriving = s && s->landing && s->state == STORE_PLANNED;
    bool readable = s && s->state == STORE_RESIDENT;
    bool over = s && (s->state == STORE_RETIRED || s->state == STORE_GONE);
    if (!readable && !arriving && (over || deadline_ns <= now_ns))
        return STORE_E_NOT_FOUND;
    uint32_t limit = ref->holders[holder].limits.leases;
    uint32_t wanted = leases_of(ref, holder) + count_waiters(ref, REF_GET_ID, holder) +
                      count_waiters(ref, REF_GET_GENERATION, holder);
    if (wanted >= limit)
        return refuse(refusal, STORE_E_LIMIT, STORE_CAUSE_SESSION_LEASES, limit, wanted, 1);
    if (!readable) {
        struct ref_waiter w = {.kind = generation ? REF_GET_GENERATION : REF_GET_ID,
                               .holder = holder,
                               .tag = tag,
                               .cookie = cookie,
                               .deadline_ns = arriving ? UINT64_MAX : deadline_ns,
                               .generation = generation,
                               .id = id};
        return enqueue(ref, &w, refusal);
    }
    *lease = grant(ref, s, holder, cookie);
    if (!*lease)
        return refuse(refusal, STORE_E_FULL, STORE_CAUSE_LEASES, ref->options.max_leases,
                      lease_slots_used(ref), 1);
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
    forget(ref, found, STORE_CANCELLED, now_ns);
    settle(ref, now_ns);
    return true;
}

void ref_release(struct ref *ref, uint32_t holder, struct ref_lease *l, enum store_how how,
                 uint64_t now_ns) {
    if (l->live && l->holder == holder) {
        end_lease(ref, l, how, true, now_ns);
    } else if (!l->live && how == STORE_CONSUMED_BY_READER && l->how == STORE_RETURNED) {
        struct ref_sample *s = ref_by_serial(ref, l->sample_serial);
        l->how = STORE_CONSUMED_BY_READER;
        if (l->cookie && !l->effect_pending) { /* its owner was told `returned` */
            l->effect_pending = true;
            effect(ref, STORE_EFFECT_LEASE_ENDED, l->serial);
        }
        if (s && s->state == STORE_RESIDENT) {
            s->consumed++;
            after_reader(ref, s, now_ns);
        }
    }
    settle(ref, now_ns);
}

bool ref_retire(struct ref *ref, int id, uint64_t generation, enum store_reason reason,
                uint64_t now_ns) {
    struct ref_sample *s = generation ? ref_by_generation(ref, generation) : resident_of(ref, id);
    bool hit =
        s && !s->landing && s->id == id && (s->state == STORE_RESIDENT || s->state == STORE_SEALED);
    if (hit && s->state == STORE_RESIDENT)
        retire(ref, s, reason, now_ns);
    else if (hit)
        unseal(ref, s, reason, now_ns);
    settle(ref, now_ns);
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
            if (live(s) && !s->landing && s->state == STORE_RESIDENT && !s->leases &&
                now_ns - s->since_ns > max_hold_ns &&
                (!oldest || s->idle_order < oldest->idle_order))
                oldest = s;
        if (!oldest)
            break;
        retire(ref, oldest, STORE_MAX_HOLD, now_ns);
    }
    settle(ref, now_ns);
    return freed;
}

void ref_drop(struct ref *ref, uint64_t now_ns) {
    EACH (w, ref->waiters)
        if (w->kind && !w->ready)
            answer(ref, w, STORE_E_NOT_FOUND);
    for (unsigned i = 0; i < ref->seen_count;
         i++) { /* in the order in which the store shows them */
        struct ref_sample *s = ref_by_serial(ref, ref->seen[i].serial);
        if (s->state == STORE_RESIDENT)
            retire(ref, s, STORE_DROPPED, now_ns);
        else if (s->landing && s->state == STORE_PLANNED)
            s->doomed = true;
        else if (s->state == STORE_PLANNED || s->state == STORE_SEALED)
            gone(ref, s, STORE_DROPPED, now_ns);
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
        forget(ref, oldest, STORE_PRODUCER_DIED, now_ns);
    }
    for (struct ref_lease *oldest;;) {
        oldest = NULL;
        EACH (l, ref->leases)
            if (l->serial && l->live && l->holder == holder &&
                (!oldest || l->serial < oldest->serial))
                oldest = l;
        if (!oldest)
            break;
        end_lease(ref, oldest, STORE_RETURNED, true, now_ns);
    }
    for (struct ref_sample *oldest;;) {
        oldest = NULL;
        EACH (s, ref->samples)
            if (live(s) && !s->landing && s->state == STORE_PLANNED && s->holder == holder &&
                (!oldest || s->order < oldest->order))
                oldest = s;
        if (!oldest)
            break;
        gone(ref, oldest, STORE_PRODUCER_DIED, now_ns);
    }
    ref->holders[holder].open = false;
    settle(ref, now_ns);
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
                           .bytes = up(put->bytes, 64),
                           .serial = put->serial,
                           .id = put->id};
    uint32_t ahead = count_waiters(ref, REF_LAND, STORE_NO_HOLDER);
    enum store_result result;
    if (w.bytes > ref->options.landing_bytes)
        return refuse(refusal, STORE_E_TOO_LARGE, STORE_CAUSE_LANDING, ref->options.landing_bytes,
                      bytes_of(ref, true), w.bytes);
    if (ahead)
        result =
            refuse(refusal, STORE_E_FULL, STORE_CAUSE_QUEUE, ref->options.max_waiters, ahead, 1);
    else
        result = try_take(ref, &w, now_ns, refusal);
    if (result == STORE_E_FULL && put->deadline_ns > now_ns)
        result = enqueue(ref, &w, refusal);
    settle(ref, now_ns);
    return result;
}

enum store_result ref_land_done(struct ref *ref, uint64_t generation, bool keep, uint64_t now_ns) {
    struct ref_sample *s = ref_by_generation(ref, generation);
    if (!s || !s->landing || s->state != STORE_PLANNED)
        return STORE_E_NOT_FOUND;
    if (s->doomed) {
        ref_land_failed(ref, generation, now_ns);
        return STORE_E_NOT_FOUND;
    }
    s->state = STORE_RESIDENT;
    s->since_ns = now_ns;
    s->idle_order = ++ref->order;
    s->cached = keep;
    wake(ref, generation, -1, s);
    if (!s->leases && !keep)
        retire(ref, s, STORE_UNCACHED, now_ns);
    settle(ref, now_ns);
    return STORE_OK;
}

enum store_result ref_land_failed(struct ref *ref, uint64_t generation, uint64_t now_ns) {
    struct ref_sample *s = ref_by_generation(ref, generation);
    bool there = s && s->landing && (s->state == STORE_PLANNED || s->state == STORE_RESIDENT);
    if (there && s->state == STORE_PLANNED) {
        gone(ref, s, s->doomed ? STORE_DROPPED : STORE_FETCH_FAILED, now_ns);
        wake(ref, generation, -1, NULL);
    } else if (there) {
        retire(ref, s, STORE_FETCH_FAILED, now_ns);
    }
    settle(ref, now_ns);
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
                effect_remove(ref, i);
                memmove(&ref->effects[1], &ref->effects[0],
                        ref->effect_count++ * sizeof ref->effects[0]);
                ref->effects[0].kind = STORE_EFFECT_PUT;
                ref->effects[0].of = of;
                return;
            }
}

bool ref_next_effect(struct ref *ref, uint64_t now_ns, struct ref_effect *out) {
    settle(ref, now_ns);
    expire(ref, now_ns);
    settle(ref, now_ns);
    if (!ref->effect_count)
        return false;
    uint64_t of = ref->effects[0].of;
    *out = (struct ref_effect){.kind = ref->effects[0].kind, .serial = of};
    effect_remove(ref, 0);
    if (out->kind == STORE_EFFECT_RETIRED) {
        struct ref_sample *s = ref_by_serial(ref, of);
        s->effect_pending = false;
        if (s->state == STORE_GONE)
            bury(ref, s);
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
    return true;
}

void ref_totals(struct ref *ref, struct store_totals *out) {
    *out = (struct store_totals){.resident_bytes = bytes_of(ref, false),
                                 .landing_used_bytes = bytes_of(ref, true),
                                 .put_waiters = count_waiters(ref, REF_PUT, STORE_NO_HOLDER),
                                 .land_waiters = count_waiters(ref, REF_LAND, STORE_NO_HOLDER),
                                 .get_waiters =
                                     count_waiters(ref, REF_GET_ID, STORE_NO_HOLDER) +
                                     count_waiters(ref, REF_GET_GENERATION, STORE_NO_HOLDER),
                                 .puts = ref->puts,
                                 .gets = ref->gets,
                                 .frees = ref->frees,
                                 .largest_free_bytes = ref_largest_hole(ref, false)};
    EACH (s, ref->samples) {
        out->tombstones += s->serial && s->state == STORE_GONE;
        out->landing += live(s) && s->landing;
        out->planned += live(s) && !s->landing && s->state == STORE_PLANNED;
        out->sealed += live(s) && !s->landing && s->state == STORE_SEALED;
        out->resident += live(s) && !s->landing && s->state == STORE_RESIDENT;
        out->retired += live(s) && !s->landing && s->state == STORE_RETIRED;
    }
    out->reservations = out->planned;
    EACH (l, ref->leases)
        out->leases += l->serial && l->live;
    EACH (h, ref->holders)
        out->holders += h->open;
}
