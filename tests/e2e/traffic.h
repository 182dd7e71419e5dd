/* SPDX-License-Identifier: Apache-2.0
 *
 * Operations without pause while faults happen, each held against a reference: one thread per node
 * puts, re-puts from other nodes, gets by ref and by id from every node, and aborts, always samples
 * of its own, so that it knows what each answer may be. What is refused (UNAVAILABLE, TIMEOUT,
 * FULL, LOST where a home was killed) is counted; what must not be is a violation.
 */
#ifndef FEATURED_TESTS_TRAFFIC_H
#define FEATURED_TESTS_TRAFFIC_H

#include <pthread.h>
#include <stdatomic.h>

#include "e2e/index_world.h"

#define TRAFFIC_ROUNDS_MAX 20032u

struct traffic_worker {
    pthread_t thread;
    struct traffic *traffic;
    uint32_t node; /* where it puts first */
    struct feature *features[INDEX_NODES];
    struct feature_store *stores[INDEX_NODES];
    atomic_ullong operations, refused, violations;
    atomic_ullong put_ms; /* when the last put on its node that succeeded was begun; 0 = none */
    uint32_t rounds;
    uint64_t done[TRAFFIC_ROUNDS_MAX / 64]; /* bits: rounds played to the end */
};
struct traffic {
    struct index_world *world;
    atomic_bool stop;
    atomic_bool
        homes_may_die; /* a home's lease may end: LOST is no violation; set with short ones */
    struct traffic_worker workers[INDEX_NODES];
};

void traffic_start(struct traffic *traffic, struct index_world *world);
/* Until a put on that node, begun after this call, has succeeded: milliseconds it took. */
uint64_t traffic_await_put(struct traffic *traffic, uint32_t node);
/* The same for all nodes: the longest. */
uint64_t traffic_await_all(struct traffic *traffic);
/* Stops it, prints a line of figures under this name, and checks that nothing was violated. */
void traffic_stop(struct traffic *traffic, const char *name, uint64_t recovered_ms);

#endif
