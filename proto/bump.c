/* SPDX-License-Identifier: Apache-2.0
 *
 * Invariant: [0, used_bytes) is handed out, used_bytes <= capacity_bytes, used_bytes is a multiple
 * of BUMP_ALIGN. Blocks are never given back one by one.
 */
#include "proto/bump.h"

#include <errno.h>
#include <stdlib.h>

#define BUMP_ALIGN _Alignof(max_align_t)

/* The first comparison is for a size near SIZE_MAX, which would be 0 when it is rounded up. */
static void *bump_alloc(void *data, size_t bytes) {
    struct bump *bump = data;
    size_t room_bytes = bump->capacity_bytes - bump->used_bytes;
    size_t rounded_bytes = (bytes + BUMP_ALIGN - 1) / BUMP_ALIGN * BUMP_ALIGN;
    if (bytes > room_bytes || rounded_bytes > room_bytes) {
        bump->exhausted = true;
        return NULL;
    }
    void *block = bump->base + bump->used_bytes;
    bump->used_bytes += rounded_bytes;
    return block;
}

/* protobuf-c frees what it has unpacked field by field when it gives up halfway. Here that does
 * nothing: all of it goes with the next bump_reset(). */
static void bump_free(void *data, void *block) {
    (void)data;
    (void)block;
}

int bump_init(struct bump *bump, size_t capacity_bytes) {
    uint8_t *base = malloc(capacity_bytes);
    if (!base)
        return -ENOMEM;
    *bump = (struct bump){
        .allocator = {.alloc = bump_alloc, .free = bump_free, .allocator_data = bump},
        .base = base,
        .capacity_bytes = capacity_bytes,
    };
    return 0;
}

void bump_deinit(struct bump *bump) {
    free(bump->base);
    *bump = (struct bump){0};
}

void bump_reset(struct bump *bump) {
    bump->used_bytes = 0;
    bump->exhausted = false;
}

/* What was handed out before is void from here on. Whoever still needs it has not noticed that its
 * message is over, which the sanitizers would not see either: the memory stays mapped. */
ProtobufCAllocator *bump_begin(struct bump *bump) {
    bump_reset(bump);
    return &bump->allocator;
}
