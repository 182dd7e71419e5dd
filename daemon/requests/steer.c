/* SPDX-License-Identifier: Apache-2.0
 *
 * What steers a node rather than moves samples: gc, drain and the stream of events.
 *
 * gc and drain are calls of one item that waits in a list of its own (struct requests): a gc for
 * its turn and for the walk through its store, a drain until every release has reached its home and
 * the index has confirmed every record, or until its deadline.
 *
 * Events are no call: a subscription is a flag of the session, and each turn of the loop tells
 * those who watch what the stores have noted since the last one. A client that does not read fast
 * enough misses some, and is told how many.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "requests/kinds.h"

#define GC_SLOTS_PER_TURN 4096u
#define EVENTS_PER_PUMP   256u

/* ---- gc: stores are freed of what is too old, one request after the other ---- */

/* Stores are walked one at a time because a store keeps one place for a walk: two walks at once
 * would each leave out what the other has passed. */
struct gc_item {
    struct item item;
    TAILQ_ENTRY(gc_item) link; /* in requests->gc_asked until it is done */
    bool begun;
    uint64_t hold_ns, freed;
};

/* The store is used by the item: dropped meanwhile, it is freed only after it. */
static void gc_begin(struct request *request) {
    struct broker *broker = request->session->broker;
    const Fb__Gc *asked = request->message->gc;
    const struct attachment *attachment = session_attachment(request->session, asked->handle);
    if (attachment && !attachment->write) {
        request_reply(request, FB__STATUS__DENIED,
                      "this session opened the store read-only: it may not free samples");
        return;
    }
    struct space *space = request_space(request, asked->handle, asked->store);
    struct call *call = space ? call_new(request, space, 1) : NULL;
    if (!call)
        return;
    struct gc_item *gc = container_of(call_item(call, 0), struct gc_item, item);
    space->uses++;
    gc->hold_ns =
        (asked->max_hold_ms ? asked->max_hold_ms : space->settings.max_hold_ms) * NS_PER_MS;
    TAILQ_INSERT_TAIL(&broker->requests->gc_asked, gc, link);
    call_begun(call);
}

/* How many samples were freed. */
static void gc_answer(const struct call *call) {
    Fb__ItemsReply result = FB__ITEMS_REPLY__INIT;
    const struct item *item = call_item(call, 0);
    result.count = container_of(item, struct gc_item, item)->freed;
    Fb__ClientReply reply = FB__CLIENT_REPLY__INIT;
    reply.status = item->status;
    reply.error = item_error(item);
    if (item->status == FB__STATUS__OK) {
        reply.result_case = FB__CLIENT_REPLY__RESULT_ITEMS;
        reply.items = &result;
    }
    call_send(call, &reply);
}

/* Also when the session closes half-way: the next gc begins at the start of its store. */
static void gc_leave(struct item *item) {
    TAILQ_REMOVE(&item->call->broker->requests->gc_asked, container_of(item, struct gc_item, item),
                 link);
    item->call->space->uses--;
}

const struct request_kind gc_kind = {
    .begin = gc_begin,
    .item_bytes = sizeof(struct gc_item),
    .answer = gc_answer,
    .leave = gc_leave,
};

bool requests_have_gc(const struct broker *broker) {
    return !TAILQ_EMPTY(&broker->requests->gc_asked);
}

/* One store at a time and a part of it in each turn. max_hold 0 of the request and of the store
 * means that nothing is too old. */
bool requests_gc_on(struct broker *broker) {
    struct gc_item *gc = TAILQ_FIRST(&broker->requests->gc_asked);
    if (!gc)
        return false;
    struct store *store = gc->item.call->space->store;
    if (!gc->begun)
        store_gc_restart(store);
    gc->begun = true;
    if (gc->hold_ns)
        gc->freed += store_gc(store, gc->hold_ns, broker->now_ns, GC_SLOTS_PER_TURN);
    if (gc->hold_ns && store_gc_goes_on(store))
        return true;
    item_done(&gc->item, FB__STATUS__OK, NULL);
    return !TAILQ_EMPTY(&broker->requests->gc_asked);
}

/* ---- drain: wait until every release has reached its home, and the index knows ---- */

struct drain_item {
    struct item item;
    TAILQ_ENTRY(drain_item) link; /* in requests->drains until it is done */
};

/* Records that were written or removed here and that the index has not confirmed. */
static uint64_t steer_index_pending(const struct broker *broker) {
    return broker->directory->ops->pending(broker->directory);
}

/* "3 releases for node a (back-off: connection refused)", one after the other. */
static void __attribute__((format(printf, 3, 4)))
add_left(char *out, size_t out_bytes, const char *format, ...) {
    size_t used = strlen(out);
    va_list arguments;
    if (used && used + 3 < out_bytes)
        used += (size_t)snprintf(out + used, out_bytes - used, ", ");
    va_start(arguments, format);
    vsnprintf(out + used, out_bytes - used, format, arguments);
    va_end(arguments);
}

