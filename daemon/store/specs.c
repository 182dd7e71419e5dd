/* SPDX-License-Identifier: Apache-2.0
 *
 * Where specs and checksums are kept: for each sample an opaque text of up to 8 KiB (names, types
 * and shapes of the tensors, packed by the client) and 8 bytes of checksum per tensor, back to back
 * in a chain of 124-byte pieces.
 *
 * The room for the checksums is taken together with that for the spec, before the client writes any
 * bytes. So store_seal(), which brings the checksums, cannot fail for want of room after gigabytes
 * have been written. A piece has 124 bytes because with the link it fills 128, two cache lines, and
 * holds a sample with one small tensor.
 */
#include <string.h>

#include "store/store_internal.h"

/* How many pieces a spec with its checksums takes. A sample without a spec and without tensors
 * takes none. */
uint32_t spec_chunks(uint32_t spec_bytes, uint32_t tensor_count) {
    return (spec_bytes + tensor_count * 8 + CHUNK_DATA_BYTES - 1) / CHUNK_DATA_BYTES;
}

/* The chain is built from its end, so that each new piece only needs to know the one that follows.
 * The checksums are not written yet; their pieces hold whatever was there before. */
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

/* How many of `count` bytes still fit into the piece of which `at` bytes are before them. */
static uint32_t specs_piece(uint32_t at, uint32_t count) {
    return count < CHUNK_DATA_BYTES - at ? count : CHUNK_DATA_BYTES - at;
}

/* The piece in which byte `offset` of the chain lies. The longest chain has 71 pieces, so a walk is
 * cheap. */
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
