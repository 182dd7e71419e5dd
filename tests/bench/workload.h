/* SPDX-License-Identifier: Apache-2.0
 *
 * Samples to put and the ops on them that several groups time.
 */
#ifndef FEATURED_TESTS_BENCH_WORKLOAD_H
#define FEATURED_TESTS_BENCH_WORKLOAD_H

#include <stddef.h>
#include <stdint.h>

#include "feature.h"

/* One F16 tensor "hidden_state" of so many bytes under `id`; points into itself: not to be moved.
 */
struct workload_sample {
    struct feature_tensor tensor;
    struct feature_sample sample;
};
void workload_sample_init(struct workload_sample *out, const char *id, uint64_t bytes);

/* Puts zero-copy, with every byte written. 0, or -1 with the reason written. */
int workload_put(struct feature_store *store, const char *id, uint64_t bytes,
                 struct feature_ref **ref_out);

/* Op: context is a struct workload_get. Gets the view and releases it as returned. */
struct workload_get {
    struct feature_store *store;
    const struct feature_ref *ref;
};
int workload_get_and_release(void *context);

#endif
