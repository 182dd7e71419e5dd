/* SPDX-License-Identifier: Apache-2.0
 *
 * Forms are told apart by trial: a URI by its scheme, base64 by decoding to a ref (it begins with
 * magic bytes, so nothing else does), all else must be STORE/SAMPLE.
 *
 * A target is what a command works on: a store and a sample, with a ref where one was given. A
 * list of targets owns its strings and refs, and refs_free() frees all.
 */
#include "featurectl/refs.h"

#include <sodium.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "featurectl/memory.h"

#define URI_SCHEME "feature://"

/* The text is kept as it was given: sentences about this target name it so. */
static struct target *refs_append(struct targets *targets, const char *text) {
    targets->list = memory_grow(targets->list, targets->count + 1, sizeof *targets->list);
    struct target *target = &targets->list[targets->count++];
    *target = (struct target){.text = memory_copy(text)};
    return target;
}

/* Takes over the ref. Store and id are copied out of it, so that targets of all forms look
 * alike.
 */
void refs_add_ref(struct targets *targets, const char *text, struct feature_ref *ref) {
    struct target *target = refs_append(targets, text);
    target->store = memory_copy(feature_ref_store(ref));
    target->sample_id = memory_copy(feature_ref_sample_id(ref));
    target->ref = ref;
}

/* NULL: not base64, or not of a ref. Newlines are passed over, since base64(1) breaks its lines. */
struct feature_ref *refs_from_base64(const char *text) {
    size_t room = strlen(text) / 4 * 3 + 3, bytes;
    uint8_t *binary = memory_grow(NULL, room, 1);
    struct feature_ref *ref = NULL;
    if (sodium_base642bin(binary, room, text, strlen(text), "\n", &bytes, NULL,
                          sodium_base64_VARIANT_ORIGINAL) != 0 ||
        feature_ref_decode(binary, bytes, &ref) != FEATURE_OK)
        ref = NULL;
    free(binary);
    return ref;
}

/* A URI is never taken for STORE/SAMPLE, even a malformed one: the error of the URI is what
 * helps. A sample id may contain slashes; the store ends at the first.
 */
int refs_add(struct targets *targets, const char *text, char *why, size_t why_bytes) {
    struct feature_ref *ref = NULL;
    if (strncmp(text, URI_SCHEME, strlen(URI_SCHEME)) == 0) {
        int status = feature_ref_from_uri(text, &ref);
        if (status)
            snprintf(why, why_bytes, "%s", feature_last_error());
        else
            refs_add_ref(targets, text, ref);
        return status;
    }
    ref = refs_from_base64(text);
    const char *slash = strchr(text, '/');
    if (ref) {
        refs_add_ref(targets, text, ref);
    } else if (slash && slash > text && slash[1]) {
        struct target *target = refs_append(targets, text);
        target->store = memory_print("%.*s", (int)(slash - text), text);
        target->sample_id = memory_copy(slash + 1);
    } else {
        snprintf(why, why_bytes,
                 "is no ref: wanted feature://STORE/SAMPLE?..., STORE/SAMPLE, or a ref in base64");
        return FEATURE_E_INVALID;
    }
    return FEATURE_OK;
}

static void refs_clear(struct target *target) {
    free(target->text);
    free(target->store);
    free(target->sample_id);
    feature_ref_free(target->ref);
}

/* By store and sample; of one sample those that were added later come first. */
static int refs_compare(const void *a, const void *b) {
    const struct target *left = *(struct target *const *)a, *right = *(struct target *const *)b;
    int order = strcmp(left->store, right->store);
    order = order ? order : strcmp(left->sample_id, right->sample_id);
    return order ? order : left > right ? -1 : left < right;
}

/* Generations are not compared: two lines of one sample are about two of its generations. */
static bool refs_same_sample(const struct target *one, const struct target *other) {
    return strcmp(one->store, other->store) == 0 && strcmp(one->sample_id, other->sample_id) == 0;
}

/* The targets stay where they are while they are compared, so that their place tells their age. */
static void refs_mark_replaced(const struct targets *targets, size_t from) {
    size_t count = targets->count - from;
    struct target **sorted = memory_grow(NULL, count, sizeof(struct target *));
    for (size_t i = 0; i < count; i++)
        sorted[i] = &targets->list[from + i];
    qsort(sorted, count, sizeof(struct target *), refs_compare);
    for (size_t i = 1; i < count; i++)
        sorted[i]->replaced = refs_same_sample(sorted[i - 1], sorted[i]);
    free(sorted);
}

/* A manifest is only ever added to, so that a sample that was put again has several lines. The last
 * one names the generation that is current. */
void refs_keep_last(struct targets *targets, size_t from, bool one) {
    size_t kept = from;
    if (targets->count == from)
        return;
    refs_mark_replaced(targets, from);
    for (size_t i = from; i < targets->count; i++)
        if (targets->list[i].replaced || (one && i + 1 < targets->count))
            refs_clear(&targets->list[i]);
        else
            targets->list[kept++] = targets->list[i];
    targets->count = kept;
}

void refs_free(struct targets *targets) {
    for (size_t i = 0; i < targets->count; i++)
        refs_clear(&targets->list[i]);
    free(targets->list);
    *targets = (struct targets){0};
}

/* Without a ref the library looks for whatever generation is current. */
struct feature_key refs_key(const struct target *target) {
    struct feature_key key = FEATURE_KEY_INIT;
    if (target->ref)
        key.ref = target->ref;
    else
        key.sample_id = target->sample_id;
    return key;
}

/* The library first says how many bytes it needs (room 0), then writes them. NULL: the ref
 * cannot be encoded.
 */
char *refs_to_base64(const struct feature_ref *ref) {
    size_t bytes = 0;
    feature_ref_encode(ref, NULL, 0, &bytes);
    uint8_t *binary = memory_grow(NULL, bytes, 1);
    char *text = NULL;
    if (feature_ref_encode(ref, binary, bytes, &bytes) == FEATURE_OK) {
        size_t room = sodium_base64_ENCODED_LEN(bytes, sodium_base64_VARIANT_ORIGINAL);
        text = memory_grow(NULL, room, 1);
        sodium_bin2base64(text, room, binary, bytes, sodium_base64_VARIANT_ORIGINAL);
    }
    free(binary);
    return text;
}

/* A URI carries names and generation, and no tensors. NULL as above. */
char *refs_to_uri(const struct feature_ref *ref) {
    size_t bytes = 0;
    feature_ref_to_uri(ref, NULL, 0, &bytes);
    char *uri = memory_grow(NULL, bytes + 1, 1);
    if (feature_ref_to_uri(ref, uri, bytes + 1, &bytes) == FEATURE_OK)
        return uri;
    free(uri);
    return NULL;
}

/* The object that a line of a manifest consists of, and that `put --json` prints. NULL as above. */
json_t *refs_to_json(const struct feature_ref *ref) {
    char *uri = refs_to_uri(ref), *base64 = refs_to_base64(ref);
    json_t *line = NULL;
    if (uri && base64)
        line = json_pack("{s:s, s:s, s:s, s:s, s:I}", "store", feature_ref_store(ref), "sample_id",
                         feature_ref_sample_id(ref), "uri", uri, "ref", base64, "bytes",
                         (json_int_t)feature_ref_bytes(ref));
    free(uri);
    free(base64);
    return line;
}
