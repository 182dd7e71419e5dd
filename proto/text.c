/* SPDX-License-Identifier: Apache-2.0
 *
 * Whatever others wrote is decoded as UTF-8 by the rules of RFC 3629 and shown as itself only when
 * a reader can see it. A name that held an escape sequence of a terminal could otherwise clear the
 * screen of an administrator, or make one sample look like another.
 */
#include "proto/text.h"

#include <stdio.h>
#include <string.h>

#define ESCAPE_BYTES 4u /* \xNN */

/* Characters that a terminal obeys or that a reader cannot see. Source: the Unicode Character
 * Database, categories Cc, Zl, Zp and those of Cf that steer layout (bidirectional controls,
 * joiners aside, which scripts need). */
static const struct {
    uint32_t first, last;
} unseen[] = {
    {0x0000, 0x001f}, {0x007f, 0x009f}, {0x061c, 0x061c}, {0x200b, 0x200b}, {0x200e, 0x200f},
    {0x2028, 0x202e}, {0x2060, 0x206f}, {0xfeff, 0xfeff}, {0xfff9, 0xfffb}, {0xe0000, 0xe007f},
};

static bool text_is_unseen(uint32_t code) {
    for (size_t i = 0; i < sizeof unseen / sizeof unseen[0]; i++)
        if (code >= unseen[i].first && code <= unseen[i].last)
            return true;
    return false;
}

/* The first byte says how many follow. 0x80 to 0xbf cannot be first, 0xc0 and 0xc1 would be
 * overlong, and above 0xf4 there is no Unicode. */
size_t text_character(const char *text, size_t bytes, uint32_t *code_out) {
    const unsigned char *s = (const unsigned char *)text;
    if (bytes == 0 || (s[0] >= 0x80 && s[0] < 0xc2) || s[0] > 0xf4)
        return 0;
    size_t length = s[0] < 0x80 ? 1 : s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    uint32_t code = length == 1 ? s[0] : s[0] & (0x7fu >> length);
    if (length > bytes)
        return 0;
    for (size_t i = 1; i < length; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | (s[i] & 0x3fu);
    }
    /* Overlong forms (a character in more bytes than it needs) and surrogates are no UTF-8. If
     * they were let through, two different byte strings would show as the same name. */
    if ((length == 3 && code < 0x800) || (code >= 0xd800 && code <= 0xdfff) ||
        (length == 4 && (code < 0x10000 || code > 0x10ffff)))
        return 0;
    if (code_out)
        *code_out = code;
    return length;
}

bool text_is_utf8(const char *text, size_t bytes) {
    for (size_t at = 0, length; at < bytes; at += length)
        if (!(length = text_character(text + at, bytes - at, NULL)))
            return false;
    return true;
}

size_t text_escape(char *out, size_t room, const char *text, size_t bytes) {
    size_t needed = 0, kept = 0; /* kept < room while anything is still copied */
    for (size_t at = 0; at < bytes;) {
        char piece[4 * ESCAPE_BYTES + 1];
        uint32_t code = 0;
        size_t length = text_character(text + at, bytes - at, &code), piece_bytes = length;
        bool as_is = length && !text_is_unseen(code);
        length = length ? length : 1;
        if (as_is)
            memcpy(piece, text + at, length);
        else
            piece_bytes = 0;
        for (size_t i = 0; !as_is && i < length; i++)
            piece_bytes += (size_t)snprintf(piece + piece_bytes, sizeof piece - piece_bytes,
                                            "\\x%02x", (unsigned char)text[at + i]);
        /* Once a piece has not fitted nothing more is copied (kept < needed from then on), even if
         * a later piece is shorter: the result is the beginning of the text, not a selection of
         * it. */
        if (kept == needed && kept + piece_bytes < room) {
            memcpy(out + kept, piece, piece_bytes);
            kept += piece_bytes;
        }
        needed += piece_bytes;
        at += length;
    }
    if (room)
        out[kept] = '\0';
    return needed;
}
