/* SPDX-License-Identifier: Apache-2.0
 *
 * Integers in bytes, least significant byte first, as every protocol of ours writes them. The bytes
 * need no alignment: they are copied, never looked at through a pointer to an integer.
 */
#ifndef FEATURED_PROTO_LITTLE_ENDIAN_H
#define FEATURED_PROTO_LITTLE_ENDIAN_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

static inline void put16(uint8_t *out, uint16_t value) {
    value = htole16(value);
    memcpy(out, &value, sizeof value);
}

static inline void put32(uint8_t *out, uint32_t value) {
    value = htole32(value);
    memcpy(out, &value, sizeof value);
}

static inline void put64(uint8_t *out, uint64_t value) {
    value = htole64(value);
    memcpy(out, &value, sizeof value);
}

static inline uint16_t get16(const uint8_t *in) {
    uint16_t value;
    memcpy(&value, in, sizeof value);
    return le16toh(value);
}

static inline uint32_t get32(const uint8_t *in) {
    uint32_t value;
    memcpy(&value, in, sizeof value);
    return le32toh(value);
}

static inline uint64_t get64(const uint8_t *in) {
    uint64_t value;
    memcpy(&value, in, sizeof value);
    return le64toh(value);
}

#endif
