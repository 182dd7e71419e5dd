/* SPDX-License-Identifier: Apache-2.0
 *
 * A put q threatens every put p of the same sample in its reach that has begun, and is threatened
 * by those that are still open: either may turn out to be the later one. When q fails, what it
 * threatened is released; when it is done, all that had ended before it began are gone.
 */
#include "model/cluster_contract.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void contract_init(struct contract *c, bool index, enum contract_policy policy, unsigned readers) {
    c->index = index;
    c->policy = policy;
    c->readers = readers;
    c->turn = 1;
    c->claim_count = 0;
    c->loose_ids = c->vague_ids = 0;
    memset(c->far_ids, 0, sizeof c->far_ids);
    memset(c->open_ids, 0, sizeof c->open_ids);
    c->broken = NULL;
}

void contract_broken(struct contract *c, const char *broken, const char *format, ...) {
    va_list arguments;
    if (c->broken)
        return;
    c->broken = broken;
    va_start(arguments, format);
    vsnprintf(c->why, sizeof c->why, format, arguments);
    va_end(arguments);
}

/* ---- puts ---- */

static bool in_reach(const struct contract *c, const struct claim *a, const struct claim *b) {
    return a != b && a->id == b->id &&
           (c->index || (a->home == b->home && a->incarnation == b->incarnation));
}

struct claim *contract_plan(struct contract *c, unsigned id, unsigned home, uint64_t incarnation,
                            uint64_t nonce, uint64_t bytes) {
    if (c->claim_count == CLAIMS_MAX)
        return NULL;
    struct claim *claim = &c->claims[c->claim_count++];
    *claim = (struct claim){.nonce = nonce,
                            .id = id,
                            .home = home,
                            .incarnation = incarnation,
                            .bytes = bytes,
                            .begun = NEVER,
                            .ended = NEVER,
                            .gone = NEVER,
                            .died = NEVER};
    return claim;
}

struct claim *contract_find(struct contract *c, uint64_t nonce) {
    for (unsigned i = 0; i < c->claim_count; i++)
        if (c->claims[i].nonce == nonce)
            return &c->claims[i];
    return NULL;
}

static bool may_still_come(const struct contract *c, const struct claim *claim) {
    return claim->state == CLAIM_OPEN || (c->index && claim->state == CLAIM_UNKNOWN);
}

void contract_commit_begins(struct contract *c, struct claim *claim) {
    claim->state = CLAIM_OPEN;
    claim->begun = ++c->turn;
    claim->endings += (unsigned)(c->loose_ids >> claim->id & 1) + c->open_ids[claim->id];
    claim->threats += claim->endings;
    for (struct claim *p = c->claims; p < c->claims + c->claim_count; p++) {
        if (p->state == CLAIM_PLANNED || !in_reach(c, p, claim))
            continue;
        p->threats++;
        claim->threats += may_still_come(c, p);
    }
}

void contract_commit_again(struct contract *c, struct claim *claim) {
    c->turn++;
    if (claim->state == CLAIM_FAILED && !claim->generation) {
        claim->gone = NEVER; /* it was over before it was; it may be carried out only now */
        claim->gone_why = NULL;
    }
    claim->state = CLAIM_OPEN;
    claim->again = true;
    claim->ended = NEVER;
    for (struct claim *p = c->claims; p < c->claims + c->claim_count; p++) {
        if (p->state == CLAIM_PLANNED || !in_reach(c, p, claim))
            continue;
        p->threats++;
        claim->threats += p->ended > claim->begun;
    }
}

void contract_gone(struct contract *c, struct claim *claim, const char *why) {
    if (claim->gone != NEVER)
        return;
    claim->gone = ++c->turn;
    claim->gone_why = why;
}

void contract_commit_done(struct contract *c, struct claim *claim, uint64_t generation) {
    if (claim->generation && claim->generation != generation)
        contract_broken(c, "generation changed",
                        "put %" PRIx64 " was answered generation %" PRIx64
                        " after it was seen as generation %" PRIx64,
                        claim->nonce, generation, claim->generation);
    for (const struct claim *p = c->claims; p < c->claims + c->claim_count; p++)
        if (p != claim && p->generation == generation)
            contract_broken(c, "generation twice",
                            "generation %" PRIx64 " was given to puts %" PRIx64 " and %" PRIx64,
                            generation, p->nonce, claim->nonce);
    if (claim->missed && !claim->again)
        contract_broken(c, "id not found while put anew",
                        "sample %u was not found while put %" PRIx64 " replaced an older one of it",
                        claim->id, claim->nonce);
    claim->generation = generation;
    claim->state = CLAIM_DONE;
    claim->ended = ++c->turn;
    for (struct claim *p = c->claims; p < c->claims + c->claim_count; p++)
        if (in_reach(c, p, claim) && p->ended < claim->begun && !may_still_come(c, p))
            contract_gone(c, p, "superseded");
}

