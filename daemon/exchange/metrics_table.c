/* SPDX-License-Identifier: Apache-2.0
 *
 * The one place to add a metric: a row here. It needs a number in one of the structs of
 * metrics_table.h, all of which metrics.c fills in; most come whole from their owners, so that for
 * a new counter of a store, for example, the row is all that is to be written. A row with a
 * status_name is shown by `featurectl status`, too: name, label and unit go along with the number,
 * so that neither the protocol nor featurectl changes.
 *
 * Names follow Prometheus: featured_, the thing, what of it, the base unit (seconds, bytes); that
 * of a counter gets its "_total" when it is written. A name that has been released is not changed:
 * people's dashboards use it. docs/METRICS.md has the list, and a test compares the two.
 */
#include "exchange/metrics_table.h"

#include "proto/container.h"

/* clang-format off */
#define AT(type, member)       .offset = offsetof(struct type, member), .bytes = sizeof(((struct type *)NULL)->member)
#define NODE(member)           AT(measured_node, member)
#define STORE(member)          AT(measured_store, member)
#define PEER(member)           AT(measured_peer, member)
#define RAIL(member)           AT(transport_rail_info, member)
#define COUNTER                .type = METRIC_COUNTER
#define HISTOGRAM              .type = METRIC_HISTOGRAM, .unit = METRIC_NS
#define BYTES                  .unit = METRIC_BYTES
#define SECONDS                .unit = METRIC_NS
#define LABEL(name_, value_)   .label = (name_), .label_value = (value_)
#define STATUS(name_, label_)  .status_name = (name_), .status_label = (label_)

/* Its subject has the labels node, version and incarnation. */
const struct metric metrics_of_build[] = {
    {"featured_build_info", "Which featured this is; always 1.", NODE(one)},
};

#define OPERATION "featured_operation_seconds", \
    "From the arrival of a request to the end of one of its items, of those that ended well.", HISTOGRAM
#define PHASE "featured_remote_get_phase_seconds", \
    "Phases of gets that read from another node: the answer of the home, room to land in, bytes on the wire.", HISTOGRAM
#define INDEX_REQUESTS "featured_index_requests", "Requests to etcd, by kind.", COUNTER

