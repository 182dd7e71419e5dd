/* SPDX-License-Identifier: Apache-2.0
 *
 * The end of a read, said to the broker by notes that want no answer, and kept until they are known
 * to have arrived. All with the feature's lock held unless said otherwise; nothing here blocks for
 * long.
 */
#ifndef FEATURED_LIBCLIENT_RELEASE_H
#define FEATURED_LIBCLIENT_RELEASE_H

#include "store_handle.h"

struct fc_release {
    uint64_t lease_hi, lease_lo;
    uint64_t lease_session, lease_incarnation; /* that granted it */
    uint64_t sent_epoch;                       /* 0 = to be sent */
    uint64_t sent_number;                      /* of the note, by feature->release_count */
    bool consumed, corrupt;
};

#define FC_RIDE_ITEMS_MAX 64u

/* Releases hung on a request; lives as long as the request is being sent. */
struct fc_ride {
    struct feature_store *store;
    size_t first, count; /* entries of store->releases looked at */
    uint64_t number;     /* that they got when sent; 0 = not sent */
    Fb__Release release, *releases[1];
    Fb__ReleaseItem items[FC_RIDE_ITEMS_MAX], *pointers[FC_RIDE_ITEMS_MAX];
};
/* With the lock held: hangs what waits to be sent, of one store (`preferred`, which
 * may be NULL, if anything of it waits), on a request about to be sent on
 * the present link with payload_bytes behind it. True if there was something and room for it; then
 * fc_release_rode(ride) is to be called when it was sent, still with the lock held. */
bool fc_release_ride(struct feature *feature, struct feature_store *preferred,
                     Fb__ClientRequest *request, size_t payload_bytes, struct fc_ride *ride);
void fc_release_rode(void *ride);
/* Sends what waits in every store, with the lock held. True if there was something. */
bool fc_release_send_all(struct feature *feature);

/* Says it to the broker: with the next request, or within a millisecond, or at once when many wait.
 * Waits a moment when the socket is full. Uses up releases[]. Without the lock. */
void fc_release_say(struct feature_store *store, struct fc_release *releases, size_t count);
/* The same without waiting: what the socket does not take goes with the flusher. */
void fc_release_leave(struct feature_store *store, struct fc_release *releases, size_t count);
/* Sends what is to be sent on the present link, in whose session the store is open. 0, or -EAGAIN
 * when it cannot be sent now. */
int fc_release_send(struct feature_store *store);
/* The same before the store goes: what cannot be sent now is kept by the link. */
void fc_release_tell(struct feature_store *store);
/* After the store was opened in a new session: consumed ones are said again (they count once
 * however often they are said), returned ones ended with their session. */
void fc_release_reopened(struct feature_store *store, uint64_t session, uint64_t incarnation);
/* On a new link of the same session: what is kept is said again. */
void fc_release_say_again(struct feature_store *store);
/* A request sent on `epoch` after `number` notes was answered: those have arrived. */
void fc_release_confirm(struct feature *feature, uint64_t epoch, uint64_t number);

#endif
