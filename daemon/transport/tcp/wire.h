/* SPDX-License-Identifier: Apache-2.0
 *
 * What stands on the two sockets of a TCP connection once the handshake is over. Pure.
 * Little-endian. The control socket carries sealed frames:
 *
 * - MESSAGE: the owner's bytes
 * - READ, reader -> home: id u64 | offset u64 | bytes u64 | key
 * - READ_FAILED, home -> reader: id u64 | errno u32; refused, no chunk sent
 *
 * and the bulk socket chunks, whose tag covers their number on the socket and the fields before it:
 *
 *   id u64 | offset u64 | bytes u32 | 0 u32 | tag 16 | `bytes` bytes of the region
 */
#ifndef FEATURED_TRANSPORT_TCP_WIRE_H
#define FEATURED_TRANSPORT_TCP_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "transport/sealed_frame.h"

#define WIRE_CHUNK_HEADER_BYTES 40u
#define WIRE_READ_BYTES         24u /* without the key */
#define WIRE_READ_FAILED_BYTES  12u
/* Reads that one side may have under way at the other. */
#define WIRE_READS_MAX 1024u

/* WIRE_MESSAGE is CONTROL_MESSAGE of transport/control.h. */
enum wire_type { WIRE_MESSAGE = 1, WIRE_READ, WIRE_READ_FAILED };

struct wire_read {
    uint64_t id, offset, bytes;
    const void *key;
    size_t key_bytes;
};

struct wire_chunk {
    uint64_t id, offset;
    uint32_t bytes;
};

/* `check` of sealed_frame_open() for the control socket: NULL, or what is wrong with the size. */
const char *wire_check_size(uint32_t type, uint32_t bytes);
/* A frame of the control socket; see sealed_frame.h. */
enum sealed_result wire_frame_open(struct seal *seal, const uint8_t *in, size_t bytes,
                                   struct sealed_frame *out, const char **why);

void wire_chunk_seal(struct seal *auth, const struct wire_chunk *chunk,
                     uint8_t out[WIRE_CHUNK_HEADER_BYTES]);
/* NULL, or what is wrong. */
const char *wire_chunk_open(struct seal *auth, const uint8_t in[WIRE_CHUNK_HEADER_BYTES],
                            struct wire_chunk *out);

/* Body of a READ before its key. */
void wire_read_encode(const struct wire_read *read, uint8_t out[WIRE_READ_BYTES]);
const char *wire_read_decode(const uint8_t *body, size_t bytes, struct wire_read *out);

void wire_read_failed_encode(uint64_t id, int status, uint8_t out[WIRE_READ_FAILED_BYTES]);
/* status_out: a negative errno, whatever the other side wrote. */
const char *wire_read_failed_decode(const uint8_t *body, size_t bytes, uint64_t *id_out,
                                    int *status_out);

#endif