const struct metric metrics_of_node[] = {
    /* Is it well? Each of these is 0 or 1, and an alert looks at it. */
    {"featured_ready", "1 if this node takes puts and serves gets.", NODE(ready)},
    {"featured_draining", "1 while the node drains before it stops.", NODE(draining)},
    {"featured_fenced", "1 while the node may not serve because it cannot prove to be alive in the index.", NODE(fenced)},
    {"featured_twin", "1 while another broker of the same name is known of.", NODE(has_twin)},
    {"featured_kept", "1 if somebody keeps this broker's memory while it restarts: a crash loses no sample.", NODE(kept)},
    {"featured_restarts", "How often the broker has been started again over the memory that was kept for it.", COUNTER, NODE(restarts),
     STATUS("restarts", "restarts with this memory")},
    {"featured_memory_age_seconds", "Since the memory of this node was made; a restart of the broker does not end it.", SECONDS,
     NODE(memory_ns), STATUS("memory_age_ms", "memory since")},
    {"featured_uptime_seconds", "Since this process has begun to serve.", SECONDS, NODE(uptime_ns)},
    /* How much of what it may keep it keeps. */
    {"featured_sessions", "Connected clients.", NODE(sessions)},
    {"featured_sessions_limit", "max_sessions.", NODE(max_sessions)},
    {"featured_stores", "Stores of this node.", NODE(stores)},
    {"featured_requests", "Requests of clients and of other brokers.", COUNTER, NODE(requests)},
    {"featured_resident_bytes", "Bytes of samples at home here, of all stores.", BYTES, NODE(resident_bytes)},
    {"featured_resident_limit_bytes", "[memory] max_resident_bytes.", BYTES, NODE(max_resident_bytes)},
    {"featured_release_pending", "Releases and acks that their home has not confirmed.", NODE(release_pending)},
    {"featured_release_pending_limit", "max_pending_ends.", NODE(max_release_pending)},
    /* How fast it is, and what has gone wrong. */
    {"featured_log_lines_dropped", "Log lines that could not be written in time.", COUNTER, NODE(log_dropped),
     STATUS("log_dropped", "log lines dropped")},
    {"featured_loop_longest_turn_recent_seconds", "The longest turn of the loop in the last minute: everybody waited.", SECONDS,
     NODE(longest_turn_ns), STATUS("loop_lag_ms", "longest turn, last minute")},
    {"featured_loop_longest_turn_seconds", "The longest turn of the loop since the start.", SECONDS, NODE(longest_turn_ever_ns),
     STATUS("loop_lag_longest_ms", "longest turn")},
    {"featured_loop_turn_seconds", "How long the turns of the loop take.", HISTOGRAM, NODE(counts.turns)},
    {"featured_odd_answers", "Answers of other brokers that were none to what was asked.", COUNTER, NODE(odd_answers),
     STATUS("odd_answers", "odd answers")},
    {"featured_slow_operations", "Operations that took longer than [ops] slow_op.", COUNTER, NODE(counts.slow_ops),
     STATUS("slow_ops", "slow operations")},
    {OPERATION, NODE(counts.reserve), LABEL("operation", "reserve")},
    {OPERATION, NODE(counts.commit), LABEL("operation", "commit")},
    {OPERATION, NODE(counts.put_inline), LABEL("operation", "put_inline")},
    {OPERATION, NODE(counts.get_local), LABEL("operation", "get_local")},
    {OPERATION, NODE(counts.get_remote), LABEL("operation", "get_remote")},
    {PHASE, NODE(counts.ask_home), LABEL("phase", "ask_home")},
    {PHASE, NODE(counts.wait_room), LABEL("phase", "wait_room")},
    {PHASE, NODE(counts.wire), LABEL("phase", "wire")},
    /* The index. With directory = static there are no requests, and these stay 0. */
    {"featured_index_pending", "Records that the index has not confirmed.", NODE(index_pending)},
    {"featured_index_fences", "How often this node was fenced.", COUNTER, NODE(counts.fences), STATUS("fences", "fenced, times")},
    {INDEX_REQUESTS, NODE(index.txns), LABEL("kind", "txn")},
    {INDEX_REQUESTS, NODE(index.reads), LABEL("kind", "read")},
    {INDEX_REQUESTS, NODE(index.leases), LABEL("kind", "lease")},
    {"featured_index_request_failures", "Requests to etcd that were refused or not answered.", COUNTER, NODE(index.failures)},
    {"featured_index_txn_seconds", "How long etcd takes for a transaction.", HISTOGRAM, NODE(index.txn)},
    {"featured_index_lease_seconds", "How long etcd takes to grant a lease or to keep one alive.", HISTOGRAM, NODE(index.lease)},
};

#define SAMPLES "featured_store_samples", "Generations at home here, by state, and copies of others'."
#define STATE_BYTES "featured_store_state_bytes", "Bytes of generations at home here, by state.", BYTES
#define WAITERS "featured_store_waiting", "Requests that wait: puts for room, gets for a sample, landings for room."
#define ENDED "featured_store_ended", "Generations that were retired, or ended before they were readable, by reason.", COUNTER
#define REFUSED "featured_store_refused", "Puts and gets that were refused, by the limit that was hit.", COUNTER

