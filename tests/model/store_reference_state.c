/* SPDX-License-Identifier: Apache-2.0 */
#include "model/store_reference_state.h"

#include <string.h>

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

struct ref_sample *refstate_resident_of(struct ref *ref, int id) {
    EACH (s, ref->samples)
        if (s->serial && !s->landing && s->id == id && s->state == STORE_RESIDENT)
            return s;
    return NULL;
}

struct ref_sample *ref_by_id(struct ref *ref, int id) {
    struct ref_sample *best = refstate_resident_of(ref, id);
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

bool refstate_live(const struct ref_sample *s) {
    return s->serial && s->state != STORE_GONE;
}

uint64_t refstate_bytes_of(const struct ref *ref, bool landing) {
    uint64_t sum = 0;
    EACH (s, ref->samples)
        if (refstate_live(s) && s->landing == landing)
            sum += s->bytes;
    return sum;
}

uint32_t refstate_count_waiters(const struct ref *ref, enum ref_kind kind, uint32_t holder) {
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

void refstate_step(struct ref *ref) {
    if (ref->step)
        ref->step(ref, ref->step_context);
}

/* ---- places ---- */
uint64_t refstate_up(uint64_t value, uint64_t align) {
    return (value + align - 1) / align * align;
}

/* End of the hole that begins at `from`: the lowest extent behind it, or the end of the region. */
static uint64_t hole_end(const struct ref *ref, uint64_t from, uint64_t end) {
    EACH (s, ref->samples)
        if (refstate_live(s) && s->offset >= from && s->offset < end)
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
        if (s && (!refstate_live(s) || s->landing != landing))
            continue;
        uint64_t from = s ? s->offset + s->bytes : base, to = hole_end(ref, from, end);
        if (refstate_up(from, align) < to && to - refstate_up(from, align) > largest)
            largest = to - refstate_up(from, align);
    }
    return largest;
}

uint64_t ref_largest_hole(const struct ref *ref, bool landing) {
    return largest_aligned(ref, landing, 64);
}

static void check_place(struct ref *ref, const struct ref_sample *added, uint32_t align) {
    uint64_t base = added->landing ? ref->options.max_resident_bytes : 0;
    uint64_t end =
        base + (added->landing ? ref->options.landing_bytes : ref->options.max_resident_bytes);
    if (added->offset % align || added->offset < base || added->offset + added->bytes > end)
        ref->broken = "an extent is misaligned or outside its region";
    EACH (s, ref->samples)
        if (s != added && refstate_live(s) && s->offset < added->offset + added->bytes &&
            added->offset < s->offset + s->bytes)
            ref->broken = "an extent lies over another that is in use";
}

/* ---- effects ---- */
void refstate_effect(struct ref *ref, enum store_effect_kind kind, uint64_t of) {
    if (ref->effect_count == REF_EFFECTS) {
        ref->broken = "the reference has no room for one more effect";
        return;
    }
    ref->effects[ref->effect_count].kind = kind;
    ref->effects[ref->effect_count++].of = of;
}

void refstate_effect_remove(struct ref *ref, unsigned at) {
    memmove(&ref->effects[at], &ref->effects[at + 1],
            (--ref->effect_count - at) * sizeof ref->effects[0]);
}

/* ---- the end of a generation ---- */
void refstate_bury(struct ref *ref, struct ref_sample *s) {
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

void refstate_gone(struct ref *ref, struct ref_sample *s, enum store_reason reason,
                   uint64_t now_ns) {
    if (s->state != STORE_RETIRED) {
        mark_last(ref, s);
        s->since_ns = now_ns;
    }
    if (!s->landing)
        ref->account->used_bytes -= s->bytes;
    s->state = STORE_GONE;
    s->reason = reason;
    if (!s->effect_pending)
        refstate_bury(ref, s);
}

void refstate_retire(struct ref *ref, struct ref_sample *s, enum store_reason reason,
                     uint64_t now_ns) {
    mark_last(ref, s);
    s->state = STORE_RETIRED;
    s->reason = reason;
    s->since_ns = now_ns;
    if (!s->landing) {
        ref->frees++;
        s->effect_pending = true;
        refstate_effect(ref, STORE_EFFECT_RETIRED, s->serial);
    }
    if (!s->leases)
        refstate_gone(ref, s, reason, now_ns);
}

/* ---- leases ---- */
uint32_t refstate_lease_slots_used(const struct ref *ref) {
    uint32_t n = 0;
    EACH (l, ref->leases)
        n += l->serial && (l->live || l->effect_pending);
    return n;
}

uint32_t refstate_leases_of(const struct ref *ref, uint32_t holder) {
    uint32_t n = 0;
    EACH (l, ref->leases)
        n += l->serial && l->live && l->holder == holder;
    return n;
}

struct ref_lease *refstate_grant(struct ref *ref, struct ref_sample *s, uint32_t holder,
                                 uint64_t cookie) {
    struct ref_lease *slot = NULL;
    if (refstate_lease_slots_used(ref) >= ref->options.max_leases)
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

void refstate_after_reader(struct ref *ref, struct ref_sample *s, uint64_t now_ns) {
    if (s->leases)
        return;
    if (s->state == STORE_RETIRED)
        refstate_gone(ref, s, s->reason, now_ns);
    else if (s->state == STORE_RESIDENT && s->landing && !s->cached)
        refstate_retire(ref, s, STORE_UNCACHED, now_ns);
    else if (s->state == STORE_RESIDENT && !s->landing && ref->options.policy == STORE_ON_RELEASE &&
             s->consumed >= ref->options.readers)
        refstate_retire(ref, s, STORE_CONSUMED, now_ns);
}

void refstate_end_lease(struct ref *ref, struct ref_lease *l, enum store_how how, bool tell,
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
        refstate_effect(ref, STORE_EFFECT_LEASE_ENDED, l->serial);
    }
    refstate_after_reader(ref, s, now_ns);
}

/* ---- taking room ---- */
enum store_result refstate_refuse(struct store_refusal *refusal, enum store_result result,
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
        return refstate_refuse(refusal, STORE_E_FULL, STORE_CAUSE_SAMPLES, ref->options.max_samples,
                               slots, 1);
    uint64_t used = refstate_bytes_of(ref, landing), limit = ref->options.max_resident_bytes;
    if (!landing && used + w->bytes > limit)
        return refstate_refuse(refusal, STORE_E_FULL, STORE_CAUSE_QUOTA, limit, used, w->bytes);
    if (!landing && ref->account->used_bytes + w->bytes > ref->account->limit_bytes)
        return refstate_refuse(refusal, STORE_E_FULL, STORE_CAUSE_NODE_QUOTA,
                               ref->account->limit_bytes, ref->account->used_bytes, w->bytes);
    if (largest_aligned(ref, landing, w->align) >= w->bytes)
        return STORE_OK;
    if (landing)
        return refstate_refuse(refusal, STORE_E_FULL, STORE_CAUSE_LANDING,
                               ref->options.landing_bytes, used, w->bytes);
    return refstate_refuse(refusal, STORE_E_FULL, STORE_CAUSE_FRAGMENTED,
                           ref_largest_hole(ref, false), used, w->bytes);
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
        bool idle = refstate_live(s) && s->landing && s->state == STORE_RESIDENT && !s->leases;
        busy += refstate_live(s) && s->landing && !idle ? s->bytes : 0;
        if (idle && (!oldest || s->idle_order < oldest->idle_order))
            oldest = s;
    }
    if (!oldest || busy + w->bytes > ref->options.landing_bytes)
        return false;
    refstate_retire(ref, oldest, STORE_UNCACHED, now_ns);
    refstate_step(ref);
    return true;
}

enum store_result refstate_try_take(struct ref *ref, const struct ref_waiter *w, uint64_t now_ns,
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

void refstate_answer(struct ref *ref, struct ref_waiter *w, enum store_result result) {
    w->ready = true;
    w->result = result;
    refstate_effect(ref, STORE_EFFECT_PUT,
                    w->order); /* the kind of the wait says which effect it is */
}

/* Who is first in each line, and since when. */
static void note_heads(struct ref *ref, uint64_t now_ns) {
    for (enum ref_kind kind = REF_PUT; kind <= REF_LAND; kind++) {
        const struct ref_waiter *first = oldest_waiter(ref, kind);
        uint64_t order = first ? first->order : 0;
        if (order != ref->lines[kind - REF_PUT].order)
            ref->lines[kind - REF_PUT].since_ns = now_ns;
        ref->lines[kind - REF_PUT].order = order;
    }
}

static bool passing_is_open(const struct ref *ref, enum ref_kind kind, uint64_t now_ns) {
    return now_ns - ref->lines[kind - REF_PUT].since_ns < ref->options.max_pass_ns;
}

/* A newcomer, before all who wait: they have all been tried. */
bool refstate_lets_pass(const struct ref *ref, enum ref_kind kind, uint64_t now_ns) {
    return passing_is_open(ref, kind, now_ns) &&
           refstate_count_waiters(ref, kind, STORE_NO_HOLDER) <= STORE_LOOK_MAX;
}

/* False: there is no room for it. */
static bool try_waiter(struct ref *ref, struct ref_waiter *w, uint64_t now_ns) {
    enum store_result result = refstate_try_take(ref, w, now_ns, &w->refusal);
    if (result == STORE_E_FULL)
        return false;
    if (result == STORE_OK) {
        w->refusal = (struct store_refusal){0};
        w->granted = w->serial;
    }
    refstate_answer(ref, w, result);
    refstate_step(ref);
    return true;
}

static struct ref_waiter *next_waiter(struct ref *ref, enum ref_kind kind, uint64_t after) {
    struct ref_waiter *next = NULL;
    EACH (w, ref->waiters)
        if (w->kind == kind && !w->ready && w->order > after && (!next || w->order < next->order))
            next = w;
    return next;
}

static void serve_line(struct ref *ref, enum ref_kind kind, uint64_t now_ns) {
    struct ref_waiter *w;
    do
        note_heads(ref, now_ns);
    while ((w = oldest_waiter(ref, kind)) && try_waiter(ref, w, now_ns));
    if (!w || !passing_is_open(ref, kind, now_ns))
        return;
    uint64_t after = w->order;
    for (unsigned i = 1; i < STORE_LOOK_MAX && (w = next_waiter(ref, kind, after)); i++) {
        after = w->order;
        try_waiter(ref, w, now_ns);
    }
}

static unsigned count_live(const struct ref *ref) {
    unsigned n = 0;
    EACH (s, ref->samples)
        n += refstate_live(s);
    return n;
}

/* Both lines, over and over until no landing is answered and no copy evicted: whoever can be
 * answered is answered now, also by what a landing has just done. A put that is served takes room
 * and helps nobody. */
void refstate_settle(struct ref *ref, uint64_t now_ns) {
    unsigned answers, live;
    do {
        serve_line(ref, REF_PUT, now_ns);
        answers = ref->effect_count;
        live = count_live(ref);
        serve_line(ref, REF_LAND, now_ns);
    } while (ref->effect_count != answers || count_live(ref) != live);
}

void refstate_end_reservations(struct ref *ref, uint64_t now_ns) {
    uint64_t bound_ns = ref_reserve_bound_ns(ref);
    for (struct ref_sample *oldest; bound_ns; ref->reserves_ended++) {
        oldest = NULL;
        EACH (s, ref->samples)
            if (refstate_live(s) && !s->landing && s->state == STORE_PLANNED &&
                now_ns >= s->since_ns + bound_ns && (!oldest || s->order < oldest->order))
                oldest = s;
        if (!oldest)
            return;
        refstate_gone(ref, oldest, STORE_RESERVE_ENDED, now_ns);
        refstate_step(ref);
    }
}

uint64_t ref_reserve_bound_ns(const struct ref *ref) {
    uint64_t a = ref->options.max_reserve_ns, b = ref->options.max_hold_ns;
    return !a ? b : !b ? a : a < b ? a : b;
}

enum store_result refstate_enqueue(struct ref *ref, const struct ref_waiter *w, uint64_t now_ns,
                                   struct store_refusal *refusal) {
    uint32_t used = count_all_waiters(ref);
    if (used >= ref->options.max_waiters)
        return refstate_refuse(refusal, STORE_E_FULL, STORE_CAUSE_WAITERS, ref->options.max_waiters,
                               used, 1);
    EACH (slot, ref->waiters)
        if (!slot->kind) {
            *slot = *w;
            slot->refusal = *refusal;
            slot->order = ++ref->order;
            note_heads(ref, now_ns);
            return STORE_WAIT;
        }
    return STORE_E_INVALID;
}

void refstate_wake(struct ref *ref, uint64_t generation, int id, struct ref_sample *s) {
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
        struct ref_lease *l = s ? refstate_grant(ref, s, next->holder, next->cookie) : NULL;
        next->granted = l ? l->serial : 0;
        if (s && !l)
            refstate_refuse(&next->refusal, STORE_E_FULL, STORE_CAUSE_LEASES,
                            ref->options.max_leases, refstate_lease_slots_used(ref), 1);
        refstate_answer(ref, next, l ? STORE_OK : s ? STORE_E_FULL : STORE_E_NOT_FOUND);
    }
}

uint64_t ref_next_deadline_ns(const struct ref *ref) {
    uint64_t earliest = UINT64_MAX;
    EACH (w, ref->waiters)
        if (w->kind && !w->ready && w->deadline_ns < earliest)
            earliest = w->deadline_ns;
    uint64_t bound_ns = ref_reserve_bound_ns(ref);
    EACH (s, ref->samples)
        if (bound_ns && refstate_live(s) && !s->landing && s->state == STORE_PLANNED &&
            s->since_ns + bound_ns < earliest)
            earliest = s->since_ns + bound_ns;
    return earliest;
}

void refstate_expire(struct ref *ref, uint64_t now_ns) {
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
            refstate_refuse(&next->refusal, STORE_E_FULL, STORE_CAUSE_QUEUE,
                            ref->options.max_waiters,
                            refstate_count_waiters(ref, next->kind, STORE_NO_HOLDER), 1);
        refstate_answer(ref, next, for_room ? STORE_E_FULL : STORE_E_TIMEOUT);
    }
}

