/* SPDX-License-Identifier: Apache-2.0
 *
 * What this node counts for whoever watches it (exchange/metrics.c), beside what stores, peers and
 * the directory count themselves. Nothing in the broker depends on these numbers. All are since the
 * start of the process.
 */
#ifndef FEATURED_NODE_COUNTS_H
#define FEATURED_NODE_COUNTS_H

#include "proto/histogram.h"
#include "store/store.h"

struct node_counts {
    /* From a request's arrival to the end of its item, of those that ended well. */
    struct histogram reserve, commit, put_inline;
    struct histogram get_local, get_remote; /* remote: the bytes came over the network */
    /* Phases of a remote get. */
    struct histogram ask_home, wait_room, wire;
    struct histogram turns; /* of the loop */
    uint64_t slow_ops;      /* that took longer than [ops] slow_op */
    uint64_t fences;        /* how often this node was fenced */
};

struct space_counts {
    uint64_t refused[STORE_CAUSES]; /* puts and gets that this store has refused */
    uint64_t corrupt_reads;         /* that clients of this node have told of */
};

#endif
