/* SPDX-License-Identifier: Apache-2.0
 *
 * Marks are the noncharacters U+FDD0 to U+FDEF, which the Unicode Standard (23.7) keeps for uses
 * like this one.
 *
 * jansson keeps strings as C strings and so cannot tell a string that has a NUL character within
 * from a shorter one. Every NUL (in JSON always the escape) is replaced by a mark before
 * parsing; whoever finds the mark in a string knows what stood there. The mark is a character
 * that the text does not contain.
 */
#include "featurectl/json_nul.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "featurectl/memory.h"

#define MARK_FIRST   0xfdd0u
#define MARK_LAST    0xfdefu
#define ESCAPE_BYTES 6u /* \uXXXX */

static bool json_nul_is_escape(const char *at, const char *end, const char *digits) {
    return end - at >= (ptrdiff_t)ESCAPE_BYTES && at[0] == '\\' && at[1] == 'u' &&
           strncasecmp(at + 2, digits, 4) == 0;
}

/* Calls for the escape of `from` in every string; replaces its digits by those of `to` unless NULL.
 * How many there are. */
static size_t json_nul_replace_escapes(char *text, size_t bytes, const char *from, const char *to) {
    size_t count = 0;
    const char *end = text + bytes;
    for (char *at = text; (at = memchr(at, '\\', (size_t)(end - at))) != NULL;) {
        if (json_nul_is_escape(at, end, from)) {
            count++;
            if (to)
                memcpy(at + 2, to, 4);
        }
        at += end - at < 2 ? 1 : 2; /* what follows a backslash is no backslash of its own */
    }
    return count;
}

/* The first mark that the text has neither as itself nor escaped; false when it has all. */
static bool json_nul_choose_mark(char *text, size_t bytes, char digits[5], struct json_nul *out) {
    for (unsigned code = MARK_FIRST; code <= MARK_LAST; code++) {
        snprintf(out->mark, sizeof out->mark, "\xef\xb7%c", (char)(0x80 | (code & 0x3f)));
        snprintf(digits, 5, "%04x", code);
        if (!memmem(text, bytes, out->mark, 3) &&
            !json_nul_replace_escapes(text, bytes, digits, NULL))
            return true;
    }
    return false;
}

/* NULL: there is nothing to hide, or no mark is free; the text is parsed as it is, and jansson
 * refuses what it cannot keep.
 */
char *json_nul_hide(const char *text, size_t bytes, struct json_nul *out) {
    char digits[5];
    *out = (struct json_nul){{0}};
    if (!memmem(text, bytes, "\\u0000", ESCAPE_BYTES))
        return NULL;
    char *copy = memcpy(memory_grow(NULL, bytes, 1), text, bytes);
    struct json_nul nul;
    if (!json_nul_choose_mark(copy, bytes, digits, &nul) ||
        !json_nul_replace_escapes(copy, bytes, "0000", digits)) {
        free(copy);
        return NULL;
    }
    *out = nul;
    return copy;
}

/* Takes over the text and gives it back with every mark turned into the escape again. */
char *json_nul_show(char *text, const struct json_nul *nul) {
    if (!*nul->mark)
        return text;
    char *shown = memory_grow(NULL, 2 * strlen(text) + 1, 1); /* 3 bytes become 6 */
    size_t used = 0;
    for (const char *at = text; *at;)
        if (strncmp(at, nul->mark, 3) == 0) {
            memcpy(shown + used, "\\u0000", ESCAPE_BYTES);
            used += ESCAPE_BYTES;
            at += 3;
        } else {
            shown[used++] = *at++;
        }
    shown[used] = '\0';
    free(text);
    return shown;
}
