/* SPDX-License-Identifier: Apache-2.0
 *
 * A bump allocator for unpacking one small protobuf message without malloc. One message at a time.
 */
#ifndef FEATURED_BROKER_SCRATCH_H
#define FEATURED_BROKER_SCRATCH_H

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>
#include <stdint.h>

/* A packed SampleSpec is at most 8 KiB; unpacked, two bytes of it make at most one small struct. */
#define SCRATCH_BYTES ((size_t)512 * 1024)

struct scratch {
    ProtobufCAllocator allocator;
    size_t used_bytes;
    _Alignas(16) uint8_t bytes[SCRATCH_BYTES];
};

void scratch_init(struct scratch *scratch);
/* The allocator, with everything handed out before forgotten. An exhausted one makes unpack fail.
 */
ProtobufCAllocator *scratch_begin(struct scratch *scratch);

#endif
