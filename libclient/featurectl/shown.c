/* SPDX-License-Identifier: Apache-2.0
 *
 * No state.
 *
 * Names come from files, from other programs and from other nodes, and may hold anything:
 * control characters that steer a terminal, or bytes that are no UTF-8. For people those become
 * \xNN. In JSON a string that is UTF-8 is kept as it is, and any other is marked and written in
 * bytes, so that the original can be got back.
 */
#include "featurectl/shown.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "featurectl/memory.h"
#include "proto/text.h"

char *shown_bytes(const char *text, size_t bytes) {
    size_t room = text_escape(NULL, 0, text, bytes) + 1;
    char *shown = memory_grow(NULL, room, 1);
    text_escape(shown, room, text, bytes);
    return shown;
}

char *shown_text(const char *text) {
    return shown_bytes(text, strlen(text));
}

/* "\bytes:" and then printable characters as they are, all others as \xNN. */
static json_t *shown_json_marked(const char *text, size_t bytes) {
    char *marked = memory_grow(NULL, strlen(SHOWN_BYTES_MARK) + 4 * bytes + 1, 1);
    size_t used = (size_t)sprintf(marked, SHOWN_BYTES_MARK);
    for (size_t i = 0; i < bytes; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c >= 0x20 && c < 0x7f && c != '\\')
            marked[used++] = (char)c;
        else
            used += (size_t)sprintf(marked + used, "\\x%02x", c);
    }
    json_t *json = json_stringn(marked, used);
    free(marked);
    return json;
}

/* A text that begins with the mark by itself is marked, too: otherwise a reader could not tell
 * the two apart.
 */
json_t *shown_json_bytes(const char *text, size_t bytes) {
    size_t mark_bytes = strlen(SHOWN_BYTES_MARK);
    bool marked = bytes >= mark_bytes && memcmp(text, SHOWN_BYTES_MARK, mark_bytes) == 0;
    if (marked || !text_is_utf8(text, bytes))
        return shown_json_marked(text, bytes);
    return json_stringn_nocheck(text, bytes);
}

json_t *shown_json(const char *text) {
    return text ? shown_json_bytes(text, strlen(text)) : json_null();
}
