/* SPDX-License-Identifier: Apache-2.0
 *
 * What is told of the node, of each of its stores, of each peer and of each rail of a peer: the
 * structs of numbers from which the tables of metrics_table.c read. metrics.c fills them in.
 */
#ifndef FEATURED_EXCHANGE_METRICS_TABLE_H
#define FEATURED_EXCHANGE_METRICS_TABLE_H

#include "directory/directory.h"
#include "node/counts.h"
#include "ops/metrics.h"
#include "peer/peer.h"
#include "store/store.h"

struct measured_node {
    uint64_t one; /* 1: of featured_build_info */
    bool ready, draining, fenced, has_twin, kept;
    uint64_t restarts, uptime_ns, sessions, max_sessions, stores, requests;
    uint64_t resident_bytes, max_resident_bytes, release_pending, max_release_pending;
    uint64_t memory_ns; /* since the memory of the node was made */
    uint64_t index_pending, log_dropped, odd_answers, longest_turn_ns, longest_turn_ever_ns;
    struct node_counts counts;
    struct directory_counts index;
};

struct measured_store {
    uint64_t max_resident_bytes, max_landing_bytes, prefaulted_bytes, arena_bytes;
    uint64_t first_put_waits_ns, oldest_blocker_ns; /* ages; 0 = there is none */
    struct store_totals totals;
    struct store_room room;
    struct store_lives lives;
    struct space_counts counts;
};

struct measured_peer {
    uint64_t one; /* 1: of featured_peer_info */
    bool up;
    uint64_t silent_ns, release_pending;
    struct peer_info info;
};

struct broker;
/* Also for featurectl status (health.c). */
void metrics_measure_node(const struct broker *broker, struct measured_node *out);

extern const struct metric metrics_of_build[], metrics_of_node[], metrics_of_store[],
    metrics_of_peer_info[], metrics_of_peer[], metrics_of_rail[];
extern const size_t metrics_of_build_count, metrics_of_node_count, metrics_of_store_count,
    metrics_of_peer_info_count, metrics_of_peer_count, metrics_of_rail_count;

#endif
