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

static void effects_pull_sample(struct store *store, uint32_t index, struct store_effect *out) {
    struct sample_slot *sample = sample_at(store, index);
    *out = (struct store_effect){.kind = STORE_EFFECT_RETIRED,
                                 .holder = STORE_NO_HOLDER,
                                 .generation = sample->generation,
                                 .reason = sample_reason(sample)};
    name_copy(store, sample->name, out->sample_id);
    sample->effect_queued = false;
    if (sample_state(sample) == STORE_GONE)
        sample_bury(store, index);
}

static void effects_pull_lease(struct store *store, uint32_t index, struct store_effect *out) {
    struct lease_slot *lease = lease_at(store, index);
    lease->effect_queued = false;
    *out = (struct store_effect){.kind = STORE_EFFECT_LEASE_ENDED,
                                 .holder = lease->holder,
                                 .cookie = lease->cookie,
                                 .generation = lease->generation,
                                 .how = lease_how(lease)};
    lease_bury(store, index);
}

/* A grant that was undone before anybody heard of it (the store was dropped, the landing failed).
 */
static void effects_check_still_planned(const struct store *store, const struct waiter_slot *waiter,
                                        struct store_effect *out) {
    const struct sample_slot *sample = sample_at(store, waiter->granted);
    if (sample_state(sample) != STORE_PLANNED ||
        sample_token(store, waiter->granted) != waiter->token) {
        out->result = STORE_E_NOT_FOUND;
        return;
    }
    out->reservation =
        (struct store_reservation){.token = waiter->token, .extent_offset = sample->extent_offset};
}

static void effects_pull_waiter(struct store *store, uint32_t index, struct store_effect *out) {
    const struct waiter_slot *waiter = waiter_at(store, index);
    *out = (struct store_effect){.kind = waiter->kind == WAITER_PUT    ? STORE_EFFECT_PUT
                                         : waiter->kind == WAITER_LAND ? STORE_EFFECT_LAND
                                                                       : STORE_EFFECT_GET,
                                 .holder = waiter->holder,
                                 .tag = waiter->tag,
                                 .cookie = waiter->cookie,
                                 .result = waiter->result,
                                 .refusal = waiter->refusal,
                                 .generation = waiter->generation};
    if (waiter->result == STORE_OK && out->kind == STORE_EFFECT_GET) {
        lease_describe(store, waiter->granted, &out->lease);
        out->generation = out->lease.generation;
    } else if (waiter->result == STORE_OK) {
        effects_check_still_planned(store, waiter, out);
    }
    waiter_free(store, index);
}

bool store_has_effect(const struct store *store) {
    return store->effects.head != NONE;
}

bool store_next_effect(struct store *store, uint64_t now_ns, struct store_effect *out) {
    reservations_expire(store, now_ns);
    store_settle(store, now_ns); /* another store of the node may have given bytes back */
    if (store_next_deadline_ns(store) <= now_ns) {
        waiters_expire(store, now_ns);
        store_settle(store, now_ns);
    }
    uint32_t ref = store->effects.head;
    if (ref == NONE)
        return false;
    effects_unlink_ref(store, ref);
    uint32_t index = ref & INDEX_MASK;
    if ((ref & ~INDEX_MASK) == REF_SAMPLE)
        effects_pull_sample(store, index, out);
    else if ((ref & ~INDEX_MASK) == REF_LEASE)
        effects_pull_lease(store, index, out);
    else
        effects_pull_waiter(store, index, out);
    return true;
}
