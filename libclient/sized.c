/* SPDX-License-Identifier: Apache-2.0
 *
 * A struct's size is read first and believed only within bounds: a program that has forgotten to
 * set it passes whatever was on its stack, and must get a sentence, not a crash.
 */
#include "sized.h"

#include <stdint.h>
#include <string.h>

#include "error.h"

/* Every struct of feature.h begins with its size. It is copied out rather than read through a
 * pointer to some struct, as at this point it is not known which struct it is. */
static size_t sized_bytes(const void *theirs) {
    size_t bytes;
    memcpy(&bytes, theirs, sizeof bytes);
    return bytes;
}

/* The size of an element is also the distance to the next one, whose fields must be aligned. */
static int sized_check_size(size_t bytes, size_t least_bytes, const char *name) {
    if (bytes < least_bytes || bytes > FC_SIZED_BYTES_MAX)
        return fc_fail(FEATURE_E_INVALID, "%s.size is %zu: set it to sizeof(struct %s)", name,
                       bytes, name);
    return FEATURE_OK;
}

/* A program that is newer than this library may have set a field that the library does not know.
 * Ignoring it could do something else than what was asked for, so a value other than zero is
 * refused; zero means the default, which is what the library does anyway. */
static int sized_check_tail(const void *theirs, size_t known_bytes, const char *name) {
    const uint8_t *at = theirs;
    for (size_t i = known_bytes; i < sized_bytes(theirs); i++)
        if (at[i])
            return fc_fail(FEATURE_E_UNSUPPORTED, "%s has a field this library (%s) does not know",
                           name, FEATURED_VERSION);
    return FEATURE_OK;
}

int fc_sized_read(void *out, size_t out_bytes, size_t least_bytes, const void *theirs,
                  const char *name) {
    memset(out, 0, out_bytes);
    if (!theirs)
        return FEATURE_OK;
    const size_t bytes = sized_bytes(theirs);
    int rc = sized_check_size(bytes, least_bytes, name);
    if (!rc)
        rc = sized_check_tail(theirs, out_bytes, name);
    if (!rc)
        memcpy(out, theirs, bytes < out_bytes ? bytes : out_bytes);
    return rc;
}

/* The distance between elements is the size that the program was compiled with, not ours. Elements
 * of different sizes can only mean that somebody forgot to set one, so the whole array is refused
 * before anything is done. */
int fc_sized_check(const void *theirs, size_t count, size_t known_bytes, size_t least_bytes,
                   const char *name) {
    if (!count)
        return FEATURE_OK;
    const size_t bytes = sized_bytes(theirs);
    int rc = sized_check_size(bytes, least_bytes, name);
    if (!rc && bytes % sizeof(void *))
        rc = fc_fail(FEATURE_E_INVALID, "%s.size is %zu, not that of an array's element", name,
                     bytes);
    for (size_t i = 0; !rc && i < count; i++) {
        const void *element = fc_sized_at(theirs, i);
        if (sized_bytes(element) != bytes)
            return fc_fail(FEATURE_E_INVALID,
                           "%s.size is %zu in element %zu and %zu in the first: set it to "
                           "sizeof(struct %s) in each",
                           name, sized_bytes(element), i, bytes, name);
        rc = sized_check_tail(element, known_bytes, name);
    }
    return rc;
}

void *fc_sized_at(const void *theirs, size_t i) {
    return (uint8_t *)theirs + i * sized_bytes(theirs);
}

int fc_sized_check_out(const void *theirs, const char *name) {
    return sized_check_size(sized_bytes(theirs), sizeof(size_t), name);
}

/* Writes everything behind the size field: that one stays what the caller has set, so that the
 * struct can be used for the next call. */
void fc_sized_write(void *theirs, const void *known, size_t known_bytes) {
    const size_t bytes = sized_bytes(theirs), head = sizeof bytes;
    const size_t filled = bytes < known_bytes ? bytes : known_bytes;
    memcpy((uint8_t *)theirs + head, (const uint8_t *)known + head, filled - head);
    memset((uint8_t *)theirs + filled, 0, bytes - filled);
}
