/* SPDX-License-Identifier: Apache-2.0
 *
 * Random operations against a store and against the reference, side by side: results, refusals,
 * effects, totals and everything the probes show are compared after each one. Numbers are small, so
 * that every limit is hit all the time.
 *
 * STORE_MODEL_SEED replays a run (0: by the clock), STORE_MODEL_OPS says how many operations
 * (default 1,000,000).
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "model/store_model.h"

/* The same run in every check, so that a failure means a change; hunt with STORE_MODEL_SEED=0. */
#define SEED_DEFAULT 857075413u

/* ---- choosing ---- */
static void remember(struct model *m, uint64_t generation) {
    m->generations[model_rnd(m, HISTORY)] = generation;
}

static uint32_t any_holder(struct model *m) {
    for (;;) {
        uint32_t holder = (uint32_t)model_rnd(m, HOLDERS);
        if (m->ref->holders[holder].open)
            return holder;
    }
}

static uint64_t any_deadline(struct model *m) {
    switch (model_rnd(m, 4)) {
    case 0:
        return 0;
    case 1:
        return m->now_ns + 1 + model_rnd(m, 40);
    case 2:
        return m->now_ns + 1 + model_rnd(m, 400);
    default:
        return model_rnd(m, 8) ? m->now_ns + 200 : UINT64_MAX;
    }
}

static struct ref_sample *any_sample(struct model *m, bool landing, enum store_state state) {
    unsigned from = (unsigned)model_rnd(m, REF_SAMPLES);
    for (unsigned i = 0; i < REF_SAMPLES; i++) {
        struct ref_sample *s = &m->ref->samples[(from + i) % REF_SAMPLES];
        if (s->serial && s->landing == landing && s->state == state)
            return s;
    }
    return NULL;
}

static struct ref_lease *any_lease(struct model *m, bool live) {
    unsigned from = (unsigned)model_rnd(m, REF_LEASES);
    for (unsigned i = 0; i < REF_LEASES; i++) {
        struct ref_lease *l = &m->ref->leases[(from + i) % REF_LEASES];
        if (l->serial && l->known && l->live == live)
            return l;
    }
    return NULL;
}

static struct ref_put any_put(struct model *m, uint64_t region_bytes) {
    bool large = model_rnd(m, 3) == 0;
    uint64_t bytes = large ? 4096 * (1 + model_rnd(m, 6)) : 1 + model_rnd(m, 6000);
    if (model_rnd(m, 50) == 0)
        bytes = region_bytes - 64 + model_rnd(m, 3) * 64;
    return (struct ref_put){.id = (int)model_rnd(m, IDS),
                            .serial = ++m->serial,
                            .bytes = bytes,
                            .deadline_ns = any_deadline(m),
                            .tag = ++m->tag,
                            .align = large ? 4096 : 64,
                            .tensors = (uint32_t)model_rnd(m, 4)};
}

/* spec: 1024 bytes. */
static struct store_put store_put_of(const struct ref_put *put, unsigned char *spec) {
    memset(spec, (int)(unsigned char)put->serial, 1024);
    memcpy(spec, &put->serial, sizeof put->serial);
    return (struct store_put){.sample_id = model_id_text(put->id),
                              .sample_id_bytes = (uint32_t)strlen(model_id_text(put->id)),
                              .spec = spec,
                              .spec_bytes = (uint32_t)(8 + put->serial * 37 % 700),
                              .tensor_count = put->tensors,
                              .extent_bytes = put->bytes,
                              .align_bytes = put->align,
                              .deadline_ns = put->deadline_ns,
                              .tag = put->tag};
}

/* ---- operations ---- */
static void op_reserve(struct model *m) {
    unsigned char spec[1024];
    struct store_refusal refusal, expected = {0};
    struct store_reservation out = {0};
    struct ref_put put = any_put(m, m->options.max_resident_bytes);
    struct store_put asked = store_put_of(&put, spec);
    uint32_t holder = any_holder(m);
    enum store_result result = store_reserve(m->store, holder, &asked, m->now_ns, &out, &refusal);
    model_look(m);
    SAME(m, "result", result, ref_reserve(m->ref, holder, &put, m->now_ns, &expected));
    model_compare_refusal(m, &refusal, &expected);
    if (result != STORE_OK)
        return;
    struct ref_sample *s = ref_by_serial(m->ref, put.serial);
    s->token = out.token;
    SAME(m, "offset", out.place.offset, s->offset);
}

