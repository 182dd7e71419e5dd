/* SPDX-License-Identifier: Apache-2.0
 *
 * Samples to put and to compare with: tensors whose every byte follows from a seed, or a
 * safetensors file. Comparison is bit-exact and covers names, dtypes, shapes, metadata and bytes.
 */
#ifndef FEATURED_TESTS_PAYLOAD_H
#define FEATURED_TESTS_PAYLOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "feature.h"

#define PAYLOAD_TENSORS_MAX 8u

struct payload {
    struct feature_sample sample; /* points into this struct */
    struct feature_tensor tensors[PAYLOAD_TENSORS_MAX];
    struct iovec data[PAYLOAD_TENSORS_MAX];
    char sample_id[129];
    char names[PAYLOAD_TENSORS_MAX][64];
    char metadata[512];
    uint64_t bytes; /* of the tensors together */
    void *memory;
};

/* A sample as a trainer sees it (aux_hidden_state BF16, hidden_state F16, input_ids I64, loss_mask
 * U8) with about this many bytes; at least 64. Pass the payload by pointer only: it points into
 * itself. */
void payload_init(struct payload *out, const char *sample_id, uint64_t seed, uint64_t bytes);
/* The tensors and __metadata__ of a safetensors file. */
void payload_init_file(struct payload *out, const char *sample_id, const char *path);
void payload_deinit(struct payload *payload);

/* Puts it, copying; ref_out may be NULL. */
int payload_put(const struct payload *payload, struct feature_store *store, uint32_t deadline_ms,
                struct feature_ref **ref_out);
/* Writes tensor i where it belongs. */
void payload_write(const struct payload *payload, const struct feature_reservation *reservation,
                   uint32_t tensor);

/* NULL when the view holds exactly this sample, else a sentence that names the first difference. */
const char *payload_difference(const struct payload *payload, const struct feature_view *view);
/* The seed that a view was made from; it is kept in the metadata. */
uint64_t payload_seed(const struct feature_view *view);
/* Gets it, checks that it is this sample, bit for bit, and gives the view (released as told with
 * payload_check_get). */
struct feature_view *payload_view(const struct payload *payload, struct feature_store *store,
                                  const struct feature_key *key);
void payload_check_get(const struct payload *payload, struct feature_store *store,
                       const struct feature_key *key, enum feature_release_how how);

/* Where the test data lie (tests/data of the source tree); a static string. */
const char *payload_data_directory(void);

#endif
