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
 */
#include <stdlib.h>
#include <string.h>

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

/* Three places to take a slot from, in this order: one whose lease was never granted, which nobody
 * can name any more; the one that ended longest ago, if enough are remembered; a new one. */
static bool remote_lease_take_slot(struct remote_leases *leases, uint32_t *slot_out,
                                   uint64_t *uses_out) {
    if (leases->free_first) {
        *slot_out = leases->free_first - 1;
        leases->free_first = leases->slots[*slot_out].next_free;
        *uses_out = (leases->slots[*slot_out].id >> 32) + 1;
        return true;
    }
    if (leases->ended_count >= REMEMBERED) {
        *slot_out = leases->ended[leases->ended_first];
        leases->ended_first = (leases->ended_first + 1) % leases->room;
        leases->ended_count--;
        *uses_out = (leases->slots[*slot_out].id >> 32) + 1;
        return true;
    }
    if (leases->count == leases->room && !remote_lease_grow(leases))
        return false;
    *slot_out = leases->count++;
    *uses_out = 1;
    return true;
}

/* Everything that can fail happens here, before the home is asked: once it has granted the lease,
 * the release must reach it, with or without memory then. */
uint64_t remote_lease_new(struct broker *broker, struct peer *peer, const char *store, uid_t uid) {
    struct remote_leases *leases = &broker->exchange->remote_leases;
    struct account *user = accounts_user(broker, uid);
    struct pending_end *end = user && outbox_of(broker, peer) ? outbox_new_release(store) : NULL;
    uint32_t slot;
    uint64_t uses;
    if (!end || !remote_lease_take_slot(leases, &slot, &uses)) {
        free(end);
        if (user)
            accounts_unhold(broker, user);
        return 0;
    }
    struct remote_lease *lease = &leases->slots[slot];
    *lease = (struct remote_lease){
        .id = uses << 32 | (slot + 1), .peer = peer, .end = end, .user = user, .uid = uid};
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

void remote_leases_free(struct broker *broker) {
    struct remote_leases *leases = &broker->exchange->remote_leases;
    for (uint32_t i = 0; i < leases->count; i++)
        if (leases->slots[i].user)
            remote_lease_give_up_room(broker, &leases->slots[i]);
    free(leases->slots);
    free(leases->ended);
}
