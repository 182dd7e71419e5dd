/* SPDX-License-Identifier: Apache-2.0
 *
 * As in checksum.h, for CPUs with AVX2 only.
 */
#ifndef FEATURED_LIBCLIENT_CHECKSUM_AVX2_H
#define FEATURED_LIBCLIENT_CHECKSUM_AVX2_H

#include <stddef.h>
#include <stdint.h>

uint64_t fc_checksum_avx2(const void *data, size_t bytes);
uint64_t fc_checksum_copy_avx2(void *to, const void *from, size_t bytes);

#endif
