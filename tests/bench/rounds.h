/* SPDX-License-Identifier: Apache-2.0
 *
 * Alternating rounds: op 0 a few times, op 1 a few times, ..., and again. Each run of an op is
 * timed by itself; the first ones of each turn are warm-up and not counted (the other side of a
 * ping-pong was asleep, caches held another op's data).
 */
#ifndef FEATURED_TESTS_BENCH_ROUNDS_H
#define FEATURED_TESTS_BENCH_ROUNDS_H

#include "support/samples.h"

struct rounds_op {
    int (*run)(void *context); /* 0, or -1 after the reason was written */
    void *context;
    struct samples samples; /* ns per run, filled by rounds_run() */
};

struct rounds_plan {
    unsigned rounds, runs_per_round, warm_up_runs;
};

uint64_t rounds_now_ns(void);
/* 0, or -1 when an op failed. */
int rounds_run(struct rounds_op *ops, size_t op_count, struct rounds_plan plan);
void rounds_deinit(struct rounds_op *ops, size_t op_count);

#endif