const struct metric metrics_of_store[] = {
    /* How full it is, and of what. */
    {"featured_store_resident_bytes", "Bytes of the generations at home here.", BYTES, STORE(totals.resident_bytes)},
    {"featured_store_resident_limit_bytes", "max_resident_bytes of the store.", BYTES, STORE(max_resident_bytes)},
    {"featured_store_largest_free_bytes", "The largest piece of free room.", BYTES, STORE(totals.largest_free_bytes)},
    {STATE_BYTES, STORE(room.reserved_bytes), LABEL("state", "planned")},
    {STATE_BYTES, STORE(room.sealed_bytes), LABEL("state", "sealed")},
    {STATE_BYTES, STORE(room.resident_bytes), LABEL("state", "resident")},
    {STATE_BYTES, STORE(room.retired_bytes), LABEL("state", "retired")},
    {"featured_store_leased_bytes", "Bytes of generations at home here that somebody reads.", BYTES, STORE(room.leased_bytes)},
    {"featured_store_landing_bytes", "Bytes of copies of other nodes' generations.", BYTES, STORE(totals.landing_used_bytes)},
    {"featured_store_landing_limit_bytes", "landing_bytes of the store.", BYTES, STORE(max_landing_bytes)},
    {"featured_store_arena_bytes", "Size of the arena, landing share included.", BYTES, STORE(arena_bytes)},
    {"featured_store_prefaulted_bytes", "Bytes of the arena that were touched in advance.", BYTES, STORE(prefaulted_bytes)},
    {SAMPLES, STORE(totals.planned), LABEL("state", "planned")},
    {SAMPLES, STORE(totals.sealed), LABEL("state", "sealed")},
    {SAMPLES, STORE(totals.resident), LABEL("state", "resident")},
    {SAMPLES, STORE(totals.retired), LABEL("state", "retired")},
    {SAMPLES, STORE(totals.landing), LABEL("state", "landing")},
    /* Who holds it, and who waits. */
    {"featured_store_leases", "Leases that are held.", STORE(totals.leases)},
    {"featured_store_leases_limit", "Leases that the store can have.", STORE(totals.max_leases)},
    {WAITERS, STORE(totals.put_waiters), LABEL("for", "put")},
    {WAITERS, STORE(totals.get_waiters), LABEL("for", "get")},
    {WAITERS, STORE(totals.land_waiters), LABEL("for", "landing")},
    {"featured_store_first_put_waits_seconds", "For how long the first of the waiting puts has been first; 0 = none waits.",
     SECONDS, STORE(first_put_waits_ns)},
    {"featured_store_blocking_lease_seconds",
     "How old the oldest lease is on the sample that has been retired for longest; 0 = none is in the way.",
     SECONDS, STORE(oldest_blocker_ns)},
    /* What has gone through it. */
    {"featured_store_puts", "Generations that became readable.", COUNTER, STORE(totals.puts)},
    {"featured_store_gets", "Leases that were granted.", COUNTER, STORE(totals.gets)},
    {"featured_store_frees", "Generations whose memory was freed.", COUNTER, STORE(totals.frees)},
    {ENDED, STORE(lives.ended[STORE_CONSUMED]), LABEL("reason", "consumed")},
    {ENDED, STORE(lives.ended[STORE_ACKED]), LABEL("reason", "acked")},
    {ENDED, STORE(lives.ended[STORE_ABORTED]), LABEL("reason", "aborted")},
    {ENDED, STORE(lives.ended[STORE_SUPERSEDED]), LABEL("reason", "superseded")},
    {ENDED, STORE(lives.ended[STORE_MAX_HOLD]), LABEL("reason", "max_hold")},
    {ENDED, STORE(lives.ended[STORE_DROPPED]), LABEL("reason", "dropped")},
    {ENDED, STORE(lives.ended[STORE_CANCELLED]), LABEL("reason", "cancelled")},
    {ENDED, STORE(lives.ended[STORE_PRODUCER_DIED]), LABEL("reason", "producer_died")},
    {ENDED, STORE(lives.ended[STORE_UNCACHED]), LABEL("reason", "uncached")},
    {ENDED, STORE(lives.ended[STORE_FETCH_FAILED]), LABEL("reason", "fetch_failed")},
    {ENDED, STORE(lives.ended[STORE_RESERVE_ENDED]), LABEL("reason", "reserve_ended")},
    {REFUSED, STORE(counts.refused[STORE_CAUSE_NONE]), LABEL("cause", "other")},
    {REFUSED, STORE(counts.refused[STORE_CAUSE_QUOTA]), LABEL("cause", "store_bytes")},
    {REFUSED, STORE(counts.refused[STORE_CAUSE_NODE_QUOTA]), LABEL("cause", "node_bytes")},
    {REFUSED, STORE(counts.refused[STORE_CAUSE_FRAGMENTED]), LABEL("cause", "fragmented")},
    {REFUSED, STORE(counts.refused[STORE_CAUSE_LANDING]), LABEL("cause", "landing_bytes")},
    {REFUSED, STORE(counts.refused[STORE_CAUSE_SAMPLES]), LABEL("cause", "samples")},
    {REFUSED, STORE(counts.refused[STORE_CAUSE_SPECS]), LABEL("cause", "specs")},
    {REFUSED, STORE(counts.refused[STORE_CAUSE_LEASES]), LABEL("cause", "leases")},
    {REFUSED, STORE(counts.refused[STORE_CAUSE_WAITERS]), LABEL("cause", "waiters")},
    {REFUSED, STORE(counts.refused[STORE_CAUSE_SESSION_LEASES]), LABEL("cause", "account_leases")},
    {REFUSED, STORE(counts.refused[STORE_CAUSE_SESSION_RESERVATIONS]), LABEL("cause", "account_reservations")},
    {REFUSED, STORE(counts.refused[STORE_CAUSE_SESSION_QUEUED]), LABEL("cause", "account_queued")},
    {REFUSED, STORE(counts.refused[STORE_CAUSE_QUEUE]), LABEL("cause", "queue")},
    {"featured_store_corrupt_reads", "Reads whose bytes were not those of the producer's checksum.", COUNTER, STORE(counts.corrupt_reads)},
    /* How far consumers are behind producers. */
    {"featured_store_first_get_seconds", "From the moment at which a sample became readable to its first lease.",
     HISTOGRAM, STORE(lives.first_get)},
    {"featured_store_consumed_seconds", "From the moment at which a sample became readable to its consumption or ack.",
     HISTOGRAM, STORE(lives.consumed)},
};

