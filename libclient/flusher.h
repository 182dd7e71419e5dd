/* SPDX-License-Identifier: Apache-2.0
 *
 * A thread that sends releases which no request has taken along, and hears what nobody waits for
 * any more. It ticks once a millisecond while views are being released, sleeps when none has been
 * for a while, and is started by the first release.
 */
#ifndef FEATURED_LIBCLIENT_FLUSHER_H
#define FEATURED_LIBCLIENT_FLUSHER_H

#include <pthread.h>
#include <stdbool.h>

struct feature;

struct fc_flusher { /* under the feature's lock */
    pthread_t thread;
    pthread_cond_t wake;
    bool started, asleep, stop;
    unsigned idle_ticks; /* since a release was said */
    /* What each tick does, with the lock held and without waiting. True: there was something. */
    bool (*send)(struct feature *feature);
};

/* With the lock held: something waits to be sent. False: there can be no flusher, send it yourself.
 */
bool fc_flusher_wake(struct feature *feature);
/* With the lock held: wakes it when something was kept because the socket was full, or when the
 * answer to a call that was given up may bring something to hand back. */
void fc_flusher_settle(struct feature *feature);
/* Without the lock. Not in a forked child. */
void fc_flusher_stop(struct feature *feature);

#endif
