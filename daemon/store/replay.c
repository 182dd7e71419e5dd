/* SPDX-License-Identifier: Apache-2.0
 *
 * The first answers of operations, for their repeats.
 *
 * A client that lost its connection says its last operations again, under the same numbers
 * (client_id, op_id). The caller looks here first and gives the answer that the operation had, so
 * that it is not carried out twice. The answers outlive the broker, and a client may repeat to the
 * next one what it had asked of the last.
 *
 * The answers lie in a ring in which the newest overwrites the oldest, with a hash over (client,
 * operation). How long an answer is remembered is therefore a number of operations (max_replays),
 * not a time: a client repeats only what it had under way when its connection broke.
 */
#include "store/store_internal.h"

static struct replay_slot *replay_at(const struct store *store, uint32_t index) {
    return (struct replay_slot *)store_at(store, store->replays) + index;
}

static uint32_t *replay_bucket(const struct store *store, struct store_op op) {
    return u32_at(store, store->replay_hash) +
           (hash_bytes(store, &op, sizeof op) & store->replay_mask);
}

static bool replay_same(struct store_op a, struct store_op b) {
    return a.client_id == b.client_id && a.op_id == b.op_id;
}

/* Buckets hold index + 1: a zeroed table is an empty one. */
static uint32_t replay_find(const struct store *store, struct store_op op) {
    uint32_t index = *replay_bucket(store, op) - 1;
    while (index != NONE && !replay_same(replay_at(store, index)->op, op))
        index = replay_at(store, index)->hash_next;
    return index;
}

bool store_replay_find(const struct store *store, struct store_op op, struct store_answer *out) {
    uint32_t index = op.op_id ? replay_find(store, op) : NONE;
    if (index == NONE)
        return false;
    *out = replay_at(store, index)->answer;
    return true;
}

/* Takes the slot out of its chain before the ring overwrites it. The chain is linked in one
 * direction, so that the slot before it has to be looked for. */
static void replay_forget(struct store *store, uint32_t index) {
    uint32_t next = replay_at(store, index)->hash_next;
    uint32_t *head = replay_bucket(store, replay_at(store, index)->op);
    uint32_t at = *head - 1;
    if (at == index) {
        *head = next + 1;
        return;
    }
    while (replay_at(store, at)->hash_next != index)
        at = replay_at(store, at)->hash_next;
    replay_at(store, at)->hash_next = next;
}

static void replay_hash(struct store *store, uint32_t index) {
    struct replay_slot *slot = replay_at(store, index);
    uint32_t *head = replay_bucket(store, slot->op);
    slot->hash_next = *head - 1;
    *head = index + 1;
}

/* Commit point: op_id, stored last. A slot that is being written has none, so that a broker that
 * dies in between has forgotten the oldest answer and not heard of the newest.
 *
 * The first answer stays: an operation that is recorded twice (its repeat was carried out while the
 * first one was still under way, and both ended) keeps what its client may have heard already.
 * op_id 0 is an operation that nobody will repeat. */
void store_replay_record(struct store *store, struct store_op op,
                         const struct store_answer *answer) {
    if (!op.op_id || !store->options.max_replays || replay_find(store, op) != NONE)
        return;
    uint32_t index = store->replay_at;
    struct replay_slot *slot = replay_at(store, index);
    store->replay_at = (index + 1) % store->options.max_replays;
    if (slot->op.op_id)
        replay_forget(store, index);
    slot->op.op_id = 0;
    store_in_order();
    slot->op.client_id = op.client_id;
    slot->answer = *answer;
    slot->order = order_next(store);
    store_in_order();
    slot->op.op_id = op.op_id;
    replay_hash(store, index);
}

/* After an attach, on an empty hash. The ring goes on behind the newest answer: if the process died
 * while it wrote one, that slot is the next and is empty. */
void replays_rebuild(struct store *store) {
    uint64_t newest = 0;
    for (uint32_t i = 0; i < store->options.max_replays; i++) {
        const struct replay_slot *slot = replay_at(store, i);
        if (!slot->op.op_id)
            continue;
        replay_hash(store, i);
        if (slot->order > newest) {
            newest = slot->order;
            store->replay_at = (i + 1) % store->options.max_replays;
        }
    }
}
