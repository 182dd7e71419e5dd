/* SPDX-License-Identifier: Apache-2.0 */
#include "layout.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>

uint32_t layout_dtype_bytes(Fb__Dtype dtype) {
    switch (dtype) {
    case FB__DTYPE__BOOL:
    case FB__DTYPE__U8:
    case FB__DTYPE__I8:
    case FB__DTYPE__F8_E4M3:
    case FB__DTYPE__F8_E5M2:
        return 1;
    case FB__DTYPE__U16:
    case FB__DTYPE__I16:
    case FB__DTYPE__F16:
    case FB__DTYPE__BF16:
        return 2;
    case FB__DTYPE__U32:
    case FB__DTYPE__I32:
    case FB__DTYPE__F32:
        return 4;
    case FB__DTYPE__U64:
    case FB__DTYPE__I64:
    case FB__DTYPE__F64:
        return 8;
    default:
        return 0;
    }
}

/* Length of the UTF-8 sequence at s (RFC 3629: no overlong forms, no surrogates), 0 if malformed.
 */
static size_t utf8_length(const unsigned char *s) {
    if (s[0] < 0x80)
        return 1;
    size_t length = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4)
        return 0;
    for (size_t i = 1; i < length; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
        (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
        return 0;
    return length;
}

static const char *check_text(const char *text) {
    const unsigned char *s = (const unsigned char *)text;
    if (!*s)
        return "is empty";
    if (strlen(text) > LAYOUT_ID_BYTES_MAX)
        return "is longer than 128 bytes";
    while (*s) {
        size_t length = utf8_length(s);
        if (!length)
            return "is not valid UTF-8";
        if (length == 1 && iscntrl(*s))
            return "has a control character";
        s += length;
    }
    return NULL;
}

const char *layout_check_sample_id(const char *sample_id) {
    return check_text(sample_id);
}

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

static const char *check_tensor(const Fb__TensorSpec *tensor) {
    uint64_t bytes = layout_dtype_bytes(tensor->dtype);
    if (check_text(tensor->name))
        return "a tensor's name is empty, longer than 128 bytes, or not printable UTF-8";
    if (!bytes)
        return "a tensor's dtype is unknown";
    if (tensor->n_shape > LAYOUT_RANK_MAX)
        return "a tensor has more than 8 dimensions";
    for (size_t i = 0; i < tensor->n_shape; i++)
        if (__builtin_mul_overflow(bytes, tensor->shape[i], &bytes))
            return "a tensor's shape overflows 64 bits";
    if (bytes != tensor->bytes)
        return "a tensor's bytes differ from shape times element size";
    return NULL;
}

static bool name_repeats(const Fb__SampleSpec *spec, size_t index) {
    for (size_t i = 0; i < index; i++)
        if (!strcmp(spec->tensors[i]->name, spec->tensors[index]->name))
            return true;
    return false;
}

static uint64_t round_up(uint64_t value, uint64_t align) {
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
        const char *wrong = check_tensor(tensor);
        if (wrong)
            return wrong;
        if (name_repeats(spec, i))
            return "two tensors have the same name";
        if (tensor->bytes > tensor_bytes_max)
            return "a tensor is larger than 256 TiB";
        bool large = tensor->bytes >= LAYOUT_LARGE_BYTES;
        if (large)
            layout.align_bytes = LAYOUT_LARGE_ALIGN;
        layout.offset_bytes[i] =
            round_up(end_bytes, large ? LAYOUT_LARGE_ALIGN : LAYOUT_SMALL_ALIGN);
        layout.sum_bytes += tensor->bytes;
        end_bytes = layout.offset_bytes[i] + tensor->bytes;
    }
    layout.extent_bytes = round_up(end_bytes ? end_bytes : 1, layout.align_bytes);
    *out = layout;
    return NULL;
}
