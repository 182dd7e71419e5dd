/* SPDX-License-Identifier: Apache-2.0
 *
 * Manifests: text files with one JSON object a line, {"store", "sample_id", "uri", "ref", "bytes"},
 * where "ref" is the encoded ref in base64. Other keys are ignored.
 *
 * Lines are only ever added, each whole in one write(2) under an exclusive flock(2). Some file
 * systems show a write that crosses pages before it is complete: a reader that meets the end of the
 * file within a line looks again under a shared lock. Of several lines of one sample the last
 * counts: a later put has superseded the others.
 */
#ifndef FEATURED_CTL_MANIFEST_H
#define FEATURED_CTL_MANIFEST_H

#include "featurectl/refs.h"

/* Takes a lock (LOCK_SH, LOCK_EX), to be given back with flock(fd, LOCK_UN). Whoever holds it for
 * seconds is not waited for: a line is whole in all but a moment without it too. */
void manifest_lock(int fd, int operation);

/* ---- reading ---- */

/* A line that cannot be used, counted from 1, and why; or, with line 0, something about all. */
typedef void (*manifest_say_fn)(void *context, size_t line, const char *why);

/* Adds the lines whose sample_id is `sample_id` (the last one alone); NULL = all, of each sample
 * the last. path "-" is standard input. Blank lines are skipped. So is what cannot be used, after
 * it has been said; unless it is the end of a file that somebody still writes to, targets->damage
 * is then FEATURE_E_INVALID. FEATURE_OK; or with a sentence FEATURE_E_NOT_FOUND (no line),
 * FEATURE_E_INVALID (no line could be used) or CTL_E_LOCAL (the file cannot be read). */
int manifest_read(struct targets *targets, const char *path, const char *sample_id,
                  manifest_say_fn say, void *context, char *why, size_t why_bytes);

/* ---- writing ---- */

struct manifest {
    int fd;
    bool regular; /* a file that keeps what was there; else a pipe, a terminal, a device */
};

/* What there is stays. 0, or -errno with a sentence that does not repeat the path. */
int manifest_open(const char *path, struct manifest *out, char *why, size_t why_bytes);
/* Is there room for the line of a sample that is about to be put, with so many bytes of further
 * keys? Takes it, where the file system can. Returns as manifest_open(). */
int manifest_expect(const struct manifest *manifest, const char *store,
                    const struct feature_sample *sample, size_t more_bytes, char *why,
                    size_t why_bytes);
/* One line: all of it or nothing is there afterwards. more: further keys of the line, taken over;
 * NULL = none. Returns as manifest_open(). */
int manifest_add(const struct manifest *manifest, const struct feature_ref *ref, json_t *more,
                 char *why, size_t why_bytes);
/* All lines are on disk. Returns as manifest_open(). */
int manifest_close(struct manifest *manifest, char *why, size_t why_bytes);

#endif
