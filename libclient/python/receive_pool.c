/* SPDX-License-Identifier: Apache-2.0
 *
 * Blocks of memory in one of two states:
 *
 *    receive_pool_take() --> in use (by a tensor) --receive_pool_give()--> idle, at the list's head
 *         ^                                                                  |
 *         +------------------- taken again, when it fits --------------------+--> freed from the
 *                                                           tail, when all idle ones are too many
 *
 * Invariant: idle_bytes is the sum of the blocks in the list, and at most the limit when the lock
 * is free. A block carries its header in front of its data.
 *
 * receive_pool_take() and _give() only try the lock: who does not get it at once does without the
 * pool. So no get waits for another, and a child that was forked while another thread held the lock
 * can go on.
 */
#include "python/receive_pool.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/queue.h>

#define ALIGN_BYTES 64u
/* From here on huge pages are asked for, whose size this is: one fault in place of 512. */
#define HUGE_BYTES (2u << 20)
/* An idle block is given for fewer bytes than it has, but not for less than 4/5 of them: the rest
 * of its memory would lie unused for as long as the tensor lives. */
#define SLACK_PART 4u

struct receive_block {
    TAILQ_ENTRY(receive_block) link;
    struct receive_pool *pool;
    size_t bytes; /* of the data */
};
_Static_assert(sizeof(struct receive_block) <= ALIGN_BYTES, "the header stands in front");

struct receive_pool {
    pthread_mutex_t lock;
    TAILQ_HEAD(receive_list, receive_block) idle; /* head: given back last */
    size_t idle_bytes, idle_bytes_max;
};

static void *receive_pool_data_of(struct receive_block *block) {
    return (uint8_t *)block + ALIGN_BYTES;
}

struct receive_pool *receive_pool_new(size_t idle_bytes_max) {
    struct receive_pool *pool = calloc(1, sizeof *pool);
    if (!pool)
        return NULL;
    pthread_mutex_init(&pool->lock, NULL);
    TAILQ_INIT(&pool->idle);
    pool->idle_bytes_max = idle_bytes_max;
    return pool;
}

/* With the lock held. */
static void receive_pool_remove(struct receive_pool *pool, struct receive_block *block) {
    TAILQ_REMOVE(&pool->idle, block, link);
    pool->idle_bytes -= block->bytes;
}

/* With the lock held: those that have been idle longest go first. */
static void receive_pool_trim(struct receive_pool *pool) {
    while (pool->idle_bytes > pool->idle_bytes_max) {
        struct receive_block *oldest = TAILQ_LAST(&pool->idle, receive_list);
        receive_pool_remove(pool, oldest);
        free(oldest);
    }
}

void receive_pool_set_limit(struct receive_pool *pool, size_t idle_bytes_max) {
    pthread_mutex_lock(&pool->lock);
    pool->idle_bytes_max = idle_bytes_max;
    receive_pool_trim(pool);
    pthread_mutex_unlock(&pool->lock);
}

/* The one that fits best. The list is short: blocks are large (_pool.py), and all together within
 * the limit. NULL: none fits. */
static struct receive_block *receive_pool_find(struct receive_pool *pool, size_t bytes) {
    struct receive_block *block, *best = NULL;
    TAILQ_FOREACH (block, &pool->idle, link) {
        if (block->bytes >= bytes && block->bytes - bytes <= bytes / SLACK_PART &&
            (!best || block->bytes < best->bytes))
            best = block;
        if (best && best->bytes == bytes)
            break;
    }
    return best;
}

/* Fresh from the allocator. A refused request for huge pages changes nothing but speed. */
static struct receive_block *receive_pool_new_block(struct receive_pool *pool, size_t bytes) {
    size_t align_bytes = bytes >= HUGE_BYTES ? HUGE_BYTES : ALIGN_BYTES;
    size_t whole_bytes = bytes + ALIGN_BYTES;
    void *memory;
    if (whole_bytes < bytes || posix_memalign(&memory, align_bytes, whole_bytes))
        return NULL;
    if (align_bytes == HUGE_BYTES)
        madvise(memory, whole_bytes / HUGE_BYTES * HUGE_BYTES, MADV_HUGEPAGE);
    struct receive_block *block = memory;
    block->pool = pool;
    block->bytes = bytes;
    return block;
}

void *receive_pool_take(struct receive_pool *pool, size_t bytes) {
    struct receive_block *block = NULL;
    if (!pthread_mutex_trylock(&pool->lock)) {
        block = receive_pool_find(pool, bytes);
        if (block)
            receive_pool_remove(pool, block);
        pthread_mutex_unlock(&pool->lock);
    }
    if (!block)
        block = receive_pool_new_block(pool, bytes);
    return block ? receive_pool_data_of(block) : NULL;
}

void receive_pool_give(void *data) {
    if (!data)
        return;
    struct receive_block *block = (struct receive_block *)((uint8_t *)data - ALIGN_BYTES);
    struct receive_pool *pool = block->pool;
    if (pthread_mutex_trylock(&pool->lock)) {
        free(block);
        return;
    }
    TAILQ_INSERT_HEAD(&pool->idle, block, link);
    pool->idle_bytes += block->bytes;
    receive_pool_trim(pool);
    pthread_mutex_unlock(&pool->lock);
}

size_t receive_pool_idle_bytes(struct receive_pool *pool) {
    pthread_mutex_lock(&pool->lock);
    size_t bytes = pool->idle_bytes;
    pthread_mutex_unlock(&pool->lock);
    return bytes;
}
