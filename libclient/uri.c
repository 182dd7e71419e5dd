/* SPDX-License-Identifier: Apache-2.0
 *
 * feature://STORE/SAMPLE?generation=G&home=NODE&incarnation=I by RFC 3986: in SAMPLE everything but
 * unreserved characters and '/' is percent-encoded; names of stores and nodes need no encoding;
 * numbers are decimal.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "limit.h"
#include "ref.h"

#define SCHEME "feature://"
/* scheme, store, 3 bytes for each of the sample's, home, keys, two numbers of 20 digits */
#define URI_BYTES_MAX (10 + 64 + 1 + 3 * 128 + 64 + 40 + 40 + 1)

/* The unreserved characters of RFC 3986, and "/": a sample_id that looks like a path stays
 * readable. */
static bool uri_is_plain(unsigned char c) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
           (c && strchr("-._~/", c));
}

/* Everything that is not plain becomes %XX, byte by byte, so UTF-8 comes back as it was. out has
 * room for three times as many bytes. */
static void uri_encode(const char *text, char *out) {
    static const char digits[] = "0123456789ABCDEF";
    for (const unsigned char *s = (const unsigned char *)text; *s; s++) {
        if (uri_is_plain(*s)) {
            *out++ = (char)*s;
            continue;
        }
        *out++ = '%';
        *out++ = digits[*s >> 4];
        *out++ = digits[*s & 15];
    }
    *out = 0;
}

/* The size is told also when there is no room, so that a caller can ask for it first. The specs are
 * left out: they would make the URI as long as the ref itself. */
int feature_ref_to_uri(const struct feature_ref *ref, char *buffer, size_t room,
                       size_t *bytes_out) {
    char uri[URI_BYTES_MAX], sample[3 * LAYOUT_ID_BYTES_MAX + 1], incarnation[40] = "";
    FC_NEEDS(ref);
    FC_NEEDS(bytes_out);
    FC_NEEDS(buffer || !room);
    uri_encode(ref->sample_id, sample);
    if (ref->incarnation)
        snprintf(incarnation, sizeof incarnation, "&incarnation=%" PRIu64, ref->incarnation);
    int length = snprintf(uri, sizeof uri, SCHEME "%s/%s?generation=%" PRIu64 "&home=%s%s",
                          ref->store, sample, ref->generation, ref->home, incarnation);
    *bytes_out = (size_t)length + 1;
    if (room < *bytes_out)
        return fc_fail(FEATURE_E_FULL, "the URI needs %zu bytes, there is room for %zu", *bytes_out,
                       room);
    memcpy(buffer, uri, *bytes_out);
    return FEATURE_OK;
}

/* -1: no such digit. Both cases are taken, as other programs write either. */
static int uri_hex(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Decodes text in place; false on a broken escape or an encoded NUL. */
static bool uri_decode(char *text) {
    char *out = text;
    for (const char *s = text; *s; s++) {
        int value = (unsigned char)*s;
        if (*s == '%') {
            int high = uri_hex(s[1]), low = high < 0 ? -1 : uri_hex(s[2]);
            value = low < 0 ? 0 : high * 16 + low;
            if (!value)
                return false;
            s += 2;
        } else if (!uri_is_plain((unsigned char)*s)) {
            return false;
        }
        *out++ = (char)value;
    }
    *out = 0;
    return true;
}

/* strtoull() alone would take a sign, blanks and an overflow without a word. 0 is no generation
 * and no incarnation. */
static bool uri_parse_number(const char *text, uint64_t *out) {
    char *end;
    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    *out = value;
    return !errno && !*end && value;
}

/* What has been found so far; 0 and NULL: not yet. A parameter that comes twice is refused, since
 * nobody could say which of the two was meant. */
struct query {
    uint64_t generation, incarnation;
    const char *home;
};

/* A parameter that is not known is refused rather than passed over: it may be one without which a
 * later version would not have found the sample. */
static const char *uri_parse_parameter(char *parameter, struct query *query) {
    char *value = strchr(parameter, '=');
    if (!value)
        return "has a parameter without a value";
    *value++ = 0;
    if (!strcmp(parameter, "home") && !query->home) {
        query->home = value;
        return layout_check_name(value) ? "has a home that is not a node's name" : NULL;
    }
    if (!strcmp(parameter, "generation") && !query->generation)
        return uri_parse_number(value, &query->generation) ? NULL
                                                           : "has a generation that is no number";
    if (!strcmp(parameter, "incarnation") && !query->incarnation)
        return uri_parse_number(value, &query->incarnation)
                   ? NULL
                   : "has an incarnation that is no number";
    return "has a parameter that is repeated or not known";
}

static const char *uri_parse_query(char *text, struct query *query) {
    char *rest = text, *parameter;
    while ((parameter = strsep(&rest, "&"))) {
        const char *wrong = uri_parse_parameter(parameter, query);
        if (wrong)
            return wrong;
    }
    return query->generation && query->home ? NULL : "needs generation= and home=";
}

/* uri: behind the scheme; it is taken apart in place. Nothing that it names is looked up: whether
 * the sample exists is for a get to say. */
static const char *uri_parse(char *uri, struct feature_ref **out) {
    char *sample = strchr(uri, '/'), *parameters = strchr(uri, '?');
    if (!sample || !parameters || parameters < sample)
        return "is not " SCHEME "STORE/SAMPLE?generation=G&home=NODE";
    *sample++ = 0;
    *parameters++ = 0;
    if (layout_check_name(uri))
        return "has a store's name that is not valid";
    if (!uri_decode(sample) || layout_check_sample_id(sample))
        return "has a sample_id that is not valid";
    struct query query = {0};
    const char *wrong = uri_parse_query(parameters, &query);
    if (wrong)
        return wrong;
    struct feature_ref *ref = fc_ref_new(uri, sample);
    if (!ref)
        return fc_wrong_memory;
    fc_ref_set_home(ref, query.generation, query.home, query.incarnation);
    *out = ref;
    return NULL;
}

/* A URI comes from command lines, files and other people. It is copied first, as it is taken apart
 * in place, and its length is bounded by what the longest names can make. */
int feature_ref_from_uri(const char *uri, struct feature_ref **out) {
    char copy[URI_BYTES_MAX];
    const size_t scheme_bytes = sizeof SCHEME - 1;
    FC_NEEDS(uri);
    FC_NEEDS(out);
    if (strncmp(uri, SCHEME, scheme_bytes))
        return fc_fail(FEATURE_E_INVALID, "'%.100s' does not begin with " SCHEME, uri);
    if (strlen(uri) >= sizeof copy)
        return fc_fail(FEATURE_E_INVALID, "a URI of %zu bytes is no ref: at most %zu", strlen(uri),
                       sizeof copy - 1);
    memcpy(copy, uri, strlen(uri) + 1);
    const char *wrong = uri_parse(copy + scheme_bytes, out);
    if (wrong == fc_wrong_memory)
        return fc_fail_memory("read a ref");
    return wrong ? fc_fail(FEATURE_E_INVALID, "'%.300s' %s", uri, wrong) : FEATURE_OK;
}
