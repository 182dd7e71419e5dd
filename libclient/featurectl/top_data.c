/* SPDX-License-Identifier: Apache-2.0
 *
 * Stores and peers are found again by name, so that each keeps its series. One that is not in an
 * answer any more is forgotten with it. A handful of peers and at most 256 stores: they are looked
 * for one after the other.
 */
#include "featurectl/top_data.h"

#include <stdlib.h>
#include <string.h>

#include "featurectl/memory.h"
#include "featurectl/readiness.h"
#include "featurectl/shown.h"
#include "featurectl/store_why.h"

/* More than any terminal has lines. */
#define OLDEST_MAX 200u

/* The oldest point falls out at the front. Sixty numbers are moved for that, which costs less
 * than the arithmetic of a ring would cost the reader.
 */
static void top_data_push(struct top_series *series, double point) {
    if (series->count == TOP_POINTS)
        memmove(series->points, series->points + 1, (TOP_POINTS - 1) * sizeof *series->points);
    else
        series->count++;
    series->points[series->count - 1] = point;
}

/* Keeps the text as people may see it. Names come from programs and other nodes, and could hold
 * what steers a terminal.
 */
static void top_data_set(char **text, const char *to) {
    free(*text);
    *text = shown_text(to);
}

/* Per second; 0 for the first answer and where a counter began anew. */
static double top_data_rate(uint64_t before, uint64_t now, double seconds) {
    return seconds > 0 && now >= before ? (double)(now - before) / seconds : 0;
}

/* ---- stores ---- */

static struct top_store *top_data_store(struct top_data *data, const char *name, bool *is_new) {
    char *shown = shown_text(name);
    for (size_t i = 0; i < data->store_count; i++)
        if (strcmp(data->stores[i].name, shown) == 0) {
            free(shown);
            *is_new = false;
            return &data->stores[i];
        }
    data->stores = memory_grow(data->stores, data->store_count + 1, sizeof *data->stores);
    data->stores[data->store_count] = (struct top_store){.name = shown};
    *is_new = true;
    return &data->stores[data->store_count++];
}

/* A store that was not there before has no rate yet: what it counted until now it may have
 * counted over days.
 */
static void top_data_take_store(struct top_data *data, const Fb__StoreInfo *from, double seconds) {
    bool is_new;
    struct top_store *store = top_data_store(data, from->store, &is_new);
    char *why = store_why(from);
    top_data_set(&store->why, why);
    free(why);
    store->puts_per_s = is_new ? 0 : top_data_rate(store->puts, from->puts, seconds);
    store->gets_per_s = is_new ? 0 : top_data_rate(store->gets, from->gets, seconds);
    store->puts = from->puts;
    store->gets = from->gets;
    store->used_bytes = from->resident_bytes;
    store->limit_bytes = from->settings ? from->settings->max_resident_bytes : 0;
    store->samples = from->resident;
    store->leases = from->leases;
    store->waiting = from->put_waiters;
    store->present = true;
    top_data_push(&store->used, top_store_full(store));
    data->puts_per_s += store->puts_per_s;
    data->gets_per_s += store->gets_per_s;
}

static void top_data_free_store(struct top_store *store) {
    free(store->name);
    free(store->why);
}

/* First all are taken for gone, then those of the answer are found again or added, and what is
 * still gone is forgotten. The order on the screen is kept meanwhile.
 */
static void top_data_take_stores(struct top_data *data, const Fb__StoresReply *stores,
                                 double seconds) {
    size_t kept = 0;
    for (size_t i = 0; i < data->store_count; i++)
        data->stores[i].present = false;
    data->puts_per_s = data->gets_per_s = 0;
    for (size_t i = 0; i < stores->n_stores; i++)
        top_data_take_store(data, stores->stores[i], seconds);
    for (size_t i = 0; i < data->store_count; i++)
        if (data->stores[i].present)
            data->stores[kept++] = data->stores[i];
        else
            top_data_free_store(&data->stores[i]);
    data->store_count = kept;
    top_data_push(&data->puts, data->puts_per_s);
    top_data_push(&data->gets, data->gets_per_s);
}

