/* SPDX-License-Identifier: Apache-2.0
 *
 * What a directory holds that a store was exported to:
 *
 *   export.json      which store, and its settings
 *   manifest.jsonl   a line for each sample that was written (manifest.h), with the key "file"
 *   ID.safetensors   the samples
 *
 * A file comes before its line, and appears complete or not at all. So a line proves that its file
 * is there, and whoever finds a sample's generation in the manifest need not write it again.
 */
#ifndef FEATURED_CTL_EXPORT_DIR_H
#define FEATURED_CTL_EXPORT_DIR_H

#include <stdbool.h>
#include <stddef.h>

#include "admin.h"

#define EXPORT_SETTINGS "export.json"
#define EXPORT_MANIFEST "manifest.jsonl"

/* DIR/NAME. Freed with free(). */
char *export_path(const char *directory, const char *name);
/* The file of a sample: its id, with %XX for what a file name may not have or a shell would take
 * apart; a long id is cut and ends with its hash. Freed with free(). */
char *export_file_name(const char *sample_id);

/* Makes the directory if it is not there, takes its lock (one export at a time), and removes what
 * an export that was killed has left half written. *lock_out: closed by the caller. 0, or -errno
 * with a sentence that does not repeat the path. */
int export_begin(const char *directory, int *lock_out, char *why, size_t why_bytes);

struct export_settings {
    char store[132];
    struct feature_store_options options; /* no secret */
};
/* Writes export.json; refuses a directory that holds another store's. Returns as above. */
int export_settings_write(const char *directory, const Fb__StoreInfo *store, char *why,
                          size_t why_bytes);
/* -ENOENT without a sentence: it is no directory of an export. */
int export_settings_read(const char *directory, struct export_settings *out, char *why,
                         size_t why_bytes);

#endif
