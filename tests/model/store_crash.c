/* SPDX-License-Identifier: Apache-2.0
 *
 * The store dies after every single store of every transition.
 *
 * Random operations go on as in store_model.c. Around some of them the block is watched
 * (store_trap.h), so that each instruction that wrote to it is known. Then, for each of these
 * instructions, the block as it was after it is attached, in a copy, audited, and compared with the
 * reference: it must be in one of the states that the reference went through, after a death in it
 * (ref_crash()), and never in one before that of an earlier instruction. Instructions that changed
 * derived parts only are passed over: attach does not read those, and to show that they are filled
 * with rubbish before each attach.
 *
 * After some operations the store really dies at one of the instructions: what attach makes of the
 * block there goes on as the store, with the reference's state; attaching is watched and dies at
 * each of its own instructions, too.
 *
 *   STORE_CRASH_SEED   the random numbers; 0 = by the clock
 *   STORE_CRASH_OPS    operations, of which one in WATCH_ONE_IN is watched
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/store_model.h"
#include "model/store_trap.h"
#include "store/slots.h"

#define SEED_DEFAULT 857075413u
#define CRASH_OPS    3000u
#define WATCH_ONE_IN 3
#define DIE_ONE_IN   3
#define DIE_TWICE_IN 8
#define RUBBISH      0xa5
#define STATES_MAX   128u

/* The reference at one moment. */
struct state {
    struct ref ref;
    struct store_account account;
};

static struct crash {
    bool watching, spoilt;
    size_t bytes;
    uint64_t others_bytes; /* of the node's account, held by other stores */
    struct state *states;
    size_t count;
    bool answered[HISTORY]; /* before the operation */
    struct state now;       /* what is compared */
    struct store_account account;
    uint64_t points, deaths;
    char why[512];
} crash;

/* ---- what the reference goes through ---- */
static void crash_note(struct ref *ref, void *context) {
    struct model *m = context;
    cr_assert_lt(crash.count, STATES_MAX);
    struct state *state = &crash.states[crash.count++];
    state->ref = *ref;
    state->ref.step = NULL;
    state->account = m->ref_account;
}

void crash_begin(struct model *m) {
    struct store_totals totals;
    struct store_answer answer;
    crash.watching = m->crashes && model_rnd(m, WATCH_ONE_IN) == 0;
    crash.spoilt = false;
    if (!crash.watching)
        return;
    store_totals(m->store, &totals);
    crash.others_bytes = m->account.used_bytes - totals.resident_bytes;
    for (unsigned i = 0; i < HISTORY; i++)
        crash.answered[i] = m->ops[i].op_id && store_replay_find(m->store, m->ops[i], &answer);
    crash.count = 0;
    crash_note(m->ref, m);
    m->ref->step = crash_note;
    m->ref->step_context = m;
    trap_arm();
}

void crash_spoil(struct model *m) {
    (void)m;
    crash.spoilt = true;
}

/* ---- which bytes are kept ---- */
/* The first `kept_bytes` of each slot are. */
static bool in_slots(const struct pool *pool, uint64_t at, size_t kept_bytes) {
    return at >= pool->offset && at < pool->offset + (uint64_t)pool->stride * pool->capacity &&
           (at - pool->offset) % pool->stride < kept_bytes;
}

static bool is_kept(const struct store *store, uint64_t at) {
    uint64_t replays_end = store->replays + store->options.max_replays * sizeof(struct replay_slot);
    uint64_t events_end = store->events + store->options.max_events * sizeof(struct store_event);
    return at < sizeof store->kept ||
           in_slots(&store->samples, at, offsetof(struct sample_slot, extent)) ||
           in_slots(&store->names, at, offsetof(struct name_slot, hash)) ||
           in_slots(&store->leases, at, offsetof(struct lease_slot, by_sample)) ||
           in_slots(&store->holders, at, offsetof(struct holder_slot, free_next)) ||
           in_slots(&store->chunks, at, sizeof(struct chunk)) ||
           (at >= store->replays && at < replays_end) || (at >= store->events && at < events_end);
}

/* ---- comparing ---- */
static void compare_leases(struct model *m) {
    for (const struct ref_lease *l = m->ref->leases; l < m->ref->leases + REF_LEASES; l++)
        if (l->serial && l->live && l->known && l->cookie)
            SAME(m, "cookie of a lease", store_lease_cookie(m->store, l->holder, l->hi, l->lo),
                 l->cookie);
}

