/* SPDX-License-Identifier: Apache-2.0
 *
 * Group commit: which of the queued writes go into the next transaction, and when. Several
 * transactions may be under way; writes of one key go one after the other, each when the one before
 * is finished, so that no transaction holds a key twice and no key's writes overtake each other.
 * Pure: time is an argument. Operations belong to the caller, who embeds them.
 */
#ifndef FEATURED_DIRECTORY_BATCH_H
#define FEATURED_DIRECTORY_BATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "directory/etcd/etcd.h" /* BATCH_OPS_MAX */

#define BATCH_BUCKETS 131072u

struct batch_op {
    const char *key; /* lives as long as the operation */
    size_t bytes;    /* what it adds to a transaction */
    uint64_t queued_ns;
    bool taken;
    TAILQ_ENTRY(batch_op) link;      /* among the ready ones */
    struct batch_op *behind;         /* the next of the same key */
    struct batch_op *last;           /* of the first of a key: the last of it */
    struct batch_op *next_in_bucket; /* of the first of a key */
};

struct batch {
    uint32_t ops_max; /* per transaction, 1 to BATCH_OPS_MAX */
    size_t bytes_max;
    uint64_t delay_ns;
    uint32_t flights_max;
    uint32_t flights; /* transactions under way */
    size_t ready_count;
    TAILQ_HEAD(batch_ops, batch_op) ready;
    struct batch_op *buckets[BATCH_BUCKETS]; /* the first of each key, ready or in flight */
};

void batch_init(struct batch *batch, uint32_t ops_max, size_t bytes_max, uint64_t delay_ns,
                uint32_t flights_max);
void batch_add(struct batch *batch, struct batch_op *op, uint64_t now_ns);

/* The operations of the next transaction into out[ops_max]: their number, and one flight more; 0 =
 * nothing is due. Due at once when no transaction is under way; otherwise, with a flight free, when
 * one is full or its oldest operation has waited for delay_ns. */
size_t batch_take(struct batch *batch, uint64_t now_ns, struct batch_op **out);
/* Takes this operation out of its turn, for no transaction. False: it is behind another of its key,
 * and stays there. */
bool batch_take_alone(struct batch *batch, struct batch_op *op);
/* A taken operation is done with, and no longer ours; the next of its key becomes ready. */
void batch_finish(struct batch *batch, struct batch_op *op);
/* A taken operation was not carried out: it goes first in the next transaction. Of several, return
 * the last first. */
void batch_return(struct batch *batch, struct batch_op *op);
/* A transaction is over; each of its operations has been finished or returned, or is held back by
 * the caller. */
void batch_land(struct batch *batch);

/* Operations of this key are queued or taken. */
bool batch_has_key(const struct batch *batch, const char *key);

/* An operation that is not taken is no longer wanted, and no longer ours. */
void batch_remove(struct batch *batch, struct batch_op *op);
/* When batch_take() has something at the latest, if nothing else happens; UINT64_MAX = never. */
uint64_t batch_deadline_ns(const struct batch *batch);

#endif
