/* SPDX-License-Identifier: Apache-2.0
 *
 * No state of its own. The clock is CLOCK_MONOTONIC through the vDSO: about 25 ns, under 1 % of the
 * shortest op timed here.
 */
#include "bench/rounds.h"

#include <time.h>

#include "bench/bench.h"

uint64_t rounds_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int take_turn(struct rounds_op *op, struct rounds_plan plan) {
    for (unsigned i = 0; i < plan.warm_up_runs + plan.runs_per_round; i++) {
        const uint64_t began_ns = rounds_now_ns();
        if (op->run(op->context) != 0)
            return -1;
        const uint64_t took_ns = rounds_now_ns() - began_ns;
        if (i >= plan.warm_up_runs && samples_add(&op->samples, took_ns) != 0)
            return bench_fail("out of memory for samples");
    }
    return 0;
}

int rounds_run(struct rounds_op *ops, size_t op_count, struct rounds_plan plan) {
    for (unsigned round = 0; round < plan.rounds; round++)
        for (size_t i = 0; i < op_count; i++)
            if (take_turn(&ops[i], plan) != 0)
                return -1;
    return 0;
}

void rounds_deinit(struct rounds_op *ops, size_t op_count) {
    for (size_t i = 0; i < op_count; i++)
        samples_deinit(&ops[i].samples);
}