/* An operation that records an answer may have done so or not. */
static void compare_answers(struct model *m) {
    struct store_answer found;
    bool recording = !strcmp(m->op, "replay");
    for (unsigned i = 0; i < HISTORY; i++) {
        bool there = m->ops[i].op_id && store_replay_find(m->store, m->ops[i], &found);
        if (there)
            SAME(m, "an answer", found.value, m->answers[i].value);
        if (!recording)
            SAME(m, "an answer is there", there, crash.answered[i]);
    }
}

/* Owners are 100 + the holder's number, as in store_model.c. */
static void compare_holders(struct model *m) {
    uint32_t cursor = 0, holder;
    uint64_t owner;
    while (store_holder_next(m->store, &cursor, &holder, &owner)) {
        SAME(m, "holder is open", m->ref->holders[holder].open, 1);
        SAME(m, "owner of a holder", owner, 100 + holder);
    }
}

/* Statistics may be one off after a death; the contract says so. */
static void forgive_statistics(struct model *m) {
    struct store_totals totals;
    store_totals(m->store, &totals);
    m->ref->puts = totals.puts;
    m->ref->gets = totals.gets;
    m->ref->frees = totals.frees;
    m->ref->reserves_ended = totals.reserves_ended;
}

/* NULL, or what differs. Pulls all effects, as the last thing. */
static const char *compare_with(const struct model *m, struct store *store,
                                const struct state *state) {
    static struct model probe;
    char why[256];
    probe = *m;
    crash.now = *state;
    crash.now.ref.account = &probe.ref_account;
    probe.ref_account = crash.now.account;
    probe.account = crash.account;
    probe.store = store;
    probe.ref = &crash.now.ref;
    store->options.account = &probe.account;
    if (setjmp(probe.failed)) {
        snprintf(crash.why, sizeof crash.why, "%s", probe.why);
        return crash.why;
    }
    ref_crash(probe.ref, m->now_ns);
    forgive_statistics(&probe);
    if (store_audit(store, why, sizeof why))
        model_fail(&probe, "audit: %s", why);
    model_look(&probe);
    model_compare(&probe);
    compare_leases(&probe);
    compare_answers(&probe);
    compare_holders(&probe);
    while (model_pull(&probe))
        ;
    model_look(&probe);
    model_compare(&probe);
    return NULL;
}

/* ---- attaching ---- */
/* Everything that attach is to make anew. */
static void spoil_derived(void *block, const struct store *like) {
    struct store *store = block;
    memset((char *)block + sizeof store->kept, RUBBISH, sizeof *store - sizeof store->kept);
    memset((char *)block + like->generation_hash, RUBBISH, (like->generation_mask + 1ul) * 4);
    memset((char *)block + like->name_hash, RUBBISH, (like->name_mask + 1ul) * 4);
    memset((char *)block + like->replay_hash, RUBBISH, (like->replay_mask + 1ul) * 4);
    memset((char *)block + like->home_map, RUBBISH, 512);
}

/* Settings are those of now; sizes cannot have changed. What other stores of the node hold is in
 * the account before. */
static struct store *attach_in(struct model *m, void *block, struct store_account *account) {
    struct store *store = NULL;
    struct store_options options = m->ref->options;
    char why[256] = "";
    account->used_bytes = crash.others_bytes;
    account->limit_bytes = m->account.limit_bytes;
    options.account = account;
    options.seed = 0; /* that of the block counts */
    if (store_attach(block, crash.bytes, &options, m->now_ns, &store, why, sizeof why))
        model_fail(m, "attach refused: %s", why);
    return store;
}

/* The block is the image; its state must be one of `states`, from `from` on. Returns which. */
static size_t check_point(struct model *m, const struct state *states, size_t count, size_t from,
                          uint32_t step) {
    const char *different = NULL;
    char first[512] = "";
    crash.points++;
    for (size_t k = from; k < count; k++) {
        void *block = trap_scratch();
        spoil_derived(block, m->store);
        different = compare_with(m, attach_in(m, block, &crash.account), &states[k]);
        if (!different)
            return k;
        if (!*first)
            snprintf(first, sizeof first, "%s", different);
    }
    model_fail(m,
               "after instruction %u of those that wrote: in none of %zu states; in the first: %s",
               step, count - from, first);
}

/* Carries out the writes in the image, one instruction after the other, and checks after each.
 * Stops after `stop` such checks, SIZE_MAX = never; returns the state that the last was in. */
