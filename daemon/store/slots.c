/* SPDX-License-Identifier: Apache-2.0
 *
 * Pools, lists and hashes over the block.
 *
 * A pool hands out the slot that was freed last first, because it is still in the CPU's cache, and
 * only when there is none a slot that was never used. So the pages of a block for a million samples
 * are touched only as far as the store has ever been filled at one time.
 *
 * The hash is SipHash-2-4 (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012), keyed
 * with the store's secret. Sample ids, generations and operation numbers are chosen by clients;
 * without a secret key a client could choose them so that all land in one chain and each look-up
 * walks all of it.
 */
#include "store/slots.h"

#include <sodium.h>
#include <string.h>

/* A free slot holds the number of the next free one in a field of its own (link_offset), so that
 * the list of free slots needs no memory. */
static uint32_t *slots_free_link(struct store *store, const struct pool *pool, uint32_t index) {
    return store_at(store, pool->offset + (uint64_t)index * pool->stride + pool->link_offset);
}

void pool_init(struct pool *pool, enum pool_kind kind, uint64_t offset, uint32_t stride,
               uint32_t link_offset, uint32_t capacity) {
    *pool = (struct pool){.offset = offset,
                          .kind = kind,
                          .stride = stride,
                          .link_offset = link_offset,
                          .capacity = capacity,
                          .free_head = NONE};
}

/* The header is told before anything is written to the slot: attach looks at no slot above. */
static uint32_t slots_touch(struct store *store, struct pool *pool) {
    uint32_t index = pool->touched++;
    store->kept.touched[pool->kind] = pool->touched;
    store_in_order();
    return index;
}

uint32_t pool_take(struct store *store, struct pool *pool) {
    uint32_t index = pool->free_head;
    if (index != NONE)
        pool->free_head = *slots_free_link(store, pool, index);
    else if (pool->touched < pool->capacity)
        index = slots_touch(store, pool);
    else
        return NONE;
    pool->used++;
    return index;
}

/* The caller has taken the slot out of every list and hash; nothing here checks that. */
void pool_give(struct store *store, struct pool *pool, uint32_t index) {
    *slots_free_link(store, pool, index) = pool->free_head;
    pool->free_head = index;
    pool->used--;
}

/* A slot can be in several lists at a time, one per struct link in it. link_offset says which of
 * them is meant; one list uses the same offset for all of its slots. */
static struct link *slots_link_at(struct store *store, const struct pool *pool, size_t link_offset,
                                  uint32_t index) {
    return store_at(store, pool->offset + (uint64_t)index * pool->stride + link_offset);
}

void list_append(struct store *store, const struct pool *pool, size_t link_offset,
                 struct list *list, uint32_t index) {
    *slots_link_at(store, pool, link_offset, index) =
        (struct link){.prev = list->tail, .next = NONE};
    if (list->tail != NONE)
        slots_link_at(store, pool, link_offset, list->tail)->next = index;
    else
        list->head = index;
    list->tail = index;
}

/* The slot must be in this list: with a wrong list the head or the tail of that list would be
 * overwritten. store_audit() finds such mistakes in tests. */
void list_remove(struct store *store, const struct pool *pool, size_t link_offset,
                 struct list *list, uint32_t index) {
    struct link link = *slots_link_at(store, pool, link_offset, index);
    if (link.prev != NONE)
        slots_link_at(store, pool, link_offset, link.prev)->next = link.next;
    else
        list->head = link.next;
    if (link.next != NONE)
        slots_link_at(store, pool, link_offset, link.next)->prev = link.prev;
    else
        list->tail = link.prev;
}

uint64_t hash_bytes(const struct store *store, const void *bytes, size_t count) {
    uint64_t hash;
    crypto_shorthash((unsigned char *)&hash, bytes, count, store->key);
    return hash;
}

/* Generations are hashed with the key, too: a client can ask for any number that it likes. */
uint64_t hash_u64(const struct store *store, uint64_t value) {
    return hash_bytes(store, &value, sizeof value);
}
