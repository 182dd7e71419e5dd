/* SPDX-License-Identifier: Apache-2.0
 *
 * A store and its reference side by side, and what compares them. Any difference ends the run.
 */
#ifndef FEATURED_TESTS_STORE_MODEL_H
#define FEATURED_TESTS_STORE_MODEL_H

#include <setjmp.h>

#include "model/store_reference.h"

#define IDS         10
#define FAR_HOME    (1ull << 40) /* generations of other nodes begin here */
#define FAR_COUNT   10
#define HISTORY     64
#define AUDIT_EVERY 64
#define OPS_DEFAULT 1000000ull
#define HOLDERS     5

struct model {
    struct store_options options;
    struct store_account account, ref_account;
    struct store *store;
    void *block;
    struct ref *ref;
    struct model_account { /* one for each holder */
        struct charge_limits limits;
        struct account account;
    } accounts[REF_HOLDERS];
    uint64_t random, now_ns, generation, serial, tag;
    uint64_t generations[HISTORY]; /* some that were used lately */
    struct store_op ops[HISTORY];
    struct store_answer answers[HISTORY];
    const char *op; /* the one under way */
    uint64_t step;
    bool crashes; /* each step lies between crash_begin() and crash_end() */
    jmp_buf failed;
    char why[512];
};

#define SAME(m, field, a, b)                                                                       \
    do {                                                                                           \
        unsigned long long same_a = (unsigned long long)(a), same_b = (unsigned long long)(b);     \
        if (same_a != same_b)                                                                      \
            model_fail(m, "%s: store says %llu, reference %llu", field, same_a, same_b);           \
    } while (0)

void __attribute__((format(printf, 2, 3), noreturn))
model_fail(struct model *m, const char *format, ...);
uint64_t model_rnd(struct model *m, uint64_t below);
const char *model_id_text(int id);
void model_look(struct model *m);
/* Numbers and options, then, with m->block set, the store and the reference. */
void model_options(struct model *m, uint64_t seed);
void model_init(struct model *m);
void model_step(struct model *m);
void model_open_holder(struct model *m);
bool model_pull(struct model *m); /* one effect, on both sides; false: there was none */
uint64_t model_from_environment(const char *name, uint64_t otherwise);
uint64_t model_seed(const char *name, uint64_t otherwise); /* 0: by the clock */
/* store_crash.c */
void crash_begin(struct model *m);
void crash_end(struct model *m);
void crash_spoil(struct model *m); /* this step is not looked at */
void model_compare(struct model *m);
void model_compare_refusal(struct model *m, const struct store_refusal *a,
                           const struct store_refusal *b);

#endif
