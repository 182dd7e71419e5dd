/* SPDX-License-Identifier: Apache-2.0
 *
 * Takes a snapshot of this node's numbers. Which numbers there are is the business of
 * metrics_table.c; here they are gathered from their owners, at the moment they are asked for.
 *
 * Nothing is walked but the lists of stores and peers: a store with a million samples costs as much
 * as an empty one. With 256 stores and 64 peers even that would hold up the loop for a good part of
 * a millisecond, so that a call adds at most METRICS_PER_TURN of them, and the caller goes on in
 * the next turn. A store that is made or freed in between is told of or not; peers are never freed.
 */
#include <stdio.h>
#include <string.h>

#include "exchange/exchange_internal.h"
#include "exchange/metrics_table.h"
#include "memory/kept_table.h"

#define METRICS_PER_TURN 32u

/* ---- the node ---- */

/* All that is asked of the broker as a whole, for /metrics and for featurectl status alike. */
void metrics_measure_node(const struct broker *broker, struct measured_node *out) {
    char why[TROUBLE_BYTES];
    *out = (struct measured_node){
        .one = 1,
        .ready = !broker_not_ready_why(broker, why),
        .draining = broker->draining,
        .fenced = !broker_serves(broker),
        .has_twin = *peers_twin(broker->peers),
        .kept = broker->options.keep,
        .restarts = broker->kept ? kept_memory_restarts(broker->kept) : 0,
        .uptime_ns = broker->now_ns - broker->started_ns,
        .sessions = broker->session_count,
        .max_sessions = broker->config->max_sessions,
        .requests = broker->request_count,
        .resident_bytes = broker->account.used_bytes,
        .max_resident_bytes = broker->account.limit_bytes,
        .release_pending = broker->exchange->release_pending,
        .max_release_pending = broker->limits.of[ACCOUNT_NODE][CHARGE_PENDING_ENDS],
        .index_pending = broker->directory->ops->pending(broker->directory),
        .memory_ns = broker->kept ? broker->now_ns - kept_memory_since_ns(broker->kept) : 0,
        .log_dropped = log_dropped(), /* the log is the process's */
        .longest_turn_ns = turns_recent_ns(broker),
        .longest_turn_ever_ns = broker->turns.longest_ns,
        .counts = broker->counts,
    };
    for (uint32_t i = 0; i < broker->space_end; i++)
        out->stores += broker->spaces[i].used && !broker->spaces[i].dropped;
    for (struct peer *peer = peers_next(broker->peers, NULL); peer;
         peer = peers_next(broker->peers, peer))
        out->odd_answers += peer_odd_answers(peer);
    if (broker->directory->ops->counts)
        broker->directory->ops->counts(broker->directory, &out->index);
}

static void metrics_add_node(const struct broker *broker, struct metrics *metrics) {
    struct measured_node node;
    char labels[METRICS_LABELS_BYTES] = "", incarnation[24];
    metrics_measure_node(broker, &node);
    snprintf(incarnation, sizeof incarnation, "%llu",
             (unsigned long long)broker->options.incarnation);
    metrics_label(labels, "node", broker->config->node);
    metrics_label(labels, "version", FEATURED_VERSION);
    metrics_label(labels, "incarnation", incarnation);
    metrics_label(labels, "directory", broker->directory->ops->name);
    metrics_add(metrics, METRICS_BUILD, metrics_of_build, metrics_of_build_count, labels, &node);
    metrics_add(metrics, METRICS_NODE, metrics_of_node, metrics_of_node_count, "", &node);
}

/* ---- stores ---- */

/* 0 = there is nothing that has an age. */
static uint64_t metrics_age_ns(const struct broker *broker, bool is_there, uint64_t since_ns) {
    return is_there && broker->now_ns > since_ns ? broker->now_ns - since_ns : 0;
}

static void metrics_add_store(const struct broker *broker, const struct space *space,
                              struct metrics *metrics) {
    char labels[METRICS_LABELS_BYTES] = "";
    struct measured_store store = {
        .max_resident_bytes = space->settings.max_resident_bytes,
        .max_landing_bytes = space->settings.landing_bytes,
        .prefaulted_bytes = space->prefaulted_bytes,
        .arena_bytes = space->arena.bytes,
        .counts = space->counts,
    };
    /* Both cost the same however many samples there are (store.h). */
    store_totals(space->store, &store.totals);
    store_room(space->store, &store.room);
    store_lives(space->store, &store.lives);
    store.first_put_waits_ns =
        metrics_age_ns(broker, store.room.has_first, store.room.first_since_ns);
    store.oldest_blocker_ns =
        metrics_age_ns(broker, store.room.has_reader, store.room.reader_since_ns);
    metrics_label(labels, "store", space->name);
    metrics_add(metrics, METRICS_STORE, metrics_of_store, metrics_of_store_count, labels, &store);
}

/* ---- peers ---- */

/* Its rails follow it, so that both are of one moment. */
static void metrics_add_peer(const struct broker *broker, const struct peer *peer,
                             struct metrics *metrics) {
    char labels[METRICS_LABELS_BYTES] = "", about[METRICS_LABELS_BYTES] = "";
    struct measured_peer of = {
        .one = 1, .up = peer_is_up(peer), .release_pending = outbox_pending_at(peer)};
    peer_query(peer, &of.info);
    of.silent_ns = metrics_age_ns(broker, of.info.heard_ns, of.info.heard_ns);
    metrics_label(labels, "peer", of.info.node);
    strcpy(about, labels);
    metrics_label(about, "address", of.info.address);
    metrics_label(about, "transport",
                  of.info.transport.transport ? of.info.transport.transport : "none");
    metrics_add(metrics, METRICS_PEER_INFO, metrics_of_peer_info, metrics_of_peer_info_count, about,
                &of);
    metrics_add(metrics, METRICS_PEER, metrics_of_peer, metrics_of_peer_count, labels, &of);
    /* A rail has the label of its peer in front of its own. */
    for (uint32_t i = 0; i < of.info.transport.rail_count; i++) {
        const struct transport_rail_info *rail = &of.info.transport.rails[i];
        char of_rail[METRICS_LABELS_BYTES];
        strcpy(of_rail, labels);
        metrics_label(of_rail, "rail", rail->name);
        metrics_add(metrics, METRICS_RAIL, metrics_of_rail, metrics_of_rail_count, of_rail, rail);
    }
}

/* ---- the whole ---- */

/* First the node, then its stores, then the peers; progress says how far that has come. */
bool broker_measure(const struct broker *broker, struct metrics *metrics,
                    struct metrics_progress *progress) {
    uint32_t budget = METRICS_PER_TURN;
    if (!progress->begun) {
        *progress = (struct metrics_progress){.begun = true};
        metrics_begin(metrics);
        metrics_add_node(broker, metrics);
    }
    for (; progress->space < broker->space_end && budget; progress->space++) {
        const struct space *space = &broker->spaces[progress->space];
        if (!space->used || space->dropped) /* its name may be another's by now */
            continue;
        metrics_add_store(broker, space, metrics);
        budget--;
    }
    while (progress->space >= broker->space_end && budget && !progress->done) {
        progress->peer = peers_next(broker->peers, progress->peer);
        progress->done = !progress->peer;
        if (progress->peer)
            metrics_add_peer(broker, progress->peer, metrics);
        budget--;
    }
    return progress->done;
}

const char *broker_is_ready(const struct broker *broker, char out[BROKER_WHY_BYTES]) {
    _Static_assert(BROKER_WHY_BYTES >= TROUBLE_BYTES, "room for the sentence");
    return broker_not_ready_why(broker, out);
}
