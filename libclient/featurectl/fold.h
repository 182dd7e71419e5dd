/* SPDX-License-Identifier: Apache-2.0
 *
 * Long text in a terminal of so many columns: folded at blanks, as a person would write it. Texts
 * are UTF-8; a character counts as one column.
 */
#ifndef FEATURED_CTL_FOLD_H
#define FEATURED_CTL_FOLD_H

#include <stddef.h>
#include <stdio.h>

/* Columns of what `out` leads to: $COLUMNS if it is set, else those of the terminal. 0: neither a
 * terminal nor a wish, so that nothing is folded and each row stays one line for grep and awk. */
size_t fold_columns(FILE *out);
/* How many columns a text takes. */
size_t fold_width(const char *text);
/* Prints `text` and a newline. The first line begins at column `at`, further ones are indented to
 * `indent`. A word that is longer than a line is not cut. columns: 0 = do not fold; then the text
 * is printed as it is. Else each run of blanks and newlines becomes one blank. */
void fold_print(FILE *out, const char *text, size_t at, size_t indent, size_t columns);

#endif