static void op_seal(struct model *m) {
    const struct ref_sample *s = any_sample(m, false, STORE_PLANNED);
    if (!s)
        return;
    uint64_t sums[8], generation = m->generation + 1, token = s->token;
    uint32_t holder = model_rnd(m, 10) ? s->holder : any_holder(m);
    uint32_t sums_bytes = model_rnd(m, 3) ? s->tensors * 8 : (uint32_t)model_rnd(m, 3) * 8;
    if (model_rnd(m, 20) == 0)
        generation = m->generations[model_rnd(m, HISTORY)];
    if (model_rnd(m, 20) == 0)
        token ^= 1ull << 60;
    for (unsigned i = 0; i < 8; i++)
        sums[i] = s->serial + i;
    enum store_result result =
        store_seal(m->store, holder, token, sums, sums_bytes, generation, m->now_ns);
    model_look(m);
    SAME(m, "result", result, ref_seal(m->ref, holder, token, sums_bytes, generation));
    if (result == STORE_OK && generation > m->generation)
        m->generation = generation;
    remember(m, generation);
}

static void op_publish(struct model *m) {
    const struct ref_sample *s = any_sample(m, false, STORE_SEALED);
    uint64_t generation =
        s && model_rnd(m, 20) ? s->generation : m->generations[model_rnd(m, HISTORY)];
    uint64_t superseded = 0, expected = 0;
    enum store_result result = store_publish(m->store, generation, m->now_ns, &superseded);
    model_look(m);
    SAME(m, "result", result, ref_publish(m->ref, generation, m->now_ns, &expected));
    SAME(m, "superseded", superseded, expected);
}

static void compare_reserve_ended(struct model *m) {
    const struct ref_sample *s = any_sample(m, false, STORE_GONE);
    if (s && s->token)
        SAME(m, "reservation ended by max_reserve", store_reserve_ended(m->store, s->token),
             ref_reserve_ended(m->ref, s->token));
}

static void op_cancel(struct model *m) {
    compare_reserve_ended(m);
    const struct ref_sample *s = any_sample(m, false, STORE_PLANNED);
    if (!s)
        return;
    uint64_t token = model_rnd(m, 10) ? s->token : s->token ^ 1ull << 60;
    uint32_t holder = model_rnd(m, 10) ? s->holder : any_holder(m);
    SAME(m, "result", store_cancel(m->store, holder, token, m->now_ns), STORE_OK);
    model_look(m);
    ref_cancel(m->ref, holder, token, m->now_ns);
}

static void op_unseal(struct model *m) {
    const struct ref_sample *s = any_sample(m, false, STORE_SEALED);
    uint64_t generation = s ? s->generation : m->generations[model_rnd(m, HISTORY)];
    enum store_result result = store_unseal(m->store, generation, m->now_ns);
    model_look(m);
    SAME(m, "result", result, ref_unseal(m->ref, generation, m->now_ns));
}

static uint64_t any_generation(struct model *m) {
    switch (model_rnd(m, 4)) {
    case 0:
        return m->generation + 1 + model_rnd(m, 2);
    case 1:
        return FAR_HOME + model_rnd(m, FAR_COUNT);
    default:
        return m->generations[model_rnd(m, HISTORY)];
    }
}

static void op_get(struct model *m) {
    struct store_refusal refusal, expected = {0};
    struct store_lease out = {0};
    struct ref_lease *l = NULL;
    int id = (int)model_rnd(m, IDS);
    struct store_get get = {.generation = model_rnd(m, 2) ? any_generation(m) : 0,
                            .deadline_ns = any_deadline(m),
                            .tag = ++m->tag,
                            .cookie = model_rnd(m, 2) ? m->tag : 0};
    if (!get.generation) {
        get.sample_id = model_id_text(id);
        get.sample_id_bytes = (uint32_t)strlen(get.sample_id);
    }
    uint32_t holder = any_holder(m);
    enum store_result result = store_get(m->store, holder, &get, m->now_ns, &out, &refusal);
    model_look(m);
    SAME(m, "result", result, ref_get(m->ref, holder, id, &get, m->now_ns, &l, &expected));
    model_compare_refusal(m, &refusal, &expected);
    if (result != STORE_OK)
        return;
    const struct ref_sample *s = ref_by_serial(m->ref, l->sample_serial);
    SAME(m, "lease generation", out.generation, l->generation);
    SAME(m, "lease offset", out.place.offset, s->offset);
    SAME(m, "lease bytes", out.place.bytes, s->bytes);
    l->hi = out.hi;
    l->lo = out.lo;
    l->known = true;
}

