/* SPDX-License-Identifier: Apache-2.0
 *
 * Leases that homes granted to this node. id = use count << 32 | slot + 1, so that a reused slot
 * does not answer to an old id. Ended slots are reused oldest first and only when REMEMBERED of
 * them have gathered, because a client may say `consumed` late (DESIGN section 3.6).
 *
 *   new --the home granted--> granted --outbox_release()--> ended, known by its id for a while
 *      `--it did not--------> cancelled: the slot is used again at once
 *
 * The table only grows: a node that has held many leases at one time will again.
 *
 * Each lease that was granted has a record in the node's memory, for a broker that is killed and
 * started again: its local lease in the store names it by id, and what its readers say must still
 * reach the home. The record is taken before the home is asked, and is freed with the slot's next
 * use. Its word says how far the lease has come (enum kept_lease_word). One that was granted and
 * has no record can only be one that the store does not know of yet.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "exchange/nodes.h"
#include "exchange/outbox.h"
#include "exchange/remote_lease.h"

/* At 10,000 gets in a second a late `consumed` is still understood after six seconds. */
#define REMEMBERED 65536u

/* Both tables grow together, for each lease may end, and then needs a place in the ring. The ring
 * is laid out anew, because its oldest may stand anywhere in it. False: out of memory, and all is
 * as it was. */
static bool remote_lease_grow(struct remote_leases *leases) {
    uint32_t room = leases->room ? leases->room * 2 : 256;
    struct remote_lease *slots = realloc(leases->slots, room * sizeof *slots);
    if (!slots)
        return false;
    leases->slots = slots; /* longer than `room` says, should what follows fail: no harm */
    uint32_t *ended = malloc(room * sizeof *ended);
    if (!ended)
        return false;
    for (uint32_t i = 0; i < leases->ended_count; i++)
        ended[i] = leases->ended[(leases->ended_first + i) % leases->room];
    free(leases->ended);
    leases->ended = ended;
    leases->ended_first = 0;
    leases->room = room;
    return true;
}

/* The upper half of an id says how often its slot has been used, so that an id is never given
 * again. */
static uint64_t remote_lease_next_use(const struct remote_lease *slot) {
    return (slot->id >> 32) + 1;
}

/* Three places to take a slot from, in this order: one whose lease was never granted, which nobody
 * can name any more; the one that ended longest ago, if enough are remembered; a new one. */
static bool remote_lease_take_slot(struct remote_leases *leases, uint32_t *slot_out,
                                   uint64_t *uses_out) {
    if (leases->free_first) {
        *slot_out = leases->free_first - 1;
        leases->free_first = leases->slots[*slot_out].next_free;
        *uses_out = remote_lease_next_use(&leases->slots[*slot_out]);
        return true;
    }
    if (leases->ended_count >= REMEMBERED) {
        *slot_out = leases->ended[leases->ended_first];
        leases->ended_first = (leases->ended_first + 1) % leases->room;
        leases->ended_count--;
        if (!leases->slots[*slot_out].telling) {
            *uses_out = remote_lease_next_use(&leases->slots[*slot_out]);
            return true;
        }
        /* Its end is still to be told: it goes to the back of the ring. */
        leases->ended[(leases->ended_first + leases->ended_count++) % leases->room] = *slot_out;
    }
    if (leases->count == leases->room && !remote_lease_grow(leases))
        return false;
    *slot_out = leases->count++;
    leases->slots[*slot_out] = (struct remote_lease){0};
    *uses_out = leases->uses_before + 1;
    return true;
}

static void remote_lease_drop_record(struct broker *broker, struct remote_lease *lease) {
    if (lease->kept)
        kept_free(kept_table(broker->kept, KEPT_REMOTE_LEASES), lease->kept - 1);
    lease->kept = 0;
}

void remote_lease_note(struct broker *broker, const struct remote_lease *lease,
                       enum kept_lease_word word) {
    if (lease->kept)
        kept_commit(kept_table(broker->kept, KEPT_REMOTE_LEASES), lease->kept - 1, word);
}

/* Everything that can fail happens here, before the home is asked: once it has granted the lease,
 * the release must reach it, with or without memory then. */
