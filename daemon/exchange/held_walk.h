/* SPDX-License-Identifier: Apache-2.0
 *
 * How far this node has come in checking what it holds against the index.
 */
#ifndef FEATURED_BROKER_HELD_WALK_H
#define FEATURED_BROKER_HELD_WALK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "cluster/cluster.h"
#include "time/deadlines.h"

/* Of our own checks, by generation. There are some 1600 at most (held_check.c), so that a bucket
 * has two or so. */
#define HELD_CHECK_BUCKETS 1024u

/* The check of all that this node holds (held_check.c). */
struct held_walk {
    struct deadline go_on; /* held_checks_wake() */
    bool walking, again;   /* again: from the beginning, at next_ns */
    uint64_t next_ns, cursor;
    uint32_t space, in_flight;
    uint32_t waiting; /* checks that are begun again after a while */
    uint32_t republishing;
    struct held_due { /* to be checked, some at a time */
        uint64_t generation;
        uint32_t space;
        bool first; /* counted in exchange->fencing */
    } * due;
    size_t due_count, due_room;
    LIST_HEAD(held_check_list, held_check) own[HELD_CHECK_BUCKETS];
};

/* How far reconcile() has come in what this node holds. */
struct reconcile_walk {
    uint32_t space;
    uint64_t cursor;
};

#endif
