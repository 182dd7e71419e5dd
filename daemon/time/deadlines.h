/* SPDX-License-Identifier: Apache-2.0
 *
 * Things that are due at a time, the earliest first: a heap of links inside the things themselves,
 * so that nothing is allocated and nothing can fail. Of those due at one time, first come first.
 */
#ifndef FEATURED_TIME_DEADLINES_H
#define FEATURED_TIME_DEADLINES_H

#include <stdbool.h>
#include <stdint.h>

struct deadline {
    bool queued;
    uint64_t at_ns, sequence;
    struct deadline *child, *next, *previous; /* previous: elder sibling, or parent of the first */
};
struct deadlines {
    struct deadline *first; /* the earliest, NULL = none */
    uint64_t sequence;
};

/* Moves it if it is there already. */
void deadlines_set(struct deadlines *deadlines, struct deadline *deadline, uint64_t at_ns);
void deadlines_clear(struct deadlines *deadlines, struct deadline *deadline);
/* UINT64_MAX = none. */
static inline uint64_t deadlines_next_ns(const struct deadlines *deadlines) {
    return deadlines->first ? deadlines->first->at_ns : UINT64_MAX;
}

#endif
