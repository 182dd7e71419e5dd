/* SPDX-License-Identifier: Apache-2.0
 *
 * Directories over a real etcd in one loop: each reaches it through a proxy of its own, that can
 * cut it off.
 */
#ifndef FEATURED_TESTS_DIRECTORY_ETCD_WORLD_H
#define FEATURED_TESTS_DIRECTORY_ETCD_WORLD_H

#include <uv.h>

#include "conformance/tcp_proxy.h"
#include "directory/directory.h"
#include "directory/etcd/gateway.h"
#include "support/etcd_server.h"

#define ETCD_WORLD_NODES_MAX 3u

struct etcd_world_options {
    uint32_t members; /* of etcd; with more than one there are no proxies */
    uint32_t lease_ttl_s, request_timeout_ms;
    uint64_t give_up_ms;
    const char *username, *password; /* NULL = none; the nodes' and the test's own */
    bool tls, no_certificate;        /* no_certificate: the nodes have none to show */
    const char *data_address;        /* of the next node added; NULL = none of its own */
    uint64_t incarnation;            /* of the next node added; 0 = as the suite says */
    bool same_name;                  /* the next node added is called like node 0 */
    struct directory_kept *kept;     /* of the next node added */
};

struct etcd_world {
    struct etcd_world_options options;
    uv_loop_t loop;
    uv_timer_t rhythm;
    struct etcd_server server;
    struct tcp_proxy *proxies[ETCD_WORLD_NODES_MAX];
    struct directory *nodes[ETCD_WORLD_NODES_MAX];
    struct etcd *direct; /* a client of the test's own */
};

void etcd_world_init(struct etcd_world *world, const struct etcd_world_options *options);
/* Node i, not started, as the suite names it. */
void etcd_world_add(struct etcd_world *world, uint32_t i, const struct directory_events *events,
                    void *owner);
/* Lets a few milliseconds pass, or less if something happens. */
void etcd_world_step(struct etcd_world *world);
void etcd_world_destroy_node(struct etcd_world *world, uint32_t i);
/* Takes node i's record out of etcd behind its back. */
void etcd_world_revoke(struct etcd_world *world, uint32_t i);
/* The revisions at which the record of this sample of store run0 was created and last written, 0 =
 * there is none; and the latest of etcd. */
struct etcd_world_revisions {
    int64_t created, written, latest;
} etcd_world_look(struct etcd_world *world, const char *sample_id);
void etcd_world_deinit(struct etcd_world *world);

#endif
