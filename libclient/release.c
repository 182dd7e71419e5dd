/* SPDX-License-Identifier: Apache-2.0
 *
 * An entry of store->releases:
 *
 *   to be sent --note or ride--> sent --a later request answered--> forgotten
 *        ^                 |
 *        +-- new link -----+   (in a new session: consumed, same broker; else forgotten)
 *
 * Entries said `returned` are forgotten once sent: should they be lost with their connection, the
 * lease ends because it is not named when the handle comes back (session.c), or with the session.
 * `consumed` must not be lost with the connection, so it is kept until a request that
 * was sent after it was answered: the socket keeps order. Notes, and requests that carry
 * releases, are sent under the lock, without waiting, so that "sent before" is well defined;
 * entries wait when the socket is full.
 */
#include "release.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "error.h"
#include "flusher.h"
#include "socket.h"

#define FULL_SOCKET_WAIT_NS (100 * FC_NS_PER_MS)

/* Order is kept: what was said first is sent first. */
static void release_compact(struct feature_store *store,
                            bool (*keep)(const struct fc_release *entry, uint64_t a, uint64_t b),
                            uint64_t a, uint64_t b) {
    size_t kept = 0;
    for (size_t i = 0; i < store->release_count; i++)
        if (keep(&store->releases[i], a, b))
            store->releases[kept++] = store->releases[i];
    store->release_count = kept;
}

/* What stays after sending: what was not sent, and consumed ones until they are confirmed. */
static bool release_is_unsent_or_consumed(const struct fc_release *entry, uint64_t a, uint64_t b) {
    (void)a, (void)b;
    return !entry->sent_epoch || entry->consumed;
}

static bool release_is_unconfirmed(const struct fc_release *entry, uint64_t epoch,
                                   uint64_t number) {
    return entry->sent_epoch != epoch || entry->sent_number > number;
}

/* In a new session of the same broker (same incarnation) a consumed release still counts, by
 * its token. A returned one ended with the session that granted it. With another incarnation the
 * broker has lost the lease and the sample, and there is nothing to say. */
static bool release_matters_on(const struct fc_release *entry, uint64_t session,
                               uint64_t incarnation) {
    return entry->lease_incarnation == incarnation &&
           (entry->consumed || entry->lease_session == session);
}

/* Fills items with the entries to be sent from `first` on; returns how many were looked at. Sent
 * ones may stand between: consumed ones that wait to be confirmed. */
static size_t release_gather(const struct feature_store *store, size_t first, size_t items_max,
                             Fb__ReleaseItem *items, Fb__ReleaseItem **pointers,
                             Fb__Release *release) {
    fb__release__init(release);
    release->handle = store->handle;
    release->items = pointers;
    size_t i = first;
    for (; i < store->release_count && release->n_items < items_max; i++) {
        const struct fc_release *entry = &store->releases[i];
        if (entry->sent_epoch)
            continue;
        Fb__ReleaseItem *item = pointers[release->n_items] = &items[release->n_items];
        fb__release_item__init(item);
        item->lease_hi = entry->lease_hi;
        item->lease_lo = entry->lease_lo;
        item->consumed = entry->consumed;
        item->corrupt = entry->corrupt;
        release->n_items++;
    }
    return i - first;
}

/* All that are sent together get one number. A later request that is answered confirms all numbers
 * up to the one that was the last when it was sent. */
static void release_mark_sent(struct feature_store *store, size_t first, size_t count) {
    store->feature->release_count++;
    for (size_t i = first; i < first + count; i++)
        if (!store->releases[i].sent_epoch) {
            store->releases[i].sent_epoch = store->feature->link->epoch;
            store->releases[i].sent_number = store->feature->release_count;
        }
}

/* One note with entries from `first` on; *count_out of them were looked at. keep: the link keeps
 * what cannot be sent now. */
