/* SPDX-License-Identifier: Apache-2.0
 *
 * XXH3 compiled for one instruction set. xxhash.h chooses it at compile time, so this is included
 * by one .c for each, which first says which.
 */
#ifndef FEATURED_LIBCLIENT_CHECKSUM_KERNEL_H
#define FEATURED_LIBCLIENT_CHECKSUM_KERNEL_H

#define XXH_INLINE_ALL
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <xxhash.h>

#include "checksum.h"
#include "copy.h"

/* So small that what was hashed is still in the first-level cache when it is copied. Measured on a
 * Zen core, 16 MiB, best of 41, over memcpy alone: 4 or 8 KiB 0.9 to 1.0; 64 to 256 KiB 0.65 to
 * 0.85. */
#define CHECKSUM_BLOCK_BYTES (8u << 10)

struct checksum_kernel {
    uint64_t (*sum)(const void *data, size_t bytes);
    void (*copy)(struct fc_checksum_stream *stream, void *to, const void *from, size_t bytes);
    void (*begin)(struct fc_checksum_stream *stream);
    void (*add)(struct fc_checksum_stream *stream, const void *data, size_t bytes);
    uint64_t (*end)(const struct fc_checksum_stream *stream);
};
#define CHECKSUM_KERNEL                                                                            \
    {                                                                                              \
        .sum = kernel_sum, .copy = kernel_copy, .begin = kernel_begin, .add = kernel_add,          \
        .end = kernel_end,                                                                         \
    }
#ifdef __x86_64__
extern const struct checksum_kernel fc_checksum_avx2;
#endif

static uint64_t kernel_sum(const void *data, size_t bytes) {
    return XXH3_64bits(data, bytes);
}

static void kernel_copy(struct fc_checksum_stream *stream, void *to, const void *from,
                        size_t bytes) {
    const bool streams = fc_copy_streams(to, bytes);
    XXH3_state_t *state = (XXH3_state_t *)stream->state;
    for (size_t done = 0, block; done < bytes; done += block) {
        block = bytes - done < CHECKSUM_BLOCK_BYTES ? bytes - done : CHECKSUM_BLOCK_BYTES;
        XXH3_64bits_update(state, (const uint8_t *)from + done, block);
        if (streams && block == CHECKSUM_BLOCK_BYTES)
            fc_copy_stream((uint8_t *)to + done, (const uint8_t *)from + done, block);
        else
            memcpy((uint8_t *)to + done, (const uint8_t *)from + done, block);
    }
    fc_copy_fence();
}

_Static_assert(sizeof(struct fc_checksum_stream) >= sizeof(XXH3_state_t) &&
                   _Alignof(struct fc_checksum_stream) % _Alignof(XXH3_state_t) == 0,
               "a stream holds the state of XXH3");

static void kernel_begin(struct fc_checksum_stream *stream) {
    XXH3_64bits_reset((XXH3_state_t *)stream->state);
}

static void kernel_add(struct fc_checksum_stream *stream, const void *data, size_t bytes) {
    XXH3_64bits_update((XXH3_state_t *)stream->state, data, bytes);
}

static uint64_t kernel_end(const struct fc_checksum_stream *stream) {
    return XXH3_64bits_digest((const XXH3_state_t *)stream->state);
}

#endif
