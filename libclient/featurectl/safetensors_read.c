/* SPDX-License-Identifier: Apache-2.0
 *
 * Reader for https://github.com/huggingface/safetensors#format: the header is one JSON object,
 * tensors cover the data section without hole or overlap, and dtype x shape gives exactly the bytes
 * of data_offsets. Checked against version 0.8.0 of the reference implementation.
 *
 * Order of trust: lengths against the file's size, then JSON, then each tensor alone, then all
 * together.
 */
#include "featurectl/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "featurectl/json_nul.h"
#include "featurectl/memory.h"
#include "proto/layout.h"

#define LENGTH_BYTES    8u
#define READ_STEP_BYTES (8u << 20)
#define METADATA_KEY    LAYOUT_NAME_RESERVED

struct parser {
    struct safetensors *file;
    struct json_nul nul;
    size_t names_used;
    char *why;
    size_t why_bytes;
};

#define REFUSE(parser, ...) (snprintf((parser)->why, (parser)->why_bytes, __VA_ARGS__), false)

/* A JSON integer that is not negative. */
static bool safetensors_read_get_u64(const json_t *value, uint64_t *out) {
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return false;
    *out = (uint64_t)json_integer_value(value);
    return true;
}

/* An empty shape is a scalar, one element. More dimensions than a sample may have are refused
 * here, not cut.
 */
static bool safetensors_read_parse_shape(struct parser *p, const char *name, const json_t *shape,
                                         struct feature_tensor *tensor) {
    if (!json_is_array(shape))
        return REFUSE(p, "tensor %s has no shape array", name);
    size_t rank = json_array_size(shape);
    if (rank > FEATURE_RANK_MAX)
        return REFUSE(p, "tensor %s has %zu dimensions, at most %d are supported", name, rank,
                      FEATURE_RANK_MAX);
    tensor->rank = (uint32_t)rank;
    for (size_t i = 0; i < rank; i++)
        if (!safetensors_read_get_u64(json_array_get(shape, i), &tensor->shape[i]))
            return REFUSE(p, "tensor %s: dimension %zu is not a non-negative integer", name, i);
    return true;
}

/* The file says the size of a tensor twice. Where the two differ one is wrong, and nobody knows
 * which.
 */
static bool safetensors_read_check_bytes(struct parser *p, const struct feature_tensor *tensor) {
    uint64_t bytes;
    const char *wrong =
        layout_tensor_bytes((Fb__Dtype)tensor->dtype, tensor->shape, tensor->rank, &bytes);
    if (wrong)
        return REFUSE(p, "tensor %s: %s", tensor->name, wrong);
    if (bytes != tensor->bytes)
        return REFUSE(
            p, "tensor %s: dtype and shape make %" PRIu64 " bytes, data_offsets hold %" PRIu64,
            tensor->name, bytes, tensor->bytes);
    return true;
}

/* Both offsets count from the beginning of the data, behind the header. */
static bool safetensors_read_parse_offsets(struct parser *p, const char *name,
                                           const json_t *offsets, uint64_t *begin, uint64_t *end) {
    if (json_array_size(offsets) != 2 ||
        !safetensors_read_get_u64(json_array_get(offsets, 0), begin) ||
        !safetensors_read_get_u64(json_array_get(offsets, 1), end))
        return REFUSE(p, "tensor %s: data_offsets are not two non-negative integers", name);
    if (*begin > *end || *end > p->file->data_bytes)
        return REFUSE(p,
                      "tensor %s: data_offsets %" PRIu64 "..%" PRIu64 " leave the %" PRIu64
                      " data bytes of the file",
                      name, *begin, *end, p->file->data_bytes);
    return true;
}

/* The name is checked first, because it stands in every sentence that follows. It is copied: the
 * JSON is freed before the file is used.
 */
