/* SPDX-License-Identifier: Apache-2.0
 *
 * The stream of events: what becomes of samples, told to the sessions that watch.
 *
 * This is no call. A subscription is a flag of the session, and each turn of the loop tells those
 * who watch what the stores have noted since the last turn. The stores note events in a ring
 * whether anybody watches or not (store/events.c); space->event_last is the last one that was told.
 * A client that does not read fast enough misses some, and is told how many.
 */
#include "requests/kinds.h"

#define EVENTS_PER_PUMP 256u

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
static void events_tell(struct broker *broker, const struct space *space,
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
static bool events_anybody_watches(const struct broker *broker) {
    const struct broker_session *session;
    TAILQ_FOREACH (session, &broker->sessions, link)
        if (session->wants_events)
            return true;
    return false;
}

/* While nobody watches the events are passed over, so that the first who watches is not told of old
 * ones. */
void requests_pump_events(struct broker *broker) {
    bool watched = events_anybody_watches(broker);
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
            events_tell(broker, space, &event, missed);
    }
}

const struct request_kind events_kind = {.begin = events_begin};