uint64_t remote_lease_new(struct broker *broker, struct peer *peer, const char *store, uid_t uid) {
    struct remote_leases *leases = &broker->exchange->remote_leases;
    struct account *user = accounts_user(broker, uid);
    struct pending_end *end = user && outbox_of(broker, peer) ? outbox_new_release(store) : NULL;
    struct kept_table *table = kept_table(broker->kept, KEPT_REMOTE_LEASES);
    uint32_t slot, kept;
    uint64_t uses;
    if (!end || !kept_take(table, &kept)) {
        free(end);
        if (user)
            accounts_unhold(broker, user);
        return 0;
    }
    if (!remote_lease_take_slot(leases, &slot, &uses)) {
        kept_free(table, kept);
        free(end);
        accounts_unhold(broker, user);
        return 0;
    }
    struct remote_lease *lease = &leases->slots[slot];
    remote_lease_drop_record(broker, lease); /* of its last use */
    *lease = (struct remote_lease){.id = uses << 32 | (slot + 1),
                                   .peer = peer,
                                   .end = end,
                                   .user = user,
                                   .uid = uid,
                                   .kept = kept + 1};
    strncpy(lease->store, store, sizeof lease->store - 1);
    leases->live++;
    return lease->id;
}

/* The epoch of the link is that of this moment: over a newer link nothing of this lease may be
 * read, because the home ends the leases of a link that it has lost. */
void remote_lease_granted(struct broker *broker, uint64_t id, uint64_t hi, uint64_t lo,
                          uint64_t generation) {
    struct remote_lease *lease = remote_lease_find(broker, id);
    lease->granted = true;
    lease->epoch = peer_epoch(lease->peer);
    lease->hi = hi;
    lease->lo = lo;
    lease->generation = generation;
    struct kept_remote_lease *kept =
        kept_record(kept_table(broker->kept, KEPT_REMOTE_LEASES), lease->kept - 1);
    *kept = (struct kept_remote_lease){
        .id = id, .hi = hi, .lo = lo, .generation = generation, .uid = lease->uid};
    strcpy(kept->store, lease->store);
    snprintf(kept->node, sizeof kept->node, "%s", peer_node(lease->peer));
    remote_lease_note(broker, lease, KEPT_LEASE_HELD);
}

/* Gives back what its release would have taken, or did not take. */
static void remote_lease_give_up_room(struct broker *broker, struct remote_lease *lease) {
    free(lease->end);
    lease->end = NULL;
    accounts_unhold(broker, lease->user);
    lease->user = NULL;
}

/* The id was told to nobody, so the slot may be used again at once. */
void remote_lease_cancel(struct broker *broker, uint64_t id) {
    struct remote_leases *leases = &broker->exchange->remote_leases;
    struct remote_lease *lease = remote_lease_find(broker, id);
    remote_lease_give_up_room(broker, lease);
    remote_lease_drop_record(broker, lease);
    lease->ended = true;
    lease->next_free = leases->free_first;
    leases->free_first = (uint32_t)id;
    leases->live--;
}

/* An id of an earlier use of the slot finds nothing: its upper half is the use count. */
struct remote_lease *remote_lease_find(struct broker *broker, uint64_t id) {
    uint32_t slot = (uint32_t)id - 1;
    if (!id || slot >= broker->exchange->remote_leases.count ||
        broker->exchange->remote_leases.slots[slot].id != id)
        return NULL;
    return &broker->exchange->remote_leases.slots[slot];
}

void remote_lease_end(struct broker *broker, struct remote_lease *lease) {
    struct remote_leases *leases = &broker->exchange->remote_leases;
    remote_lease_give_up_room(broker, lease);
    lease->ended = true;
    leases->ended[(leases->ended_first + leases->ended_count) % leases->room] =
        (uint32_t)lease->id - 1;
    leases->ended_count++;
    leases->live--;
}

void remote_lease_told(struct broker *broker, uint64_t id) {
    struct remote_lease *lease = remote_lease_find(broker, id);
    if (!lease || !lease->telling)
        return;
    lease->telling = false;
    remote_lease_note(broker, lease, KEPT_LEASE_TOLD);
}

const char *remote_lease_is_corrupt(struct broker *broker, struct store *store,
                                    uint64_t remote_lease_id, uint64_t *generation_out) {
    struct remote_lease *lease = remote_lease_find(broker, remote_lease_id);
    if (!lease)
        return NULL;
    lease->corrupt = true;
    store_land_failed(store, lease->generation, broker->now_ns);
    *generation_out = lease->generation;
    return peer_node(lease->peer);
}

