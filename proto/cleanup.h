/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory and descriptors that end with the block they were declared in, for functions with more
 * than one way out:
 *
 *     cleanup_free struct call *call = calloc(1, sizeof *call);
 *     if (!call || call_open(call) < 0)
 *         return NULL;             // call is freed
 *     return steal_pointer(&call); // the caller's from here on
 *
 * Uses the cleanup attribute of gcc and clang. A variable declared so must be set where it is
 * declared.
 */
#ifndef FEATURED_PROTO_CLEANUP_H
#define FEATURED_PROTO_CLEANUP_H

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static inline void cleanup_free_pointer(void *variable) {
    free(*(void **)variable);
}

static inline void cleanup_close_descriptor(int *variable) {
    int kept_errno = errno;
    if (*variable >= 0)
        close(*variable);
    errno = kept_errno;
}

#define cleanup_free __attribute__((cleanup(cleanup_free_pointer)))
/* Of an int: -1 means that there is nothing to close. errno stays as it was. */
#define cleanup_close __attribute__((cleanup(cleanup_close_descriptor)))
/* For other types: cleanup_with(function) where function takes a pointer to the variable. */
#define cleanup_with(function) __attribute__((cleanup(function)))

/* Takes the value out of the variable, which then has nothing left to clean up. */
#define steal_pointer(variable)                                                                    \
    __extension__({                                                                                \
        __typeof__(variable) stolen_from = (variable);                                             \
        __typeof__(*stolen_from) stolen = *stolen_from;                                            \
        *stolen_from = NULL;                                                                       \
        stolen;                                                                                    \
    })
static inline int steal_descriptor(int *variable) {
    int descriptor = *variable;
    *variable = -1;
    return descriptor;
}

#endif
