/* SPDX-License-Identifier: Apache-2.0
 *
 * Bytes of a seeded tensor: splitmix64 over (seed, tensor), eight at a time.
 */
#include "support/payload.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "support/checks.h"

static void fill(uint8_t *to, uint64_t bytes, uint64_t seed) {
    uint64_t at = 0;
    for (; at + 8 <= bytes; at += 8) {
        uint64_t word = check_random(&seed);
        memcpy(to + at, &word, 8);
    }
    uint64_t word = check_random(&seed);
    memcpy(to + at, &word, bytes - at);
}

static uint64_t tensor_bytes(const struct feature_tensor *tensor) {
    uint64_t bytes = feature_dtype_bytes(tensor->dtype);
    for (uint32_t i = 0; i < tensor->rank; i++)
        bytes *= tensor->shape[i];
    return bytes;
}

/* Points the sample at its parts, once tensors, names and metadata stand. */
static void assemble(struct payload *payload, const char *sample_id, uint32_t tensor_count) {
    snprintf(payload->sample_id, sizeof payload->sample_id, "%s", sample_id);
    for (uint32_t i = 0; i < tensor_count; i++)
        payload->tensors[i].name = payload->names[i];
    payload->sample = (struct feature_sample){
        .size = sizeof payload->sample,
        .sample_id = payload->sample_id,
        .tensors = payload->tensors,
        .tensor_count = tensor_count,
        .metadata = payload->metadata,
        .metadata_bytes = strlen(payload->metadata),
    };
}

void payload_init(struct payload *out, const char *sample_id, uint64_t seed, uint64_t bytes) {
    static const struct {
        const char *name;
        enum feature_dtype dtype;
        uint64_t bytes_per_token;
    } shape[] = {{"aux_hidden_state", FEATURE_DTYPE_BF16, 192},
                 {"hidden_state", FEATURE_DTYPE_F16, 64},
                 {"input_ids", FEATURE_DTYPE_I64, 8},
                 {"loss_mask", FEATURE_DTYPE_U8, 1}};
    const uint32_t count = sizeof shape / sizeof *shape;
    uint64_t tokens = bytes / 265u + 1;
    *out = (struct payload){0};
    for (uint32_t i = 0; i < count; i++) {
        struct feature_tensor *tensor = &out->tensors[i];
        uint64_t columns = shape[i].bytes_per_token / feature_dtype_bytes(shape[i].dtype);
        *tensor = (struct feature_tensor){.size = sizeof *tensor,
                                          .dtype = shape[i].dtype,
                                          .rank = columns > 1 ? 2 : 1,
                                          .shape = {tokens, columns}};
        snprintf(out->names[i], sizeof out->names[i], "%s", shape[i].name);
        tensor->bytes = tensor_bytes(tensor);
        out->bytes += tensor->bytes;
    }
    snprintf(out->metadata, sizeof out->metadata, "seed=%" PRIu64, seed);
    out->memory = malloc(out->bytes);
    CHECK(out->memory != NULL, "no memory for %" PRIu64 " bytes", out->bytes);
    uint8_t *at = out->memory;
    for (uint32_t i = 0; i < count; at += out->tensors[i++].bytes) {
        out->data[i] = (struct iovec){.iov_base = at, .iov_len = out->tensors[i].bytes};
        fill(at, out->tensors[i].bytes, seed * 31u + i);
    }
    assemble(out, sample_id, count);
}

void payload_deinit(struct payload *payload) {
    free(payload->memory);
    *payload = (struct payload){0};
}

int payload_put(const struct payload *payload, struct feature_store *store, uint32_t deadline_ms,
                struct feature_ref **ref_out) {
    return feature_put(store, &payload->sample, payload->data, deadline_ms, ref_out);
}

void payload_write(const struct payload *payload, const struct feature_reservation *reservation,
                   uint32_t tensor) {
    memcpy(feature_reservation_data(reservation, tensor), payload->data[tensor].iov_base,
           payload->data[tensor].iov_len);
}

