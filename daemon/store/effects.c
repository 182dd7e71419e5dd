/* SPDX-License-Identifier: Apache-2.0
 *
 * Effects: what the caller has to do or say, in the order in which it came about. No queue of its
 * own memory: the slot an effect speaks of is linked into the list and kept until the effect is
 * pulled. A reference is the slot's kind in the top two bits and its index below.
 */
#include "store/store_internal.h"

#define KIND_SHIFT 30u
#define INDEX_MASK ((1u << KIND_SHIFT) - 1)
#define REF_SAMPLE (0u << KIND_SHIFT)
#define REF_LEASE  (1u << KIND_SHIFT)
#define REF_WAITER (2u << KIND_SHIFT)

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
    sample_at(store, sample)->effect_queued = true;
    effects_append(store, REF_SAMPLE | sample);
}

void effect_lease_ended(struct store *store, uint32_t lease) {
    effects_append(store, REF_LEASE | lease);
}

void effect_waiter(struct store *store, uint32_t waiter) {
    effects_append(store, REF_WAITER | waiter);
}

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
