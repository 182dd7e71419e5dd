/* SPDX-License-Identifier: Apache-2.0
 *
 * Where the tensors of a sample lie in its extent, computed by client and broker alike from the
 * specs alone, so that only the offset of the extent has to travel. Both must come to the same
 * numbers for ever: a sample may be read years after it was put, by another version. Never change
 * a rule here without another version of the client protocol.
 *
 * A spec comes from other programs. Every product and sum is checked for overflow before it is
 * used, since a size that wraps would let a tensor reach beyond its extent into another sample.
 *
 * The checks return NULL, or a static sentence that continues "sample s1: ...".
 */
#include "proto/layout.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>

#include "proto/text.h"

/* In bits, because F4 and F6 have less than a byte. 0: the number is not a dtype that we know; a
 * newer client may well send one. */
uint32_t layout_dtype_bits(Fb__Dtype dtype) {
    switch (dtype) {
    case FB__DTYPE__F4:
        return 4;
    case FB__DTYPE__F6_E2M3:
    case FB__DTYPE__F6_E3M2:
        return 6;
    case FB__DTYPE__BOOL:
    case FB__DTYPE__U8:
    case FB__DTYPE__I8:
    case FB__DTYPE__F8_E4M3:
    case FB__DTYPE__F8_E5M2:
    case FB__DTYPE__F8_E8M0:
    case FB__DTYPE__F8_E4M3FNUZ:
    case FB__DTYPE__F8_E5M2FNUZ:
        return 8;
    case FB__DTYPE__U16:
    case FB__DTYPE__I16:
    case FB__DTYPE__F16:
    case FB__DTYPE__BF16:
        return 16;
    case FB__DTYPE__U32:
    case FB__DTYPE__I32:
    case FB__DTYPE__F32:
    case FB__DTYPE__C32:
        return 32;
    case FB__DTYPE__U64:
    case FB__DTYPE__I64:
    case FB__DTYPE__F64:
    case FB__DTYPE__C64:
        return 64;
    case FB__DTYPE__C128:
        return 128;
    default:
        return 0;
    }
}

const char *layout_tensor_bytes(Fb__Dtype dtype, const uint64_t *shape, size_t rank,
                                uint64_t *bytes_out) {
    uint64_t bits = layout_dtype_bits(dtype), elements = 1;
    if (!bits)
        return "a tensor's dtype is unknown";
    if (rank > LAYOUT_RANK_MAX)
        return "a tensor has more than 8 dimensions";
    for (size_t i = 0; i < rank; i++)
        if (__builtin_mul_overflow(elements, shape[i], &elements))
            return "a tensor's shape overflows 64 bits";
    if (__builtin_mul_overflow(bits, elements, &bits))
        return "a tensor's shape overflows 64 bits";
    /* Elements lie without padding. Half a byte at the end would have a value that nobody has
     * written, and a checksum that depends on it. */
    if (bits % 8)
        return "a tensor's elements of less than a byte do not fill its last byte";
    *bytes_out = bits / 8;
    return NULL;
}

/* Names go into logs, terminals and file names. Control characters are refused here, once, rather
 * than escaped wherever a name is shown. */
static const char *layout_check_text(const char *text) {
    size_t bytes = strlen(text);
    if (!bytes)
        return "is empty";
    if (bytes > LAYOUT_ID_BYTES_MAX)
        return "is longer than 128 bytes";
    if (!text_is_utf8(text, bytes))
        return "is not valid UTF-8";
    for (const char *s = text; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f)
            return "has a control character";
    return NULL;
}

const char *layout_check_sample_id(const char *sample_id) {
    return layout_check_text(sample_id);
}

/* Names of stores and nodes become parts of paths and of etcd's keys: neither "/" nor ".." nor
 * anything that looks like an option can be one. */
const char *layout_check_name(const char *name) {
    if (!*name)
        return "is empty";
    if (strlen(name) > LAYOUT_NAME_BYTES_MAX)
        return "is longer than 64 bytes";
    if (*name == '.' || *name == '-')
        return "begins with '.' or '-'";
    for (const char *s = name; *s; s++)
        if (!isalnum((unsigned char)*s) && !strchr("._-", *s))
            return "has a character outside A-Z a-z 0-9 . _ -";
    return NULL;
}

const char *layout_check_tensor_name(const char *name) {
    return strcmp(name, LAYOUT_NAME_RESERVED) == 0
               ? "is reserved: a safetensors file has its metadata there"
               : layout_check_text(name);
}

static const char *layout_check_tensor(const Fb__TensorSpec *tensor) {
    uint64_t bytes;
    if (layout_check_tensor_name(tensor->name))
        return "a tensor's name is empty, longer than 128 bytes, not printable UTF-8, or "
               "__metadata__, which is reserved";
    const char *wrong = layout_tensor_bytes(tensor->dtype, tensor->shape, tensor->n_shape, &bytes);
    if (!wrong && bytes != tensor->bytes)
        return "a tensor's bytes differ from shape times element size";
    return wrong;
}

/* At most 64 names: comparing each with those before it is cheaper than any table. */
static bool layout_name_repeats(const Fb__SampleSpec *spec, size_t index) {
    for (size_t i = 0; i < index; i++)
        if (!strcmp(spec->tensors[i]->name, spec->tensors[index]->name))
            return true;
    return false;
}

static uint64_t layout_round_up(uint64_t value, uint64_t align) {
    return (value + align - 1) & ~(align - 1);
}

const char *layout_compute(const Fb__SampleSpec *spec, struct layout *out) {
    /* Far above any arena, far below overflow: 64 tensors of this size still add up in 64 bits. */
    const uint64_t tensor_bytes_max = 1ull << 48;
    if (!spec->n_tensors)
        return "a sample needs at least one tensor";
    if (spec->n_tensors > LAYOUT_TENSORS_MAX)
        return "a sample has more than 64 tensors";
    struct layout layout = {.align_bytes = LAYOUT_SMALL_ALIGN,
                            .tensor_count = (uint32_t)spec->n_tensors};
    uint64_t end_bytes = 0;
    for (size_t i = 0; i < spec->n_tensors; i++) {
        const Fb__TensorSpec *tensor = spec->tensors[i];
        const char *wrong = layout_check_tensor(tensor);
        if (wrong)
            return wrong;
        if (layout_name_repeats(spec, i))
            return "two tensors have the same name";
        if (tensor->bytes > tensor_bytes_max)
            return "a tensor is larger than 256 TiB";
        /* A large tensor begins at a page, so that a GPU can be told to copy it or a reader to map
         * it by itself. A small one begins at a cache line; a page for each would waste more than
         * the tensors take. */
        bool large = tensor->bytes >= LAYOUT_LARGE_BYTES;
        if (large)
            layout.align_bytes = LAYOUT_LARGE_ALIGN;
        layout.offset_bytes[i] =
            layout_round_up(end_bytes, large ? LAYOUT_LARGE_ALIGN : LAYOUT_SMALL_ALIGN);
        layout.sum_bytes += tensor->bytes;
        end_bytes = layout.offset_bytes[i] + tensor->bytes;
    }
    /* A sample whose tensors are all empty still has an extent, and thus a place of its own. */
    layout.extent_bytes = layout_round_up(end_bytes ? end_bytes : 1, layout.align_bytes);
    *out = layout;
    return NULL;
}
