/* SPDX-License-Identifier: Apache-2.0
 *
 * Ref decoding and URI parsing on arbitrary bytes. Whatever is accepted must survive encoding and
 * decoding unchanged.
 */
#include <stdlib.h>
#include <string.h>

#include "feature.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool condition) {
    if (!condition)
        abort();
}

static void check_uri(const struct feature_ref *ref) {
    char uri[1024], again[1024];
    size_t bytes;
    struct feature_ref *parsed;
    check(feature_ref_to_uri(ref, uri, sizeof uri, &bytes) == FEATURE_OK);
    check(strlen(uri) + 1 == bytes);
    check(feature_ref_from_uri(uri, &parsed) == FEATURE_OK);
    check(!strcmp(feature_ref_sample_id(parsed), feature_ref_sample_id(ref)));
    check(feature_ref_generation(parsed) == feature_ref_generation(ref));
    check(feature_ref_to_uri(parsed, again, sizeof again, &bytes) == FEATURE_OK);
    check(!strcmp(uri, again));
    feature_ref_free(parsed);
}

static void check_encoding(const struct feature_ref *ref) {
    size_t bytes, again_bytes;
    struct feature_ref *decoded;
    feature_ref_encode(ref, NULL, 0, &bytes);
    uint8_t *encoded = malloc(bytes), *again = malloc(bytes);
    check(encoded && again);
    check(feature_ref_encode(ref, encoded, bytes, &bytes) == FEATURE_OK);
    check(feature_ref_decode(encoded, bytes, &decoded) == FEATURE_OK);
    check(feature_ref_tensor_count(decoded) == feature_ref_tensor_count(ref));
    check(feature_ref_encode(decoded, again, bytes, &again_bytes) == FEATURE_OK);
    check(again_bytes == bytes && !memcmp(encoded, again, bytes));
    feature_ref_free(decoded);
    free(encoded);
    free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct feature_ref *ref;
    if (feature_ref_decode(data, size, &ref) == FEATURE_OK) {
        check_encoding(ref);
        check_uri(ref);
        feature_ref_free(ref);
    }
    char *text = strndup((const char *)data, size);
    check(text);
    if (feature_ref_from_uri(text, &ref) == FEATURE_OK) {
        check_encoding(ref);
        check_uri(ref);
        feature_ref_free(ref);
    }
    free(text);
    return 0;
}
