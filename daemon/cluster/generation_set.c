/* SPDX-License-Identifier: Apache-2.0
 *
 * Open addressing. The numbers are what this node's directory has given out one after the other;
 * multiplying spreads them. The memory is touched as it is used.
 */
#include "cluster/generation_set.h"

#include <stdlib.h>

#define SPREAD 0x9e3779b97f4a7c15u

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

/* Where it is, or would be. */
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