static int release_send_some(struct feature_store *store, struct fc_link *link, size_t first,
                             bool keep, size_t *count_out) {
    Fb__ReleaseItem items[FRAME_BATCH_ITEMS_MAX], *pointers[FRAME_BATCH_ITEMS_MAX];
    Fb__Release release;
    *count_out = release_gather(store, first, link->limits.batch_items, items, pointers, &release);
    if (!release.n_items)
        return 0;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_RELEASE;
    request.release = &release;
    if (!keep)
        return fc_link_note(link, &request);
    fc_link_tell(link, &request);
    return 0;
}

/* Marked as sent only once the socket has taken it. A link that breaks meanwhile leaves the
 * entries as they are: they are looked at again when the store is opened anew. */
static int release_send_entries(struct feature_store *store, bool keep) {
    struct fc_link *link = fc_connection_link(store->feature);
    if (!link || store->session != link->session)
        return 0;
    for (size_t first = 0, count; first < store->release_count; first += count) {
        int rc = release_send_some(store, link, first, keep, &count);
        if (rc)
            return rc;
        if (link->broken)
            return 0;
        release_mark_sent(store, first, count);
    }
    release_compact(store, release_is_unsent_or_consumed, 0, 0);
    return 0;
}

int fc_release_send(struct feature_store *store) {
    return release_send_entries(store, false);
}

void fc_release_tell(struct feature_store *store) {
    (void)release_send_entries(store, true);
}

/* The last one tells: entries are sent in order, so if it has been sent, all have. */
static bool release_waits(const struct feature_store *store) {
    return store->release_count && !store->releases[store->release_count - 1].sent_epoch;
}

bool fc_release_send_all(struct feature *feature) {
    struct fc_link *link = fc_connection_link(feature);
    bool some = link && link->untold;
    if (some && fc_link_tell_kept(link))
        return true;
    for (struct feature_store *store = feature->stores; store; store = store->next)
        if (release_waits(store)) {
            some = true;
            (void)fc_release_send(store);
        }
    return some;
}

static bool release_may_ride(const struct feature_store *store) {
    return release_waits(store) && store->session == store->feature->link->session;
}

/* The store of the request itself first: its releases free the memory that the request may wait
 * for. Only one store's, as a Release names one handle. What it takes of the frame is bounded from
 * above rather than computed: if it does not fit it is sent by itself, in front. */
bool fc_release_ride(struct feature *feature, struct feature_store *preferred,
                     Fb__ClientRequest *request, size_t payload_bytes, struct fc_ride *ride) {
    /* An item packs into at most 24 bytes; the rest is for headers. */
    const size_t ride_bytes_max = FC_RIDE_ITEMS_MAX * 24 + 64;
    struct feature_store *store =
        preferred && release_may_ride(preferred) ? preferred : feature->stores;
    request->n_releases = 0;
    while (store && !release_may_ride(store))
        store = store->next;
    if (!store || FRAME_HEADER_BYTES + fb__client_request__get_packed_size(request) +
                          payload_bytes + ride_bytes_max >
                      FRAME_CLIENT_BYTES_MAX)
        return false;
    ride->store = store;
    ride->first = 0;
    ride->count =
        release_gather(store, 0, FC_RIDE_ITEMS_MAX, ride->items, ride->pointers, &ride->release);
    ride->releases[0] = &ride->release;
    request->releases = ride->releases;
    request->n_releases = 1;
    return true;
}

void fc_release_rode(void *context) {
    struct fc_ride *ride = context;
    release_mark_sent(ride->store, ride->first, ride->count);
    ride->number = ride->store->feature->release_count;
    release_compact(ride->store, release_is_unsent_or_consumed, 0, 0);
}

/* What still matters is to be sent again. The broker counts a consumed release once however often
 * it is said, by the token of its lease. */
void fc_release_reopened(struct feature_store *store, uint64_t session, uint64_t incarnation) {
    release_compact(store, release_matters_on, session, incarnation);
    fc_release_say_again(store);
}

void fc_release_say_again(struct feature_store *store) {
    for (size_t i = 0; i < store->release_count; i++)
        store->releases[i].sent_epoch = 0;
}

/* An answer on a connection shows that the broker has read all that was sent on it before the
 * request. */