static bool safetensors_read_parse_tensor(struct parser *p, const char *name, const json_t *value) {
    struct safetensors *file = p->file;
    size_t name_bytes = strlen(name);
    if (*p->nul.mark && strstr(name, p->nul.mark))
        return REFUSE(p, "the name of a tensor has a NUL character, which is refused here");
    const char *wrong = layout_check_tensor_name(name);
    if (wrong)
        return REFUSE(p, "the name '%.140s' of a tensor %s", name, wrong);
    if (!json_is_object(value))
        return REFUSE(p, "tensor %s is not an object of dtype, shape and data_offsets", name);
    if (file->tensor_count == FEATURE_TENSORS_MAX)
        return REFUSE(p, "more than %d tensors, a sample holds no more", FEATURE_TENSORS_MAX);
    struct feature_tensor *tensor = &file->tensors[file->tensor_count];
    tensor->size = sizeof *tensor;
    const char *dtype = json_string_value(json_object_get(value, "dtype"));
    tensor->dtype = dtype ? feature_dtype_parse(dtype) : 0;
    if (!safetensors_has_dtype(tensor->dtype))
        return REFUSE(p, "tensor %s has dtype %s, which is not supported", name,
                      dtype ? dtype : "(none)");
    uint64_t begin, end;
    if (!safetensors_read_parse_shape(p, name, json_object_get(value, "shape"), tensor) ||
        !safetensors_read_parse_offsets(p, name, json_object_get(value, "data_offsets"), &begin,
                                        &end))
        return false;
    tensor->name = memcpy(file->names + p->names_used, name, name_bytes + 1);
    p->names_used += name_bytes + 1;
    tensor->bytes = end - begin;
    file->tensor_begin_bytes[file->tensor_count++] = begin;
    return safetensors_read_check_bytes(p, tensor);
}

/* Kept as one JSON text, which becomes the metadata of the sample. The format allows strings
 * only.
 */
static bool safetensors_read_parse_metadata(struct parser *p, const json_t *value) {
    if (json_is_null(value))
        return true;
    if (!json_is_object(value))
        return REFUSE(p, METADATA_KEY " is not an object");
    const char *key;
    json_t *text;
    json_object_foreach((json_t *)value, key, text) if (!json_is_string(text)) return REFUSE(
        p, METADATA_KEY ": the value of %s is not a string", key);
    char *metadata = json_dumps(value, JSON_COMPACT);
    if (!metadata)
        return REFUSE(p, METADATA_KEY " cannot be written as JSON");
    p->file->metadata = json_nul_show(metadata, &p->nul);
    return true;
}

/* Insertion sort by begin, empty tensors first where they meet others: at most 64. */
static void safetensors_read_sort_by_begin(struct safetensors *file) {
    for (uint32_t i = 1; i < file->tensor_count; i++) {
        struct feature_tensor tensor = file->tensors[i];
        uint64_t begin = file->tensor_begin_bytes[i];
        uint32_t at = i;
        for (; at > 0; at--) {
            uint64_t before = file->tensor_begin_bytes[at - 1];
            if (before < begin || (before == begin && file->tensors[at - 1].bytes <= tensor.bytes))
                break;
            file->tensors[at] = file->tensors[at - 1];
            file->tensor_begin_bytes[at] = before;
        }
        file->tensors[at] = tensor;
        file->tensor_begin_bytes[at] = begin;
    }
}

/* In the order of their beginnings each tensor must begin where the one before ends. A hole could
 * hide data, and an overlap would make one byte part of two tensors; the format forbids both. */
static bool safetensors_read_check_cover(struct parser *p) {
    struct safetensors *file = p->file;
    if (file->tensor_count == 0)
        return REFUSE(p, "there is no tensor in it");
    safetensors_read_sort_by_begin(file);
    uint64_t covered = 0;
    for (uint32_t i = 0; i < file->tensor_count; i++) {
        uint64_t begin = file->tensor_begin_bytes[i];
        if (begin != covered)
            return REFUSE(p,
                          "tensor %s %s: it begins at data byte %" PRIu64
                          ", the one before ends at %" PRIu64,
                          file->tensors[i].name,
                          begin < covered ? "overlaps another" : "leaves a hole", begin, covered);
        covered = begin + file->tensors[i].bytes;
    }
    if (covered != file->data_bytes)
        return REFUSE(p, "%" PRIu64 " bytes behind the last tensor belong to none",
                      file->data_bytes - covered);
    return true;
}

