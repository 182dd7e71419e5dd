/* SPDX-License-Identifier: Apache-2.0
 *
 * Frames on a stream of bytes whose two ends have proved themselves to each other; what the
 * transports have in common on the wire. Pure. Little-endian:
 *
 *   body_bytes u32 | type u8 | 0 0 0 | tag 16 | body
 *
 * The tag covers the sender's running number on that stream, the header before it and the body.
 * Without a cluster secret it is zero and not looked at.
 */
#ifndef FEATURED_PEER_SEALED_FRAME_H
#define FEATURED_PEER_SEALED_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "proto/auth.h"
#include "transport/transport.h"

#define SEALED_HEADER_BYTES 24u

/* One direction of one stream. */
struct seal {
    bool keyed;
    uint8_t key[AUTH_KEY_BYTES];
    uint64_t sequence;
};

struct sealed_frame {
    uint32_t type;
    const uint8_t *body; /* inside the caller's buffer */
    size_t body_bytes;
    size_t frame_bytes; /* header and body; known as soon as the header is */
};

enum sealed_result { SEALED_BAD = -1, SEALED_MORE = 0, SEALED_FRAME = 1 };

/* Bytes of a body made of these parts. 0, or -EMSGSIZE: more than TRANSPORT_PARTS_MAX parts, or
 * than a message may have. */
int sealed_body_bytes(const struct iovec *parts, int part_count, size_t *bytes_out);
/* Writes the header of a frame with such a body. */
void sealed_frame_seal(struct seal *seal, uint32_t type, const struct iovec *parts, int part_count,
                       uint8_t out[SEALED_HEADER_BYTES]);
/* check: NULL, or what is wrong with a frame of this type and size; nothing is read behind it
 * before. SEALED_FRAME: a whole, genuine frame. SEALED_MORE: out->frame_bytes are needed in all (or
 * a header's worth). SEALED_BAD: *why says what is wrong; nothing after it can be trusted. */
enum sealed_result sealed_frame_open(struct seal *seal, const uint8_t *in, size_t bytes,
                                     const char *(*check)(uint32_t type, uint32_t body_bytes),
                                     struct sealed_frame *out, const char **why);

/* Tags of what is not a frame but has its number on the stream. */
void seal_tag(struct seal *seal, const struct auth_part *parts, size_t count,
              uint8_t out[AUTH_TAG_BYTES]);
bool seal_check(struct seal *seal, const struct auth_part *parts, size_t count, const uint8_t *tag);

#endif
