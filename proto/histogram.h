/* SPDX-License-Identifier: Apache-2.0
 *
 * How long something takes, counted in buckets: what Prometheus calls a histogram. The bounds are
 * the same for every histogram of featured: 10 us, and four times as much from one to the next, up
 * to 45 minutes. Fifteen buckets tell "at once" from "milliseconds" from "it waited", which is what
 * one looks for, and a scrape of 256 stores stays small. Pure; adding costs a few comparisons.
 */
#ifndef FEATURED_PROTO_HISTOGRAM_H
#define FEATURED_PROTO_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_BUCKETS  15u
#define HISTOGRAM_FIRST_NS 10000ull /* the bound of the first bucket */
#define HISTOGRAM_FACTOR   4u       /* from one bound to the next */

struct histogram {
    /* Of values up to the bound of that bucket and above the one before; the last one is for all
     * above the last bound. */
    uint64_t counts[HISTOGRAM_BUCKETS + 1];
    uint64_t sum_ns;
};

static inline void histogram_add(struct histogram *histogram, uint64_t ns) {
    uint64_t bound_ns = HISTOGRAM_FIRST_NS;
    uint32_t bucket = 0;
    for (; bucket < HISTOGRAM_BUCKETS && ns > bound_ns; bucket++)
        bound_ns *= HISTOGRAM_FACTOR;
    histogram->counts[bucket]++;
    histogram->sum_ns += ns;
}

/* From one point in time to another; a clock that seems to have gone back counts as 0. */
static inline void histogram_add_span(struct histogram *histogram, uint64_t from_ns,
                                      uint64_t to_ns) {
    histogram_add(histogram, to_ns > from_ns ? to_ns - from_ns : 0);
}

#endif
