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
    uint64_t lease_epoch, lease_incarnation; /* of the connection that granted it */
    uint64_t sent_epoch;                     /* 0 = to be sent */
    uint64_t sent_number;                    /* of the note, by feature->release_count */
    bool consumed, corrupt;
};

/* Says it to the broker, at once if the socket takes it. Without the lock. */
void fc_release_say(struct feature_store *store, const struct fc_release *releases, size_t count);
/* Sends what is to be sent on the present link, on which the store is open. 0, or -EAGAIN when the
 * socket is full. */
int fc_release_send(struct feature_store *store);
/* After the store was opened on a new link: consumed ones are said again (they count once however
 * often they are said), returned ones ended with their session. */
void fc_release_reopened(struct feature_store *store, uint64_t epoch, uint64_t incarnation);
/* A request sent on `epoch` after `number` notes was answered: those have arrived. */
void fc_release_confirm(struct feature *feature, uint64_t epoch, uint64_t number);
/* Until every release is known to have arrived or deadline_ns passes. Without the lock. */
void fc_release_flush(struct feature *feature, uint64_t deadline_ns);

#endif
