/* SPDX-License-Identifier: Apache-2.0
 *
 * XXH3-64 of tensor bytes, the checksum that refs carry.
 */
#ifndef FEATURED_LIBCLIENT_CHECKSUM_H
#define FEATURED_LIBCLIENT_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

uint64_t fc_checksum(const void *data, size_t bytes);
/* memcpy() and fc_checksum() of what was copied, in one pass over memory. */
uint64_t fc_checksum_copy(void *to, const void *from, size_t bytes);

#endif
