/* SPDX-License-Identifier: Apache-2.0
 *
 * A bounded bump allocator for protobuf-c: a request is unpacked without malloc, and a hostile one
 * cannot take more than the bound. Everything is given back at once by bump_reset().
 */
#ifndef FEATURED_LOCAL_BUMP_H
#define FEATURED_LOCAL_BUMP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <protobuf-c/protobuf-c.h>

/* protobuf-c turns 2 bytes on the wire (an empty repeated message) into up to 100 in memory, so 128
 * KiB may ask for 6 MiB. A full batch of FRAME_BATCH_ITEMS_MAX items in a full frame stays below
 * 256 KiB. */
#define BUMP_REQUEST_BYTES 1048576u

struct bump {
    ProtobufCAllocator
        allocator; /* hand this to protobuf-c; valid while the bump stays where it is */
    uint8_t *base;
    size_t capacity_bytes, used_bytes;
    bool exhausted; /* an allocation was refused since the last reset */
};

/* 0 or -ENOMEM. Pages are touched only as they come into use. */
int bump_init(struct bump *bump, size_t capacity_bytes);
void bump_deinit(struct bump *bump);
void bump_reset(struct bump *bump);

#endif
