/* SPDX-License-Identifier: Apache-2.0
 *
 * A bounded bump allocator for protobuf-c: a message is unpacked without malloc, and a hostile one
 * cannot take more than the bound. Blocks are handed out one after the other from one piece of
 * memory, and all are given back at once; so a bump serves one message at a time.
 */
#ifndef FEATURED_PROTO_BUMP_H
#define FEATURED_PROTO_BUMP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <protobuf-c/protobuf-c.h>

/* A request of a client: protobuf-c turns 2 bytes on the wire (an empty repeated message) into up
 * to 100 in memory, so 128 KiB may ask for 6 MiB. A full batch of FRAME_BATCH_ITEMS_MAX items in a
 * full frame stays below 256 KiB. */
#define BUMP_REQUEST_BYTES 1048576u
/* A SampleSpec: packed it has at most 8 KiB (LAYOUT_SPEC_BYTES_MAX), and two bytes of it make at
 * most one small struct. */
#define BUMP_SPEC_BYTES 524288u

struct bump {
    ProtobufCAllocator allocator; /* valid while the bump stays where it is */
    uint8_t *base;
    size_t capacity_bytes, used_bytes;
    bool exhausted; /* an allocation was refused since the last reset */
};

/* 0 or -ENOMEM. Pages are touched only as they come into use. */
int bump_init(struct bump *bump, size_t capacity_bytes);
void bump_deinit(struct bump *bump);
/* Forgets all that was handed out; what was unpacked with it is no longer valid. */
void bump_reset(struct bump *bump);
/* The same, and gives what protobuf-c's unpack functions take. One that is exhausted makes them
 * fail, as if the message were malformed. */
ProtobufCAllocator *bump_begin(struct bump *bump);

#endif