/* ---- after a restart ---- */

/* Use counts of this process are above those of all before it, so that the store's memory of an
 * earlier lease never speaks of a later one. It has room for 2^20 uses of each slot in one process;
 * the ring of ended slots makes that some 10^11 leases. */
static uint32_t remote_lease_uses_before(const struct broker *broker) {
    return (uint32_t)(kept_memory_restarts(broker->kept) % 4096) << 20;
}

/* Slots up to this one exist; those made here are nobody's. False: out of memory. */
static bool remote_lease_make_slot(struct remote_leases *leases, uint32_t slot) {
    while (slot >= leases->room)
        if (!remote_lease_grow(leases))
            return false;
    while (leases->count <= slot)
        leases->slots[leases->count++] = (struct remote_lease){0};
    return true;
}

/* The link over which it was granted is gone with the old process: what is only given back need not
 * be told, for the home has ended that lease by itself. */
static bool remote_lease_recall(struct broker *broker, const struct kept_remote_lease *kept,
                                uint32_t index, enum kept_lease_word word) {
    struct remote_leases *leases = &broker->exchange->remote_leases;
    const uint32_t slot = (uint32_t)kept->id - 1;
    struct peer *peer = nodes_peer_recalled(broker, kept->node);
    const bool held = word == KEPT_LEASE_HELD;
    struct pending_end *end = held ? outbox_new_release(kept->store) : NULL;
    struct account *user = held ? accounts_user(broker, kept->uid) : NULL;
    if (!peer || !outbox_of(broker, peer) || (held && (!end || !user)) ||
        slot >= kept_table_capacity(kept_table(broker->kept, KEPT_REMOTE_LEASES)) ||
        !remote_lease_make_slot(leases, slot)) {
        free(end);
        if (user)
            accounts_unhold(broker, user);
        return false;
    }
    leases->slots[slot] =
        (struct remote_lease){.id = kept->id,
                              .granted = true,
                              .ended = !held,
                              .consumed = word == KEPT_LEASE_CONSUMED || word == KEPT_LEASE_TOLD,
                              .kept = index + 1,
                              .end = end,
                              .user = user,
                              .peer = peer,
                              .hi = kept->hi,
                              .lo = kept->lo,
                              .generation = kept->generation,
                              .uid = kept->uid};
    strcpy(leases->slots[slot].store, kept->store);
    leases->live += held;
    if (!held)
        leases->ended[(leases->ended_first + leases->ended_count++) % leases->room] = slot;
    if (word == KEPT_LEASE_CONSUMED)
        outbox_recall_consumed(broker, &leases->slots[slot]);
    return true;
}

void remote_leases_recall(struct broker *broker) {
    struct remote_leases *leases = &broker->exchange->remote_leases;
    const struct kept_table *table = kept_table(broker->kept, KEPT_REMOTE_LEASES);
    uint32_t cursor = 0, index;
    leases->uses_before = remote_lease_uses_before(broker);
    while (kept_walk(table, &cursor, &index)) {
        const struct kept_remote_lease *kept = kept_record(table, index);
        if (!remote_lease_recall(broker, kept, index,
                                 (enum kept_lease_word)kept_word(table, index)))
            log_error("store %s: out of memory: a lease at node %s is known again only after the "
                      "next restart",
                      kept->store, kept->node);
    }
    for (uint32_t slot = 0; slot < leases->count; slot++) {
        struct remote_lease *lease = &leases->slots[slot];
        if (lease->id)
            continue;
        *lease = (struct remote_lease){.id = (uint64_t)leases->uses_before << 32 | (slot + 1),
                                       .ended = true,
                                       .next_free = leases->free_first};
        leases->free_first = slot + 1;
    }
}

void remote_leases_settle(struct broker *broker) {
    struct remote_leases *leases = &broker->exchange->remote_leases;
    for (uint32_t slot = 0; slot < leases->count; slot++)
        if (leases->slots[slot].granted && !leases->slots[slot].ended && !leases->slots[slot].seen)
            outbox_release(broker, leases->slots[slot].id, false);
}

void remote_leases_free(struct broker *broker) {
    struct remote_leases *leases = &broker->exchange->remote_leases;
    for (uint32_t i = 0; i < leases->count; i++)
        if (leases->slots[i].user)
            remote_lease_give_up_room(broker, &leases->slots[i]);
    free(leases->slots);
    free(leases->ended);
}
