/* SPDX-License-Identifier: Apache-2.0
 *
 * Decoding a message, and telling one that is malformed from one that there was no memory for:
 * protobuf-c returns NULL for both. For example:
 *
 *     struct decoding decoding;
 *     decoding_init(&decoding);
 *     Fb__PeerReply *reply = fb__peer_reply__unpack(&decoding.allocator, bytes, data);
 *     if (!reply && decoding.out_of_memory)
 *         ...
 *     fb__peer_reply__free_unpacked(reply, NULL);
 */
#ifndef FEATURED_PROTO_DECODING_H
#define FEATURED_PROTO_DECODING_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>

struct decoding {
    ProtobufCAllocator allocator; /* malloc() and free() */
    bool out_of_memory;
};

void decoding_init(struct decoding *decoding);

#endif