/* ---- peers ---- */

static struct top_peer *top_data_peer(struct top_data *data, const char *node, bool *is_new) {
    char *shown = shown_text(node);
    for (size_t i = 0; i < data->peer_count; i++)
        if (strcmp(data->peers[i].node, shown) == 0) {
            free(shown);
            *is_new = false;
            return &data->peers[i];
        }
    data->peers = memory_grow(data->peers, data->peer_count + 1, sizeof *data->peers);
    data->peers[data->peer_count] = (struct top_peer){.node = shown};
    *is_new = true;
    return &data->peers[data->peer_count++];
}

/* What this broker knows of the other: nobody else is asked, so that a silent node does not hold
 * up the screen.
 */
static void top_data_take_peer(struct top_data *data, const Fb__NodeInfo *from, double seconds) {
    bool is_new;
    struct top_peer *peer = top_data_peer(data, from->node, &is_new);
    top_data_set(&peer->state, from->state);
    top_data_set(&peer->via, *from->transport ? from->transport : "-");
    peer->in_per_s = is_new ? 0 : top_data_rate(peer->bytes_in, from->bytes_in, seconds);
    peer->out_per_s = is_new ? 0 : top_data_rate(peer->bytes_out, from->bytes_out, seconds);
    peer->bytes_in = from->bytes_in;
    peer->bytes_out = from->bytes_out;
    peer->reads_in_flight = from->reads_in_flight;
    peer->release_pending = from->release_pending;
    peer->heard = from->heard;
    peer->heard_ms_ago = from->heard_ms_ago;
    peer->present = true;
    top_data_push(&peer->in, peer->in_per_s);
    data->in_per_s += peer->in_per_s;
}

static void top_data_free_peer(struct top_peer *peer) {
    free(peer->node);
    free(peer->state);
    free(peer->via);
}

/* As with the stores. This node is in the list too, and left out: its traffic with itself is
 * none.
 */
static void top_data_take_peers(struct top_data *data, const Fb__NodesReply *nodes,
                                double seconds) {
    size_t kept = 0;
    for (size_t i = 0; i < data->peer_count; i++)
        data->peers[i].present = false;
    data->in_per_s = 0;
    for (size_t i = 0; i < nodes->n_nodes; i++)
        if (!nodes->nodes[i]->self)
            top_data_take_peer(data, nodes->nodes[i], seconds);
    for (size_t i = 0; i < data->peer_count; i++)
        if (data->peers[i].present)
            data->peers[kept++] = data->peers[i];
        else
            top_data_free_peer(&data->peers[i]);
    data->peer_count = kept;
    top_data_push(&data->in, data->in_per_s);
}

/* ---- all ---- */

void top_data_take(struct top_data *data, const struct top_answers *answers, uint64_t now_ns) {
    const Fb__HealthReply *health = answers->health;
    double seconds = data->taken_ns ? (double)(now_ns - data->taken_ns) / 1e9 : 0;
    top_data_set(&data->node, health->node);
    if (readiness_of(health) == READINESS_NOT_READY) {
        char *state = memory_print("not ready: %s", readiness_why(health));
        top_data_set(&data->state, state);
        free(state);
    } else {
        top_data_set(&data->state, *health->trouble ? health->trouble : "ready");
    }
    data->uptime_ms = health->uptime_ms;
    data->resident_bytes = health->resident_bytes;
    data->limit_bytes = health->max_resident_bytes;
    data->sessions = health->sessions;
    data->leases = health->leases;
    data->release_pending = health->release_pending + health->index_pending;
    top_data_take_stores(data, answers->stores, seconds);
    top_data_take_peers(data, answers->nodes, seconds);
    data->taken_ns = now_ns;
}

/* ---- leases ---- */

