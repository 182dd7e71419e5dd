/* SPDX-License-Identifier: Apache-2.0
 *
 * gc, drain and the stream of events.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "requests/requests.h"

#define GC_SLOTS_PER_TURN 4096u
#define EVENTS_PER_PUMP   256u

bool steer_gc(struct broker_session *session, uint32_t request_id, bool wants_reply,
              const Fb__ClientRequest *request, const uint8_t *payload, size_t payload_bytes,
              const char **why) {
    (void)payload, (void)payload_bytes, (void)why;
    const Fb__Gc *asked = request->gc;
    struct attachment *attachment = session_attachment(session, asked->handle);
    if (attachment && !attachment->write) {
        call_reply_simple(session, request_id, wants_reply, FB__STATUS__DENIED,
                          "this session opened the store read-only: it may not free samples");
        return true;
    }
    struct space *space =
        probe_space(session, asked->handle, asked->store, request_id, wants_reply);
    if (!space)
        return true;
    struct call *call = call_new(session, CALL_GC, 1, request_id, wants_reply);
    if (!call)
        return true;
    struct item *item = &call->items[0];
    call->space = space;
    space->uses++;
    item->gc_hold_ns =
        (asked->max_hold_ms ? asked->max_hold_ms : space->settings.max_hold_ms) * NS_PER_MS;
    item->collecting = true;
    TAILQ_INSERT_TAIL(&session->broker->gc_asked, item, drain_link);
    call_begun(call);
    return true;
}

static void steer_gc_answer(struct item *item) {
    Fb__ItemsReply result = FB__ITEMS_REPLY__INIT;
    result.count = item->gc_freed;
    Fb__ClientReply reply = FB__CLIENT_REPLY__INIT;
    reply.result_case = FB__CLIENT_REPLY__RESULT_ITEMS;
    reply.items = &result;
    item_answer(item, &reply.base);
}

bool steer_gc_on(struct broker *broker) {
    struct item *item = TAILQ_FIRST(&broker->gc_asked);
    if (!item)
        return false;
    struct store *store = item->call->space->store;
    if (!item->gc_begun)
        store_gc_restart(store);
    item->gc_begun = true;
    if (item->gc_hold_ns)
        item->gc_freed += store_gc(store, item->gc_hold_ns, broker->now_ns, GC_SLOTS_PER_TURN);
    if (item->gc_hold_ns && store_gc_goes_on(store))
        return true;
    steer_gc_answer(item);
    return !TAILQ_EMPTY(&broker->gc_asked);
}

/* ---- drain: wait until every release has reached its home, and the index knows ---- */

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

static void steer_describe_left(const struct broker *broker, char *out, size_t out_bytes) {
    out[0] = '\0';
    for (struct peer *peer = peers_next(broker->peers, NULL); peer;
         peer = peers_next(broker->peers, peer)) {
        const struct outbox *outbox = peer_user(peer);
        struct peer_info info;
        if (!outbox || !outbox->count)
            continue;
        peer_query(peer, &info);
        uint64_t gone_ns = nodes_gone_ns(broker, info.node);
        if (gone_ns)
            add_left(out, out_bytes, "%llu release%s for node %s (it left the cluster %llu s ago)",
                     (unsigned long long)outbox->count, steer_plural(outbox->count), info.node,
                     (unsigned long long)(gone_ns / 1000 / NS_PER_MS));
        else
            add_left(out, out_bytes, "%llu release%s for node %s (%s%s%s)",
                     (unsigned long long)outbox->count, steer_plural(outbox->count), info.node,
                     info.state, *info.last_failure ? ": " : "", info.last_failure);
    }
    if (steer_index_pending(broker))
        add_left(out, out_bytes, "%llu record%s that etcd has not confirmed",
                 (unsigned long long)steer_index_pending(broker),
                 steer_plural(steer_index_pending(broker)));
}

void steer_drained(struct item *item) {
    struct broker *broker = item->call->broker;
    char left[SENTENCE_BYTES];
    steer_describe_left(broker, left, sizeof left);
    if (!*left)
        item_done(item, FB__STATUS__OK, NULL);
    else
        item_done(item, FB__STATUS__TIMEOUT, "not drained in time; left: %s", left);
}

static bool steer_is_drained(const struct broker *broker) {
    return !broker->exchange->release_pending && !steer_index_pending(broker);
}

bool steer_drain(struct broker_session *session, uint32_t request_id, bool wants_reply,
                 const Fb__ClientRequest *request, const uint8_t *payload, size_t payload_bytes,
                 const char **why) {
    (void)payload, (void)payload_bytes, (void)why;
    struct broker *broker = session->broker;
    struct call *call = call_new(session, CALL_DRAIN, 1, request_id, wants_reply);
    if (!call)
        return true;
    item_set_deadline(&call->items[0], broker->now_ns + request->drain->deadline_ms * NS_PER_MS);
    call->items[0].draining = true;
    TAILQ_INSERT_TAIL(&broker->drains, &call->items[0], drain_link);
    call_begun(call);
    return true;
}

void steer_check_drains(struct broker *broker) {
    while (!TAILQ_EMPTY(&broker->drains) && steer_is_drained(broker))
        steer_drained(TAILQ_FIRST(&broker->drains));
}

/* ---- events ---- */

bool steer_events(struct broker_session *session, uint32_t request_id, bool wants_reply,
                  const Fb__ClientRequest *request, const uint8_t *payload, size_t payload_bytes,
                  const char **why) {
    (void)payload, (void)payload_bytes, (void)why;
    const Fb__Events *asked = request->events;
    session->events_space = NULL;
    if (*asked->store &&
        !(session->events_space = probe_space(session, 0, asked->store, request_id, wants_reply)))
        return true;
    if (!*asked->store && !session->admin) {
        call_reply_simple(session, request_id, wants_reply, FB__STATUS__DENIED,
                          "only admins may watch every store: name one");
        return true;
    }
    session->wants_events = asked->subscribe;
    call_reply_simple(session, request_id, wants_reply, FB__STATUS__OK, NULL);
    return true;
}

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

static bool steer_anybody_watches(const struct broker *broker) {
    const struct broker_session *session;
    TAILQ_FOREACH (session, &broker->sessions, link)
        if (session->wants_events)
            return true;
    return false;
}

void steer_pump_events(struct broker *broker) {
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