static void op_release(struct model *m) {
    struct ref_lease *l = any_lease(m, model_rnd(m, 4) != 0);
    if (!l)
        return;
    uint32_t holder = model_rnd(m, 10) ? l->holder : any_holder(m);
    if (!m->ref->holders[holder].open)
        holder = any_holder(m);
    enum store_how how = model_rnd(m, 2) ? STORE_CONSUMED_BY_READER : STORE_RETURNED;
    uint64_t bogus = model_rnd(m, 20) ? 0 : 1ull << model_rnd(m, 64);
    bool mine = l->live && l->holder == holder && !bogus;
    SAME(m, "cookie", store_lease_cookie(m->store, holder, l->hi, l->lo ^ bogus),
         mine ? l->cookie : 0);
    SAME(m, "result", store_release(m->store, holder, l->hi, l->lo ^ bogus, how, m->now_ns),
         STORE_OK);
    model_look(m);
    if (!bogus)
        ref_release(m->ref, holder, l, how, m->now_ns);
}

static void op_retire(struct model *m) {
    const struct ref_sample *s = any_sample(m, false, STORE_RESIDENT);
    if (!s)
        return;
    int id = s->id;
    uint64_t generation = model_rnd(m, 2) ? s->generation : 0;
    enum store_reason reason = model_rnd(m, 2) ? STORE_ACKED : STORE_ABORTED;
    if (model_rnd(m, 4) == 0) {
        id = (int)model_rnd(m, IDS);
        generation = model_rnd(m, 2) ? m->generations[model_rnd(m, HISTORY)] : 0;
    }
    bool retired;
    SAME(m, "result",
         store_retire(m->store, model_id_text(id), (uint32_t)strlen(model_id_text(id)), generation,
                      reason, m->now_ns, &retired),
         STORE_OK);
    model_look(m);
    SAME(m, "retired", retired, ref_retire(m->ref, id, generation, reason, m->now_ns));
}

static void op_gc(struct model *m) {
    uint64_t max_hold_ns = model_rnd(m, 3) ? 100 + model_rnd(m, 2000) : 0;
    uint32_t freed = store_gc(m->store, max_hold_ns, m->now_ns, 1000);
    model_look(m);
    SAME(m, "freed", freed, ref_gc(m->ref, max_hold_ns, m->now_ns));
}

static void op_policy(struct model *m) {
    enum store_policy policy = (enum store_policy)model_rnd(m, 3);
    uint32_t readers = 1 + (uint32_t)model_rnd(m, 3);
    uint64_t max_hold_ns = model_rnd(m, 2) * 3000;
    store_set_policy(m->store, policy, readers, max_hold_ns);
    m->ref->options.policy = policy;
    m->ref->options.readers = readers;
    m->ref->options.max_hold_ns = max_hold_ns;
}

static void op_bounds(struct model *m) {
    static const uint64_t reserve[] = {0, 300, 2000, 20000}, pass[] = {0, 40, 200, 5000};
    m->ref->options.max_reserve_ns = reserve[model_rnd(m, 4)];
    m->ref->options.max_pass_ns = pass[model_rnd(m, 4)];
    store_set_bounds(m->store, m->ref->options.max_reserve_ns, m->ref->options.max_pass_ns);
    model_look(m);
}

static void op_land(struct model *m) {
    unsigned char spec[1024];
    struct store_refusal refusal, expected = {0};
    struct place place = {0};
    struct ref_put put = any_put(m, m->options.landing_bytes);
    struct store_land land = {.put = store_put_of(&put, spec),
                              .generation = FAR_HOME + model_rnd(m, FAR_COUNT),
                              .origin = 1 + model_rnd(m, 3)};
    if (model_rnd(m, 20) == 0)
        land.generation = 1 + model_rnd(m, m->generation + 1);
    enum store_result result = store_land(m->store, &land, m->now_ns, &place, &refusal);
    model_look(m);
    SAME(m, "result", result,
         ref_land(m->ref, &put, land.generation, land.origin, m->now_ns, &expected));
    model_compare_refusal(m, &refusal, &expected);
    if (result == STORE_OK)
        SAME(m, "offset", place.offset, ref_by_serial(m->ref, put.serial)->offset);
    remember(m, land.generation);
}

