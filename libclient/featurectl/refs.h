/* SPDX-License-Identifier: Apache-2.0
 *
 * Refs as people hand them around: URI, base64 of the encoded ref, STORE/SAMPLE, or a line of a
 * manifest.
 *
 * A manifest is a text file with one JSON object a line: {"store", "sample_id", "uri", "ref",
 * "bytes"}, where "ref" is the encoded ref in base64. Other keys are ignored.
 */
#ifndef FEATURED_CTL_REFS_H
#define FEATURED_CTL_REFS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "feature.h"

/* What a command acts on. */
struct target {
    char *text;              /* as the user wrote it, for sentences */
    char *store, *sample_id; /* always set */
    struct feature_ref *ref; /* NULL = by id, whatever generation is current */
};
struct targets {
    struct target *list;
    size_t count;
};

/* Adds what `text` names. Returns FEATURE_OK, or FEATURE_E_INVALID with a sentence. */
int refs_add(struct targets *targets, const char *text, char *why, size_t why_bytes);
/* Adds the lines of a manifest whose sample_id is `sample_id`; NULL = all lines. FEATURE_OK,
 * FEATURE_E_INVALID (line number in the sentence), FEATURE_E_NOT_FOUND or CTL_E_LOCAL. Of several
 * lines with the wanted id only the last counts: a later put has superseded the earlier ones. */
int refs_add_manifest(struct targets *targets, const char *path, const char *sample_id, char *why,
                      size_t why_bytes);
void refs_free(struct targets *targets);

/* The key to hand to libfeature; borrowed from the target. */
struct feature_key refs_key(const struct target *target);

/* A manifest's line. NULL when the ref cannot be encoded. */
json_t *refs_to_json(const struct feature_ref *ref);
/* Freed with free(); NULL when it cannot be encoded. */
char *refs_to_base64(const struct feature_ref *ref);
char *refs_to_uri(const struct feature_ref *ref);

#endif
