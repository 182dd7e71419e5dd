/* SPDX-License-Identifier: Apache-2.0
 *
 * Specs: an opaque text of up to 8 KiB and 8 bytes of checksum per tensor, back to back in a chain
 * of 124-byte pieces. The room for the checksums is taken with the spec, so that seal cannot fail;
 * 124 bytes hold a sample with one small tensor in a single chunk.
 */
#include <string.h>

#include "store/store_internal.h"

uint32_t spec_chunks(uint32_t spec_bytes, uint32_t tensor_count) {
    return (spec_bytes + tensor_count * 8 + CHUNK_DATA_BYTES - 1) / CHUNK_DATA_BYTES;
}

uint32_t spec_store(struct store *store, const void *spec, uint32_t spec_bytes,
                    uint32_t tensor_count) {
    uint32_t head = NONE;
    for (uint32_t left = spec_chunks(spec_bytes, tensor_count); left; left--) {
        uint32_t chunk = pool_take(store, &store->chunks);
        chunk_at(store, chunk)->next = head;
        head = chunk;
    }
    spec_write(store, head, 0, spec, spec_bytes);
    return head;
}

static uint32_t specs_piece(uint32_t at, uint32_t count) {
    return count < CHUNK_DATA_BYTES - at ? count : CHUNK_DATA_BYTES - at;
}

static uint32_t specs_seek(const struct store *store, uint32_t chunk, uint32_t offset) {
    for (; offset >= CHUNK_DATA_BYTES; offset -= CHUNK_DATA_BYTES)
        chunk = chunk_at(store, chunk)->next;
    return chunk;
}

void spec_write(struct store *store, uint32_t chunk, uint32_t offset, const void *bytes,
                uint32_t count) {
    const unsigned char *from = bytes;
    if (!count)
        return;
    chunk = specs_seek(store, chunk, offset);
    for (uint32_t at = offset % CHUNK_DATA_BYTES; count; at = 0) {
        uint32_t now = specs_piece(at, count);
        memcpy(chunk_at(store, chunk)->data + at, from, now);
        from += now;
        count -= now;
        chunk = chunk_at(store, chunk)->next;
    }
}

void spec_read(const struct store *store, uint32_t chunk, uint32_t offset, void *bytes,
               uint32_t count) {
    unsigned char *to = bytes;
    if (!count)
        return;
    chunk = specs_seek(store, chunk, offset);
    for (uint32_t at = offset % CHUNK_DATA_BYTES; count; at = 0) {
        uint32_t now = specs_piece(at, count);
        memcpy(to, chunk_at(store, chunk)->data + at, now);
        to += now;
        count -= now;
        chunk = chunk_at(store, chunk)->next;
    }
}

void spec_free(struct store *store, uint32_t chunk) {
    while (chunk != NONE) {
        uint32_t next = chunk_at(store, chunk)->next;
        pool_give(store, &store->chunks, chunk);
        chunk = next;
    }
}
