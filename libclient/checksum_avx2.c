/* SPDX-License-Identifier: Apache-2.0
 *
 * The checksum loops for CPUs with AVX2; the Makefile compiles this file for them. Called only
 * after checksum.c has asked the CPU.
 */
#include "checksum_avx2.h"

#include "checksum_kernel.h"

uint64_t fc_checksum_avx2(const void *data, size_t bytes) {
    return kernel_checksum(data, bytes);
}

uint64_t fc_checksum_copy_avx2(void *to, const void *from, size_t bytes) {
    return kernel_checksum_copy(to, from, bytes);
}