void contract_commit_failed(struct contract *c, struct claim *claim, bool surely) {
    claim->state = CLAIM_FAILED;
    claim->ended = ++c->turn;
    for (struct claim *p = c->claims; surely && p < c->claims + c->claim_count; p++)
        if (p->state != CLAIM_PLANNED && in_reach(c, p, claim))
            p->threats--;
}

void contract_commit_unknown(struct contract *c, struct claim *claim) {
    claim->state = CLAIM_UNKNOWN;
    claim->ended = ++c->turn;
}

/* ---- endings ---- */

static bool begun(const struct claim *claim) {
    return claim->state != CLAIM_PLANNED;
}

static void threaten(struct claim *claim) {
    claim->threats++;
    claim->endings++;
}

static bool is_at(const struct claim *claim, unsigned id, unsigned home, uint64_t incarnation) {
    return claim->id == id &&
           (home == EVERYWHERE || (claim->home == home && claim->incarnation == incarnation));
}

void contract_retire_begins(struct contract *c, struct claim *claim) {
    c->turn++;
    threaten(claim);
}

void contract_retire_id_begins(struct contract *c, unsigned id, unsigned home,
                               uint64_t incarnation) {
    c->turn++;
    c->open_ids[id] += home == EVERYWHERE;
    for (struct claim *p = c->claims; p < c->claims + c->claim_count; p++)
        if (begun(p) && is_at(p, id, home, incarnation))
            threaten(p);
}

void contract_retire_id_ends(struct contract *c, unsigned id, unsigned home, unsigned sure_home,
                             uint64_t incarnation, uint64_t since, const char *why) {
    c->open_ids[id] -= home == EVERYWHERE;
    for (struct claim *p = c->claims; why && p < c->claims + c->claim_count; p++)
        if (p->ended < since && is_at(p, id, sure_home, incarnation) && !may_still_come(c, p))
            contract_gone(c, p, why);
}

void contract_retire_id_unknown(struct contract *c, unsigned id) {
    c->loose_ids |= UINT64_C(1) << id;
    for (struct claim *p = c->claims; p < c->claims + c->claim_count; p++)
        if (begun(p) && p->id == id)
            threaten(p);
}

void contract_consumed(struct contract *c, struct claim *claim, bool sure) {
    c->turn++;
    claim->consumed_said++;
    claim->consumed_sure += sure;
    if (c->policy == CONTRACT_ON_RELEASE && claim->consumed_said >= c->readers)
        threaten(claim);
}

void contract_far(struct contract *c, struct claim *claim) {
    (void)c;
    claim->far = true;
}

void contract_far_id(struct contract *c, unsigned id, unsigned node) {
    c->far_ids[id] |= 1u << node;
}

void contract_home_settles(struct contract *c, struct claim *claim) {
    bool far = claim->far || (c->far_ids[claim->id] & ~(1u << claim->home));
    if (c->policy == CONTRACT_ON_RELEASE && !claim->live && !far &&
        claim->consumed_sure >= c->readers)
        contract_gone(c, claim, "consumed");
}

void contract_node_dies(struct contract *c, unsigned home, uint64_t incarnation) {
    c->turn++;
    for (struct claim *p = c->claims; p < c->claims + c->claim_count; p++) {
        if (p->home != home || p->incarnation != incarnation)
            continue;
        p->lost = true;
        p->died = p->died == NEVER ? c->turn : p->died;
        threaten(p);
        p->live = 0;
        contract_gone(c, p, "its home died");
    }
}

void contract_gc_begins(struct contract *c, unsigned home, uint64_t incarnation) {
    c->turn++;
    for (struct claim *p = c->claims; p < c->claims + c->claim_count; p++)
        if (begun(p) && p->home == home && p->incarnation == incarnation)
            threaten(p);
}

void contract_record_lost(struct contract *c, unsigned id) {
    c->vague_ids |= UINT64_C(1) << id;
}

/* ---- judgements ---- */

void contract_index_lost(struct contract *c) {
    for (const struct claim *p = c->claims; p < c->claims + c->claim_count; p++)
        if (may_still_come(c, p))
            contract_record_lost(c, p->id);
}

/* A lost record can keep word of an end from a home that lives, and from no other: what lay in a
 * dead one is not granted to whoever asks after its death, whatever it had been replaced by. A
 * request that began before it may have been answered by it. */
bool contract_is_excused(const struct contract *c, const struct claim *claim, uint64_t since) {
    return c->vague_ids >> claim->id & 1 && claim->died >= since &&
           (strstr(claim->gone_why, "superseded") || strstr(claim->gone_why, "by id"));
}

/* Others of the sample in its reach that had been put before this get began are older than it. */
static void older_are_gone(struct contract *c, const struct claim *claim, uint64_t since) {
    if (claim->state != CLAIM_DONE || claim->ended >= since)
        return;
    for (struct claim *p = c->claims; p < c->claims + c->claim_count; p++)
        if (in_reach(c, p, claim) && p->ended < since && !may_still_come(c, p))
            contract_gone(c, p, "superseded by one put at the same time");
}

