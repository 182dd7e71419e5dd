/* SPDX-License-Identifier: Apache-2.0
 *
 * Where a node can be dialled besides the address its owner gives: on each of the rails that it has
 * told. A connection lives on one of them, the one that carries its messages; when that rail fails
 * the connection ends, and the next dial begins with another.
 *
 * Every dial tries all of them, the given address among them, and every failure moves the beginning
 * on by one: so what was told long ago cannot keep us from a node that has moved.
 */
#include "transport/rdma/routes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "transport/address.h"

static struct rdma_paths *routes_find(struct rdma *rdma, const char *address) {
    struct rdma_paths *route;
    LIST_FOREACH (route, &rdma->routes, all)
        if (strcmp(route->address, address) == 0)
            return route;
    return NULL;
}

void rroute_learn(struct rdma *rdma, const char *address,
                  const struct sockaddr_storage rails[RAILS_MAX]) {
    struct rdma_paths *route = routes_find(rdma, address);
    if (route == NULL)
        route = calloc(1, sizeof *route);
    else
        LIST_REMOVE(route, all);
    if (route == NULL)
        return; /* the address itself can be dialled nevertheless */
    snprintf(route->address, sizeof route->address, "%s", address);
    memcpy(route->rails, rails, sizeof route->rails);
    LIST_INSERT_HEAD(&rdma->routes, route, all);
}

uint32_t rroute_targets(struct rdma *rdma, const char *address,
                        const struct sockaddr_storage *resolved,
                        struct sockaddr_storage out[ROUTE_TARGETS_MAX]) {
    const struct rdma_paths *route = routes_find(rdma, address);
    struct sockaddr_storage all[ROUTE_TARGETS_MAX] = {*resolved};
    uint32_t count = 1;
    for (uint32_t i = 0; route != NULL && i < RAILS_MAX; i++)
        if (route->rails[i].ss_family != AF_UNSPEC &&
            !address_same_host((const struct sockaddr *)&route->rails[i],
                               (const struct sockaddr *)resolved))
            all[count++] = route->rails[i];
    for (uint32_t i = 0; i < count; i++)
        out[i] = all[(i + (route != NULL ? route->failures : 0)) % count];
    return count;
}

void rroute_failed(struct rdma *rdma, const char *address) {
    struct rdma_paths *route = routes_find(rdma, address);
    if (route != NULL)
        route->failures++;
}

void rroutes_free(struct rdma *rdma) {
    struct rdma_paths *route;
    while ((route = LIST_FIRST(&rdma->routes)) != NULL) {
        LIST_REMOVE(route, all);
        free(route);
    }
}
