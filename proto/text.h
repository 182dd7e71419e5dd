/* SPDX-License-Identifier: Apache-2.0
 *
 * Text that others wrote (names of files, samples, tensors and clients, sentences of a broker) on
 * its way to a terminal or a log. Pure.
 */
#ifndef FEATURED_PROTO_TEXT_H
#define FEATURED_PROTO_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of the UTF-8 character that `text` begins with (RFC 3629: no overlong forms, no
 * surrogates); 0 when `bytes` is 0 or the text is malformed there. code_out may be NULL. */
size_t text_character(const char *text, size_t bytes, uint32_t *code_out);
bool text_is_utf8(const char *text, size_t bytes);

/* Copies `text`, with each byte as \xNN of whatever is no UTF-8 or would not be seen as itself:
 * control characters (C0, DEL, C1), line and paragraph separators, characters that change the
 * direction of writing, and invisible ones. Backslashes stay as they are. Returns the length that
 * the whole result has, as snprintf() does; what does not fit in `room` is left out, never in the
 * middle of a character. */
size_t text_escape(char *out, size_t room, const char *text, size_t bytes);

#endif