static const char *steer_plural(uint64_t count) {
    return count == 1 ? "" : "s";
}

/* Says of each node what it has not confirmed, and why, as far as this node knows: whoever drains a
 * node before taking it down has to decide whether to wait. */
static void steer_describe_left(const struct broker *broker, char *out, size_t out_bytes) {
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
            add_left(out, out_bytes, "%llu release%s for node %s (it left the cluster %llu s ago)",
                     (unsigned long long)pending, steer_plural(pending), info.node,
                     (unsigned long long)(gone_ns / 1000 / NS_PER_MS));
        else
            add_left(out, out_bytes, "%llu release%s for node %s (%s%s%s)",
                     (unsigned long long)pending, steer_plural(pending), info.node, info.state,
                     *info.last_failure ? ": " : "", info.last_failure);
    }
    if (steer_index_pending(broker))
        add_left(out, out_bytes, "%llu record%s that etcd has not confirmed",
                 (unsigned long long)steer_index_pending(broker),
                 steer_plural(steer_index_pending(broker)));
}

/* What is pending may have reached its home in the same turn in which the time is over: then it is
 * a success. */
static void drain_end(struct item *item) {
    struct broker *broker = item->call->broker;
    char left[SENTENCE_BYTES];
    steer_describe_left(broker, left, sizeof left);
    if (!*left)
        item_done(item, FB__STATUS__OK, NULL);
    else
        item_done(item, FB__STATUS__TIMEOUT, "not drained in time; left: %s", left);
}

/* Both, for a sample that is free at its home but still has its record would be looked for there.
 */
static bool steer_is_drained(const struct broker *broker) {
    return !outbox_pending(broker) && !steer_index_pending(broker);
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
    drain.index_pending = steer_index_pending(call->broker);
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
    while (!TAILQ_EMPTY(&broker->requests->drains) && steer_is_drained(broker))
        drain_end(&TAILQ_FIRST(&broker->requests->drains)->item);
}

/* ---- events ---- */

/* A subscription ends with the session, or by the same request without `subscribe`. */
static void events_begin(struct request *request) {
    struct broker_session *session = request->session;
    const Fb__Events *asked = request->message->events;
    session->events_space = NULL;
    if (*asked->store && !(session->events_space = request_space(request, 0, asked->store)))
        return;
    if (!*asked->store && !session->admin) {
        request_reply(request, FB__STATUS__DENIED, "only admins may watch every store: name one");
        return;
    }
    session->wants_events = asked->subscribe;
    request_reply(request, FB__STATUS__OK, NULL);
}

/* Notices may be dropped where a client is slow; `sequence` and `missed` let it find that out. */
static void steer_tell(struct broker *broker, const struct space *space,
                       const struct store_event *from, uint64_t missed) {
    Fb__Event event = FB__EVENT__INIT;
    event.sequence = from->sequence;
    event.time_unix_ns = from->at_ns + broker->options.unix_offset_ns;
    event.store = (char *)space->name;
    event.sample_id = (char *)from->sample_id;
    event.generation = from->generation;
    event.state = (Fb__SampleState)from->state;
    event.reason = (Fb__Reason)from->reason;
    event.extent_bytes = from->extent_bytes;
    event.landing = from->landing;
    event.missed = missed;
    Fb__ClientNotice notice = FB__CLIENT_NOTICE__INIT;
    notice.note_case = FB__CLIENT_NOTICE__NOTE_EVENT;
    notice.event = &event;
    struct broker_session *session;
    TAILQ_FOREACH (session, &broker->sessions, link)
        if (session->wants_events && (!session->events_space || session->events_space == space))
            session->ops->notice(session->client, 0, &notice);
}

/* Sessions are few, and this is asked once a turn. */
static bool steer_anybody_watches(const struct broker *broker) {
    const struct broker_session *session;
    TAILQ_FOREACH (session, &broker->sessions, link)
        if (session->wants_events)
            return true;
    return false;
}

/* While nobody watches the events are passed over, so that the first who watches is not told of old
 * ones. */
void requests_pump_events(struct broker *broker) {
    bool watched = steer_anybody_watches(broker);
    for (uint32_t i = 0; i < broker->space_end; i++) {
        struct space *space = &broker->spaces[i];
        struct store_event event;
        uint64_t missed;
        if (!space->used)
            continue;
        if (!watched)
            space->event_last = store_event_last(space->store);
        for (uint32_t n = 0; n < EVENTS_PER_PUMP &&
                             store_event_next(space->store, &space->event_last, &event, &missed);
             n++)
            steer_tell(broker, space, &event, missed);
    }
}

const struct request_kind events_kind = {.begin = events_begin};
