/* SPDX-License-Identifier: Apache-2.0
 *
 * The allocator that notes a failure.
 */
#include "proto/decoding.h"

#include <stdlib.h>

static void *decoding_alloc(void *context, size_t bytes) {
    struct decoding *decoding = context;
    void *block = malloc(bytes);
    decoding->out_of_memory |= !block;
    return block;
}

static void decoding_free(void *context, void *block) {
    (void)context;
    free(block);
}

void decoding_init(struct decoding *decoding) {
    *decoding = (struct decoding){
        .allocator = {.alloc = decoding_alloc, .free = decoding_free, .allocator_data = decoding}};
}
