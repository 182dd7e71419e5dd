/* SPDX-License-Identifier: Apache-2.0
 *
 * The structs of feature.h between a program and a library of different ages. Each begins with a
 * `size_t size`, which is sizeof of the struct in the header that its maker was compiled with:
 *
 *   the program is older    size < ours    what is missing counts as zero and is never written
 *   the program is newer    size > ours    what is beyond must be zero, and is zero in answers
 */
#ifndef FEATURED_LIBCLIENT_SIZED_H
#define FEATURED_LIBCLIENT_SIZED_H

#include <stddef.h>

/* No struct of feature.h will ever be larger. A larger size is one that nobody has set. */
#define FC_SIZED_BYTES_MAX 4096u
/* The size of a struct whose last field is this one: what its first version had. */
#define FC_SIZED_UNTIL(type, field) (offsetof(type, field) + sizeof(((type *)0)->field))

/* Copies *theirs, of any size, into *out, which has out_bytes. theirs == NULL stands for all
 * defaults. least_bytes: without these the struct is of no use (at least sizeof(size_t)). name:
 * "feature_key", for the sentence. FEATURE_OK, FEATURE_E_INVALID, or FEATURE_E_UNSUPPORTED when a
 * field is set that this library does not know. */
int fc_sized_read(void *out, size_t out_bytes, size_t least_bytes, const void *theirs,
                  const char *name);
/* The checks of fc_sized_read() alone, of `count` elements of an array that is used where it is. */
int fc_sized_check(const void *theirs, size_t count, size_t known_bytes, size_t least_bytes,
                   const char *name);
/* Element i of an array that fc_sized_check() has passed. */
void *fc_sized_at(const void *theirs, size_t i);
/* Whether a struct may be written by fc_sized_write(): its size is one. */
int fc_sized_check_out(const void *theirs, const char *name);
/* Writes what the library knows into *theirs, as much as fits, and zero beyond. Its size stays. */
void fc_sized_write(void *theirs, const void *known, size_t known_bytes);

#endif
