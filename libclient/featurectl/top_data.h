/* SPDX-License-Identifier: Apache-2.0
 *
 * What `top` shows: the last answers of the broker, and what changed from one to the next. Pure: it
 * is given answers and the time, and neither asks nor draws.
 */
#ifndef FEATURED_CTL_TOP_DATA_H
#define FEATURED_CTL_TOP_DATA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "admin.h"

#define TOP_POINTS 60u /* of a series: a minute at the usual interval */

/* Newest last. */
struct top_series {
    double points[TOP_POINTS];
    size_t count;
};

struct top_store {
    char *name, *why; /* as people may see them (shown.h) */
    uint64_t used_bytes, limit_bytes, samples, leases, waiting;
    uint64_t puts, gets; /* since the broker started */
    double puts_per_s, gets_per_s;
    struct top_series used;
    bool present; /* in the last answer */
};
struct top_peer {
    char *node, *state, *via;
    bool heard;
    uint64_t heard_ms_ago, bytes_in, bytes_out, reads_in_flight, release_pending;
    double in_per_s, out_per_s;
    struct top_series in;
    bool present;
};
struct top_lease {
    char *store, *sample_id, *holder;
    uint64_t age_ms;
};

struct top_data {
    char *node, *state; /* state: "ready", or why not */
    uint64_t uptime_ms, resident_bytes, limit_bytes, sessions, leases, release_pending;
    double puts_per_s, gets_per_s, in_per_s;
    struct top_series puts, gets, in; /* per second */
    struct top_store *stores;
    size_t store_count;
    struct top_peer *peers; /* without this node */
    size_t peer_count;
    struct top_lease *oldest; /* leases, the oldest first */
    size_t oldest_count;
    bool leases_denied;
    uint64_t taken_ns; /* when the last answers came; 0 = none yet */
};

/* The answers of one moment; leases may be NULL (nobody may see them). Borrowed. */
struct top_answers {
    const Fb__HealthReply *health;
    const Fb__StoresReply *stores;
    const Fb__NodesReply *nodes;
};
/* Rates are what changed since the answers of before. A broker that has started anew counts from 0:
 * there is no rate then. */
void top_data_take(struct top_data *data, const struct top_answers *answers, uint64_t now_ns);

/* The leases of one moment: begin, add those of each store, end (only the oldest are kept). */
void top_data_begin_leases(struct top_data *data, bool denied);
void top_data_add_leases(struct top_data *data, const char *store, const Fb__LeasesReply *leases);
void top_data_end_leases(struct top_data *data);

void top_data_deinit(struct top_data *data);

enum top_sort {
    TOP_BY_FULL,
    TOP_BY_NAME,
    TOP_BY_USED,
    TOP_BY_PUTS,
    TOP_BY_GETS,
    TOP_BY_LEASES,
    TOP_BY_WAITING,
    TOP_SORTS
};
/* Largest first, names from A to Z; the other way round when reverse. Equal ones by name. */
void top_data_sort(struct top_data *data, enum top_sort sort, bool reverse);
/* Used of limit, 0 to 1. */
double top_store_full(const struct top_store *store);

#endif
