/* SPDX-License-Identifier: Apache-2.0
 *
 * A safetensors file as a payload, read independently of featurectl: 8 bytes little-endian header
 * length, a JSON header, then the tensors at the header's data_offsets
 * (https://github.com/huggingface/safetensors).
 */
#include "support/payload.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/checks.h"

static uint8_t *read_file(const char *path, size_t *bytes_out) {
    FILE *file = fopen(path, "re");
    CHECK(file != NULL, "%s: %s", path, strerror(errno));
    fseek(file, 0, SEEK_END);
    size_t bytes = (size_t)ftell(file);
    rewind(file);
    uint8_t *all = malloc(bytes);
    CHECK(all != NULL && fread(all, 1, bytes, file) == bytes, "%s: short read", path);
    fclose(file);
    *bytes_out = bytes;
    return all;
}

static void take_tensor(struct payload *out, uint32_t index, const char *name, json_t *entry,
                        uint8_t *base) {
    struct feature_tensor *tensor = &out->tensors[index];
    json_t *shape = json_object_get(entry, "shape"),
           *offsets = json_object_get(entry, "data_offsets");
    size_t begin = (size_t)json_integer_value(json_array_get(offsets, 0));
    size_t end = (size_t)json_integer_value(json_array_get(offsets, 1));
    snprintf(out->names[index], sizeof out->names[index], "%s", name);
    tensor->size = sizeof *tensor;
    tensor->name = out->names[index];
    tensor->dtype = feature_dtype_parse(json_string_value(json_object_get(entry, "dtype")));
    tensor->rank = (uint32_t)json_array_size(shape);
    for (uint32_t i = 0; i < tensor->rank; i++)
        tensor->shape[i] = (uint64_t)json_integer_value(json_array_get(shape, i));
    tensor->bytes = end - begin;
    out->data[index] = (struct iovec){.iov_base = base + begin, .iov_len = end - begin};
    out->bytes += end - begin;
}

void payload_init_file(struct payload *out, const char *sample_id, const char *path) {
    size_t file_bytes = 0;
    uint8_t *all = read_file(path, &file_bytes);
    uint64_t header_bytes = 0;
    memcpy(&header_bytes, all, 8);
    json_error_t error;
    json_t *header = json_loadb((const char *)all + 8, header_bytes, 0, &error);
    CHECK(header != NULL, "%s: %s", path, error.text);
    *out = (struct payload){.memory = all};
    uint32_t count = 0;
    const char *name;
    json_t *entry;
    json_object_foreach(header, name, entry) {
        if (strcmp(name, "__metadata__") == 0)
            continue;
        CHECK(count < PAYLOAD_TENSORS_MAX, "%s: more than %u tensors", path, PAYLOAD_TENSORS_MAX);
        take_tensor(out, count++, name, entry, all + 8 + header_bytes);
    }
    char *metadata = json_dumps(json_object_get(header, "__metadata__"), JSON_COMPACT);
    snprintf(out->metadata, sizeof out->metadata, "%s", metadata != NULL ? metadata : "");
    free(metadata);
    json_decref(header);
    snprintf(out->sample_id, sizeof out->sample_id, "%s", sample_id);
    out->sample = (struct feature_sample){.size = sizeof out->sample,
                                          .sample_id = out->sample_id,
                                          .tensors = out->tensors,
                                          .tensor_count = count,
                                          .metadata = out->metadata,
                                          .metadata_bytes = strlen(out->metadata)};
}
