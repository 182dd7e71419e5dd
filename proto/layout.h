/* SPDX-License-Identifier: Apache-2.0
 *
 * Where the tensors of a sample lie inside its extent. Client and broker compute it from the same
 * specs, so only the extent's offset travels. Pure.
 *
 * A tensor of at least LAYOUT_LARGE_BYTES begins at a multiple of 4096, a smaller one at a multiple
 * of 64, both relative to the extent. The extent's own size is rounded up to 64 (to 4096 when any
 * tensor is large); extents of large samples begin at a multiple of 4096 in the arena.
 */
#ifndef FEATURED_PROTO_LAYOUT_H
#define FEATURED_PROTO_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

#include "common.pb-c.h"

#define LAYOUT_SMALL_ALIGN    64u
#define LAYOUT_LARGE_ALIGN    4096u
#define LAYOUT_LARGE_BYTES    4096u
#define LAYOUT_TENSORS_MAX    64u
#define LAYOUT_RANK_MAX       8u
#define LAYOUT_SPEC_BYTES_MAX 8192u /* packed SampleSpec, metadata included */
#define LAYOUT_ID_BYTES_MAX   128u
#define LAYOUT_NAME_BYTES_MAX 64u /* store and node names */
#define LAYOUT_NAME_RESERVED  "__metadata__"

struct layout {
    uint64_t offset_bytes[LAYOUT_TENSORS_MAX]; /* of each tensor inside the extent */
    uint64_t extent_bytes;                     /* >= 64 */
    uint64_t sum_bytes;                        /* of the tensors, without padding */
    uint32_t align_bytes;                      /* of the extent in the arena: 64 or 4096 */
    uint32_t tensor_count;
};

/* Element size in bits, 0 for a dtype that is not known. */
uint32_t layout_dtype_bits(Fb__Dtype dtype);
/* What a tensor takes. NULL, or a static sentence: dtype not known, too many dimensions, overflow,
 * or elements of 4 or 6 bits that end inside a byte. */
const char *layout_tensor_bytes(Fb__Dtype dtype, const uint64_t *shape, size_t rank,
                                uint64_t *bytes_out);

/* Checks the spec (names unique, 1..128 bytes and not reserved, dtype known, rank and count within
 * limits, bytes
 * == product of shape times element size, no overflow) and computes the layout. Returns NULL or a
 * static sentence naming what is wrong. */
const char *layout_compute(const Fb__SampleSpec *spec, struct layout *out);

/* NULL, or a static sentence: 1..128 bytes of UTF-8 without control characters. */
const char *layout_check_sample_id(const char *sample_id);
/* The same, and not the name under which a safetensors file keeps its metadata. */
const char *layout_check_tensor_name(const char *name);

/* NULL, or a static sentence: 1..64 of [A-Za-z0-9._-], not beginning with '.' or '-'. */
const char *layout_check_name(const char *name);

#endif
