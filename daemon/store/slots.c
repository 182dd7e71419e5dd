/* SPDX-License-Identifier: Apache-2.0
 *
 * Pools, lists and hashes over the block. A pool hands out freed slots first, last freed first
 * (they are warm), then slots that were never used. SipHash-2-4 (Aumasson, Bernstein 2012) keyed
 * with the store's secret: whoever picks ids or operation numbers cannot pick the chain they land
 * in.
 */
#include "store/slots.h"

#include <sodium.h>
#include <string.h>

static uint32_t *slots_free_link(struct store *store, const struct pool *pool, uint32_t index) {
    return store_at(store, pool->offset + (uint64_t)index * pool->stride + pool->link_offset);
}

void pool_init(struct pool *pool, uint64_t offset, uint32_t stride, uint32_t link_offset,
               uint32_t capacity) {
    *pool = (struct pool){.offset = offset,
                          .stride = stride,
                          .link_offset = link_offset,
                          .capacity = capacity,
                          .free_head = NONE};
}

uint32_t pool_take(struct store *store, struct pool *pool) {
    uint32_t index = pool->free_head;
    if (index != NONE)
        pool->free_head = *slots_free_link(store, pool, index);
    else if (pool->touched < pool->capacity)
        index = pool->touched++;
    else
        return NONE;
    pool->used++;
    return index;
}

void pool_give(struct store *store, struct pool *pool, uint32_t index) {
    *slots_free_link(store, pool, index) = pool->free_head;
    pool->free_head = index;
    pool->used--;
}

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

uint64_t hash_u64(const struct store *store, uint64_t value) {
    return hash_bytes(store, &value, sizeof value);
}