static void op_land_done(struct model *m) {
    const struct ref_sample *s = any_sample(m, true, STORE_PLANNED);
    uint64_t generation =
                 s && model_rnd(m, 20) ? s->generation : FAR_HOME + model_rnd(m, FAR_COUNT),
             sums[8];
    for (unsigned i = 0; s && i < 8; i++)
        sums[i] = s->serial + i;
    s = ref_by_generation(m->ref, generation);
    bool keep = model_rnd(m, 2), usable = s && s->landing && s->state == STORE_PLANNED;
    for (unsigned i = 0; usable && i < 8; i++)
        sums[i] = s->serial + i;
    enum store_result result =
        store_land_done(m->store, generation, sums, usable ? s->tensors * 8 : 0, keep, m->now_ns);
    model_look(m);
    SAME(m, "result", result, ref_land_done(m->ref, generation, keep, m->now_ns));
}

static void op_land_failed(struct model *m) {
    const struct ref_sample *s =
        any_sample(m, true, model_rnd(m, 2) ? STORE_PLANNED : STORE_RESIDENT);
    uint64_t generation = s ? s->generation : FAR_HOME + model_rnd(m, FAR_COUNT);
    enum store_result result = store_land_failed(m->store, generation, m->now_ns);
    model_look(m);
    SAME(m, "result", result, ref_land_failed(m->ref, generation, m->now_ns));
}

void model_open_holder(struct model *m) {
    struct ref_limits limits = {.leases = 2 + (uint32_t)model_rnd(m, 6),
                                .reservations = 2 + (uint32_t)model_rnd(m, 6),
                                .queued_bytes = 8192 * (1 + model_rnd(m, 8))};
    struct account first;
    crash_spoil(m); /* the reference knows nothing of the first of the two */
    uint32_t free_holder = 0, holder;
    while (free_holder < HOLDERS && m->ref->holders[free_holder].open)
        free_holder++;
    /* The owner is 100 + the holder's number, which store_holder_open() only then gives out. */
    enum store_result result = store_holder_open(m->store, 0, &first, &holder);
    if (free_holder == HOLDERS) {
        SAME(m, "opening one holder too many", result, STORE_E_LIMIT);
        return;
    }
    SAME(m, "result", result, STORE_OK);
    store_holder_close(m->store, holder, m->now_ns);
    model_look(m);
    ref_holder_close(m->ref, holder, m->now_ns);
    uint32_t again;
    struct model_account *charged = &m->accounts[holder];
    account_deinit(&charged->account); /* what the last one held has been released */
    charge_limits_init(&charged->limits);
    charged->limits.of[ACCOUNT_SESSION][CHARGE_LEASES] = limits.leases;
    charged->limits.of[ACCOUNT_SESSION][CHARGE_RESERVATIONS] = limits.reservations;
    charged->limits.of[ACCOUNT_SESSION][CHARGE_QUEUED_BYTES] = limits.queued_bytes;
    account_init(&charged->account, ACCOUNT_SESSION, holder, NULL, &charged->limits);
    SAME(m, "result", store_holder_open(m->store, 100 + holder, &charged->account, &again),
         STORE_OK);
    SAME(m, "the holder number closed last", again, holder);
    m->ref->holders[holder].open = true;
    m->ref->holders[holder].limits = limits;
}

static void op_holder(struct model *m) {
    uint32_t open = 0;
    for (unsigned i = 0; i < HOLDERS; i++)
        open += m->ref->holders[i].open;
    if (open < 2 || model_rnd(m, 2)) {
        model_open_holder(m);
        model_look(m);
        return;
    }
    uint32_t holder = any_holder(m);
    store_holder_close(m->store, holder, m->now_ns);
    model_look(m);
    ref_holder_close(m->ref, holder, m->now_ns);
}

