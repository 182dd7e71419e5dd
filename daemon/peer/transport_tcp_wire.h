/* SPDX-License-Identifier: Apache-2.0
 *
 * What stands on the two sockets of a TCP connection once the handshake is over. Pure.
 * Little-endian.
 *
 *   control:  body_bytes u32 | type u8 | 0 0 0 | tag 16 | body
 *     MESSAGE      the owner's bytes
 *     READ         id u64 | offset u64 | bytes u64 | key           (reader -> home)
 *     READ_FAILED  id u64 | errno u32                              (home -> reader: refused, no
 * chunk sent) bulk:     id u64 | offset u64 | bytes u32 | 0 u32 | tag 16 | `bytes` bytes of the
 * region
 *
 * The tag covers the sender's running number on that socket, the fields before it and, on the
 * control socket, the body. Without a cluster secret it is zero and not looked at.
 */
#ifndef FEATURED_PEER_TRANSPORT_TCP_WIRE_H
#define FEATURED_PEER_TRANSPORT_TCP_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "auth.h"
#include "transport.h"

#define WIRE_FRAME_HEADER_BYTES 24u
#define WIRE_CHUNK_HEADER_BYTES 40u
#define WIRE_READ_BYTES         24u /* without the key */
#define WIRE_READ_FAILED_BYTES  12u
#define WIRE_PARTS_MAX          (TRANSPORT_PARTS_MAX + 1u)
/* Reads that one side may have under way at the other. */
#define WIRE_READS_MAX 1024u

enum wire_type { WIRE_MESSAGE = 1, WIRE_READ, WIRE_READ_FAILED };

/* One direction of one socket. */
struct wire_auth {
    bool keyed;
    uint8_t key[AUTH_KEY_BYTES];
    uint64_t sequence;
};

struct wire_frame {
    enum wire_type type;
    const uint8_t *body; /* inside the caller's buffer */
    size_t body_bytes;
    size_t frame_bytes; /* header and body; known as soon as the header is */
};

struct wire_read {
    uint64_t id, offset, bytes;
    const void *key;
    size_t key_bytes;
};

struct wire_chunk {
    uint64_t id, offset;
    uint32_t bytes;
};

enum wire_result { WIRE_BAD = -1, WIRE_MORE = 0, WIRE_FRAME = 1 };

/* Writes the header of a frame whose body is these parts (at most TRANSPORT_PARTS_MAX). */
void wire_frame_seal(struct wire_auth *auth, enum wire_type type, const struct iovec *parts,
                     int part_count, uint8_t out[WIRE_FRAME_HEADER_BYTES]);
/* WIRE_FRAME: a whole, genuine frame. WIRE_MORE: out->frame_bytes are needed in all (or a header's
 * worth). WIRE_BAD: *why says what is wrong; nothing after it can be trusted. */
enum wire_result wire_frame_open(struct wire_auth *auth, const uint8_t *in, size_t bytes,
                                 struct wire_frame *out, const char **why);

void wire_chunk_seal(struct wire_auth *auth, const struct wire_chunk *chunk,
                     uint8_t out[WIRE_CHUNK_HEADER_BYTES]);
/* NULL, or what is wrong. */
const char *wire_chunk_open(struct wire_auth *auth, const uint8_t in[WIRE_CHUNK_HEADER_BYTES],
                            struct wire_chunk *out);

/* Body of a READ before its key. */
void wire_read_encode(const struct wire_read *read, uint8_t out[WIRE_READ_BYTES]);
const char *wire_read_decode(const uint8_t *body, size_t bytes, struct wire_read *out);

void wire_read_failed_encode(uint64_t id, int status, uint8_t out[WIRE_READ_FAILED_BYTES]);
/* status_out: a negative errno, whatever the other side wrote. */
const char *wire_read_failed_decode(const uint8_t *body, size_t bytes, uint64_t *id_out,
                                    int *status_out);

#endif
