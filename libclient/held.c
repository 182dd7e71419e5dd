/* SPDX-License-Identifier: Apache-2.0
 *
 * A hash table with linear probing, at most two thirds full. The place of an entry is found by its
 * token: those of leases are random, and those of reservations are mixed by a multiplication. When
 * an entry goes, those behind it that would rather stand in its place move up, so that no place has
 * to be remembered as "was used".
 *
 * Entering must not fail, since the grant is there already; so room is promised before the request
 * is sent.
 */
#include "held.h"

#include <stdlib.h>

#define PLACES_MIN 64u

/* The middle bits of the product: each depends on many bits of the token. */
static size_t held_home(const struct fc_held *held, uint64_t lo) {
    return (size_t)(lo * 0x9e3779b97f4a7c15ull >> 20) & (held->place_count - 1);
}

/* Where it is, or the empty place where it would be. */
static size_t held_find(const struct fc_held *held, uint64_t hi, uint64_t lo) {
    size_t at = held_home(held, lo);
    while (held->places[at].handle && (held->places[at].hi != hi || held->places[at].lo != lo))
        at = (at + 1) & (held->place_count - 1);
    return at;
}

static void held_put(struct fc_held *held, const struct fc_holding *holding) {
    size_t at = held_find(held, holding->hi, holding->lo);
    held->count += !held->places[at].handle;
    held->places[at] = *holding;
}

/* Entries are put anew, since the home of each depends on the size of the table. */
static bool held_grow(struct fc_held *held, size_t place_count) {
    struct fc_held grown = {.place_count = place_count, .promised = held->promised};
    grown.places = calloc(place_count, sizeof *grown.places);
    if (!grown.places)
        return false;
    for (size_t i = 0; i < held->place_count; i++)
        if (held->places[i].handle)
            held_put(&grown, &held->places[i]);
    free(held->places);
    *held = grown;
    return true;
}

bool fc_held_promise(struct fc_held *held, size_t count) {
    size_t needed = held->count + held->promised + count;
    size_t place_count = held->place_count ? held->place_count : PLACES_MIN;
    while (place_count / 3 * 2 < needed)
        place_count *= 2;
    if (place_count > held->place_count && !held_grow(held, place_count))
        return false;
    held->promised += count;
    return true;
}

void fc_held_unpromise(struct fc_held *held, size_t count) {
    held->promised -= count;
}

/* An answer with more grants than were asked for is nonsense, and is refused by whoever reads it:
 * what was not promised is not entered. */
void fc_held_enter(struct fc_held *held, uint32_t handle, const Fb__ClientReply *reply,
                   size_t count) {
    if (!handle)
        return;
    if (reply->result_case == FB__CLIENT_REPLY__RESULT_GET)
        for (size_t i = 0; i < reply->get->n_items && i < count; i++) {
            const Fb__GetResult *item = reply->get->items[i];
            if (item->status == FB__STATUS__OK)
                held_put(held, &(struct fc_holding){item->lease_hi, item->lease_lo, handle});
        }
    if (reply->result_case == FB__CLIENT_REPLY__RESULT_PUT)
        for (size_t i = 0; i < reply->put->n_items && i < count; i++)
            if (reply->put->items[i]->reservation)
                held_put(held, &(struct fc_holding){0, reply->put->items[i]->reservation, handle});
}

/* Entries of one row stand without a gap. One behind the hole may move into it if its home is not
 * between the two, seen around the end of the table. */
void fc_held_drop(struct fc_held *held, uint64_t hi, uint64_t lo) {
    if (!held->place_count)
        return;
    size_t mask = held->place_count - 1, hole = held_find(held, hi, lo);
    if (!held->places[hole].handle)
        return;
    held->count--;
    for (size_t at = (hole + 1) & mask; held->places[at].handle; at = (at + 1) & mask) {
        size_t home = held_home(held, held->places[at].lo);
        if (((at - home) & mask) < ((at - hole) & mask))
            continue;
        held->places[hole] = held->places[at];
        hole = at;
    }
    held->places[hole].handle = 0;
}

void fc_held_clear(struct fc_held *held) {
    for (size_t i = 0; i < held->place_count; i++)
        held->places[i].handle = 0;
    held->count = 0;
}

void fc_held_deinit(struct fc_held *held) {
    free(held->places);
    *held = (struct fc_held){0};
}
