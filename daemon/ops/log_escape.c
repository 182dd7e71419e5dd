/* SPDX-License-Identifier: Apache-2.0 */
#include "log_escape.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define CUT "..."

/* The character at s as a number, and its bytes; 0 bytes if it is no UTF-8 (RFC 3629: no overlong
 * forms, no surrogates). */
static size_t escape_decode(const unsigned char *s, size_t bytes, uint32_t *out) {
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t length = s[0] < 0x80 ? 1 : s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if ((s[0] >= 0x80 && s[0] < 0xc2) || s[0] > 0xf4 || length > bytes)
        return 0;
    uint32_t c = length == 1 ? s[0] : s[0] & (0x7fu >> length);
    for (size_t i = 1; i < length; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (s[i] & 0x3fu);
    }
    if (c < least[length] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
        return 0;
    *out = c;
    return length;
}

/* U+2028, 2029: separators of lines; 200E to 202E, 2066 to 2069, 061C: directions of writing. */
static bool escape_needed(uint32_t c) {
    return c < ' ' || (c >= 0x7f && c <= 0x9f) || c == 0x061c || c == 0x200e || c == 0x200f ||
           (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069) || c == 0xfeff;
}

/* One character as it is shown. Bytes shown; *taken of the text. */
static size_t escape_one(const unsigned char *s, size_t bytes, char shown[20], size_t *taken) {
    uint32_t c = 0;
    size_t length = escape_decode(s, bytes, &c), used = 0;
    *taken = length ? length : 1;
    if (length && c != '\\' && !escape_needed(c)) {
        memcpy(shown, s, length);
        return length;
    }
    if (length && c == '\\') {
        memcpy(shown, "\\\\", 2);
        return 2;
    }
    for (size_t i = 0; i < *taken; i++)
        used += (size_t)snprintf(shown + used, 5, "\\x%02x", s[i]);
    return used;
}

size_t log_escape(const char *text, size_t text_bytes, char *out, size_t room) {
    const unsigned char *s = (const unsigned char *)text;
    size_t used = 0, fits = 0; /* fits: up to there "..." has room behind it */
    char shown[20];
    for (size_t at = 0, taken; at < text_bytes; at += taken) {
        size_t bytes = escape_one(s + at, text_bytes - at, shown, &taken);
        if (used + bytes >= room) {
            memcpy(out + fits, CUT, sizeof CUT);
            return fits + sizeof CUT - 1;
        }
        memcpy(out + used, shown, bytes);
        used += bytes;
        if (used + sizeof CUT <= room)
            fits = used;
    }
    out[used] = '\0';
    return used;
}
