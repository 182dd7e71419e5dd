/* SPDX-License-Identifier: Apache-2.0 */
#define XXH_INLINE_ALL
#include "checksum.h"

#include <string.h>
#include <xxhash.h>

/* Fits the second-level cache of any current core, and is long enough that the loop costs nothing.
 */
#define BLOCK_BYTES (256u << 10)

uint64_t fc_checksum(const void *data, size_t bytes) {
    return XXH3_64bits(data, bytes);
}

uint64_t fc_checksum_copy(void *to, const void *from, size_t bytes) {
    XXH3_state_t state;
    XXH3_64bits_reset(&state);
    for (size_t done = 0, block; done < bytes; done += block) {
        block = bytes - done < BLOCK_BYTES ? bytes - done : BLOCK_BYTES;
        memcpy((uint8_t *)to + done, (const uint8_t *)from + done, block);
        XXH3_64bits_update(&state, (const uint8_t *)from + done, block);
    }
    return XXH3_64bits_digest(&state);
}
