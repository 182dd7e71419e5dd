/* SPDX-License-Identifier: Apache-2.0
 *
 * The same sums with 32-byte vectors; called only on processors that have them (checksum.c).
 *
 * xxhash.h is header-only and takes the widest vectors that the compiler may use. So this file
 * alone is compiled for AVX2, by a pragma that stands before the includes: with a flag for the
 * whole library it would not start on older processors. On other architectures the file is empty
 * but for one name, as C has no empty files.
 */
#ifdef __x86_64__
#include <immintrin.h>
#define XXH_VECTOR 2 /* XXH_AVX2 */
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2")
#endif

#include "checksum_kernel.h"

const struct checksum_kernel fc_checksum_avx2 = CHECKSUM_KERNEL;

#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#else
typedef int checksum_avx2_has_nothing_here;
#endif
