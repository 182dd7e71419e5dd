/* SPDX-License-Identifier: Apache-2.0
 *
 * The ring of state changes behind `featurectl events`. Event number n lies at n % max_events, so
 * that the newest event overwrites the oldest and no list is needed.
 *
 * Numbers begin with 1 and are never used twice. A reader remembers the number of the last event
 * that it has seen. If that event has been overwritten meanwhile, the reader is told how many it
 * has missed, and goes on with the oldest event that is still there.
 */
#include "store/store_internal.h"

static struct store_event *event_at(const struct store *store, uint64_t sequence) {
    return (struct store_event *)store_at(store, store->events) +
           sequence % store->options.max_events;
}

size_t event_ring_bytes(uint32_t max_events) {
    return (size_t)max_events * sizeof(struct store_event);
}

/* The sample's word must have been committed: state and reason are read from it. Events of landing
 * copies are kept, too; they are marked, for the generation has its life at another node.
 *
 * An event that is being written has no number. A broker that dies before it is finished leaves a
 * hole where the oldest event was; store_event_next() counts that one as missed. */
void event_record(struct store *store, const struct sample_slot *sample, uint64_t now_ns) {
    if (!store->options.max_events)
        return;
    uint64_t sequence = store->kept.event_last + 1;
    struct store_event *event = event_at(store, sequence);
    event->sequence = 0;
    store_in_order();
    event->at_ns = now_ns;
    event->generation = sample->generation;
    event->extent_bytes = sample->extent_bytes;
    event->state = sample_state(sample);
    event->reason = sample_reason(sample);
    event->landing = sample_flag(sample, WORD_LANDING);
    name_copy(store, sample->name, event->sample_id);
    store_in_order();
    event->sequence = sequence;
    store->kept.event_last = sequence;
}

uint64_t store_event_last(const struct store *store) {
    return store->kept.event_last;
}

/* *sequence 0 means "from the oldest kept": such a reader has not missed anything, it did not ask
 * for what came before. */
bool store_event_next(const struct store *store, uint64_t *sequence, struct store_event *out,
                      uint64_t *missed_out) {
    uint64_t kept = store->options.max_events, last = store->kept.event_last;
    uint64_t oldest = last > kept ? last - kept + 1 : 1, next = *sequence + 1;
    *missed_out = *sequence && next < oldest ? oldest - next : 0;
    if (next < oldest)
        next = oldest;
    for (; next <= last && event_at(store, next)->sequence != next; next++)
        ++*missed_out;
    if (next > last)
        return false;
    *out = *event_at(store, next);
    *sequence = next;
    return true;
}

/* After an attach: an event that is complete but was not counted yet. */
void events_restore(struct store *store) {
    uint64_t next = store->kept.event_last + 1;
    if (store->options.max_events && event_at(store, next)->sequence == next)
        store->kept.event_last = next;
}
