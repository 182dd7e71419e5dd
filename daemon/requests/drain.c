/* SPDX-License-Identifier: Apache-2.0
 *
 * Drain: the answer comes when every release that this node owes to another one has reached it, and
 * the index has confirmed every record, or at the deadline, with a sentence about what is left.
 *
 *   waiting in requests->drains -> nothing is pending, or the deadline passed -> answered
 *
 * A drain is a call of one item. It begins nothing by itself: what is pending is sent, and sent
 * again, by exchange/outbox.c and by the directory whether anybody drains or not.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "requests/kinds.h"

struct drain_item {
    struct item item;
    TAILQ_ENTRY(drain_item) link; /* in requests->drains until it is done */
};

/* Records that were written or removed here and that the index has not confirmed. */
static uint64_t drain_index_pending(const struct broker *broker) {
    return broker->directory->ops->pending(broker->directory);
}

/* "3 releases for node a (back-off: connection refused)", one after the other. */
static void __attribute__((format(printf, 3, 4)))
drain_add_left(char *out, size_t out_bytes, const char *format, ...) {
    size_t used = strlen(out);
    va_list arguments;
    if (used && used + 3 < out_bytes)
        used += (size_t)snprintf(out + used, out_bytes - used, ", ");
    va_start(arguments, format);
    vsnprintf(out + used, out_bytes - used, format, arguments);
    va_end(arguments);
}

static const char *drain_plural(uint64_t count) {
    return count == 1 ? "" : "s";
}

/* Says of each node what it has not confirmed, and why, as far as this node knows: whoever drains a
 * node before taking it down has to decide whether to wait. */
static void drain_describe_left(const struct broker *broker, char *out, size_t out_bytes) {
    out[0] = '\0';
    for (struct peer *peer = peers_next(broker->peers, NULL); peer;
         peer = peers_next(broker->peers, peer)) {
        const uint64_t pending = outbox_pending_at(peer);
        struct peer_info info;
        if (!pending)
            continue;
        peer_query(peer, &info);
        uint64_t gone_ns = nodes_gone_ns(broker, info.node);
        if (gone_ns)
            drain_add_left(out, out_bytes,
                           "%llu release%s for node %s (it left the cluster %llu s ago)",
                           (unsigned long long)pending, drain_plural(pending), info.node,
                           (unsigned long long)(gone_ns / 1000 / NS_PER_MS));
        else
            drain_add_left(out, out_bytes, "%llu release%s for node %s (%s%s%s)",
                           (unsigned long long)pending, drain_plural(pending), info.node,
                           info.state, *info.last_failure ? ": " : "", info.last_failure);
    }
    if (drain_index_pending(broker))
        drain_add_left(out, out_bytes, "%llu record%s that etcd has not confirmed",
                       (unsigned long long)drain_index_pending(broker),
                       drain_plural(drain_index_pending(broker)));
}

/* What is pending may have reached its home in the same turn in which the time is over: then it is
 * a success. */
static void drain_end(struct item *item) {
    struct broker *broker = item->call->broker;
    char left[SENTENCE_BYTES];
    drain_describe_left(broker, left, sizeof left);
    if (!*left)
        item_done(item, FB__STATUS__OK, NULL);
    else
        item_done(item, FB__STATUS__TIMEOUT, "not drained in time; left: %s", left);
}

/* Both, for a sample that is free at its home but still has its record would be looked for there.
 */
static bool drain_is_over(const struct broker *broker) {
    return !outbox_pending(broker) && !drain_index_pending(broker);
}

/* The answer comes at the end of a turn at the earliest, when what the turn itself has freed is on
 * its way. */
static void drain_begin(struct request *request) {
    struct broker *broker = request->session->broker;
    struct call *call = call_new(request, NULL, 1);
    if (!call)
        return;
    struct drain_item *drain = container_of(call_item(call, 0), struct drain_item, item);
    item_set_deadline(&drain->item,
                      broker->now_ns + request->message->drain->deadline_ms * NS_PER_MS);
    TAILQ_INSERT_TAIL(&broker->requests->drains, drain, link);
    call_begun(call);
}

/* Numbers along with the sentence: scripts wait for 0. */
static void drain_answer(const struct call *call) {
    const struct item *item = call_item(call, 0);
    Fb__ClientReply reply = FB__CLIENT_REPLY__INIT;
    reply.status = item->status;
    reply.error = item_error(item);
    Fb__DrainReply drain = FB__DRAIN_REPLY__INIT;
    reply.result_case = FB__CLIENT_REPLY__RESULT_DRAIN;
    reply.drain = &drain;
    drain.release_pending = outbox_pending(call->broker);
    drain.index_pending = drain_index_pending(call->broker);
    drain.sentence = reply.error;
    call_send(call, &reply);
}

static void drain_leave(struct item *item) {
    TAILQ_REMOVE(&item->call->broker->requests->drains, container_of(item, struct drain_item, item),
                 link);
}

const struct request_kind drain_kind = {
    .begin = drain_begin,
    .item_bytes = sizeof(struct drain_item),
    .answer = drain_answer,
    .expire = drain_end,
    .leave = drain_leave,
};

/* If one is drained all are: they wait for the same thing. */
void requests_check_drains(struct broker *broker) {
    while (!TAILQ_EMPTY(&broker->requests->drains) && drain_is_over(broker))
        drain_end(&TAILQ_FIRST(&broker->requests->drains)->item);
}