void fc_release_confirm(struct feature *feature, uint64_t epoch, uint64_t number) {
    for (struct feature_store *store = feature->stores; store; store = store->next)
        if (store->release_count)
            release_compact(store, release_is_unconfirmed, epoch, number);
}

/* True if the store is open in the session of a working link. */
static bool release_is_attached(const struct feature_store *store) {
    const struct fc_link *link = fc_connection_link(store->feature);
    return link && store->session == link->session;
}

/* For all of them first, so that either all are kept or none: half a batch would be counted twice
 * by a caller who tries again. The room is doubled and never shrinks; it goes with the store. */
static bool release_make_room(struct feature_store *store, size_t count) {
    size_t room = store->release_room ? store->release_room : 16;
    while (room < store->release_count + count)
        room *= 2;
    if (room <= store->release_room)
        return true;
    struct fc_release *grown = realloc(store->releases, room * sizeof *grown);
    if (!grown)
        return false;
    store->releases = grown;
    store->release_room = room;
    return true;
}

/* While the store is not open in the session of a working link it is not known what will still
 * matter: all are kept, and fc_release_reopened() sorts them out. */
static bool release_keep_all(struct feature_store *store, const struct fc_release *releases,
                             size_t count) {
    bool attached = release_is_attached(store);
    if (!release_make_room(store, count))
        return false;
    for (size_t i = 0; i < count; i++) {
        const struct fc_link *link = store->feature->link;
        if (!attached || release_matters_on(&releases[i], link->session, link->incarnation))
            store->releases[store->release_count++] = releases[i];
    }
    return true;
}

/* There is no memory to keep them in: they are sent in notes of their own, now. A store on the
 * stack stands in for the real one, so that the same code sends them. Consumed ones that get lost
 * with the connection are then not said again; that is all that running out of memory costs here.
 */
static void release_say_at_once(struct feature_store *store, struct fc_release *releases,
                                size_t count) {
    struct feature_store once = {.feature = store->feature,
                                 .handle = store->handle,
                                 .session = store->session,
                                 .releases = releases,
                                 .release_count = count};
    if (release_is_attached(store))
        (void)release_send_entries(&once, true);
}

/* The socket is full: waits a moment for the broker to read, so that the last release of a thread
 * does not stay behind. The lock is released meanwhile. */
static void release_send_after_room(struct feature_store *store) {
    (void)fc_link_await_room(store->feature->link, fc_after_ns(fc_now_ns(), FULL_SOCKET_WAIT_NS));
    (void)fc_release_send(store);
}

/* Three ways, from cheap to dear: keep it for the next request or for the flusher; send it now,
 * when many wait or there is no flusher; wait a moment for the socket, when it is full and nothing
 * was waiting before (with a backlog each release would wait, and a broker that has stopped would
 * stop its clients). */
static void release_say(struct feature_store *store, struct fc_release *releases, size_t count,
                        bool may_wait) {
    struct feature *feature = store->feature;
    bool backlog = store->release_count > FC_RIDE_ITEMS_MAX;
    if (feature->closed)
        return; /* the session is over, and with it the leases */
    for (size_t i = 0; i < count; i++)
        fc_held_drop(&feature->hub.held, releases[i].lease_hi, releases[i].lease_lo);
    if (!release_keep_all(store, releases, count)) {
        release_say_at_once(store, releases, count);
        return;
    }
    if (store->release_count < FC_RIDE_ITEMS_MAX && fc_flusher_wake(feature))
        return; /* the next request takes it along, or the flusher sends it */
    if (fc_release_send(store) != -EAGAIN)
        return;
    (void)fc_flusher_wake(feature);
    if (may_wait && !backlog)
        release_send_after_room(store);
}

void fc_release_say(struct feature_store *store, struct fc_release *releases, size_t count) {
    pthread_mutex_lock(&store->feature->hub.lock);
    release_say(store, releases, count, true);
    pthread_mutex_unlock(&store->feature->hub.lock);
}

void fc_release_leave(struct feature_store *store, struct fc_release *releases, size_t count) {
    pthread_mutex_lock(&store->feature->hub.lock);
    release_say(store, releases, count, false);
    pthread_mutex_unlock(&store->feature->hub.lock);
}
