/* SPDX-License-Identifier: Apache-2.0
 *
 * jansson refuses keys with a NUL character, which JSON, and so a safetensors file, may have. While
 * it reads, another character that the text has nowhere stands in for NUL. Pure.
 */
#ifndef FEATURED_CTL_JSON_NUL_H
#define FEATURED_CTL_JSON_NUL_H

#include <stddef.h>

/* A character in UTF-8 that stands for NUL; "" = none is needed. */
struct json_nul {
    char mark[4];
};

/* A copy of JSON text, `bytes` long too, in which the mark's escape stands for each \u0000. Freed
 * with free(). NULL when there is nothing to hide, or no mark to be had: the text is then to be
 * read as it is. */
char *json_nul_hide(const char *text, size_t bytes, struct json_nul *out);
/* Of text that jansson wrote without JSON_ENSURE_ASCII: frees it and returns it with \u0000 again.
 * Freed with free(). */
char *json_nul_show(char *text, const struct json_nul *nul);

#endif
