/* SPDX-License-Identifier: Apache-2.0
 *
 * Invariant: count <= room, and room is what `values` has memory for. Room doubles, so that adding
 * costs the measuring loop next to nothing.
 */
#include "support/samples.h"

#include <errno.h>
#include <stdlib.h>

int samples_add(struct samples *samples, uint64_t value) {
    if (samples->count == samples->room) {
        size_t room = samples->room == 0 ? 1024 : samples->room * 2;
        uint64_t *values = realloc(samples->values, room * sizeof *values);
        if (values == NULL)
            return -ENOMEM;
        samples->values = values;
        samples->room = room;
    }
    samples->values[samples->count++] = value;
    return 0;
}

static int compare(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

double samples_median(struct samples *samples) {
    if (samples->count == 0)
        return 0;
    qsort(samples->values, samples->count, sizeof *samples->values, compare);
    const uint64_t upper = samples->values[samples->count / 2];
    if (samples->count % 2 == 1)
        return (double)upper;
    return ((double)upper + (double)samples->values[samples->count / 2 - 1]) / 2;
}

void samples_deinit(struct samples *samples) {
    free(samples->values);
    *samples = (struct samples){0};
}
