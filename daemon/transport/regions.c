/* SPDX-License-Identifier: Apache-2.0
 *
 * An array of slots; a region's number is its slot. There is about one region per store, so looking
 * an address up walks them all. Ranges are compared by what is left behind the offset: nothing can
 * overflow.
 */
#include "transport/regions.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "proto/little_endian.h"

enum { REGION_NUMBER_BYTES = 4 }; /* in front of a key; the hash follows */

void regions_deinit(struct regions *regions) {
    free(regions->slots);
    *regions = (struct regions){0};
}

/* The lowest free one. A number is used again, a key is not: each region has a secret of its own.
 */
static int regions_find_free_slot(struct regions *regions, uint32_t *slot_out) {
    for (uint32_t i = 0; i < regions->count; i++)
        if (regions->slots[i].base == NULL) {
            *slot_out = i;
            return 0;
        }
    struct region *slots = reallocarray(regions->slots, regions->count + 1, sizeof *slots);
    if (slots == NULL)
        return -ENOMEM;
    regions->slots = slots;
    *slot_out = regions->count++;
    return 0;
}

int regions_add(struct regions *regions, void *base, uint64_t bytes, uint64_t secret,
                uint32_t *region_out) {
    uint32_t slot;
    if (base == NULL || bytes == 0 || bytes > UINTPTR_MAX - (uintptr_t)base)
        return -EINVAL;
    int r = regions_find_free_slot(regions, &slot);
    if (r < 0)
        return r;
    regions->slots[slot] = (struct region){base, bytes, secret};
    *region_out = slot;
    return 0;
}

void regions_remove(struct regions *regions, uint32_t region) {
    if (region < regions->count)
        regions->slots[region] = (struct region){0};
}

/* SipHash, which libsodium makes with a key of 16 bytes; the secret is half of it. */
static uint64_t regions_cookie(const struct region *region, uint64_t connection) {
    uint8_t key[crypto_shorthash_KEYBYTES] = {0}, hash[crypto_shorthash_BYTES];
    uint8_t text[sizeof connection];
    uint64_t cookie;
    static_assert(sizeof hash == sizeof cookie, "one number");
    put64(key, region->secret);
    put64(text, connection);
    crypto_shorthash(hash, text, sizeof text, key);
    memcpy(&cookie, hash, sizeof cookie);
    return cookie; /* as bytes: whoever compares it has made it the same way */
}

/* For one connection: the answer to "may this peer read this region" is given by whoever asks for
 * the key, once, and cannot be passed on to another peer. */
int regions_key(const struct regions *regions, uint64_t connection, uint32_t region, void *out,
                size_t out_bytes) {
    if (region >= regions->count || regions->slots[region].base == NULL)
        return -ENOENT;
    if (out_bytes < REGION_KEY_BYTES)
        return -EMSGSIZE;
    uint64_t cookie = regions_cookie(&regions->slots[region], connection);
    put32(out, region);
    memcpy((uint8_t *)out + REGION_NUMBER_BYTES, &cookie, sizeof cookie);
    return REGION_KEY_BYTES;
}

/* Written so that nothing is added: offset + bytes of a peer could wrap round. */
static bool regions_range_inside(uint64_t offset, uint64_t bytes, uint64_t limit) {
    return bytes > 0 && offset < limit && bytes <= limit - offset;
}

/* Everything here comes from a peer. All refusals are one errno, so that probing tells nothing
 * about which part was wrong. */
int regions_resolve(const struct regions *regions, uint64_t connection, const void *key,
                    size_t key_bytes, uint64_t offset, uint64_t bytes, uint32_t *region_out,
                    uint8_t **at_out) {
    uint64_t cookie;
    if (key_bytes != REGION_KEY_BYTES)
        return -EINVAL;
    uint32_t number = get32(key);
    memcpy(&cookie, (const uint8_t *)key + REGION_NUMBER_BYTES, sizeof cookie);
    if (number >= regions->count)
        return -EINVAL;
    const struct region *region = &regions->slots[number];
    if (region->base == NULL || regions_cookie(region, connection) != cookie ||
        !regions_range_inside(offset, bytes, region->bytes))
        return -EINVAL;
    *region_out = number;
    *at_out = region->base + offset;
    return 0;
}

/* For our own landing ranges, as integers: comparing pointers into different objects is not defined
 * in C. */
int regions_find(const struct regions *regions, const void *at, uint64_t bytes,
                 uint32_t *region_out) {
    for (uint32_t i = 0; i < regions->count; i++) {
        const struct region *region = &regions->slots[i];
        uintptr_t base = (uintptr_t)region->base, address = (uintptr_t)at;
        if (region->base != NULL && address >= base &&
            regions_range_inside(address - base, bytes, region->bytes)) {
            *region_out = i;
            return 0;
        }
    }
    return -EINVAL;
}
