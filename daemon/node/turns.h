/* SPDX-License-Identifier: Apache-2.0
 *
 * How long the turns of the broker's loop take: everybody waits while one lasts.
 */
#ifndef FEATURED_BROKER_TURNS_H
#define FEATURED_BROKER_TURNS_H

#include <stdint.h>

#define TURNS_PARTS 7u /* of ten seconds, the one under way included */

struct broker;

struct turns {
    struct turns_part {
        uint64_t number, longest_ns;
    } parts[TURNS_PARTS];
    uint64_t longest_ns; /* since the start */
    uint64_t requests_before, items_before, effects_before;
    uint64_t warn_from_ns, unwarned;
};

/* The longest turn of the last minute. */
uint64_t turns_recent_ns(const struct broker *broker);

#endif
