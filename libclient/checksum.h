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

/* fc_checksum() of bytes that come in pieces. All but the last piece: a multiple of 64 bytes, where
 * they are copied. */
struct fc_checksum_stream {
    _Alignas(64) unsigned char state[576]; /* an XXH3_state_t */
};
void fc_checksum_begin(struct fc_checksum_stream *stream);
void fc_checksum_add(struct fc_checksum_stream *stream, const void *data, size_t bytes);
void fc_checksum_add_copy(struct fc_checksum_stream *stream, void *to, const void *from,
                          size_t bytes);
uint64_t fc_checksum_end(const struct fc_checksum_stream *stream);

#endif
