/* SPDX-License-Identifier: Apache-2.0
 *
 * Sample ids. There is one slot per id in use, however many generations and waiters speak of it, so
 * that the hash chains do not grow when a sample is put again and again.
 *
 * A name is counted by references: one per sample slot (tombstones included) and one per waiter
 * that speaks of it. There are as many name slots as there can be references, so that taking one
 * cannot fail, and no caller has to undo half of a put.
 */
#include <string.h>

#include "store/store_internal.h"

static uint32_t *names_bucket(const struct store *store, uint32_t hash) {
    return u32_at(store, store->name_hash) + (hash & store->name_mask);
}

/* The hash is compared first: an id of the same bucket that is not the one looked for is then
 * mostly turned down without a look at its bytes. */
static uint32_t names_find_hashed(const struct store *store, const char *id, uint32_t id_bytes,
                                  uint32_t hash) {
    /* Buckets hold index + 1: a zeroed table is an empty one. */
    uint32_t index = *names_bucket(store, hash) - 1;
    for (; index != NONE; index = name_at(store, index)->hash_next) {
        const struct name_slot *name = name_at(store, index);
        if (name->hash == hash && name->id_bytes == id_bytes && !memcmp(name->id, id, id_bytes))
            return index;
    }
    return NONE;
}

uint32_t name_find(const struct store *store, const char *id, uint32_t id_bytes) {
    if (!id_bytes || id_bytes > STORE_ID_BYTES_MAX)
        return NONE;
    return names_find_hashed(store, id, id_bytes, (uint32_t)hash_bytes(store, id, id_bytes));
}

/* Finds the slot of this id or takes a new one, and counts one reference more. The caller has
 * checked the length of the id (put_is_valid(), store_get()). */
uint32_t name_ref(struct store *store, const char *id, uint32_t id_bytes) {
    uint32_t hash = (uint32_t)hash_bytes(store, id, id_bytes);
    uint32_t index = names_find_hashed(store, id, id_bytes, hash);
    if (index == NONE) {
        index = pool_take(store, &store->names);
        struct name_slot *name = name_at(store, index);
        *name = (struct name_slot){.hash_next = *names_bucket(store, hash) - 1,
                                   .resident = NONE,
                                   .gone = NONE,
                                   .pending = LIST_EMPTY,
                                   .waiters = LIST_EMPTY,
                                   .hash = hash,
                                   .id_bytes = id_bytes};
        memcpy(name->id, id, id_bytes);
        *names_bucket(store, hash) = index + 1;
    }
    name_at(store, index)->references++;
    return index;
}

/* The slot is freed with its last reference. Its lists are empty by then, for whatever is in them
 * holds a reference. The chain is linked in one direction only, so that the slot before this one
 * has to be looked for; chains are one or two slots long. */
void name_unref(struct store *store, uint32_t index) {
    struct name_slot *name = name_at(store, index);
    if (--name->references)
        return;
    uint32_t at = *names_bucket(store, name->hash) - 1;
    if (at == index) {
        *names_bucket(store, name->hash) = name->hash_next + 1;
    } else {
        while (name_at(store, at)->hash_next != index)
            at = name_at(store, at)->hash_next;
        name_at(store, at)->hash_next = name->hash_next;
    }
    pool_give(store, &store->names, index);
}

/* After an attach: what is kept of the slot is its id and `left`, and its references have been
 * counted. Its lists are filled later. */
void name_restore(struct store *store, uint32_t index) {
    struct name_slot *name = name_at(store, index);
    name->hash = (uint32_t)hash_bytes(store, name->id, name->id_bytes);
    name->hash_next = *names_bucket(store, name->hash) - 1;
    name->resident = name->gone = NONE;
    name->pending = name->waiters = LIST_EMPTY;
    *names_bucket(store, name->hash) = index + 1;
}

void name_copy(const struct store *store, uint32_t index, char out[STORE_ID_BYTES_MAX + 1]) {
    const struct name_slot *name = name_at(store, index);
    memcpy(out, name->id, name->id_bytes);
    out[name->id_bytes] = 0;
}