void refstate_forget(struct ref *ref, struct ref_waiter *w, enum store_reason reason,
                     uint64_t now_ns) {
    for (unsigned i = 0; w->ready && i < ref->effect_count; i++)
        if (ref->effects[i].kind == STORE_EFFECT_PUT && ref->effects[i].of == w->order)
            refstate_effect_remove(ref, i);
    if (w->ready && w->result == STORE_OK && w->kind <= REF_LAND) {
        struct ref_sample *s = ref_by_serial(ref, w->granted);
        if (s && s->state == STORE_PLANNED)
            refstate_gone(ref, s, reason, now_ns);
    } else if (w->ready && w->result == STORE_OK) {
        refstate_end_lease(ref, ref_lease_by_serial(ref, w->granted), STORE_RETURNED, false,
                           now_ns);
    }
    w->kind = 0;
}

/* In the order in which the leases were granted, not in that of the waits. */
static void forget_unheard_leases(struct ref *ref, uint64_t now_ns) {
    EACH (l, ref->leases)
        l->unheard = false;
    EACH (w, ref->waiters)
        if (w->kind > REF_LAND && w->ready && w->result == STORE_OK)
            ref_lease_by_serial(ref, w->granted)->unheard = true;
    for (struct ref_lease *oldest;;) {
        oldest = NULL;
        EACH (l, ref->leases)
            if (l->serial && l->live && l->unheard && (!oldest || l->serial < oldest->serial))
                oldest = l;
        if (!oldest)
            return;
        refstate_end_lease(ref, oldest, STORE_RETURNED, false, now_ns);
    }
}

