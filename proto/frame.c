/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading and writing the 16 bytes in front of every message. A header is checked before anything
 * in it is believed: whoever sends it may be broken or hostile. Nothing here allocates, waits or
 * keeps state.
 *
 * The sums are made in 64 bits. body_bytes and payload_bytes are 32 bits each and come from
 * outside; in 32 bits their sum could wrap and look small.
 */
#include "proto/frame.h"

#include <string.h>

#include "proto/little_endian.h"

void frame_encode(const struct frame_header *header, uint8_t out[FRAME_HEADER_BYTES]) {
    out[0] = FRAME_MAGIC & 0xff;
    out[1] = FRAME_MAGIC >> 8;
    out[2] = header->version;
    out[3] = header->type;
    put32(out + 4, header->request_id);
    put32(out + 8, header->body_bytes);
    put32(out + 12, header->payload_bytes);
}

const char *frame_decode(const uint8_t in[FRAME_HEADER_BYTES], uint32_t bytes_max,
                         struct frame_header *out) {
    if (in[0] != (FRAME_MAGIC & 0xff) || in[1] != FRAME_MAGIC >> 8)
        return "not a frame: wrong magic";
    struct frame_header header = {
        .version = in[2],
        .type = in[3],
        .request_id = get32(in + 4),
        .body_bytes = get32(in + 8),
        .payload_bytes = get32(in + 12),
    };
    /* This is the format of the header, not the version of the protocol: a Hello that offers other
     * protocol versions passes here. */
    if (header.version != FRAME_VERSION)
        return "unknown frame version";
    if (header.type < FRAME_REQUEST || header.type > FRAME_NOTICE)
        return "unknown frame type";
    if ((uint64_t)FRAME_HEADER_BYTES + header.body_bytes + header.payload_bytes > bytes_max)
        return "frame larger than the limit";
    *out = header;
    return NULL;
}

/* A packet or a transport message holds exactly one frame. One that is longer or shorter than its
 * header says was cut off or glued together, and nothing in it can be trusted. */
const char *frame_open(const uint8_t *frame, size_t frame_bytes, uint32_t bytes_max,
                       struct frame_header *out) {
    if (frame_bytes < FRAME_HEADER_BYTES)
        return "frame shorter than its header";
    const char *wrong = frame_decode(frame, bytes_max, out);
    if (!wrong &&
        (uint64_t)FRAME_HEADER_BYTES + out->body_bytes + out->payload_bytes != frame_bytes)
        wrong = "frame of another size than its header says";
    return wrong;
}
