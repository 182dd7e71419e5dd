/* SPDX-License-Identifier: Apache-2.0
 *
 * Allocation for a command that cannot go on without memory: says so and exits with the code of
 * FEATURE_E_INTERNAL instead of returning NULL. Results are freed with free().
 */
#ifndef FEATURED_CTL_MEMORY_H
#define FEATURED_CTL_MEMORY_H

#include <stddef.h>

/* Room for count elements; NULL grows from nothing. */
void *memory_grow(void *old, size_t count, size_t element_bytes);
char *memory_copy(const char *text);
char *memory_print(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
