/* SPDX-License-Identifier: Apache-2.0
 *
 * Writer.
 */
#include "safetensors.h"

#include <jansson.h>
#include <sodium.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memory.h"

#define LENGTH_BYTES    8u
#define OPAQUE_METADATA "featured.metadata"

/* The object itself when it is one of strings, as the format wants; NULL when it is not. */
static json_t *metadata_object(const void *metadata, size_t metadata_bytes) {
    json_t *object = json_loadb(metadata, metadata_bytes, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
    const char *key;
    json_t *value;
    bool good = json_is_object(object);
    json_object_foreach(object, key, value) good = good && json_is_string(value);
    if (good)
        return object;
    json_decref(object);
    return NULL;
}

static json_t *metadata_opaque(const void *metadata, size_t metadata_bytes) {
    size_t room = sodium_base64_ENCODED_LEN(metadata_bytes, sodium_base64_VARIANT_ORIGINAL);
    char *text = memory_grow(NULL, room, 1);
    sodium_bin2base64(text, room, metadata, metadata_bytes, sodium_base64_VARIANT_ORIGINAL);
    json_t *object = json_pack("{s:s}", OPAQUE_METADATA, text);
    free(text);
    return object;
}

static json_t *tensor_entry(const struct feature_tensor *tensor, uint64_t begin_bytes) {
    json_t *shape = json_array();
    uint64_t end_bytes = begin_bytes + tensor->bytes;
    for (uint32_t i = 0; i < tensor->rank; i++)
        json_array_append_new(shape, json_integer((json_int_t)tensor->shape[i]));
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", feature_dtype_name(tensor->dtype), "shape",
                     shape, "data_offsets", (json_int_t)begin_bytes, (json_int_t)end_bytes);
}

char *safetensors_header(const struct safetensors_content *content, size_t *bytes_out) {
    json_t *root = json_object();
    if (content->metadata_bytes) {
        json_t *metadata = metadata_object(content->metadata, content->metadata_bytes);
        if (!metadata)
            metadata = metadata_opaque(content->metadata, content->metadata_bytes);
        json_object_set_new(root, "__metadata__", metadata);
    }
    uint64_t begin_bytes = 0;
    for (uint32_t i = 0; i < content->tensor_count; i++) {
        const struct feature_tensor *tensor = &content->tensors[i];
        json_object_set_new(root, tensor->name, tensor_entry(tensor, begin_bytes));
        begin_bytes += tensor->bytes;
    }
    size_t text_bytes = json_dumpb(root, NULL, 0, JSON_COMPACT);
    size_t header_bytes = (text_bytes + 7) / 8 * 8;
    char *header = memory_grow(NULL, LENGTH_BYTES + header_bytes, 1);
    for (unsigned i = 0; i < LENGTH_BYTES; i++)
        header[i] = (char)(header_bytes >> (8 * i));
    memset(header + LENGTH_BYTES, ' ', header_bytes);
    json_dumpb(root, header + LENGTH_BYTES, text_bytes, JSON_COMPACT);
    json_decref(root);
    *bytes_out = LENGTH_BYTES + header_bytes;
    return header;
}

int safetensors_write(struct output_file *out, const struct safetensors_content *content,
                      output_moved_fn moved, void *context, char *why, size_t why_bytes) {
    size_t header_bytes;
    char *header = safetensors_header(content, &header_bytes);
    int error = output_file_write(out, header, header_bytes, NULL, NULL, why, why_bytes);
    free(header);
    for (uint32_t i = 0; i < content->tensor_count && !error; i++)
        error = output_file_write(out, content->data[i], content->tensors[i].bytes, moved, context,
                                  why, why_bytes);
    return error;
}
