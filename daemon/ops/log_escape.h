/* SPDX-License-Identifier: Apache-2.0
 *
 * Text of unknown origin as one printable line. Pure.
 */
#ifndef FEATURED_OPS_LOG_ESCAPE_H
#define FEATURED_OPS_LOG_ESCAPE_H

#include <stddef.h>

/* Writes `text` to out, zero-terminated. Printable UTF-8 stays as it is; a backslash becomes \\ and
 * every byte of anything else (controls, C1 controls, marks that turn the direction of writing,
 * separators of lines, what is no UTF-8) \xHH. What does not fit into room (at least 4 bytes) is
 * left out, at the end of a character, and "..." says so. Bytes written. */
size_t log_escape(const char *text, size_t text_bytes, char *out, size_t room);

#endif