/* Each key is the name of a tensor, but for the one that is reserved for metadata. */
static bool safetensors_read_parse_entries(struct parser *p, json_t *root) {
    if (!json_is_object(root))
        return REFUSE(p, "the header is not a JSON object");
    const char *key;
    json_t *value;
    json_object_foreach(root, key, value) {
        bool good = strcmp(key, METADATA_KEY) == 0 ? safetensors_read_parse_metadata(p, value)
                                                   : safetensors_read_parse_tensor(p, key, value);
        if (!good)
            return false;
    }
    return safetensors_read_check_cover(p);
}

/* Two of jansson's refusals are of JSON that is well-formed. */
static int safetensors_read_refuse_json(const json_error_t *error, char *why, size_t why_bytes) {
    const char *what = "the header is not JSON";
    if (json_error_code(error) == json_error_duplicate_key)
        what = "the header has the same key twice, which is refused here";
    else if (json_error_code(error) == json_error_numeric_overflow)
        what = "the header has a number of 2^63 or more, which is refused here";
    snprintf(why, why_bytes, "%s: %s at byte %d", what, error->text, error->position);
    return -EINVAL;
}

/* After a refusal `out` holds nothing that would have to be freed. */
static int safetensors_read_parse_root(json_t *root, size_t header_bytes, uint64_t data_bytes,
                                       struct parser *parser) {
    struct safetensors *out = parser->file;
    *out = (struct safetensors){.fd = -1, .data_bytes = data_bytes};
    /* Names come out of the header, each shorter there than its quoted form: they fit its length.
     */
    out->names = memory_grow(NULL, header_bytes, 1);
    if (safetensors_read_parse_entries(parser, root))
        return 0;
    safetensors_close(out);
    return -EINVAL;
}

/* A name may contain NUL characters in JSON (the escape of U+0000), which no C string can hold:
 * json_nul.c hides them behind a mark before jansson sees them, so that they can be refused by
 * name.
 */
