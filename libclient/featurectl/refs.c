/* SPDX-License-Identifier: Apache-2.0
 *
 * Forms are told apart by trial: a URI by its scheme, base64 by decoding to a ref (it begins with
 * magic bytes, so nothing else does), all else must be STORE/SAMPLE.
 */
#include "refs.h"

#include <errno.h>
#include <sodium.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "exit_code.h"
#include "memory.h"

#define URI_SCHEME "feature://"

static struct target *append(struct targets *targets, const char *text) {
    targets->list = memory_grow(targets->list, targets->count + 1, sizeof *targets->list);
    struct target *target = &targets->list[targets->count++];
    *target = (struct target){.text = memory_copy(text)};
    return target;
}

static void add_ref(struct targets *targets, const char *text, struct feature_ref *ref) {
    struct target *target = append(targets, text);
    target->store = memory_copy(feature_ref_store(ref));
    target->sample_id = memory_copy(feature_ref_sample_id(ref));
    target->ref = ref;
}

static struct feature_ref *decode_base64(const char *text) {
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

int refs_add(struct targets *targets, const char *text, char *why, size_t why_bytes) {
    struct feature_ref *ref = NULL;
    if (strncmp(text, URI_SCHEME, strlen(URI_SCHEME)) == 0) {
        int status = feature_ref_from_uri(text, &ref);
        if (status)
            snprintf(why, why_bytes, "%s", feature_last_error());
        else
            add_ref(targets, text, ref);
        return status;
    }
    ref = decode_base64(text);
    const char *slash = strchr(text, '/');
    if (ref) {
        add_ref(targets, text, ref);
    } else if (slash && slash > text && slash[1]) {
        struct target *target = append(targets, text);
        target->store = memory_print("%.*s", (int)(slash - text), text);
        target->sample_id = memory_copy(slash + 1);
    } else {
        snprintf(why, why_bytes,
                 "is no ref: wanted feature://STORE/SAMPLE?..., STORE/SAMPLE, or a ref in base64");
        return FEATURE_E_INVALID;
    }
    return FEATURE_OK;
}

/* The ref of a line when its id is wanted. FEATURE_OK with *ref_out NULL: a line to skip. */
static int parse_line(const char *line, size_t line_bytes, const char *sample_id,
                      struct feature_ref **ref_out) {
    json_t *object = json_loadb(line, line_bytes, JSON_REJECT_DUPLICATES, NULL);
    const char *id = json_string_value(json_object_get(object, "sample_id"));
    const char *base64 = json_string_value(json_object_get(object, "ref"));
    int status = FEATURE_OK;
    *ref_out = NULL;
    if (!id || !base64)
        status = FEATURE_E_INVALID;
    else if (!sample_id || strcmp(id, sample_id) == 0)
        status = (*ref_out = decode_base64(base64)) ? FEATURE_OK : FEATURE_E_INVALID;
    json_decref(object);
    return status;
}

static void clear(struct target *target) {
    free(target->text);
    free(target->store);
    free(target->sample_id);
    feature_ref_free(target->ref);
}

static int read_lines(FILE *file, struct targets *targets, const char *sample_id, char *why,
                      size_t why_bytes) {
    char *line = NULL;
    size_t room = 0;
    ssize_t length;
    int status = FEATURE_OK;
    size_t before = targets->count;
    for (size_t number = 1; !status && (length = getline(&line, &room, file)) >= 0; number++) {
        struct feature_ref *ref = NULL;
        status = parse_line(line, (size_t)length, sample_id, &ref);
        if (status)
            snprintf(why, why_bytes,
                     "line %zu is not a manifest's: wanted an object with sample_id and ref",
                     number);
        if (ref && sample_id && targets->count > before)
            clear(&targets->list[--targets->count]);
        if (ref)
            add_ref(targets, feature_ref_sample_id(ref), ref);
    }
    free(line);
    return status;
}

int refs_add_manifest(struct targets *targets, const char *path, const char *sample_id, char *why,
                      size_t why_bytes) {
    FILE *file = fopen(path, "re");
    if (!file) {
        snprintf(why, why_bytes, "cannot be opened: %s", strerror(errno));
        return CTL_E_LOCAL;
    }
    size_t before = targets->count;
    int status = read_lines(file, targets, sample_id, why, why_bytes);
    fclose(file);
    if (!status && targets->count == before) {
        snprintf(why, why_bytes, "no line%s%s", sample_id ? " with sample_id " : "",
                 sample_id ? sample_id : "");
        return FEATURE_E_NOT_FOUND;
    }
    return status;
}

void refs_free(struct targets *targets) {
    for (size_t i = 0; i < targets->count; i++)
        clear(&targets->list[i]);
    free(targets->list);
    *targets = (struct targets){0};
}

struct feature_key refs_key(const struct target *target) {
    if (target->ref)
        return (struct feature_key){.ref = target->ref};
    return (struct feature_key){.sample_id = target->sample_id};
}

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

char *refs_to_uri(const struct feature_ref *ref) {
    size_t bytes = 0;
    feature_ref_to_uri(ref, NULL, 0, &bytes);
    char *uri = memory_grow(NULL, bytes + 1, 1);
    if (feature_ref_to_uri(ref, uri, bytes + 1, &bytes) == FEATURE_OK)
        return uri;
    free(uri);
    return NULL;
}

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
