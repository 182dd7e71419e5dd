/* SPDX-License-Identifier: Apache-2.0
 *
 * Sizes are checked before anything is read behind them.
 */
#include "transport/tcp/wire.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "proto/little_endian.h"

enum { CHUNK_TAG_OFFSET = 24, ERRNO_MAX = 4095 };

/* By type, before the body has come in: so no peer can make us wait for, or make room for, more
 * bytes than a frame of that type may have. */
const char *wire_check_size(uint32_t type, uint32_t bytes) {
    switch (type) {
    case WIRE_MESSAGE:
        return bytes <= TRANSPORT_MESSAGE_BYTES_MAX ? NULL : "message larger than the limit";
    case WIRE_READ:
        return bytes >= WIRE_READ_BYTES && bytes <= WIRE_READ_BYTES + TRANSPORT_KEY_BYTES_MAX
                   ? NULL
                   : "read request of a wrong size";
    case WIRE_READ_FAILED:
        return bytes == WIRE_READ_FAILED_BYTES ? NULL : "read refusal of a wrong size";
    default:
        return "unknown type";
    }
}

enum sealed_result wire_frame_open(struct seal *seal, const uint8_t *in, size_t bytes,
                                   struct sealed_frame *out, const char **why) {
    return sealed_frame_open(seal, in, bytes, wire_check_size, out, why);
}

/* The tag covers the header, and its number on the socket, but not the bytes: those have the
 * checksum of their tensor, made by the producer, which protects them on more than this hop. What
 * the tag prevents is that somebody on the path makes bytes land where they do not belong. */
void wire_chunk_seal(struct seal *auth, const struct wire_chunk *chunk,
                     uint8_t out[WIRE_CHUNK_HEADER_BYTES]) {
    struct auth_part part = {out, CHUNK_TAG_OFFSET};
    put64(out, chunk->id);
    put64(out + 8, chunk->offset);
    put32(out + 16, chunk->bytes);
    put32(out + 20, 0);
    seal_tag(auth, &part, 1, out + CHUNK_TAG_OFFSET);
}

/* An empty chunk would make no progress, and a peer could keep us busy with them. */
const char *wire_chunk_open(struct seal *auth, const uint8_t in[WIRE_CHUNK_HEADER_BYTES],
                            struct wire_chunk *out) {
    struct auth_part part = {in, CHUNK_TAG_OFFSET};
    if (!seal_check(auth, &part, 1, in + CHUNK_TAG_OFFSET))
        return "chunk with a wrong tag";
    *out = (struct wire_chunk){get64(in), get64(in + 8), get32(in + 16)};
    if (out->bytes == 0 || get32(in + 20) != 0)
        return "chunk with a bad header";
    return NULL;
}

void wire_read_encode(const struct wire_read *read, uint8_t out[WIRE_READ_BYTES]) {
    put64(out, read->id);
    put64(out + 8, read->offset);
    put64(out + 16, read->bytes);
}

/* The offset and the range are checked where the region is known: regions_resolve(). */
const char *wire_read_decode(const uint8_t *body, size_t bytes, struct wire_read *out) {
    if (bytes < WIRE_READ_BYTES || bytes > WIRE_READ_BYTES + TRANSPORT_KEY_BYTES_MAX)
        return "read request of a wrong size";
    *out = (struct wire_read){
        .id = get64(body),
        .offset = get64(body + 8),
        .bytes = get64(body + 16),
        .key = body + WIRE_READ_BYTES,
        .key_bytes = bytes - WIRE_READ_BYTES,
    };
    return NULL;
}

void wire_read_failed_encode(uint64_t id, int status, uint8_t out[WIRE_READ_FAILED_BYTES]) {
    assert(status < 0);
    put64(out, id);
    put32(out + 8, (uint32_t)-status);
}

/* Numbers of errno are the same on all machines that run this program (Linux); what is no number of
 * one becomes EIO, so that no peer can make a read succeed by refusing it. */
const char *wire_read_failed_decode(const uint8_t *body, size_t bytes, uint64_t *id_out,
                                    int *status_out) {
    if (bytes != WIRE_READ_FAILED_BYTES)
        return "read refusal of a wrong size";
    uint32_t number = get32(body + 8);
    *id_out = get64(body);
    *status_out = number >= 1 && number <= ERRNO_MAX ? -(int)number : -EIO;
    return NULL;
}
