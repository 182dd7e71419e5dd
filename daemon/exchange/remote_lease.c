/* SPDX-License-Identifier: Apache-2.0
 *
 * Leases that homes granted to this node. id = use count << 32 | slot + 1, so that a reused slot
 * does not answer to an old id. Ended slots are reused oldest first and only when REMEMBERED of
 * them have gathered, because a client may say `consumed` late (DESIGN section 3.6).
 */
#include <stdlib.h>
#include <string.h>

#include "exchange/exchange.h"

#define REMEMBERED 65536u

static bool remote_lease_grow(struct remote_leases *leases) {
    uint32_t room = leases->room ? leases->room * 2 : 256;
    struct remote_lease *slots = realloc(leases->slots, room * sizeof *slots);
    if (!slots)
        return false;
    leases->slots = slots;
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

static bool remote_lease_take_slot(struct remote_leases *leases, uint32_t *slot_out,
                                   uint64_t *uses_out) {
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

uint64_t remote_lease_new(struct broker *broker, struct peer *peer, const char *store, uint64_t hi,
                          uint64_t lo, uint64_t generation, uid_t uid) {
    struct remote_leases *leases = &broker->exchange->remote_leases;
    uint32_t slot;
    uint64_t uses;
    if (!remote_lease_take_slot(leases, &slot, &uses))
        return 0;
    struct remote_lease *lease = &leases->slots[slot];
    *lease = (struct remote_lease){.id = uses << 32 | (slot + 1),
                                   .peer = peer,
                                   .epoch = peer_epoch(peer),
                                   .hi = hi,
                                   .lo = lo,
                                   .generation = generation,
                                   .uid = uid};
    strncpy(lease->store, store, sizeof lease->store - 1);
    leases->live++;
    return lease->id;
}

struct remote_lease *remote_lease_find(struct broker *broker, uint64_t id) {
    uint32_t slot = (uint32_t)id - 1;
    if (!id || slot >= broker->exchange->remote_leases.count ||
        broker->exchange->remote_leases.slots[slot].id != id)
        return NULL;
    return &broker->exchange->remote_leases.slots[slot];
}

void remote_lease_end(struct broker *broker, struct remote_lease *lease) {
    struct remote_leases *leases = &broker->exchange->remote_leases;
    lease->ended = true;
    leases->ended[(leases->ended_first + leases->ended_count) % leases->room] =
        (uint32_t)lease->id - 1;
    leases->ended_count++;
    leases->live--;
}
