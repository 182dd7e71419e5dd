/* SPDX-License-Identifier: Apache-2.0
 *
 * The sequence number never crosses the wire: each side counts, so a frame left out, repeated or
 * moved fails its tag.
 */
#include "transport/sealed_frame.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "proto/little_endian.h"

enum { TAG_OFFSET = 8 };

/* The number moves on without a secret, too: both sides count alike, whatever is configured. */
void seal_tag(struct seal *seal, const struct auth_part *parts, size_t count,
              uint8_t out[AUTH_TAG_BYTES]) {
    if (seal->keyed)
        auth_tag(seal->key, seal->sequence, parts, count, out);
    else
        memset(out, 0, AUTH_TAG_BYTES);
    seal->sequence++;
}

/* In constant time: how far a forged tag was right must not show in how long the answer takes. */
bool seal_check(struct seal *seal, const struct auth_part *parts, size_t count,
                const uint8_t *tag) {
    uint8_t expected[AUTH_TAG_BYTES];
    if (!seal->keyed)
        return true;
    seal_tag(seal, parts, count, expected);
    return auth_equal(expected, tag, AUTH_TAG_BYTES);
}

/* Compared by what is left of the limit, so that the sum cannot wrap round. */
int sealed_body_bytes(const struct iovec *parts, int part_count, size_t *bytes_out) {
    size_t bytes = 0;
    if (part_count < 0 || part_count > (int)TRANSPORT_PARTS_MAX)
        return -EMSGSIZE;
    for (int i = 0; i < part_count; i++) {
        if (parts[i].iov_len > TRANSPORT_MESSAGE_BYTES_MAX - bytes)
            return -EMSGSIZE;
        bytes += parts[i].iov_len;
    }
    *bytes_out = bytes;
    return 0;
}

/* The body is not copied: its parts are tagged where they are, and leave from there. */
void sealed_frame_seal(struct seal *seal, uint32_t type, const struct iovec *parts, int part_count,
                       uint8_t out[SEALED_HEADER_BYTES]) {
    struct auth_part tagged[TRANSPORT_PARTS_MAX + 1] = {{out, TAG_OFFSET}};
    size_t body_bytes = 0;
    assert(part_count >= 0 && (size_t)part_count <= TRANSPORT_PARTS_MAX);
    for (int i = 0; i < part_count; i++) {
        tagged[i + 1] = (struct auth_part){parts[i].iov_base, parts[i].iov_len};
        body_bytes += parts[i].iov_len;
    }
    put32(out, (uint32_t)body_bytes);
    put32(out + 4, type);
    seal_tag(seal, tagged, (size_t)part_count + 1, out + TAG_OFFSET);
}

/* First the size by type, then the whole frame, then the tag, then the body may be read. A frame
 * that is too long is refused by its header, so nothing is ever buffered for it. */
enum sealed_result sealed_frame_open(struct seal *seal, const uint8_t *in, size_t bytes,
                                     const char *(*check)(uint32_t type, uint32_t body_bytes),
                                     struct sealed_frame *out, const char **why) {
    out->frame_bytes = SEALED_HEADER_BYTES;
    if (bytes < SEALED_HEADER_BYTES)
        return SEALED_MORE;
    uint32_t body_bytes = get32(in), type = get32(in + 4);
    *why = check(type, body_bytes);
    if (*why != NULL)
        return SEALED_BAD;
    *out = (struct sealed_frame){type, in + SEALED_HEADER_BYTES, body_bytes,
                                 SEALED_HEADER_BYTES + body_bytes};
    if (bytes < out->frame_bytes)
        return SEALED_MORE;
    struct auth_part parts[] = {{in, TAG_OFFSET}, {out->body, body_bytes}};
    if (!seal_check(seal, parts, 2, in + TAG_OFFSET)) {
        *why = "wrong tag";
        return SEALED_BAD;
    }
    return SEALED_FRAME;
}
