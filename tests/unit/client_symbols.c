/* SPDX-License-Identifier: Apache-2.0
 *
 * What feature.h declares, what the symbol map exports and what the version is: three places each
 * that must say the same. The header and the map are read as texts, where they lie in the source
 * tree.
 */
#include <criterion/criterion.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "feature.h"
#include "support/payload.h"

#define NAMES_MAX 256u

struct names {
    char name[NAMES_MAX][64];
    size_t count;
};

/* A file of the source tree, with its comments and its lines of the preprocessor left out. */
static char *read_code(const char *path) {
    char full[4096];
    snprintf(full, sizeof full, "%s/../../%s", payload_data_directory(), path);
    FILE *file = fopen(full, "r");
    cr_assert(file, "%s cannot be read", full);
    char *text = calloc(1, 1u << 20);
    size_t bytes = fread(text, 1, (1u << 20) - 1, file), out = 0;
    fclose(file);
    bool line_begins = true;
    for (size_t i = 0; i < bytes; i++) {
        if (!strncmp(text + i, "/*", 2)) {
            i = (size_t)(strstr(text + i, "*/") + 1 - text);
        } else if (line_begins && text[i] == '#') {
            while (i < bytes && (text[i] != '\n' || text[i - 1] == '\\'))
                i++;
        } else {
            line_begins = text[i] == '\n';
            text[out++] = text[i];
        }
    }
    text[out] = '\0';
    return text;
}

/* Every feature_* that `after` stands behind: "(" for functions, ";" for lines of the map. */
static void find_names(const char *text, char after, struct names *out) {
    out->count = 0;
    for (const char *at = text; (at = strstr(at, "feature_")) != NULL;) {
        size_t bytes = 0;
        while (isalnum((unsigned char)at[bytes]) || at[bytes] == '_')
            bytes++;
        bool whole = at == text || (!isalnum((unsigned char)at[-1]) && at[-1] != '_');
        if (whole && at[bytes] == after) {
            cr_assert(out->count < NAMES_MAX && bytes < sizeof out->name[0]);
            memcpy(out->name[out->count], at, bytes);
            out->name[out->count++][bytes] = '\0';
        }
        at += bytes;
    }
}

static int compare_names(const void *a, const void *b) {
    return strcmp(a, b);
}

Test(client_symbols, the_map_exports_what_the_header_declares) {
    struct names declared, exported;
    char *header = read_code("libclient/feature.h"), *map = read_code("libclient/libfeature.map");
    find_names(header, '(', &declared);
    find_names(map, ';', &exported);
    qsort(declared.name, declared.count, sizeof declared.name[0], compare_names);
    qsort(exported.name, exported.count, sizeof exported.name[0], compare_names);
    cr_assert_gt(declared.count, 50);
    for (size_t i = 0; i < declared.count || i < exported.count; i++)
        cr_assert(i < declared.count && i < exported.count &&
                      !strcmp(declared.name[i], exported.name[i]),
                  "feature.h has %s where libfeature.map has %s",
                  i < declared.count ? declared.name[i] : "nothing",
                  i < exported.count ? exported.name[i] : "nothing");
    const char *wildcard = strchr(map, '*'), *local = strstr(map, "local:");
    cr_assert(local && wildcard > local, "the map exports by a wildcard");
    free(header);
    free(map);
}

/* FEATURED_VERSION is the Makefile's, which also goes into feature.pc and the manual pages. */
Test(client_symbols, one_version_for_all) {
    char words[32];
    snprintf(words, sizeof words, "%d.%d.%d", FEATURE_VERSION_MAJOR, FEATURE_VERSION_MINOR,
             FEATURE_VERSION_PATCH);
    cr_assert_str_eq(words, FEATURED_VERSION);
    cr_assert_str_eq(words, feature_version());
    cr_assert_eq(feature_version_number(), FEATURE_VERSION_NUMBER);
    cr_assert_eq(FEATURE_VERSION_NUMBER, FEATURE_VERSION_MAJOR * 10000 +
                                             FEATURE_VERSION_MINOR * 100 + FEATURE_VERSION_PATCH);
}
