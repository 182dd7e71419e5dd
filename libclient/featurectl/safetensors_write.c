/* SPDX-License-Identifier: Apache-2.0
 *
 * Writer.
 *
 * The header first, then the bytes of each tensor one after the other without a hole. The header
 * is padded with blanks to a multiple of 8 bytes, as the reference implementation does, so that
 * the data are aligned.
 *
 * Metadata of a sample are any bytes; those of the format are an object of strings. What is such
 * an object goes in as it is; anything else goes in as base64 under one key, so that nothing is
 * lost.
 */
#include "featurectl/safetensors.h"

#include <errno.h>
#include <jansson.h>
#include <sodium.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "featurectl/json_nul.h"
#include "featurectl/memory.h"
#include "proto/layout.h"

#define LENGTH_BYTES    8u
#define OPAQUE_METADATA "featured.metadata"

/* Is it what the format wants, an object of strings? */
static bool safetensors_write_is_object_of_strings(const void *metadata, size_t metadata_bytes) {
    struct json_nul nul;
    char *hidden = json_nul_hide(metadata, metadata_bytes, &nul);
    json_t *object = json_loadb(hidden ? hidden : metadata, metadata_bytes,
                                JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
    const char *key;
    json_t *value;
    bool good = json_is_object(object);
    json_object_foreach(object, key, value) good = good && json_is_string(value);
    json_decref(object);
    free(hidden);
    return good;
}

/* As JSON text; freed with free(). */
static char *safetensors_write_metadata_text(const void *metadata, size_t metadata_bytes) {
    if (safetensors_write_is_object_of_strings(metadata, metadata_bytes))
        return memory_print("%.*s", (int)metadata_bytes, (const char *)metadata);
    size_t room = sodium_base64_ENCODED_LEN(metadata_bytes, sodium_base64_VARIANT_ORIGINAL);
    char *base64 = memory_grow(NULL, room, 1);
    sodium_bin2base64(base64, room, metadata, metadata_bytes, sodium_base64_VARIANT_ORIGINAL);
    char *text = memory_print("{\"" OPAQUE_METADATA "\":\"%s\"}", base64);
    free(base64);
    return text;
}

/* Offsets count from the beginning of the data. The two I of json_pack are the list of both. */
static json_t *safetensors_write_tensor_entry(const struct feature_tensor *tensor,
                                              uint64_t begin_bytes) {
    json_t *shape = json_array();
    uint64_t end_bytes = begin_bytes + tensor->bytes;
    for (uint32_t i = 0; i < tensor->rank; i++)
        json_array_append_new(shape, json_integer((json_int_t)tensor->shape[i]));
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", feature_dtype_name(tensor->dtype), "shape",
                     shape, "data_offsets", (json_int_t)begin_bytes, (json_int_t)end_bytes);
}

/* The tensors as JSON text; freed with free(). */
static char *safetensors_write_tensors_text(const struct safetensors_content *content) {
    json_t *root = json_object();
    uint64_t begin_bytes = 0;
    for (uint32_t i = 0; i < content->tensor_count; i++) {
        const struct feature_tensor *tensor = &content->tensors[i];
        json_object_set_new(root, tensor->name,
                            safetensors_write_tensor_entry(tensor, begin_bytes));
        begin_bytes += tensor->bytes;
    }
    char *text = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    return text ? text : memory_copy("{}");
}

/* The metadata goes in as it is: it has been JSON before. */
static char *safetensors_write_header_text(const struct safetensors_content *content) {
    char *tensors = safetensors_write_tensors_text(content);
    if (!content->metadata_bytes)
        return tensors;
    char *metadata = safetensors_write_metadata_text(content->metadata, content->metadata_bytes);
    char *text = memory_print("{\"" LAYOUT_NAME_RESERVED "\":%s%s%s", metadata,
                              content->tensor_count ? "," : "", tensors + 1);
    free(metadata);
    free(tensors);
    return text;
}

/* The length comes first, 8 bytes, little-endian. Freed by the caller. */
char *safetensors_header(const struct safetensors_content *content, size_t *bytes_out) {
    char *text = safetensors_write_header_text(content);
    size_t text_bytes = strlen(text), header_bytes = (text_bytes + 7) / 8 * 8;
    char *header = memory_grow(NULL, LENGTH_BYTES + header_bytes, 1);
    for (unsigned i = 0; i < LENGTH_BYTES; i++)
        header[i] = (char)(header_bytes >> (8 * i));
    memset(header + LENGTH_BYTES, ' ', header_bytes);
    memcpy(header + LENGTH_BYTES, text, text_bytes);
    free(text);
    *bytes_out = LENGTH_BYTES + header_bytes;
    return header;
}

/* All that the library has a name for, but for the two complex kinds that only torch has. A file
 * that named them could not be read by the reference implementation. */
bool safetensors_has_dtype(enum feature_dtype dtype) {
    return feature_dtype_name(dtype) && dtype != FEATURE_DTYPE_C32 && dtype != FEATURE_DTYPE_C128;
}

/* Before the first byte is written: an output in place could not be taken back. */
static int safetensors_write_check(const struct safetensors_content *content, char *why,
                                   size_t why_bytes) {
    for (uint32_t i = 0; i < content->tensor_count; i++) {
        const struct feature_tensor *tensor = &content->tensors[i];
        const char *name = feature_dtype_name(tensor->dtype);
        if (safetensors_has_dtype(tensor->dtype))
            continue;
        snprintf(why, why_bytes, "tensor %s has dtype %s, which safetensors files cannot hold",
                 tensor->name, name ? name : "(unknown)");
        return -EINVAL;
    }
    return 0;
}

/* The bytes go from the caller's memory to the file, in steps for which `moved` is called. */
int safetensors_write(struct output_file *out, const struct safetensors_content *content,
                      output_moved_fn moved, void *context, char *why, size_t why_bytes) {
    size_t header_bytes;
    int error = safetensors_write_check(content, why, why_bytes);
    if (error)
        return error;
    char *header = safetensors_header(content, &header_bytes);
    error = output_file_write(out, header, header_bytes, NULL, NULL, why, why_bytes);
    free(header);
    for (uint32_t i = 0; i < content->tensor_count && !error; i++)
        error = output_file_write(out, content->data[i], content->tensors[i].bytes, moved, context,
                                  why, why_bytes);
    return error;
}
