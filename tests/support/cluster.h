/* SPDX-License-Identifier: Apache-2.0
 *
 * Real brokers in a directory of their own, each a `featured` process beside the test program's
 * build, on a loopback address that no other test uses. Nodes are named a, b, c. Ready means: a
 * client is answered and every peer is connected. cluster_stop() checks that nothing was left
 * behind.
 */
#ifndef FEATURED_TESTS_CLUSTER_H
#define FEATURED_TESTS_CLUSTER_H

#include <stdbool.h>
#include <stdint.h>

#include "feature.h"
#include "support/config_text.h"
#include "support/etcd_server.h"
#include "support/process.h"
#include "support/proxy.h"

#define CLUSTER_NODES_MAX 3u
/* Of a node's lease in etcd. A short one is soon worth waiting for, but on a machine that is busy
 * with other things may end by itself; a long one is safe from that. */
#define CLUSTER_TTL_SHORT_MS 4000u
#define CLUSTER_TTL_LONG_MS  20000u

struct node {
    char name[2];
    char address[32]; /* host:port of its peers' port */
    char socket_path[96], config_path[96], log_path[96];
    struct config_text ini;
    struct process process;
    uint32_t fd_baseline;  /* of the broker, ready and without clients */
    struct feature *probe; /* for the checks, connected on demand */
};
struct cluster_options {
    uint32_t nodes;
    const char *ini; /* added to every node's configuration; %D stands for the directory */
    const char *ini_of[CLUSTER_NODES_MAX];    /* added to one node's */
    const char *secret_of[CLUSTER_NODES_MAX]; /* cluster secret in place of the common one */
    struct cluster_file {
        const char *name, *text;
    } files[4];       /* put into the directory, mode 0600 */
    bool unconnected; /* do not wait for the peers: they cannot connect */
    /* Above 0: directory = etcd, with so many members of its own; the brokers find each other
     * through it. */
    uint32_t etcd_members;
    uint32_t lease_ttl_ms; /* 0 = long */
    bool etcd_late;        /* etcd is down when the brokers start; implies unconnected */
    bool proxied; /* one member: each node reaches etcd, and is reached by its peers, by proxies */
    bool supervised; /* each broker is the child of a `featured --supervise`, the node's process */
    bool data_apart; /* etcd: each node's bytes are read through a proxy of their own */
};
struct cluster {
    char directory[64];
    uint32_t count;
    bool supervised;
    uint32_t own_fds; /* of the test before it started anything */
    struct node nodes[CLUSTER_NODES_MAX];
    struct etcd_server etcd; /* count 0 = none */
    uint32_t lease_ttl_ms;
    struct cluster_proxies {
        struct proxy etcd, peers; /* from this node to etcd, from other nodes to this one */
        struct proxy data;        /* the latter for bulk bytes, with data_apart */
    } proxies[CLUSTER_NODES_MAX];
};

/* Writes the configurations, starts every node and waits until all are ready. */
void cluster_start(struct cluster *cluster, const struct cluster_options *options);

/* One node: start again, kill with SIGKILL, end with SIGTERM (its exit status must be 0), stop,
 * continue. Once it has ended, a sanitizer's report in its log fails the test. */
void cluster_node_start(struct cluster *cluster, uint32_t node);
void cluster_node_kill(struct cluster *cluster, uint32_t node);
void cluster_node_terminate(struct cluster *cluster, uint32_t node);
void cluster_node_freeze(struct cluster *cluster, uint32_t node);
void cluster_node_thaw(struct cluster *cluster, uint32_t node);
/* Rewrites a node's configuration; it is read at the next start or SIGHUP. */
void cluster_reconfigure(struct cluster *cluster, uint32_t node, const char *ini);
/* Until this node's list of nodes shows that one connected. */
void cluster_await_peer(struct cluster *cluster, uint32_t node, uint32_t peer);

/* A new client connection and a store opened through it. */
struct feature *cluster_connect(const struct cluster *cluster, uint32_t node);
struct feature_store *cluster_open(struct feature *feature, const char *store, bool read_only);

struct store_numbers {
    uint64_t resident_bytes, landing_used_bytes, planned, resident, retired, landing, leases,
        reservations, put_waiters, get_waiters, max_resident_bytes, puts, gets;
    bool keeps_copies; /* a retain store: idle copies of others\' samples stay as a cache */
};
struct store_numbers cluster_numbers(struct cluster *cluster, uint32_t node, const char *store);
struct feature_health cluster_health(struct cluster *cluster, uint32_t node);
/* Until no store of that node holds a byte, lease or reservation and nothing waits to be released.
 */
void cluster_await_empty(struct cluster *cluster, uint32_t node);
/* The same, samples and cached copies aside: no lease, no reservation, no waiter, nothing pending.
 */
void cluster_await_idle(struct cluster *cluster, uint32_t node);
/* The broker's log holds this text. */
bool cluster_log_has(const struct cluster *cluster, uint32_t node, const char *text);

/* Ends all nodes that run and checks: exit status 0, each broker's fds were back at the baseline,
 * no child is left, the test's own fds are what they were. Removes the directory. */
void cluster_stop(struct cluster *cluster);

/* ---- directory = etcd ---- */

/* For cluster_start() and cluster_stop(). */
void cluster_etcd_start(struct cluster *cluster, const struct cluster_options *options);
void cluster_etcd_configure(struct cluster *cluster, uint32_t node,
                            const struct cluster_options *options);
void cluster_etcd_stop(struct cluster *cluster);

/* Of keys below PREFIX, e.g. "samples/run/". */
uint32_t cluster_etcd_count(struct cluster *cluster, const char *prefix);
/* Until etcd has no record of any sample. */
void cluster_etcd_await_no_samples(struct cluster *cluster);
/* Until etcd has records of so many nodes. */
void cluster_etcd_await_nodes(struct cluster *cluster, uint32_t nodes);
/* Until etcd has no record of this node: its lease has ended. */
void cluster_etcd_await_fenced(struct cluster *cluster, uint32_t node);

/* build/featured or build/featurectl. */
void cluster_program(const char *name, char path_out[4096]);

#endif
