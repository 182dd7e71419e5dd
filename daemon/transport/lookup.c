/* SPDX-License-Identifier: Apache-2.0
 *
 * getaddrinfo() may wait for a name server, so a name is resolved on libuv's pool. With
 * AI_NUMERICHOST it never waits, so most addresses need no detour through the pool, and the
 * dialler has its first packet out before connect() returns.
 */
#include "transport/lookup.h"

#include <errno.h>
#include <stddef.h>

#include "proto/container.h"
#include "transport/address.h"

static void lookup_on_done(uv_getaddrinfo_t *request, int status, struct addrinfo *found) {
    struct lookup *lookup = container_of(request, struct lookup, request);
    lookup_fn done = lookup->done;
    lookup->done = NULL; /* first: done may free what the lookup is in */
    done(lookup, status, found);
}

int lookup_start(struct lookup *lookup, uv_loop_t *loop, const char *address, lookup_fn done,
                 struct addrinfo **found) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_NUMERICSERV | AI_NUMERICHOST};
    struct address parts;
    int r = address_parse(address, &parts);
    if (r < 0)
        return r;
    if (getaddrinfo(parts.host, parts.port, &hints, found) == 0)
        return 0;
    *found = NULL;
    hints.ai_flags = AI_NUMERICSERV;
    r = uv_getaddrinfo(loop, &lookup->request, lookup_on_done, parts.host, parts.port, &hints);
    if (r == 0)
        lookup->done = done;
    return r;
}

bool lookup_is_under_way(const struct lookup *lookup) {
    return lookup->done != NULL;
}

/* Cancelling is a request: a lookup that the pool has begun is not interrupted, and its answer
 * comes all the same. */
void lookup_cancel(struct lookup *lookup) {
    if (lookup_is_under_way(lookup))
        uv_cancel((uv_req_t *)&lookup->request);
}

int lookup_own(const char *address, struct addrinfo **found) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct address parts;
    int r = address_parse(address, &parts);
    if (r < 0)
        return r;
    return getaddrinfo(parts.host[0] == '\0' ? NULL : parts.host, parts.port, &hints, found) == 0
               ? 0
               : -EADDRNOTAVAIL;
}
