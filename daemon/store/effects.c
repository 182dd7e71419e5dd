/* SPDX-License-Identifier: Apache-2.0
 *
 * The queue of effects: what the caller has to do or say, in the order in which it came about.
 * pull.c takes effects out and puts them into words for the caller.
 *
 * The queue has no memory of its own, so that adding to it cannot fail. The slot that an effect
 * speaks of is linked into the list, and whoever owns the slot keeps it until the effect has been
 * taken: a sample that is GONE is not yet a tombstone, a lease that has ended is not yet forgotten,
 * a waiter that has its answer is not yet free.
 *
 * Three kinds of slots share the one list. A reference is the kind in the top two bits and the
 * index of the slot below; that is why store.c allows 2^28 slots of a kind and no more.
 */
#include "store/store_internal.h"

#define KIND_SHIFT 30u
#define INDEX_MASK ((1u << KIND_SHIFT) - 1)
#define REF_SAMPLE (0u << KIND_SHIFT)
#define REF_LEASE  (1u << KIND_SHIFT)
#define REF_WAITER (2u << KIND_SHIFT)

/* list_append() and list_remove() of slots.c cannot be used here: they find the neighbours of a
 * slot in the same pool, and here a sample may stand between a lease and a waiter. */
static struct link *effects_link_of(struct store *store, uint32_t ref) {
    uint32_t index = ref & INDEX_MASK;
    switch (ref & ~INDEX_MASK) {
    case REF_SAMPLE:
        return &sample_at(store, index)->effect;
    case REF_LEASE:
        return &lease_at(store, index)->effect;
    default:
        return &waiter_at(store, index)->effect;
    }
}

static void effects_append(struct store *store, uint32_t ref) {
    struct list *list = &store->effects;
    *effects_link_of(store, ref) = (struct link){.prev = list->tail, .next = NONE};
    if (list->tail != NONE)
        effects_link_of(store, list->tail)->next = ref;
    else
        list->head = ref;
    list->tail = ref;
}

static void effects_unlink_ref(struct store *store, uint32_t ref) {
    struct link link = *effects_link_of(store, ref);
    if (link.prev != NONE)
        effects_link_of(store, link.prev)->next = link.next;
    else
        store->effects.head = link.next;
    if (link.next != NONE)
        effects_link_of(store, link.next)->prev = link.prev;
    else
        store->effects.tail = link.prev;
}

void effect_sample_retired(struct store *store, uint32_t sample) {
    effects_append(store, REF_SAMPLE | sample);
}

/* Only for leases whose owner gave a cookie: the broker of another node, or a session that wants to
 * hear of it. */
void effect_lease_ended(struct store *store, uint32_t lease) {
    effects_append(store, REF_LEASE | lease);
}

void effect_waiter(struct store *store, uint32_t waiter) {
    effects_append(store, REF_WAITER | waiter);
}

/* The waiter has its answer, and is forgotten before anybody heard it (waiter_forget()). */
void effect_forget_waiter(struct store *store, uint32_t waiter) {
    effects_unlink_ref(store, REF_WAITER | waiter);
}

bool store_has_effect(const struct store *store) {
    return store->effects.head != NONE;
}

enum effect_of effect_take(struct store *store, uint32_t *index_out) {
    uint32_t ref = store->effects.head;
    if (ref == NONE)
        return EFFECT_NONE;
    effects_unlink_ref(store, ref);
    *index_out = ref & INDEX_MASK;
    switch (ref & ~INDEX_MASK) {
    case REF_SAMPLE:
        return EFFECT_OF_SAMPLE;
    case REF_LEASE:
        return EFFECT_OF_LEASE;
    default:
        return EFFECT_OF_WAITER;
    }
}
