/* SPDX-License-Identifier: Apache-2.0
 *
 * Refs as people hand them around: URI, base64 of the encoded ref, STORE/SAMPLE, or a line of a
 * manifest (manifest.h).
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
    bool replaced;           /* for refs_keep_last() */
};
struct targets {
    struct target *list;
    size_t count;
    int damage; /* FEATURE_OK, or the status of those that could not be used, already reported */
};

/* Adds what `text` names. Returns FEATURE_OK, or FEATURE_E_INVALID with a sentence. */
int refs_add(struct targets *targets, const char *text, char *why, size_t why_bytes);
/* Takes the ref over. */
void refs_add_ref(struct targets *targets, const char *text, struct feature_ref *ref);
/* Of those from `from` on that name one sample the last stays; with `one`, of all of them. */
void refs_keep_last(struct targets *targets, size_t from, bool one);
void refs_free(struct targets *targets);

/* The key to hand to libfeature; borrowed from the target. */
struct feature_key refs_key(const struct target *target);

/* NULL when it does not decode. */
struct feature_ref *refs_from_base64(const char *text);
/* A manifest's line. NULL when the ref cannot be encoded. */
json_t *refs_to_json(const struct feature_ref *ref);
/* Freed with free(); NULL when it cannot be encoded. */
char *refs_to_base64(const struct feature_ref *ref);
char *refs_to_uri(const struct feature_ref *ref);

#endif