static const char *tensor_difference(const struct feature_tensor *ours, const struct iovec *data,
                                     const struct feature_tensor *theirs, const uint8_t *bytes) {
    static _Thread_local char why[256];
    if (strcmp(theirs->name, ours->name) != 0 || theirs->dtype != ours->dtype ||
        theirs->rank != ours->rank || theirs->bytes != data->iov_len ||
        memcmp(theirs->shape, ours->shape, ours->rank * sizeof *ours->shape) != 0) {
        snprintf(why, sizeof why,
                 "tensor %s: name, dtype, shape or size differ (%s, %" PRIu64 " bytes)", ours->name,
                 theirs->name, theirs->bytes);
        return why;
    }
    if (bytes == NULL)
        return "no data";
    if (memcmp(bytes, data->iov_base, data->iov_len) == 0)
        return NULL;
    size_t at = 0;
    while (bytes[at] == ((const uint8_t *)data->iov_base)[at])
        at++;
    snprintf(why, sizeof why, "tensor %s: byte %zu of %zu is 0x%02x, expected 0x%02x", ours->name,
             at, data->iov_len, bytes[at], ((const uint8_t *)data->iov_base)[at]);
    return why;
}

const char *payload_difference(const struct payload *payload, const struct feature_view *view) {
    const struct feature_ref *ref = feature_view_ref(view);
    size_t metadata_bytes = 0;
    const void *metadata = feature_ref_metadata(ref, &metadata_bytes);
    if (strcmp(feature_ref_sample_id(ref), payload->sample_id) != 0)
        return "another sample_id";
    if (metadata_bytes != payload->sample.metadata_bytes ||
        memcmp(metadata, payload->metadata, metadata_bytes) != 0)
        return "other metadata";
    if (feature_ref_tensor_count(ref) != payload->sample.tensor_count)
        return "another number of tensors";
    for (uint32_t i = 0; i < payload->sample.tensor_count; i++) {
        const char *why = tensor_difference(&payload->tensors[i], &payload->data[i],
                                            feature_ref_tensor(ref, i), feature_view_data(view, i));
        if (why != NULL)
            return why;
    }
    return NULL;
}

uint64_t payload_seed(const struct feature_view *view) {
    size_t bytes = 0;
    const char *metadata = feature_ref_metadata(feature_view_ref(view), &bytes);
    char text[64] = {0};
    uint64_t seed = 0;
    CHECK(bytes < sizeof text, "%zu bytes of metadata", bytes);
    memcpy(text, metadata, bytes);
    CHECK(sscanf(text, "seed=%" SCNu64, &seed) == 1, "metadata %s", text);
    return seed;
}

struct feature_view *payload_view(const struct payload *payload, struct feature_store *store,
                                  const struct feature_key *key) {
    struct feature_get_options options = {.size = sizeof options, .deadline_ms = 20000};
    struct feature_view *view = NULL;
    CHECK_OK(feature_get(store, key, &options, &view));
    const char *why = payload_difference(payload, view);
    CHECK(why == NULL, "sample %s: %s", payload->sample_id, why);
    return view;
}

void payload_check_get(const struct payload *payload, struct feature_store *store,
                       const struct feature_key *key, enum feature_release_how how) {
    CHECK_OK(feature_release(payload_view(payload, store, key), how));
}

const char *payload_data_directory(void) {
    static char path[PATH_MAX];
    ssize_t bytes = readlink("/proc/self/exe", path, sizeof path - sizeof "/tests/data/README.md");
    CHECK(bytes > 0, "no /proc/self/exe");
    path[bytes] = '\0';
    for (char *slash; (slash = strrchr(path, '/')) != NULL;) {
        memcpy(slash, "/tests/data/README.md", sizeof "/tests/data/README.md");
        if (access(path, R_OK) == 0) {
            slash[sizeof "/tests/data" - 1] = '\0';
            return path;
        }
        *slash = '\0';
    }
    check_failed(__FILE__, __LINE__, "tests/data", "not above the test program");
}