/* Its subjects have the labels peer, address and transport. */
const struct metric metrics_of_peer_info[] = {
    {"featured_peer_info", "Where this node finds another, and over what it talks to it; always 1.", PEER(one)},
};

/* Bytes and messages are counted from the beginning of the connection that is there now: after a
 * reconnect they start at 0 again. */
const struct metric metrics_of_peer[] = {
    {"featured_peer_up", "1 if there is a connection to this node.", PEER(up)},
    {"featured_peer_silent_seconds", "Since it last said anything.", SECONDS, PEER(silent_ns)},
    {"featured_peer_release_pending", "Releases and acks that this node has not confirmed.", PEER(release_pending)},
    {"featured_peer_reads", "Reads of its samples.", COUNTER, PEER(info.reads)},
    {"featured_peer_errors", "Connections and reads that failed.", COUNTER, PEER(info.errors)},
    {"featured_peer_odd_answers", "Answers of it that were none to what was asked.", COUNTER, PEER(info.odd_answers)},
    {"featured_peer_reads_in_flight", "Reads that are under way.", PEER(info.transport.reads_in_flight)},
    {"featured_peer_read_bytes", "Bytes of samples read from it.", COUNTER, BYTES, PEER(info.transport.read_bytes_in)},
    {"featured_peer_message_in_bytes", "Bytes of messages from it.", COUNTER, BYTES, PEER(info.transport.message_bytes_in)},
    {"featured_peer_message_out_bytes", "Bytes of messages to it.", COUNTER, BYTES, PEER(info.transport.message_bytes_out)},
    {"featured_peer_send_queued_bytes", "Bytes of messages that wait to be sent.", BYTES, PEER(info.transport.send_queued_bytes)},
    {"featured_peer_rails", "Paths of the connection over RDMA; 0 = it is over TCP, or down.", PEER(info.transport.rail_count)},
};

/* Only connections over RDMA have such. The numbers are of every time the path was up. */
const struct metric metrics_of_rail[] = {
    {"featured_rail_up", "1 if this path of the connection is up.", RAIL(up)},
    {"featured_rail_read_bytes", "Bytes of samples read over it.", COUNTER, BYTES, RAIL(bytes_in)},
    {"featured_rail_reads", "Reads over it.", COUNTER, RAIL(reads)},
    {"featured_rail_errors", "How often it has failed.", COUNTER, RAIL(errors)},
};
/* clang-format on */

#define COUNT(table) const size_t table##_count = sizeof(table) / sizeof *(table)
COUNT(metrics_of_build);
COUNT(metrics_of_node);
COUNT(metrics_of_store);
COUNT(metrics_of_peer_info);
COUNT(metrics_of_peer);
COUNT(metrics_of_rail);
