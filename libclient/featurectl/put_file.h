/* SPDX-License-Identifier: Apache-2.0
 *
 * One safetensors file into one sample. The bytes are read from the file straight into the arena.
 */
#ifndef FEATURED_CTL_PUT_FILE_H
#define FEATURED_CTL_PUT_FILE_H

#include "context.h"
#include "progress.h"

/* Long enough for a consumer to make room, short enough for a person to wait. */
#define PUT_DEADLINE_MS 10000u
#define OPTION_PUT_DEADLINE                                                                        \
    {                                                                                              \
        .name = "deadline", .kind = OPTION_DURATION, .argument = "TIME",                           \
        .help = "wait that long for room in a full store (default 10s)"                            \
    }

/* id: NULL = the file's base name without ".safetensors". progress: counts on from done.
 * Reports trouble, naming the file. *ref_out: freed by the caller. */
int put_file(struct context *context, struct feature_store *store, const char *path, const char *id,
             uint32_t deadline_ms, struct progress *progress, struct feature_ref **ref_out);
/* The file's size, 0 when it cannot be had: for progress bars. */
uint64_t put_file_bytes(const char *path);
/* The id that `path` gets by default; freed with free(). */
char *put_file_id(const char *path);

#endif