static void top_data_free_leases(struct top_data *data) {
    for (size_t i = 0; i < data->oldest_count; i++) {
        free(data->oldest[i].store);
        free(data->oldest[i].sample_id);
        free(data->oldest[i].holder);
    }
    data->oldest_count = 0;
}

/* Unlike stores, leases are not found again: each answer replaces all of them. With `denied` the
 * list stays empty, and the screen says why.
 */
void top_data_begin_leases(struct top_data *data, bool denied) {
    top_data_free_leases(data);
    data->leases_denied = denied;
}

/* The leases of one store's page, in any order; top_data_end_leases() brings the oldest to the
 * front.
 */
void top_data_add_leases(struct top_data *data, const char *store, const Fb__LeasesReply *leases) {
    data->oldest =
        memory_grow(data->oldest, data->oldest_count + leases->n_leases, sizeof *data->oldest);
    for (size_t i = 0; i < leases->n_leases; i++)
        data->oldest[data->oldest_count++] =
            (struct top_lease){.store = shown_text(store),
                               .sample_id = shown_text(leases->leases[i]->sample_id),
                               .holder = shown_text(leases->leases[i]->holder),
                               .age_ms = leases->leases[i]->age_ms};
}

/* The oldest first: they are the ones that somebody may have forgotten. */
static int top_data_compare_leases(const void *a, const void *b) {
    const struct top_lease *left = a, *right = b;
    if (left->age_ms != right->age_ms)
        return left->age_ms < right->age_ms ? 1 : -1;
    return strcmp(left->sample_id, right->sample_id);
}

/* Only as many as a screen could show are kept, of however many there were. */
void top_data_end_leases(struct top_data *data) {
    if (data->oldest_count)
        qsort(data->oldest, data->oldest_count, sizeof *data->oldest, top_data_compare_leases);
    for (; data->oldest_count > OLDEST_MAX; data->oldest_count--) {
        free(data->oldest[data->oldest_count - 1].store);
        free(data->oldest[data->oldest_count - 1].sample_id);
        free(data->oldest[data->oldest_count - 1].holder);
    }
}

void top_data_deinit(struct top_data *data) {
    for (size_t i = 0; i < data->store_count; i++)
        top_data_free_store(&data->stores[i]);
    for (size_t i = 0; i < data->peer_count; i++)
        top_data_free_peer(&data->peers[i]);
    top_data_free_leases(data);
    free(data->stores);
    free(data->peers);
    free(data->oldest);
    free(data->node);
    free(data->state);
    *data = (struct top_data){0};
}

/* ---- order ---- */

double top_store_full(const struct top_store *store) {
    return store->limit_bytes ? (double)store->used_bytes / (double)store->limit_bytes : 0;
}

/* What the stores are ordered by, as one number. */
static double top_data_value(const struct top_store *store, enum top_sort sort) {
    switch (sort) {
    case TOP_BY_FULL:
        return top_store_full(store);
    case TOP_BY_USED:
        return (double)store->used_bytes;
    case TOP_BY_PUTS:
        return store->puts_per_s;
    case TOP_BY_GETS:
        return store->gets_per_s;
    case TOP_BY_LEASES:
        return (double)store->leases;
    case TOP_BY_WAITING:
        return (double)store->waiting;
    default:
        return 0; /* by name alone */
    }
}

struct top_order {
    enum top_sort sort;
    bool reverse;
};

/* Stores that are equal in it stand by name, so that they do not change places with every
 * answer.
 */
static int top_data_compare(const void *a, const void *b, void *user) {
    const struct top_store *left = a, *right = b;
    const struct top_order *order = user;
    double l = top_data_value(left, order->sort), r = top_data_value(right, order->sort);
    int result = l != r ? (l < r ? 1 : -1) : strcmp(left->name, right->name);
    return order->reverse ? -result : result;
}

void top_data_sort(struct top_data *data, enum top_sort sort, bool reverse) {
    struct top_order order = {sort, reverse};
    if (data->store_count)
        qsort_r(data->stores, data->store_count, sizeof *data->stores, top_data_compare, &order);
}
