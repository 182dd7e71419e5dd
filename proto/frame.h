/* SPDX-License-Identifier: Apache-2.0
 *
 * The 16-byte header in front of every message, client or peer. Pure: bytes in, bytes out.
 * All integers little-endian. See PROTOCOL.md for the diagram.
 */
#ifndef FEATURED_PROTO_FRAME_H
#define FEATURED_PROTO_FRAME_H

#include <stddef.h>
#include <stdint.h>

#define FRAME_MAGIC        0x4246u /* "FB" */
#define FRAME_HEADER_BYTES 16u
#define FRAME_CLIENT_BYTES_MAX                                                                     \
    131072u /* header + body + payload; fits the default socket buffer                             \
             */
#define FRAME_PEER_BYTES_MAX   1048576u
#define FRAME_INLINE_BYTES_MAX 65536u
#define FRAME_BATCH_ITEMS_MAX  256u
#define FRAME_LANDED_BYTES_MIN (4u << 20) /* extents below are not worth asking for Landed */
/* Of the header alone: how to read its 16 bytes. The versions of what is said in frames are
 * negotiated: proto/version.h. */
#define FRAME_VERSION 1u

enum frame_type {
    FRAME_REQUEST = 1, /* wants exactly one FRAME_REPLY with the same request_id */
    FRAME_REPLY = 2,
    FRAME_NOTE = 3,   /* a request that wants no answer */
    FRAME_NOTICE = 4, /* broker to client: progress or event */
};

struct frame_header {
    uint8_t version;
    uint8_t type;
    uint32_t request_id;
    uint32_t body_bytes;    /* packed protobuf message, right behind the header */
    uint32_t payload_bytes; /* raw bytes behind the body */
};

void frame_encode(const struct frame_header *header, uint8_t out[FRAME_HEADER_BYTES]);

/* Reads a header and checks magic, version, type, and that the whole frame is at most `bytes_max`.
 * Returns NULL, or a static sentence saying what is wrong. */
const char *frame_decode(const uint8_t in[FRAME_HEADER_BYTES], uint32_t bytes_max,
                         struct frame_header *out);
/* The same of a frame that has come whole, in frame_bytes: body and payload fill it. */
const char *frame_open(const uint8_t *frame, size_t frame_bytes, uint32_t bytes_max,
                       struct frame_header *out);

#endif
