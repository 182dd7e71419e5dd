/* SPDX-License-Identifier: Apache-2.0
 *
 * A set of generations, for one walk through the index: it is filled once with what the records
 * name, asked about each generation that is held, and freed. Nothing is ever taken out of it.
 *
 * Open addressing with linear probing, at most half full, so that a look-up ends after a few steps.
 * The numbers are those that this node's directory has given out, one after the other; multiplying
 * by the golden ratio's bits (Knuth, The Art of Computer Programming, vol. 3, 6.4) spreads them.
 * The memory is zeroed by calloc, which for a large table takes pages only as they are written to.
 */
#include "cluster/generation_set.h"

#include <stdlib.h>

#define SPREAD 0x9e3779b97f4a7c15u /* 2^64 divided by the golden ratio */

bool generation_set_init(struct generation_set *set, size_t generations_max) {
    set->bits = 4;
    while (((size_t)1 << set->bits) / 2 < generations_max)
        set->bits++;
    set->slots = calloc((size_t)1 << set->bits, sizeof *set->slots);
    return set->slots;
}

void generation_set_deinit(struct generation_set *set) {
    free(set->slots);
    *set = (struct generation_set){0};
}

/* The slot where it is, or the free one where it would be. There is always a free one. */
static size_t generation_set_at(const struct generation_set *set, uint64_t generation) {
    size_t mask = ((size_t)1 << set->bits) - 1, at = generation * SPREAD >> (64 - set->bits);
    while (set->slots[at] && set->slots[at] != generation)
        at = (at + 1) & mask;
    return at;
}

void generation_set_add(struct generation_set *set, uint64_t generation) {
    set->slots[generation_set_at(set, generation)] = generation;
}

bool generation_set_has(const struct generation_set *set, uint64_t generation) {
    return set->slots[generation_set_at(set, generation)] == generation;
}
