/* SPDX-License-Identifier: Apache-2.0
 *
 * A growing list of measured durations and its median. Pure.
 */
#ifndef FEATURED_TESTS_SUPPORT_SAMPLES_H
#define FEATURED_TESTS_SUPPORT_SAMPLES_H

#include <stddef.h>
#include <stdint.h>

struct samples { /* zeroed = empty */
    uint64_t *values;
    size_t count, room;
};

/* 0 or -ENOMEM. */
int samples_add(struct samples *samples, uint64_t value);
/* The middle value, the mean of the two middle ones when the count is even; 0 when there is none.
 * Sorts the values in place. */
double samples_median(struct samples *samples);
void samples_deinit(struct samples *samples);

#endif