static void compare_effect(struct model *m, const struct store_effect *e,
                           const struct ref_effect *expected) {
    struct ref_lease *l = ref_lease_by_serial(m->ref, expected->serial);
    struct ref_sample *s = ref_by_serial(m->ref, expected->serial);
    SAME(m, "effect kind", e->kind, expected->kind);
    if (e->kind == STORE_EFFECT_RETIRED) {
        SAME(m, "retired generation", e->generation, s->generation);
        SAME(m, "retired reason", e->reason, s->reason);
        if (strcmp(e->sample_id, model_id_text(s->id)))
            model_fail(m, "retired sample_id is %s, not %s", e->sample_id, model_id_text(s->id));
        return;
    }
    if (e->kind == STORE_EFFECT_LEASE_ENDED) {
        SAME(m, "ended cookie", e->cookie, l->cookie);
        SAME(m, "ended how", e->how, l->how);
        return;
    }
    SAME(m, "effect holder", e->holder, expected->waiter.holder);
    SAME(m, "effect tag", e->tag, expected->waiter.tag);
    SAME(m, "effect result", e->result, expected->waiter.result);
    model_compare_refusal(m, &e->refusal, &expected->waiter.refusal);
    if (e->result != STORE_OK)
        return;
    if (e->kind == STORE_EFFECT_GET) {
        SAME(m, "effect lease generation", e->lease.generation, l->generation);
        l->hi = e->lease.hi;
        l->lo = e->lease.lo;
        l->known = true;
        return;
    }
    SAME(m, "effect offset", e->reservation.place.offset, s->offset);
    s->token = e->reservation.token;
}

bool model_pull(struct model *m) {
    struct store_effect e;
    struct ref_effect expected;
    bool got = store_next_effect(m->store, m->now_ns, &e);
    model_look(m);
    /* A RETIRED generation may be freed by the pull: remember what it was. */
    struct ref_sample before = {0};
    if (m->ref->effect_count && got && e.kind == STORE_EFFECT_RETIRED)
        if (ref_by_generation(m->ref, e.generation))
            before = *ref_by_generation(m->ref, e.generation);
    if (got && e.tag && e.result == STORE_E_NOT_FOUND)
        ref_hurry(m->ref, e.tag);
    SAME(m, "an effect is there", got, ref_next_effect(m->ref, m->now_ns, &expected));
    if (!got)
        return false;
    if (e.kind == STORE_EFFECT_RETIRED && !ref_by_serial(m->ref, expected.serial)) {
        SAME(m, "effect kind", e.kind, expected.kind);
        SAME(m, "retired serial", before.serial, expected.serial);
        SAME(m, "retired reason", e.reason, before.reason);
    } else {
        compare_effect(m, &e, &expected);
    }
    return true;
}

static void op_effects(struct model *m) {
    bool all = model_rnd(m, 2);
    while (model_pull(m) && all)
        ;
}

static void op_cancel_wait(struct model *m) {
    model_pull(m); /* store_cancel_wait() is not told the time: it goes by the last call's */
    const struct ref_waiter *w = &m->ref->waiters[model_rnd(m, REF_WAITERS)];
    uint32_t holder = w->kind ? w->holder : any_holder(m);
    uint64_t tag = w->kind ? w->tag : m->tag + 1;
    bool found = store_cancel_wait(m->store, holder, tag);
    model_look(m);
    SAME(m, "found", found, ref_cancel_wait(m->ref, holder, tag, m->now_ns));
}

static void op_drop(struct model *m) {
    model_look(m); /* the order in which it will go through them */
    store_drop(m->store, m->now_ns);
    ref_drop(m->ref, m->now_ns);
    model_look(m);
}

/* Another store of the node takes or gives back bytes. */
static void op_account(struct model *m) {
    static const uint64_t levels[] = {0, 16384, 65536, 131072};
    uint64_t own = m->account.used_bytes;
    uint64_t ref_own = m->ref_account.used_bytes;
    struct store_totals totals;
    store_totals(m->store, &totals);
    uint64_t level = levels[model_rnd(m, 4)];
    /* what is not this store's */
    m->account.used_bytes = own - (own - totals.resident_bytes) + level;
    m->ref_account.used_bytes = ref_own - (ref_own - totals.resident_bytes) + level;
    model_look(m);
}

static void op_replay(struct model *m) {
    uint64_t at = model_rnd(m, HISTORY);
    struct store_answer found;
    if (m->ops[at].op_id && store_replay_find(m->store, m->ops[at], &found)) {
        SAME(m, "replayed value", found.value, m->answers[at].value);
        SAME(m, "replayed status", found.status, m->answers[at].status);
    }
    struct store_op op = {.client_id = model_rnd(m, 3), .op_id = ++m->tag};
    struct store_answer answer = {.status = (uint32_t)model_rnd(m, 5), .value = m->tag * 7};
    store_replay_record(m->store, op, &answer);
    m->ops[at] = op;
    m->answers[at] = answer;
    if (!store_replay_find(m->store, op, &found) || found.value != answer.value)
        model_fail(m, "an answer recorded just now is not found");
    model_look(m);
}

