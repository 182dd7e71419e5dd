/* SPDX-License-Identifier: Apache-2.0
 *
 * Text that others wrote (names of files, samples and clients, sentences of brokers), for people
 * and for programs.
 *
 * People see text_escape()'s form, which a terminal cannot obey. Programs get all of it: text that
 * is UTF-8 as it is; what JSON cannot hold, because it is no UTF-8, as SHOWN_BYTES_MARK followed by
 * its bytes, where backslashes and whatever is no printable ASCII are \xNN. Text that begins with
 * the mark by itself gets that form too, so that the mark always means it.
 */
#ifndef FEATURED_CTL_SHOWN_H
#define FEATURED_CTL_SHOWN_H

#include <jansson.h>
#include <stddef.h>

#define SHOWN_BYTES_MARK "\\bytes:"

/* For people; freed with free(). */
char *shown_text(const char *text);
char *shown_bytes(const char *text, size_t bytes);
/* For programs; null for NULL. */
json_t *shown_json(const char *text);
json_t *shown_json_bytes(const char *text, size_t bytes);

#endif