void contract_granted(struct contract *c, struct claim *claim, uint64_t generation,
                      uint64_t since) {
    c->turn++;
    if (claim->state == CLAIM_PLANNED)
        contract_broken(c, "uncommitted granted", "put %" PRIx64 " was granted before its commit",
                        claim->nonce);
    if (claim->state == CLAIM_FAILED && claim->ended < since)
        contract_broken(c, "refused put granted",
                        "put %" PRIx64 " was granted although it had been refused", claim->nonce);
    if (claim->generation && claim->generation != generation)
        contract_broken(c, "wrong generation",
                        "put %" PRIx64 " is generation %" PRIx64 ", granted as %" PRIx64,
                        claim->nonce, claim->generation, generation);
    claim->generation = generation;
    if (claim->gone < since && !contract_is_excused(c, claim, since))
        contract_broken(c, claim->died < since ? "granted after death" : "granted after its end",
                        "put %" PRIx64 " (generation %" PRIx64
                        ") was granted to a get that began after it had ended: %s",
                        claim->nonce, generation, claim->gone_why);
    older_are_gone(c, claim, since);
}

void contract_not_found(struct contract *c, const struct claim *claim, uint64_t since,
                        bool checked) {
    c->turn++;
    if (claim->lost && claim->threats == 1 && claim->gone < since && checked)
        contract_broken(c, "not called lost",
                        "put %" PRIx64 " was not found, rather than lost with its home",
                        claim->nonce);
    if (!claim->threats)
        contract_broken(c, "not found", "put %" PRIx64 " was not found though nothing ended it",
                        claim->nonce);
}

/* Since this one was there nothing else has begun that could end one of its sample, but puts: each
 * done, or under way and never refused. */
static bool only_put_anew(const struct contract *c, const struct claim *claim) {
    if (claim->endings)
        return false;
    for (const struct claim *q = c->claims; q < c->claims + c->claim_count; q++) {
        bool concerns =
            q->state != CLAIM_PLANNED && in_reach(c, q, claim) && q->ended > claim->begun;
        bool replaces =
            !q->endings && !q->again && (q->state == CLAIM_DONE || q->state == CLAIM_OPEN);
        if (concerns && !replaces)
            return false;
    }
    return true;
}

/* One that is under way may yet be refused, and then have ended the older one all the same. */
static void missed_while_put_anew(struct contract *c, const struct claim *claim) {
    struct claim *open = NULL;
    for (struct claim *q = c->claims; q < c->claims + c->claim_count; q++) {
        if (q->state != CLAIM_OPEN || !in_reach(c, q, claim))
            continue;
        if (open)
            return;
        open = q;
    }
    if (open)
        open->missed = true;
    else
        contract_broken(c, "id not found while put anew",
                        "sample %u was not found though put %" PRIx64
                        " of it was there, and then what replaced it",
                        claim->id, claim->nonce);
}

void contract_id_not_found(struct contract *c, unsigned id, uint64_t since) {
    c->turn++;
    for (const struct claim *p = c->claims; p < c->claims + c->claim_count; p++)
        if (p->id == id && p->state == CLAIM_DONE && p->ended < since && !p->threats)
            contract_broken(c, "id not found",
                            "sample %u was not found though put %" PRIx64
                            " of it is there and nothing ended it",
                            id, p->nonce);
    for (const struct claim *p = c->claims; c->index && p < c->claims + c->claim_count; p++)
        if (p->id == id && p->state == CLAIM_DONE && p->ended < since && p->gone > since &&
            only_put_anew(c, p)) {
            missed_while_put_anew(c, p);
            break;
        }
}

void contract_called_lost(struct contract *c, const struct claim *claim) {
    c->turn++;
    if (!claim->lost)
        contract_broken(c, "called lost", "put %" PRIx64 " was called lost though its home lives",
                        claim->nonce);
}

void contract_rests(struct contract *c, struct claim *claim, uint64_t generation,
                    unsigned consumed) {
    contract_granted(c, claim, generation, ++c->turn);
    if (consumed > claim->consumed_said)
        contract_broken(c, "consumed too often",
                        "put %" PRIx64 ": %u readers consumed it, its home counts %u", claim->nonce,
                        claim->consumed_said, consumed);
    if (consumed < claim->consumed_sure)
        contract_broken(c, "consumed was lost",
                        "put %" PRIx64 ": %u readers surely consumed it, its home counts %u",
                        claim->nonce, claim->consumed_sure, consumed);
    if (c->policy == CONTRACT_ON_RELEASE && consumed >= c->readers)
        contract_broken(c, "consumed but resident",
                        "put %" PRIx64 " is resident though %u of %u readers consumed it",
                        claim->nonce, consumed, c->readers);
}

bool contract_must_rest(const struct contract *c, const struct claim *claim) {
    (void)c;
    return claim->state == CLAIM_DONE && !claim->threats && claim->gone == NEVER;
}
