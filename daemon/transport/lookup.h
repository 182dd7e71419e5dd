/* SPDX-License-Identifier: Apache-2.0
 *
 * From "host:port" to the addresses that it stands for.
 */
#ifndef FEATURED_TRANSPORT_LOOKUP_H
#define FEATURED_TRANSPORT_LOOKUP_H

#include <netdb.h>
#include <stdbool.h>
#include <uv.h>

struct lookup;
/* status: 0 or an error of libuv. found: the caller's from here on (uv_freeaddrinfo), or NULL. */
typedef void (*lookup_fn)(struct lookup *lookup, int status, struct addrinfo *found);

struct lookup { /* zeros: none is under way */
    uv_getaddrinfo_t request;
    lookup_fn done;
};

/* An address in numbers is answered at once, in *found, and `done` is never called. A name goes
 * through libuv's pool: *found is NULL, and `done` is called once, from the loop. The lookup must
 * stay where it is until then. 0, -EINVAL (not host:port), or an error of libuv. */
int lookup_start(struct lookup *lookup, uv_loop_t *loop, const char *address, lookup_fn done,
                 struct addrinfo **found);
bool lookup_is_under_way(const struct lookup *lookup);
/* `done` comes nevertheless, as soon as libuv can. */
void lookup_cancel(struct lookup *lookup);

/* An address of this machine to listen at; an empty host is every address. Blocks on a name, which
 * is all right at the start of a daemon. 0, -EINVAL, -EADDRNOTAVAIL; *found: freeaddrinfo. */
int lookup_own(const char *address, struct addrinfo **found);

#endif
