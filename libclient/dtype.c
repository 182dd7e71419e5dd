/* SPDX-License-Identifier: Apache-2.0
 *
 * Names and sizes of dtypes. The numbers are those of the wire (libclient/agree.c), the sizes come
 * from proto/layout.c, where broker and client have them in common; here are only the names, which
 * are those of safetensors files, and C32 and C128, which such files do not have.
 */
#include <string.h>

#include "feature.h"
#include "proto/layout.h"

static const char *const names[] = {
    [FEATURE_DTYPE_BOOL] = "BOOL",
    [FEATURE_DTYPE_U8] = "U8",
    [FEATURE_DTYPE_I8] = "I8",
    [FEATURE_DTYPE_F8_E4M3] = "F8_E4M3",
    [FEATURE_DTYPE_F8_E5M2] = "F8_E5M2",
    [FEATURE_DTYPE_U16] = "U16",
    [FEATURE_DTYPE_I16] = "I16",
    [FEATURE_DTYPE_F16] = "F16",
    [FEATURE_DTYPE_BF16] = "BF16",
    [FEATURE_DTYPE_U32] = "U32",
    [FEATURE_DTYPE_I32] = "I32",
    [FEATURE_DTYPE_F32] = "F32",
    [FEATURE_DTYPE_U64] = "U64",
    [FEATURE_DTYPE_I64] = "I64",
    [FEATURE_DTYPE_F64] = "F64",
    [FEATURE_DTYPE_F8_E8M0] = "F8_E8M0",
    [FEATURE_DTYPE_F8_E4M3FNUZ] = "F8_E4M3FNUZ",
    [FEATURE_DTYPE_F8_E5M2FNUZ] = "F8_E5M2FNUZ",
    [FEATURE_DTYPE_F4] = "F4",
    [FEATURE_DTYPE_F6_E2M3] = "F6_E2M3",
    [FEATURE_DTYPE_F6_E3M2] = "F6_E3M2",
    [FEATURE_DTYPE_C64] = "C64",
    [FEATURE_DTYPE_C32] = "C32",
    [FEATURE_DTYPE_C128] = "C128",
};
#define NAME_COUNT (sizeof names / sizeof *names)

/* 0 for F4 and F6: they have no whole number of bytes, and rounding would give a wrong size for
 * the whole tensor. */
uint32_t feature_dtype_bytes(enum feature_dtype dtype) {
    uint32_t bits = layout_dtype_bits((Fb__Dtype)dtype);
    return bits % 8 ? 0 : bits / 8;
}

uint32_t feature_dtype_bits(enum feature_dtype dtype) {
    return layout_dtype_bits((Fb__Dtype)dtype);
}

const char *feature_dtype_name(enum feature_dtype dtype) {
    return (size_t)dtype < NAME_COUNT ? names[dtype] : NULL;
}

enum feature_dtype feature_dtype_parse(const char *name) {
    for (size_t i = 1; name && i < NAME_COUNT; i++)
        if (!strcmp(names[i], name))
            return (enum feature_dtype)i;
    return (enum feature_dtype)0;
}
