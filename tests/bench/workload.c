/* SPDX-License-Identifier: Apache-2.0
 *
 * No state of its own.
 */
#include "bench/workload.h"

#include <string.h>

#include "bench/bench.h"

void workload_sample_init(struct workload_sample *out, const char *id, uint64_t bytes) {
    out->tensor = (struct feature_tensor){.size = sizeof(struct feature_tensor),
                                          .name = "hidden_state",
                                          .dtype = FEATURE_DTYPE_F16,
                                          .rank = 1,
                                          .shape = {bytes / 2},
                                          .bytes = bytes};
    out->sample = (struct feature_sample){
        .size = sizeof out->sample, .sample_id = id, .tensors = &out->tensor, .tensor_count = 1};
}

int workload_put(struct feature_store *store, const char *id, uint64_t bytes,
                 struct feature_ref **ref_out) {
    struct workload_sample sample;
    struct feature_reservation *reservation;
    workload_sample_init(&sample, id, bytes);
    int status = feature_reserve(store, &sample.sample, 0, &reservation);
    if (status != FEATURE_OK)
        return bench_fail_feature(id, status);
    memset(feature_reservation_data(reservation, 0), 0x5a, bytes);
    status = feature_commit(reservation, ref_out);
    return status == FEATURE_OK ? 0 : bench_fail_feature(id, status);
}

int workload_get_and_release(void *context) {
    const struct workload_get *get = context;
    const struct feature_get_options options = {.size = sizeof options};
    struct feature_view *view;
    const int status = feature_get(get->store, FEATURE_BY_REF(get->ref), &options, &view);
    if (status != FEATURE_OK)
        return bench_fail_feature("get", status);
    feature_release(view, FEATURE_RELEASE_RETURNED);
    return 0;
}
