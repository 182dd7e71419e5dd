/* SPDX-License-Identifier: Apache-2.0
 *
 * The safetensors file format: u64 LE header length, JSON header, tensors. Files are not trusted:
 * every number in the header is checked before it is used, and a wrong one is named in a sentence.
 * Knows nothing of stores or brokers.
 */
#ifndef FEATURED_CTL_SAFETENSORS_H
#define FEATURED_CTL_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "feature.h"

/* 64 tensors with names of 128 bytes need about 20 KiB; the rest is room for metadata and padding.
 */
#define SAFETENSORS_HEADER_BYTES_MAX (1u << 20)

struct safetensors {
    int fd;                    /* -1 = none (header parsed from memory) */
    uint64_t data_begin_bytes; /* where tensor bytes begin in the file */
    uint64_t data_bytes;       /* of all tensors */
    uint32_t tensor_count;
    struct feature_tensor tensors[FEATURE_TENSORS_MAX]; /* in file order; names owned by `names` */
    uint64_t tensor_begin_bytes[FEATURE_TENSORS_MAX];   /* from data_begin_bytes */
    char *names;    /* all tensor names, zero-terminated, one behind the other */
    char *metadata; /* `__metadata__` as compact JSON; NULL if the file has none */
};

/* Called as bytes move, with how many moved since the last call. */
typedef void (*safetensors_moved_fn)(void *context, uint64_t bytes);

/* Pure: checks a header (without its length) against the `data_bytes` that follow it. 0, or -EINVAL
 * with a sentence. out needs safetensors_close() on success only. */
int safetensors_parse(const char *header, size_t header_bytes, uint64_t data_bytes,
                      struct safetensors *out, char *why, size_t why_bytes);
/* Opens and checks. 0, -EINVAL (not a well-formed file) or another -errno (cannot be read), with a
 * sentence that does not repeat the path. */
int safetensors_open(const char *path, struct safetensors *out, char *why, size_t why_bytes);
/* Reads tensor `index` whole into `to` (its `bytes`). 0, or -errno with a sentence. moved may be
 * NULL. */
int safetensors_read(const struct safetensors *file, uint32_t index, void *to,
                     safetensors_moved_fn moved, void *context, char *why, size_t why_bytes);
void safetensors_close(struct safetensors *file);

/* What to write. metadata: JSON text of an object of strings, else kept in base64 under
 * "featured.metadata"; none when metadata_bytes is 0. */
struct safetensors_content {
    const struct feature_tensor *tensors;
    const void *const *data; /* one per tensor */
    uint32_t tensor_count;
    const void *metadata;
    size_t metadata_bytes;
};
/* Header with its length, padded so that tensors begin at a multiple of 8. Freed with free(). */
char *safetensors_header(const struct safetensors_content *content, size_t *bytes_out);
/* Writes beside `path` and renames: `path` is either what it was before or complete. What is there
 * and no regular file (/dev/null, a FIFO) is written into instead. 0, or -errno with a sentence.
 * moved may be NULL. */
int safetensors_write(const char *path, const struct safetensors_content *content,
                      safetensors_moved_fn moved, void *context, char *why, size_t why_bytes);

#endif
