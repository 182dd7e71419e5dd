/* SPDX-License-Identifier: Apache-2.0
 *
 * DIRECTORY_SUITE_NODES directories of one kind, each with what its events have said, and short
 * ways to ask one of them something and to wait for the answer.
 */
#ifndef FEATURED_TESTS_DIRECTORY_BENCH_H
#define FEATURED_TESTS_DIRECTORY_BENCH_H

#include <criterion/criterion.h>

#include "conformance/directory_suite.h"

extern const struct directory_fixture *const directory_fixtures[]; /* NULL after the last */

/* Declares `fixture`. */
#define FOR_EACH_FIXTURE()                                                                         \
    for (const struct directory_fixture *const *at = directory_fixtures, *fixture;                 \
         (fixture = *at); at++)
/* The kinds that have a cluster-wide index. */
#define FOR_EACH_INDEX() FOR_EACH_FIXTURE() if (fixture->has_index)

struct seen { /* by one node */
    uint32_t up[DIRECTORY_SUITE_NODES], down[DIRECTORY_SUITE_NODES], fenced, unfenced, strangers;
    bool inside; /* a question is being asked: no callback may run */
};

struct bench {
    const struct directory_fixture *fixture;
    void *cluster;
    struct seen seen[DIRECTORY_SUITE_NODES];
};

/* Steps until the condition holds; fails the test when the patience of the fixture is over. */
#define UNTIL(bench, condition)                                                                    \
    for (uint32_t steps = 0; !(condition); steps++) {                                              \
        cr_assert_lt(steps, (bench)->fixture->patience, "%s: never came: %s",                      \
                     (bench)->fixture->name, #condition);                                          \
        (bench)->fixture->step((bench)->cluster);                                                  \
    }

struct answer {
    struct seen *seen;
    uint32_t count;
    enum directory_result result;
    bool has_record, ask_peers;
    char home[16];
    uint64_t generation, incarnation, bytes;
};

/* Makes and starts all nodes; returns when each has heard of every other one. */
void bench_init(struct bench *bench, const struct directory_fixture *fixture);
void bench_deinit(struct bench *bench);
struct directory *bench_node(struct bench *bench, uint32_t i); /* NULL once destroyed */

/* Asks node i to publish or retire; *answer is filled in later. */
void bench_ask(struct bench *bench, uint32_t i, bool retire, const char *store,
               const char *sample_id, uint64_t generation, struct answer *answer);
/* The same, of store run0, and the answer has come. */
struct answer bench_publish(struct bench *bench, uint32_t i, const char *sample_id,
                            uint64_t generation);
struct answer bench_retire(struct bench *bench, uint32_t i, const char *sample_id,
                           uint64_t generation);
struct answer bench_locate_in(struct bench *bench, uint32_t i, const char *store,
                              const char *sample_id);
struct answer bench_locate(struct bench *bench, uint32_t i, const char *sample_id);
/* For questions that are put directly: context is the struct answer. */
void bench_on_retired(void *context, enum directory_result result);
void bench_on_located(void *context, enum directory_result result,
                      const struct directory_record *record, bool ask_peers);
uint64_t bench_next_generation(struct bench *bench, uint32_t i);

#endif