int safetensors_parse(const char *header, size_t header_bytes, uint64_t data_bytes,
                      struct safetensors *out, char *why, size_t why_bytes) {
    struct parser parser = {.file = out, .why = why, .why_bytes = why_bytes};
    json_error_t error;
    char *hidden = json_nul_hide(header, header_bytes, &parser.nul);
    json_t *root = json_loadb(hidden ? hidden : header, header_bytes,
                              JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    free(hidden);
    if (!root)
        return safetensors_read_refuse_json(&error, why, why_bytes);
    int refused = safetensors_read_parse_root(root, header_bytes, data_bytes, &parser);
    json_decref(root);
    return refused;
}

/* All of `bytes` at `offset`, or -errno; -ENODATA when the file ends before. */
static int read_at(int fd, void *to, uint64_t bytes, uint64_t offset, output_moved_fn moved,
                   void *context) {
    for (uint64_t done = 0; done < bytes;) {
        uint64_t step = bytes - done < READ_STEP_BYTES ? bytes - done : READ_STEP_BYTES;
        ssize_t got = pread(fd, (char *)to + done, step, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got == 0 ? -ENODATA : -errno;
        done += (uint64_t)got;
        if (moved)
            moved(context, (uint64_t)got);
    }
    return 0;
}

/* Returns the error as it is, so that a caller can say and return it in one line. */
static int safetensors_read_refuse_errno(int error, const char *what, char *why, size_t why_bytes) {
    if (error == -ENODATA)
        snprintf(why, why_bytes, "%s: the file ends before its contents", what);
    else
        snprintf(why, why_bytes, "%s: %s", what, strerror(-error));
    return error;
}

/* 0 with a sentence when it cannot be right. Before memory is taken for the header: its length
 * comes from the file and could be anything. */
static uint64_t safetensors_read_check_lengths(const uint8_t length[LENGTH_BYTES],
                                               uint64_t file_bytes, char *why, size_t why_bytes) {
    uint64_t header_bytes = 0;
    for (unsigned i = 0; i < LENGTH_BYTES; i++)
        header_bytes |= (uint64_t)length[i] << (8 * i);
    if (header_bytes > SAFETENSORS_HEADER_BYTES_MAX)
        snprintf(why, why_bytes,
                 "not a safetensors file: its header would have %" PRIu64
                 " bytes, at most %u are allowed",
                 header_bytes, SAFETENSORS_HEADER_BYTES_MAX);
    else if (header_bytes < 2 || header_bytes > file_bytes - LENGTH_BYTES)
        snprintf(why, why_bytes, "its header would have %" PRIu64 " bytes, the file has %" PRIu64,
                 header_bytes, file_bytes);
    else
        return header_bytes;
    return 0;
}

/* The time of the last change is noted before anything is read; safetensors_is_unchanged()
 * compares it afterwards.
 */
static int read_file(int fd, struct safetensors *out, char *why, size_t why_bytes) {
    struct stat about;
    if (fstat(fd, &about) != 0)
        return safetensors_read_refuse_errno(-errno, "cannot be examined", why, why_bytes);
    if (!S_ISREG(about.st_mode) || about.st_size < (off_t)LENGTH_BYTES) {
        snprintf(why, why_bytes, "not a safetensors file: no regular file of at least 8 bytes");
        return -EINVAL;
    }
    uint64_t file_bytes = (uint64_t)about.st_size;
    uint8_t length[LENGTH_BYTES];
    int error = read_at(fd, length, sizeof length, 0, NULL, NULL);
    if (error)
        return safetensors_read_refuse_errno(error, "cannot read the header", why, why_bytes);
    uint64_t header_bytes = safetensors_read_check_lengths(length, file_bytes, why, why_bytes);
    if (!header_bytes)
        return -EINVAL;
    char *header = memory_grow(NULL, header_bytes, 1);
    error = read_at(fd, header, header_bytes, LENGTH_BYTES, NULL, NULL);
    uint64_t data_begin_bytes = LENGTH_BYTES + header_bytes;
    if (error)
        safetensors_read_refuse_errno(error, "cannot read the header", why, why_bytes);
    else
        error = safetensors_parse(header, header_bytes, file_bytes - data_begin_bytes, out, why,
                                  why_bytes);
    free(header);
    if (!error) {
        out->data_begin_bytes = data_begin_bytes;
        out->changed = about.st_mtim;
    }
    return error;
}

int safetensors_open(const char *path, struct safetensors *out, char *why, size_t why_bytes) {
    /* O_NONBLOCK: a FIFO put in a file's place must not hang us. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return safetensors_read_refuse_errno(-errno, "cannot be opened", why, why_bytes);
    int error = read_file(fd, out, why, why_bytes);
    if (error)
        close(fd);
    else
        out->fd = fd;
    return error;
}

/* Straight into the place where the sample will lie; nothing is buffered here. */
int safetensors_read(const struct safetensors *file, uint32_t index, void *to,
                     output_moved_fn moved, void *context, char *why, size_t why_bytes) {
    uint64_t offset = file->data_begin_bytes + file->tensor_begin_bytes[index];
    int error = read_at(file->fd, to, file->tensors[index].bytes, offset, moved, context);
    return error ? safetensors_read_refuse_errno(error, file->tensors[index].name, why, why_bytes)
                 : 0;
}

/* Called after the bytes were read. A trainer may still be writing the file; a sample of half old
 * and half new bytes would look like a good one. */
bool safetensors_is_unchanged(const struct safetensors *file, char *why, size_t why_bytes) {
    struct stat about;
    if (fstat(file->fd, &about) == 0 && about.st_mtim.tv_sec == file->changed.tv_sec &&
        about.st_mtim.tv_nsec == file->changed.tv_nsec &&
        (uint64_t)about.st_size == file->data_begin_bytes + file->data_bytes)
        return true;
    snprintf(why, why_bytes, "was written to while it was read: put it once it is complete");
    return false;
}

/* May be called again, and for a file that was never opened (fd -1). */
void safetensors_close(struct safetensors *file) {
    if (file->fd >= 0)
        close(file->fd);
    free(file->names);
    free(file->metadata);
    *file = (struct safetensors){.fd = -1};
}
