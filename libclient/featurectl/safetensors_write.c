/* SPDX-License-Identifier: Apache-2.0
 *
 * Writer. The new file is complete and on disk before it takes its name, so that a reader or a
 * crash never meets half of one.
 */
#include "safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <sodium.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "memory.h"

#define LENGTH_BYTES     8u
#define WRITE_STEP_BYTES (8u << 20)
#define OPAQUE_METADATA  "featured.metadata"

/* The object itself when it is one of strings, as the format wants; NULL when it is not. */
static json_t *metadata_object(const void *metadata, size_t metadata_bytes) {
    json_t *object = json_loadb(metadata, metadata_bytes, JSON_REJECT_DUPLICATES, NULL);
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

static int write_all(int fd, const void *from, uint64_t bytes, safetensors_moved_fn moved,
                     void *context) {
    for (uint64_t done = 0; done < bytes;) {
        uint64_t step = bytes - done < WRITE_STEP_BYTES ? bytes - done : WRITE_STEP_BYTES;
        ssize_t put = write(fd, (const char *)from + done, step);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return -errno;
        done += (uint64_t)put;
        if (moved)
            moved(context, (uint64_t)put);
    }
    return 0;
}

static int write_content(int fd, const struct safetensors_content *content,
                         safetensors_moved_fn moved, void *context) {
    size_t header_bytes;
    char *header = safetensors_header(content, &header_bytes);
    int error = write_all(fd, header, header_bytes, NULL, NULL);
    free(header);
    for (uint32_t i = 0; i < content->tensor_count && !error; i++)
        error = write_all(fd, content->data[i], content->tensors[i].bytes, moved, context);
    return error;
}

/* mkstemp() makes private files; ours gets the mode that any new file gets. */
static int give_usual_mode(int fd) {
    mode_t mask = umask(0);
    umask(mask);
    return fchmod(fd, 0666 & ~mask) == 0 ? 0 : -errno;
}

/* 0 or -errno. */
static int write_beside(const char *path, const struct safetensors_content *content,
                        safetensors_moved_fn moved, void *context) {
    char *beside = memory_print("%s.XXXXXX", path);
    int fd = mkostemp(beside, O_CLOEXEC);
    int error = fd < 0 ? -errno : give_usual_mode(fd);
    if (!error)
        error = write_content(fd, content, moved, context);
    if (!error && fsync(fd) != 0)
        error = -errno;
    if (fd >= 0 && close(fd) != 0 && !error)
        error = -errno;
    if (!error && rename(beside, path) != 0)
        error = -errno;
    if (error && fd >= 0)
        unlink(beside);
    free(beside);
    return error;
}

/* Into /dev/null, a FIFO: what is no regular file is not to be replaced by one. 0 or -errno. */
static int write_into(const char *path, const struct safetensors_content *content,
                      safetensors_moved_fn moved, void *context) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int error = write_content(fd, content, moved, context);
    return close(fd) != 0 && !error ? -errno : error;
}

int safetensors_write(const char *path, const struct safetensors_content *content,
                      safetensors_moved_fn moved, void *context, char *why, size_t why_bytes) {
    struct stat about;
    bool special = stat(path, &about) == 0 && !S_ISREG(about.st_mode);
    int error = special ? write_into(path, content, moved, context)
                        : write_beside(path, content, moved, context);
    if (error)
        snprintf(why, why_bytes, "cannot be written: %s", strerror(-error));
    return error;
}
