/* SPDX-License-Identifier: Apache-2.0
 *
 * No state. Words are put on a line for as long as they fit, which is what fmt(1) and fold(1) -s
 * do.
 */
#include "featurectl/fold.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* With less room than that a text is not folded: it would be one word a line. */
#define FOLD_ROOM_MIN 24u
/* Below this $COLUMNS is taken for a mistake. */
#define FOLD_COLUMNS_MIN 40

#define BLANKS " \t\r\n"

/* $COLUMNS goes first, so that a person can say how wide a file or a pipe is to be; shells do
 * not export it by themselves.
 */
size_t fold_columns(FILE *out) {
    const char *wish = getenv("COLUMNS");
    int columns = wish ? atoi(wish) : 0;
    struct winsize size;
    if (columns >= FOLD_COLUMNS_MIN)
        return (size_t)columns;
    if (!isatty(fileno(out)) || ioctl(fileno(out), TIOCGWINSZ, &size) != 0)
        return 0;
    return size.ws_col;
}

/* Characters, not bytes: UTF-8 continuation bytes take no column. */
static size_t fold_width_of(const char *text, size_t bytes) {
    size_t width = 0;
    for (size_t i = 0; i < bytes; i++)
        width += ((unsigned char)text[i] & 0xc0) != 0x80;
    return width;
}

size_t fold_width(const char *text) {
    return fold_width_of(text, strlen(text));
}

/* A line has at least one word, however long. */
void fold_print(FILE *out, const char *text, size_t at, size_t indent, size_t columns) {
    if (columns < indent + FOLD_ROOM_MIN) {
        fprintf(out, "%s\n", text);
        return;
    }
    bool first = true; /* of its line */
    for (text += strspn(text, BLANKS); *text; text += strspn(text, BLANKS)) {
        size_t bytes = strcspn(text, BLANKS), width = fold_width_of(text, bytes);
        if (!first && at + 1 + width > columns) {
            fprintf(out, "\n%*s", (int)indent, "");
            at = indent;
            first = true;
        }
        fprintf(out, "%s%.*s", first ? "" : " ", (int)bytes, text);
        at += width + !first;
        first = false;
        text += bytes;
    }
    fputc('\n', out);
}
