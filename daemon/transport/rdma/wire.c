/* SPDX-License-Identifier: Apache-2.0
 *
 * Sizes are checked before anything is read behind them.
 */
#include "transport/rdma/wire.h"

#include <assert.h>
#include <string.h>

#include "proto/little_endian.h"

/* The magic number of the CM's private data is "FBDR" in the order of bytes on the wire. A program
 * that dials our port by mistake is told apart by it before a QP is made. */
enum { PRIVATE_MAGIC = 0x52444246, PRIVATE_VERSION = 1 };
/* What a peer may say of its slots. The least is what the handshake needs (four messages below 1
 * KiB, a part of which fits into each slot); the most bounds what its word can make us believe:
 * credits are a promise that its receives are posted. */
enum { SLOTS_MIN = 4, SLOTS_MAX = 4096, SLOT_BYTES_MIN = 256, SLOT_BYTES_MAX = 1 << 20 };
enum { FAMILY_NONE = 0, FAMILY_IPV4 = 4, FAMILY_IPV6 = 6 };

/* By type, before the body has come in: so no peer can make us wait for, or make room for, more
 * bytes than a frame of that type may have. */
const char *rwire_check_size(uint32_t type, uint32_t bytes) {
    static const struct {
        uint32_t least, most;
    } sizes[] = {
        [RWIRE_MESSAGE] = {0, TRANSPORT_MESSAGE_BYTES_MAX},
        [RWIRE_RAILS] = {RWIRE_RAIL_BYTES, RWIRE_RAIL_BYTES * RWIRE_RAILS_MAX},
        [RWIRE_READY] = {0, 0},
        [RWIRE_ACCEPTED] = {0, 0},
        [RWIRE_REFUSED] = {0, 0},
        [RWIRE_OPEN] = {5, 4 + TRANSPORT_KEY_BYTES_MAX},
        [RWIRE_OPENED] = {16, 16},
        [RWIRE_SEGMENT] = {RWIRE_SEGMENT_BYTES, RWIRE_SEGMENT_BYTES + 4 * RWIRE_RAILS_MAX},
        [RWIRE_GONE] = {4, 4},
        [RWIRE_BEGIN] = {4, 4},
        [RWIRE_END] = {16, 16},
    };
    if (type < RWIRE_MESSAGE || type > RWIRE_END)
        return "unknown type";
    return bytes >= sizes[type].least && bytes <= sizes[type].most ? NULL : "frame of a wrong size";
}

enum sealed_result rwire_open(struct seal *seal, const uint8_t *in, size_t bytes,
                              struct sealed_frame *out, const char **why) {
    return sealed_frame_open(seal, in, bytes, rwire_check_size, out, why);
}

/* The CM gives private data of 56 bytes to a REQ and of 196 to a REP; 16 are needed. The rest of
 * what a broker has to say goes through the handshake, where it is proven. */
void rwire_private_encode(const struct rwire_private *data, uint8_t out[RWIRE_PRIVATE_BYTES]) {
    memset(out, 0, RWIRE_PRIVATE_BYTES);
    put32(out, PRIVATE_MAGIC);
    out[4] = PRIVATE_VERSION;
    out[5] = data->kind;
    out[6] = data->rail;
    put16(out + 8, data->slots);
    put32(out + 12, data->slot_bytes);
}

const char *rwire_private_decode(const void *data, size_t bytes, struct rwire_private *out) {
    const uint8_t *in = data;
    if (in == NULL || bytes < RWIRE_PRIVATE_BYTES || get32(in) != PRIVATE_MAGIC)
        return "not a featured broker";
    if (in[4] != PRIVATE_VERSION)
        return "another version of the RDMA protocol";
    *out = (struct rwire_private){in[5], in[6], get16(in + 8), get32(in + 12)};
    if (out->rail >= RWIRE_RAILS_MAX || out->slots < SLOTS_MIN || out->slots > SLOTS_MAX ||
        out->slot_bytes < SLOT_BYTES_MIN || out->slot_bytes > SLOT_BYTES_MAX)
        return "bad sizes in the connection request";
    return NULL;
}

