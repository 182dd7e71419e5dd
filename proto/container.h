/* SPDX-License-Identifier: Apache-2.0
 *
 * From a struct inside another to the one around it. A heap of deadlines, for example, knows only
 * the `struct deadline` inside a call; the call is container_of(deadline, struct call, due).
 */
#ifndef FEATURED_PROTO_CONTAINER_H
#define FEATURED_PROTO_CONTAINER_H

#include <stddef.h>

/* pointer: to the member named `member` of a struct of that type; must not be NULL. The comparison
 * makes the compiler refuse a pointer to something else than that member. */
#define container_of(pointer, type, member)                                                        \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member) +                                   \
                      0 * sizeof((pointer) == &((type *)0)->member)))

#endif
