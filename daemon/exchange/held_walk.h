/* SPDX-License-Identifier: Apache-2.0
 *
 * How far this node has come in checking what it holds against the index.
 */
#ifndef FEATURED_BROKER_HELD_WALK_H
#define FEATURED_BROKER_HELD_WALK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cluster/generation_set.h"
#include "time/deadlines.h"

/* The check of all that this node holds (held_check.c). */
struct held_walk {
    struct deadline go_on; /* held_checks_wake() */
    bool walking, again;   /* again: from the beginning, at next_ns */
    uint64_t next_ns, cursor;
    uint32_t space, in_flight;
    uint32_t waiting; /* checks that are begun again after a while */
    uint32_t first;   /* checks, due ones too, and republishes before which nothing is served */
    uint32_t republishing;
    struct held_due { /* to be checked, some at a time */
        uint64_t generation;
        uint32_t space;
        bool first; /* counted in `first` */
    } * due;
    size_t due_count, due_room;
};

/* How far reconcile() has come. */
struct reconciling {
    size_t at; /* in the ends, then the records */
    uint32_t space;
    uint64_t cursor;
    struct generation_set named; /* held, and named by a record */
    size_t held, retired, checked, removed;
};

#endif
