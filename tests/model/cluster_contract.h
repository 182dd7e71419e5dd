/* SPDX-License-Identifier: Apache-2.0
 *
 * What the broker promises its clients, as a judge of what they saw: written from the contract
 * (PROTOCOL.md, docs/ARCHITECTURE.md), knowing nothing of how a broker works. Every put is a
 * *claim*; whatever may end or surely has ended its generation is noted as requests begin and are
 * answered, and each grant and each refusal is judged by it.
 *
 * Order is by `turn`, a number that grows with every request and every answer: what was answered
 * before another request began is before it, everything else is concurrent and may have happened in
 * either order. A claim is `threatened` while something that has begun might end it, and `gone`
 * from the turn on at which it surely has ended.
 */
#ifndef FEATURED_TESTS_CLUSTER_CONTRACT_H
#define FEATURED_TESTS_CLUSTER_CONTRACT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CLAIMS_MAX 2048u
#define NEVER      UINT64_MAX

enum claim_state {
    CLAIM_PLANNED, /* reserved; its commit has not begun */
    CLAIM_OPEN,    /* committing */
    CLAIM_DONE,    /* answered OK */
    CLAIM_FAILED,  /* answered with a refusal: must never be seen */
    CLAIM_UNKNOWN, /* its client went away before the answer */
};

struct claim {
    uint64_t nonce; /* its bytes are made of this */
    unsigned id;    /* which sample_id */
    unsigned home;
    uint64_t incarnation, bytes, generation;
    enum claim_state state;
    uint64_t begun, ended; /* turns of the commit and its answer; NEVER = not yet */
    unsigned threats;
    unsigned endings; /* of the threats, those that are no puts: they put nothing in its place */
    bool again;       /* its put was said more than once */
    bool missed;      /* its id was not found while it was committing, and an older one there */
    uint64_t gone;
    const char *gone_why;
    bool lost;     /* its home has died */
    uint64_t died; /* from the turn on at which it had; NEVER = it lives */
    bool far;      /* some other node was asked for it */
    unsigned live; /* leases that clients of its home hold */
    unsigned consumed_said, consumed_sure;
};

enum contract_policy { CONTRACT_ON_RELEASE, CONTRACT_ON_ACK, CONTRACT_RETAIN };

struct contract {
    bool index; /* supersede and abort hold across nodes */
    enum contract_policy policy;
    unsigned readers;
    uint64_t turn;
    struct claim claims[CLAIMS_MAX];
    unsigned claim_count;
    uint32_t far_ids[64];  /* nodes that asked for an id */
    unsigned open_ids[64]; /* retirements of an id, everywhere, under way */
    uint64_t vague_ids;    /* whoever replaces one of these may not know it: its record was lost */
    uint64_t loose_ids;    /* a retirement by id of unknown outcome may strike at any time */
    const char *broken;    /* in short; NULL while all is well */
    char why[400];
};

void contract_init(struct contract *c, bool index, enum contract_policy policy, unsigned readers);
/* Only the first is kept. */
void contract_broken(struct contract *c, const char *broken, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- puts ---- */
struct claim *contract_plan(struct contract *c, unsigned id, unsigned home, uint64_t incarnation,
                            uint64_t nonce, uint64_t bytes);
void contract_commit_begins(struct contract *c, struct claim *claim);
/* It is said once more, having been refused or not answered: it may have happened at any time since
 * it first began. */
void contract_commit_again(struct contract *c, struct claim *claim);
void contract_commit_done(struct contract *c, struct claim *claim, uint64_t generation);
/* surely: it had no effect; else (a put of unknown outcome) what it threatened stays so. */
void contract_commit_failed(struct contract *c, struct claim *claim, bool surely);
void contract_commit_unknown(struct contract *c, struct claim *claim);
struct claim *contract_find(struct contract *c, uint64_t nonce);

/* ---- endings ---- */
#define EVERYWHERE UINT32_MAX
void contract_retire_begins(struct contract *c, struct claim *claim);
void contract_gone(struct contract *c, struct claim *claim, const char *why);
/* By id at one home's incarnation, or everywhere: then what is put before it ends is threatened
 * too. Each that begins also ends. begun: the turn at which the request began; why: NULL when it
 * was refused; sure_home: where it surely acted. */
void contract_retire_id_begins(struct contract *c, unsigned id, unsigned home,
                               uint64_t incarnation);
void contract_retire_id_ends(struct contract *c, unsigned id, unsigned home, unsigned sure_home,
                             uint64_t incarnation, uint64_t begun, const char *why);
void contract_retire_id_unknown(struct contract *c, unsigned id);
/* A reader said consumed; sure: its home knows. */
void contract_consumed(struct contract *c, struct claim *claim, bool sure);
/* A client at the home has said its last about a lease: is the sample surely consumed now? */
void contract_home_settles(struct contract *c, struct claim *claim);
/* Some other node asks for it, or for whatever its sample_id names. */
void contract_far(struct contract *c, struct claim *claim);
void contract_far_id(struct contract *c, unsigned id, unsigned node);
void contract_node_dies(struct contract *c, unsigned home, uint64_t incarnation);
void contract_gc_begins(struct contract *c, unsigned home, uint64_t incarnation);

/* A record of this sample is gone or not true: who replaces it may not hear of it. Then the older
 * one may be granted until that is noticed, and stays if the newer has ended by then; what ends one
 * of them by its id need not find the other. */
void contract_record_lost(struct contract *c, unsigned id);
/* The whole index has gone back in time: so it is for the samples that are being put. */
void contract_index_lost(struct contract *c);

/* ---- judgements ---- */
/* A get that began at turn `begun` was granted this claim under that generation. */
void contract_granted(struct contract *c, struct claim *claim, uint64_t generation, uint64_t begun);
/* checked: the request named its home's incarnation. */
void contract_not_found(struct contract *c, const struct claim *claim, uint64_t begun,
                        bool checked);
/* Nor may it be, while each generation of it that has ended was replaced by another. */
void contract_id_not_found(struct contract *c, unsigned id, uint64_t begun);
/* It has ended, and is shown or granted to a request that began at turn `since`: may it be? */
bool contract_is_excused(const struct contract *c, const struct claim *claim, uint64_t since);
void contract_called_lost(struct contract *c, const struct claim *claim);
/* At rest: what a home has (consumed: as it counts), and what it should have. */
void contract_rests(struct contract *c, struct claim *claim, uint64_t generation,
                    unsigned consumed);
bool contract_must_rest(const struct contract *c, const struct claim *claim);

#endif
