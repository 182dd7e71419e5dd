/* SPDX-License-Identifier: Apache-2.0
 *
 * No state. Nothing above this file checks an allocation of its own.
 *
 * featurectl is a short-lived command: without memory it says so and ends, for there is nothing
 * to be rescued. The library and the daemon never do that.
 */
#include "featurectl/memory.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "featurectl/exit_code.h"

/* Without memory_print(): that would need memory. */
static _Noreturn void memory_out_of_memory(void) {
    fputs("featurectl: out of memory\n", stderr);
    exit(exit_code(FEATURE_E_INTERNAL));
}

/* Never NULL, also for a count of 0. The product is checked for overflow by reallocarray(3). */
void *memory_grow(void *old, size_t count, size_t element_bytes) {
    void *grown = reallocarray(old, count ? count : 1, element_bytes);
    if (!grown)
        memory_out_of_memory();
    return grown;
}

char *memory_copy(const char *text) {
    char *copy = strdup(text);
    if (!copy)
        memory_out_of_memory();
    return copy;
}

char *memory_print(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    char *text = NULL;
    int length = vasprintf(&text, format, arguments);
    va_end(arguments);
    if (length < 0)
        memory_out_of_memory();
    return text;
}
