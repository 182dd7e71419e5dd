/* SPDX-License-Identifier: Apache-2.0
 *
 * What brokers say to each other beside the READs. Pure. Little-endian. Each connection has one
 * control stream (a QP of its own) made of frames:
 *
 *   body_bytes u32 | type u8 | 0 0 0 | tag 16 | body
 * - MESSAGE: the owner's bytes
 * - RAILS, home -> asker: where bulk QPs are accepted; {family u8, 0, port u16, address 16} each.
 *   Again when a rail appears.
 * - READY, asker -> home: as many bulk QPs stand as will
 * - ACCEPTED, home -> asker: the owner took the connection (its first MESSAGE says the same)
 * - REFUSED, home -> asker: the owner did not
 * - OPEN, reader -> home: handle u32 | region key; a first read starts
 * - OPENED, home -> reader: handle u32 | errno u32 | region bytes u64
 * - SEGMENT, home -> reader: handle u32 | rails u32 | offset u64 | address u64 | bytes u64 | rkey
 * u32 each. Again when a bulk QP joins later, whose keys the reader does not have.
 * - GONE, home -> reader: handle u32; the region has been unregistered
 * - BEGIN, reader -> home: handle u32; a read starts
 * - END, reader -> home: handle u32 | 0 u32 | bytes read u64
 *
 * The tag covers the sender's running number, the header before it and the body. Without a cluster
 * secret it is zero and not looked at.
 */
#ifndef FEATURED_PEER_RDMA_WIRE_H
#define FEATURED_PEER_RDMA_WIRE_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "auth.h"
#include "transport.h"

#define RWIRE_HEADER_BYTES  24u
#define RWIRE_RAILS_MAX     TRANSPORT_RAILS_MAX
#define RWIRE_RAIL_BYTES    20u
#define RWIRE_SEGMENT_BYTES 32u /* without the rkeys */
#define RWIRE_PRIVATE_BYTES 16u

enum rwire_type {
    RWIRE_MESSAGE = 1,
    RWIRE_RAILS,
    RWIRE_READY,
    RWIRE_ACCEPTED,
    RWIRE_REFUSED,
    RWIRE_OPEN,
    RWIRE_OPENED,
    RWIRE_SEGMENT,
    RWIRE_GONE,
    RWIRE_BEGIN,
    RWIRE_END,
};

/* One direction of the stream. */
struct rwire_auth {
    bool keyed;
    uint8_t key[AUTH_KEY_BYTES];
    uint64_t sequence;
};

struct rwire_frame {
    enum rwire_type type;
    const uint8_t *body; /* inside the caller's buffer */
    size_t body_bytes;
    size_t frame_bytes; /* header and body; known as soon as the header is */
};

enum rwire_result { RWIRE_BAD = -1, RWIRE_MORE = 0, RWIRE_FRAME = 1 };

/* Writes the header of a frame whose body is these parts (at most TRANSPORT_PARTS_MAX). */
void rwire_seal(struct rwire_auth *auth, enum rwire_type type, const struct iovec *parts,
                int part_count, uint8_t out[RWIRE_HEADER_BYTES]);
/* RWIRE_FRAME: a whole, genuine frame of an allowed size. RWIRE_MORE: out->frame_bytes are needed
 * in all. RWIRE_BAD: *why says what is wrong; nothing after it can be trusted. */
enum rwire_result rwire_open(struct rwire_auth *auth, const uint8_t *in, size_t bytes,
                             struct rwire_frame *out, const char **why);

/* Private data of the CM's REQ and REP: before any proof, so nothing is believed but sizes. */
struct rwire_private {
    uint8_t kind; /* enum handshake_kind */
    uint8_t rail; /* the sender's number of the rail it uses */
    uint16_t slots;
    uint32_t slot_bytes;
};
void rwire_private_encode(const struct rwire_private *data, uint8_t out[RWIRE_PRIVATE_BYTES]);
/* NULL, or what is wrong. */
const char *rwire_private_decode(const void *in, size_t bytes, struct rwire_private *out);

/* A rail that is not there is an address of family 0. */
void rwire_rail_encode(const struct sockaddr_storage *address, uint8_t out[RWIRE_RAIL_BYTES]);
/* How many of the RWIRE_RAILS_MAX addresses were there; -1: malformed. */
int rwire_rails_decode(const uint8_t *body, size_t bytes,
                       struct sockaddr_storage out[RWIRE_RAILS_MAX]);

struct rwire_segment {
    uint32_t handle, rail_count;
    uint64_t offset, address, bytes;
    uint32_t rkeys[RWIRE_RAILS_MAX]; /* by the home's number of the rail; 0 = not there */
};
size_t rwire_segment_encode(const struct rwire_segment *segment,
                            uint8_t out[RWIRE_SEGMENT_BYTES + 4 * RWIRE_RAILS_MAX]);
const char *rwire_segment_decode(const uint8_t *body, size_t bytes, struct rwire_segment *out);

#endif
