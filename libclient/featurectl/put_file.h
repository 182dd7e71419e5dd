/* SPDX-License-Identifier: Apache-2.0
 *
 * One safetensors file into one sample. The bytes are read from the file straight into the arena.
 */
#ifndef FEATURED_CTL_PUT_FILE_H
#define FEATURED_CTL_PUT_FILE_H

#include "featurectl/context.h"
#include "featurectl/progress.h"

/* Long enough for a consumer to make room, short enough for a person to wait. */
#define PUT_DEADLINE_MS 10000u
#define OPTION_PUT_DEADLINE                                                                        \
    {                                                                                              \
        .name = "deadline", .kind = OPTION_DURATION, .argument = "TIME",                           \
        .help = "wait that long for room in a full store (default 10s)"                            \
    }

/* What the caller does around a put. Both return a status, already reported. */
struct put_around {
    /* Before anything is put; may be NULL. */
    int (*begin)(void *user, const struct feature_sample *sample);
    /* The sample can be read from now on. Signals wait until this returns (ending.h), so that no
     * sample is left that nobody knows of. */
    int (*keep)(void *user, const struct feature_ref *ref);
    void *user;
    /* NULL, or what the file is a copy of: the tensors come in its order, with its metadata, and
     * the bytes must have its checksums. */
    const struct feature_ref *was;
};

/* id: NULL = the file's base name without ".safetensors". progress: counts on from done. Reports
 * trouble, naming the file. */
int put_file(struct context *context, struct feature_store *store, const char *path, const char *id,
             uint32_t deadline_ms, struct progress *progress, const struct put_around *around);
/* The file's size, 0 when it cannot be had: for progress bars. */
uint64_t put_file_bytes(const char *path);
/* The id that `path` gets by default; freed with free(). */
char *put_file_id(const char *path);

#endif