/* Nobody heard of it, so that there is not even a tombstone. */
static void forget_unheard_room(struct ref *ref) {
    EACH (w, ref->waiters) {
        struct ref_sample *s = w->granted ? ref_by_serial(ref, w->granted) : NULL;
        if (!s || (w->kind != REF_PUT && w->kind != REF_LAND) || w->result != STORE_OK ||
            !w->ready || s->state != STORE_PLANNED)
            continue;
        if (!s->landing)
            ref->account->used_bytes -= s->bytes;
        memset(s, 0, sizeof *s);
    }
}

void ref_crash(struct ref *ref, uint64_t now_ns) {
    for (unsigned i = ref->effect_count; i--;)
        if (ref->effects[i].kind == STORE_EFFECT_PUT)
            refstate_effect_remove(ref, i);
    forget_unheard_room(ref);
    forget_unheard_leases(ref, now_ns);
    for (struct ref_sample *oldest;;) {
        oldest = NULL;
        EACH (s, ref->samples)
            if (refstate_live(s) && s->landing && s->state == STORE_PLANNED &&
                (!oldest || s->order < oldest->order))
                oldest = s;
        if (!oldest)
            break;
        refstate_gone(ref, oldest, oldest->dropped ? STORE_DROPPED : STORE_FETCH_FAILED, now_ns);
    }
    memset(ref->waiters, 0, sizeof ref->waiters);
    memset(ref->lines, 0, sizeof ref->lines);
}