static size_t check_writes(struct model *m, const struct trap_write *writes, size_t count,
                           const struct state *states, size_t state_count, size_t stop) {
    size_t state = 0, checked = 0;
    for (size_t i = 0; i < count && checked < stop;) {
        uint32_t step = writes[i].step;
        bool kept = false;
        for (; i < count && writes[i].step == step; i++) {
            trap_image()[writes[i].word] = writes[i].value;
            kept |= is_kept(m->store, writes[i].word * 8ull);
        }
        if (!kept)
            continue;
        checked++;
        state = check_point(m, states, state_count, state, step);
    }
    return state;
}

/* How many checks check_writes() will make. */
static size_t count_points(const struct model *m, const struct trap_write *writes, size_t count) {
    size_t points = 0;
    uint32_t last = UINT32_MAX;
    for (size_t i = 0; i < count; i++)
        if (writes[i].step != last && is_kept(m->store, writes[i].word * 8ull)) {
            points++;
            last = writes[i].step;
        }
    return points;
}

/* ---- dying in earnest ---- */
/* The accounts died with the process: each begins empty, and is charged by adopting. */
static void adopt_all(struct model *m) {
    uint32_t cursor = 0, holder;
    uint64_t owner;
    while (store_holder_next(m->store, &cursor, &holder, &owner)) {
        struct model_account *charged = &m->accounts[holder];
        account_init(&charged->account, ACCOUNT_SESSION, holder, NULL, &charged->limits);
        store_holder_adopt(m->store, holder, owner, &charged->account);
    }
    for (uint32_t i = 0; i < HOLDERS; i++)
        if (!m->ref->holders[i].open)
            account_init(&m->accounts[i].account, ACCOUNT_SESSION, i, NULL, &m->accounts[i].limits);
}

/* The image is what the store left. Accounts, holders and the reference follow. Dying twice means
 * that every point in the attach is a point of death as well; the state is the same one at each. */
static void die(struct model *m, const struct state *state) {
    size_t count;
    bool twice = model_rnd(m, DIE_TWICE_IN) == 0;
    crash.deaths++;
    trap_restore();
    if (twice)
        trap_arm();
    m->store = attach_in(m, m->block, &m->account);
    if (twice) {
        const struct trap_write *writes = trap_disarm(&count);
        check_writes(m, writes, count, state, 1, SIZE_MAX);
    }
    *m->ref = state->ref;
    m->ref_account = state->account;
    m->ref->account = &m->ref_account;
    ref_crash(m->ref, m->now_ns);
    forgive_statistics(m);
    adopt_all(m);
    model_look(m);
}

void crash_end(struct model *m) {
    size_t count, state, stop;
    if (!crash.watching)
        return;
    crash.watching = false;
    const struct trap_write *writes = trap_disarm(&count);
    crash_note(m->ref, m);
    m->ref->step = NULL;
    size_t points = count_points(m, writes, count);
    if (crash.spoilt || !points)
        return;
    bool dies = model_rnd(m, DIE_ONE_IN) == 0;
    stop = dies ? 1 + model_rnd(m, points) : SIZE_MAX;
    state = check_writes(m, writes, count, crash.states, crash.count, stop);
    if (dies)
        die(m, &crash.states[state]);
}

/* ---- the test ---- */
static const char *run(struct model *m, uint64_t seed, uint64_t ops) {
    model_options(m, seed);
    crash.bytes = store_block_bytes(&m->options, NULL);
    m->block = trap_memory(crash.bytes);
    crash.states = calloc(STATES_MAX, sizeof *crash.states);
    cr_assert(crash.states);
    model_init(m);
    if (setjmp(m->failed))
        return m->why;
    model_open_holder(m);
    model_open_holder(m);
    m->crashes = true;
    while (m->step < ops)
        model_step(m);
    return NULL;
}

Test(store_crash, dies_after_every_store) {
    static struct model m;
    if (!trap_can())
        cr_skip_test("single steps are known for x86-64 only");
    uint64_t seed = model_seed("STORE_CRASH_SEED", SEED_DEFAULT);
    uint64_t ops = model_from_environment("STORE_CRASH_OPS", CRASH_OPS);
    const char *different = run(&m, seed, ops);
    printf(
        "store_crash: STORE_CRASH_SEED=%llu, %llu operations, %llu points of death, %llu deaths\n",
        (unsigned long long)seed, (unsigned long long)m.step, (unsigned long long)crash.points,
        (unsigned long long)crash.deaths);
    fflush(stdout);
    cr_assert_null(different, "%s (STORE_CRASH_SEED=%llu)", different, (unsigned long long)seed);
    trap_free();
    free(crash.states);
    free(m.ref);
}
