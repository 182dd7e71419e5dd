/* SPDX-License-Identifier: Apache-2.0
 *
 * An operation is ready (in `ready`), taken (its key's first, in no list) or behind another of its
 * key. A key with operations is in its bucket with the first of them, which is ready or taken; the
 * others hang behind it in order.
 *
 * Sending at once when nothing is under way keeps a lone put as fast as etcd is; what arrives
 * meanwhile forms the next batch. The delay only decides how soon a second transaction is begun
 * beside one that takes long.
 */
#include "directory/etcd/batch.h"

#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

static size_t batch_bucket_number(const char *key) {
    return XXH3_64bits(key, strlen(key)) % BATCH_BUCKETS;
}

static struct batch_op **batch_bucket_of(struct batch *batch, const char *key) {
    return &batch->buckets[batch_bucket_number(key)];
}

/* Only first operations are in the buckets, and each key that has any operation has a first one:
 * looking along one bucket is enough. */
bool batch_has_key(const struct batch *batch, const char *key) {
    const struct batch_op *op = batch->buckets[batch_bucket_number(key)];
    while (op && strcmp(op->key, key) != 0)
        op = op->next_in_bucket;
    return op;
}

/* Where the first operation of this key hangs, or would. */
static struct batch_op **batch_find(struct batch *batch, const char *key) {
    struct batch_op **at = batch_bucket_of(batch, key);
    while (*at && strcmp((*at)->key, key) != 0)
        at = &(*at)->next_in_bucket;
    return at;
}

void batch_init(struct batch *batch, uint32_t ops_max, size_t bytes_max, uint64_t delay_ns,
                uint32_t flights_max) {
    memset(batch, 0, sizeof *batch);
    batch->ops_max = ops_max < BATCH_OPS_MAX ? ops_max : BATCH_OPS_MAX;
    batch->bytes_max = bytes_max;
    batch->delay_ns = delay_ns;
    batch->flights_max = flights_max;
    TAILQ_INIT(&batch->ready);
}

/* `first` is for operations that come back: they were taken before those that are ready now, and
 * would otherwise wait behind all of them once more with each failure of etcd. */
static void batch_make_ready(struct batch *batch, struct batch_op *op, bool first) {
    batch->ready_count++;
    op->taken = false;
    if (first)
        TAILQ_INSERT_HEAD(&batch->ready, op, link);
    else
        TAILQ_INSERT_TAIL(&batch->ready, op, link);
}

/* The size of a batch does not matter here. An operation on a key that has others waits behind them
 * until they are finished, whether those are ready or under way. */
void batch_add(struct batch *batch, struct batch_op *op, uint64_t now_ns) {
    struct batch_op **at = batch_find(batch, op->key);
    op->queued_ns = now_ns;
    op->behind = op->next_in_bucket = NULL;
    op->taken = false;
    if (*at) {
        (*at)->last->behind = op;
        (*at)->last = op;
        return;
    }
    op->last = op;
    *at = op;
    batch_make_ready(batch, op, false);
}

/* Three reasons to send: nothing is under way, a whole transaction is full, or the oldest operation
 * has waited for the delay. The first makes a lone put fast, the second makes load efficient, and
 * the third bounds the wait beside a slow transaction. */
static bool batch_is_due(const struct batch *batch, uint64_t now_ns) {
    const struct batch_op *oldest = TAILQ_FIRST(&batch->ready);
    if (!oldest || batch->flights >= batch->flights_max)
        return false;
    return batch->flights == 0 || batch->ready_count >= batch->ops_max ||
           now_ns >= oldest->queued_ns + batch->delay_ns;
}

/* The first operation is taken whatever its size, for otherwise one larger than bytes_max would
 * wait for ever. None is: bytes_max is 1 MiB, and a record takes a few KiB at most. */
size_t batch_take(struct batch *batch, uint64_t now_ns, struct batch_op **out) {
    size_t count = 0, bytes = 0;
    if (!batch_is_due(batch, now_ns))
        return 0;
    for (struct batch_op *op; count < batch->ops_max && (op = TAILQ_FIRST(&batch->ready));) {
        if (count && bytes + op->bytes > batch->bytes_max)
            break;
        TAILQ_REMOVE(&batch->ready, op, link);
        batch->ready_count--;
        bytes += op->bytes;
        op->taken = true;
        out[count++] = op;
    }
    batch->flights++;
    return count;
}

bool batch_take_alone(struct batch *batch, struct batch_op *op) {
    if (*batch_find(batch, op->key) != op || op->taken)
        return false;
    TAILQ_REMOVE(&batch->ready, op, link);
    batch->ready_count--;
    return op->taken = true;
}

/* The key's first operation leaves; the next takes its place. */
static struct batch_op *batch_unchain(struct batch *batch, struct batch_op *op) {
    struct batch_op **at = batch_find(batch, op->key), *next = op->behind;
    if (next) {
        next->last = op->last;
        next->next_in_bucket = op->next_in_bucket;
        *at = next;
    } else {
        *at = op->next_in_bucket;
    }
    return next;
}

void batch_finish(struct batch *batch, struct batch_op *op) {
    struct batch_op *next = batch_unchain(batch, op);
    if (next)
        batch_make_ready(batch, next, false);
}

void batch_return(struct batch *batch, struct batch_op *op) {
    batch_make_ready(batch, op, true);
}

void batch_land(struct batch *batch) {
    batch->flights--;
}

/* Only operations that are not taken may be removed: one that is part of a transaction under way
 * has no list to leave, and its outcome is still to come. */
void batch_remove(struct batch *batch, struct batch_op *op) {
    struct batch_op *first = *batch_find(batch, op->key), *before = first;
    if (op == first) {
        TAILQ_REMOVE(&batch->ready, op, link);
        batch->ready_count--;
        batch_finish(batch, op);
        return;
    }
    while (before->behind != op)
        before = before->behind;
    before->behind = op->behind;
    if (first->last == op)
        first->last = before;
}

/* With all flights under way there is no deadline: the answer to one of them is the next thing that
 * can change anything. */
uint64_t batch_deadline_ns(const struct batch *batch) {
    const struct batch_op *oldest = TAILQ_FIRST(&batch->ready);
    if (!oldest || batch->flights >= batch->flights_max)
        return UINT64_MAX;
    if (batch->flights == 0 || batch->ready_count >= batch->ops_max)
        return 0;
    return oldest->queued_ns + batch->delay_ns;
}
