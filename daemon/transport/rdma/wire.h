/* SPDX-License-Identifier: Apache-2.0
 *
 * What brokers say to each other beside the READs. Pure. Little-endian. Each connection has one
 * control stream (a QP of its own) made of sealed frames:
 *
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
 */
#ifndef FEATURED_TRANSPORT_RDMA_WIRE_H
#define FEATURED_TRANSPORT_RDMA_WIRE_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "transport/sealed_frame.h"

#define RWIRE_RAILS_MAX     TRANSPORT_RAILS_MAX
#define RWIRE_RAIL_BYTES    20u
#define RWIRE_SEGMENT_BYTES 32u /* without the rkeys */
#define RWIRE_PRIVATE_BYTES 16u

enum rwire_type {
    RWIRE_MESSAGE = 1, /* CONTROL_MESSAGE of transport/control.h */
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

/* `check` of sealed_frame_open() for the control stream: NULL, or what is wrong with the size. */
const char *rwire_check_size(uint32_t type, uint32_t bytes);
/* A frame of the control stream; see sealed_frame.h. */
enum sealed_result rwire_open(struct seal *seal, const uint8_t *in, size_t bytes,
                              struct sealed_frame *out, const char **why);

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
