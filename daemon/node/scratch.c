/* SPDX-License-Identifier: Apache-2.0 */
#include "node/scratch.h"

static void *scratch_alloc(void *context, size_t bytes) {
    struct scratch *scratch = context;
    size_t rounded = (bytes + 15) & ~(size_t)15;
    if (bytes > SCRATCH_BYTES || rounded > SCRATCH_BYTES - scratch->used_bytes)
        return NULL;
    void *at = scratch->bytes + scratch->used_bytes;
    scratch->used_bytes += rounded;
    return at;
}

static void scratch_free(void *context, void *pointer) {
    (void)context, (void)pointer;
}

void scratch_init(struct scratch *scratch) {
    scratch->allocator = (ProtobufCAllocator){scratch_alloc, scratch_free, scratch};
    scratch->used_bytes = 0;
}

ProtobufCAllocator *scratch_begin(struct scratch *scratch) {
    scratch->used_bytes = 0;
    return &scratch->allocator;
}
