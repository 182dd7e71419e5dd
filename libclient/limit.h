/* SPDX-License-Identifier: Apache-2.0
 *
 * Failures that come from a limit of this process, as sentences that name the limit with both
 * numbers. All are FEATURE_E_FULL, concern the one call alone, and never the connection.
 */
#ifndef FEATURED_LIBCLIENT_LIMIT_H
#define FEATURED_LIBCLIENT_LIMIT_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* No descriptor was to be had: error is EMFILE or ENFILE, or 0 when one was lost on its way and it
 * is to be found out why. */
int fc_fail_descriptor(const char *what, int error);
/* mmap() of so many bytes failed with this errno. */
int fc_fail_map(const char *what, uint64_t bytes, int error);
/* malloc() failed, or the kernel had no memory. */
int fc_fail_memory(const char *what);

/* malloc() for a decoder, which sets *short_of_memory when it fails: what does not decode is not
 * always wrong. */
ProtobufCAllocator fc_noting_allocator(bool *short_of_memory);
/* In place of a sentence that says what is wrong with something: nothing is, malloc() failed. */
extern const char *const fc_wrong_memory;
/* Fails with fc_fail_memory(what) for that one, else with this error and "WHAT: WRONG". */
int fc_fail_wrong(int error, const char *what, const char *wrong);

#endif
