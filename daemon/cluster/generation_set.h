/* SPDX-License-Identifier: Apache-2.0
 *
 * A set of generations that never grows: how many it takes is said when it is made.
 */
#ifndef FEATURED_BROKER_GENERATION_SET_H
#define FEATURED_BROKER_GENERATION_SET_H

#include "cluster/cluster.h"

/* False: out of memory. */
bool generation_set_init(struct generation_set *set, size_t generations_max);
void generation_set_deinit(struct generation_set *set); /* also of one that is all zero */
/* Above 0; at most generations_max of them. */
void generation_set_add(struct generation_set *set, uint64_t generation);
bool generation_set_has(const struct generation_set *set, uint64_t generation);

#endif