static const struct {
    const char *name;
    void (*run)(struct model *m);
    unsigned weight;
} operations[] = {
    {"reserve", op_reserve, 16},        {"seal", op_seal, 14},
    {"publish", op_publish, 14},        {"cancel", op_cancel, 2},
    {"unseal", op_unseal, 1},           {"get", op_get, 18},
    {"cancel wait", op_cancel_wait, 2}, {"release", op_release, 16},
    {"retire", op_retire, 2},           {"gc", op_gc, 1},
    {"set policy", op_policy, 1},       {"land", op_land, 6},
    {"land done", op_land_done, 5},     {"land failed", op_land_failed, 1},
    {"holder", op_holder, 1},           {"effects", op_effects, 10},
    {"account", op_account, 1},         {"replay", op_replay, 2},
    {"set bounds", op_bounds, 1},
};

void model_step(struct model *m) {
    unsigned total = 0, i = 0;
    for (unsigned k = 0; k < sizeof operations / sizeof *operations; k++)
        total += operations[k].weight;
    unsigned pick = (unsigned)model_rnd(m, total);
    while (pick >= operations[i].weight)
        pick -= operations[i++].weight;
    m->step++;
    m->now_ns += 1 + model_rnd(m, 20);
    m->op = operations[i].name;
    void (*run)(struct model * m) = operations[i].run;
    if (model_rnd(m, 2000) == 0) {
        m->op = "drop";
        run = op_drop;
    }
    crash_begin(m);
    run(m);
    crash_end(m);
    if (m->ref->effect_count > REF_EFFECTS / 4)
        while (model_pull(m))
            ;
    model_look(m);
    model_compare(m);
}

void model_options(struct model *m, uint64_t seed) {
    memset(m, 0, sizeof *m);
    m->random = seed ? seed : 1;
    m->now_ns = 1000000;
    m->op = "init";
    m->account.limit_bytes = m->ref_account.limit_bytes = 160 * 1024;
    m->options = (struct store_options){.max_resident_bytes = 96 * 1024,
                                        .landing_bytes = 32 * 1024,
                                        .max_samples = 20,
                                        .max_tombstones = 12,
                                        .max_leases = 12,
                                        .max_holders = HOLDERS,
                                        .max_waiters = 10,
                                        .max_replays = 16,
                                        .max_events = 32,
                                        .policy = STORE_ON_RELEASE,
                                        .readers = 1,
                                        .max_reserve_ns = 20000,
                                        .max_pass_ns = 200,
                                        .seed = seed,
                                        .account = &m->account};
}

void model_init(struct model *m) {
    size_t bytes = store_block_bytes(&m->options, NULL);
    m->ref = calloc(1, sizeof *m->ref);
    cr_assert(m->block && m->ref);
    m->store = store_init(m->block, bytes, &m->options);
    m->ref->options = m->options;
    m->ref->account = &m->ref_account;
}

/* NULL, or what differed. */
static const char *run(struct model *m, uint64_t seed, uint64_t ops) {
    model_options(m, seed);
    size_t bytes = (store_block_bytes(&m->options, NULL) + 63) & ~(size_t)63;
    m->block = aligned_alloc(64, bytes);
    memset(m->block, 0, bytes);
    model_init(m);
    if (setjmp(m->failed))
        return m->why;
    model_open_holder(m);
    model_open_holder(m);
    while (m->step < ops)
        model_step(m);
    return NULL;
}

uint64_t model_from_environment(const char *name, uint64_t otherwise) {
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 0) : otherwise;
}

uint64_t model_seed(const char *name, uint64_t otherwise) {
    struct timespec now;
    uint64_t seed = model_from_environment(name, otherwise);
    clock_gettime(CLOCK_REALTIME, &now);
    return seed ? seed : (uint64_t)now.tv_sec * 1000000007ull ^ (uint64_t)now.tv_nsec;
}

Test(store_model, behaves_like_the_reference) {
    static struct model m;
    uint64_t seed = model_seed("STORE_MODEL_SEED", SEED_DEFAULT);
    uint64_t ops = model_from_environment("STORE_MODEL_OPS", OPS_DEFAULT);
    const char *different = run(&m, seed, ops);
    printf("store_model: STORE_MODEL_SEED=%llu, %llu operations\n", (unsigned long long)seed,
           (unsigned long long)m.step);
    fflush(stdout);
    cr_assert_null(different, "%s (STORE_MODEL_SEED=%llu)", different, (unsigned long long)seed);
    free(m.block);
    free(m.ref);
}
