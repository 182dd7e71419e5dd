/* SPDX-License-Identifier: Apache-2.0
 *
 * The safetensors file format: u64 LE header length, JSON header, tensors. Files are not trusted:
 * every number in the header is checked before it is used, and a wrong one is named in a sentence.
 * What the reference implementation refuses is refused here too; where we take less than it does is
 * listed in featurectl(1).
 * Knows nothing of stores or brokers.
 */
#ifndef FEATURED_CTL_SAFETENSORS_H
#define FEATURED_CTL_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "feature.h"
#include "featurectl/output_file.h"

/* As the reference implementation has it; most of a large one is padding. */
#define SAFETENSORS_HEADER_BYTES_MAX 100000000u

struct safetensors {
    int fd;                    /* -1 = none (header parsed from memory) */
    struct timespec changed;   /* when it was opened, st_mtim of the file */
    uint64_t data_begin_bytes; /* where tensor bytes begin in the file */
    uint64_t data_bytes;       /* of all tensors */
    uint32_t tensor_count;
    struct feature_tensor tensors[FEATURE_TENSORS_MAX]; /* in file order; names owned by `names` */
    uint64_t tensor_begin_bytes[FEATURE_TENSORS_MAX];   /* from data_begin_bytes */
    char *names;    /* all tensor names, zero-terminated, one behind the other */
    char *metadata; /* `__metadata__` as compact JSON; NULL if the file has none, or null */
};

/* Can a file hold it? The library has dtypes that the format has no name for. */
bool safetensors_has_dtype(enum feature_dtype dtype);
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
                     output_moved_fn moved, void *context, char *why, size_t why_bytes);
/* False, with a sentence: somebody has written to the file since it was opened, so that what was
 * read need not belong together. */
bool safetensors_is_unchanged(const struct safetensors *file, char *why, size_t why_bytes);
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
/* Into a file that has just been opened; the caller commits it. 0, or -errno with a sentence:
 * -EINVAL, and nothing is written, when a tensor's dtype is none of the format's. moved may be
 * NULL.
 */
int safetensors_write(struct output_file *out, const struct safetensors_content *content,
                      output_moved_fn moved, void *context, char *why, size_t why_bytes);

#endif