void rwire_rail_encode(const struct sockaddr_storage *address, uint8_t out[RWIRE_RAIL_BYTES]) {
    memset(out, 0, RWIRE_RAIL_BYTES);
    if (address->ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
        out[0] = FAMILY_IPV4;
        put16(out + 2, ntohs(v4->sin_port));
        memcpy(out + 4, &v4->sin_addr, sizeof v4->sin_addr);
    } else if (address->ss_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)address;
        out[0] = FAMILY_IPV6;
        put16(out + 2, ntohs(v6->sin6_port));
        memcpy(out + 4, &v6->sin6_addr, sizeof v6->sin6_addr);
    }
}

/* The message says IPv4 or IPv6 by FAMILY_IPV4 and FAMILY_IPV6 and not by AF_INET and AF_INET6,
 * because the value of AF_INET6 differs between operating systems. */
static int wire_decode_rail(const uint8_t *in, struct sockaddr_storage *out) {
    memset(out, 0, sizeof *out);
    if (in[0] == FAMILY_IPV4) {
        struct sockaddr_in *v4 = (struct sockaddr_in *)out;
        v4->sin_family = AF_INET;
        v4->sin_port = htons(get16(in + 2));
        memcpy(&v4->sin_addr, in + 4, sizeof v4->sin_addr);
    } else if (in[0] == FAMILY_IPV6) {
        struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(get16(in + 2));
        memcpy(&v6->sin6_addr, in + 4, sizeof v6->sin6_addr);
    } else if (in[0] != FAMILY_NONE) {
        return -1;
    }
    return 0;
}

int rwire_rails_decode(const uint8_t *body, size_t bytes,
                       struct sockaddr_storage out[RWIRE_RAILS_MAX]) {
    size_t count = bytes / RWIRE_RAIL_BYTES;
    memset(out, 0, RWIRE_RAILS_MAX * sizeof *out);
    if (bytes % RWIRE_RAIL_BYTES != 0 || count > RWIRE_RAILS_MAX)
        return -1;
    for (size_t i = 0; i < count; i++)
        if (wire_decode_rail(body + i * RWIRE_RAIL_BYTES, &out[i]) < 0)
            return -1;
    return (int)count;
}

/* All rails of the home in one frame; rkey 0 stands for a rail that does not have the segment. */
size_t rwire_segment_encode(const struct rwire_segment *segment,
                            uint8_t out[RWIRE_SEGMENT_BYTES + 4 * RWIRE_RAILS_MAX]) {
    assert(segment->rail_count <= RWIRE_RAILS_MAX);
    put32(out, segment->handle);
    put32(out + 4, segment->rail_count);
    put64(out + 8, segment->offset);
    put64(out + 16, segment->address);
    put64(out + 24, segment->bytes);
    for (uint32_t i = 0; i < segment->rail_count; i++)
        put32(out + RWIRE_SEGMENT_BYTES + (size_t)4 * i, segment->rkeys[i]);
    return RWIRE_SEGMENT_BYTES + (size_t)4 * segment->rail_count;
}

/* Neither the offsets nor the addresses may wrap round, because the reader adds to them. */
const char *rwire_segment_decode(const uint8_t *body, size_t bytes, struct rwire_segment *out) {
    *out = (struct rwire_segment){.handle = get32(body),
                                  .rail_count = get32(body + 4),
                                  .offset = get64(body + 8),
                                  .address = get64(body + 16),
                                  .bytes = get64(body + 24)};
    if (out->rail_count > RWIRE_RAILS_MAX ||
        bytes != RWIRE_SEGMENT_BYTES + (size_t)4 * out->rail_count)
        return "segment of a wrong size";
    if (out->bytes == 0 || out->bytes > UINT64_MAX - out->offset ||
        out->bytes > UINT64_MAX - out->address)
        return "segment with a bad range";
    for (uint32_t i = 0; i < out->rail_count; i++)
        out->rkeys[i] = get32(body + RWIRE_SEGMENT_BYTES + (size_t)4 * i);
    return NULL;
}
