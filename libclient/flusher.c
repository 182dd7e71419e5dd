/* SPDX-License-Identifier: Apache-2.0
 *
 * The thread that sends releases which no later request has taken along, and receives the answers
 * to calls that were given up, when no later request does.
 *
 *    not started --first release--> ticking (1 ms) --100 ticks with nothing--> asleep --release-->
 * ticking
 *
 * An answer to a call that was given up may grant a lease, which late.c hands back. If nobody
 * received it, that lease would hold memory at the broker until the application's next call. The
 * broker answers soon, since it is told; one that does not in IDLE_TICKS_MAX is heard by the next
 * call.
 *
 * A lost connection is made anew by this thread while there is something to say.
 *
 * While a release waits to be sent the thread is not asleep, or has been woken. It ticks rather
 * than being woken for each release: waking a thread costs more than a whole request to the
 * broker, and would lie on the path of a loop that gets and releases as fast as it can.
 * IDLE_TICKS_MAX is how long such a loop may pause before a wake-up is paid again; an idle process
 * is woken by nothing.
 */
#include "flusher.h"

#include <signal.h>

#include "clock.h"
#include "connection.h"
#include "receive.h"

#define TICK_NS        (1 * FC_NS_PER_MS)
#define IDLE_TICKS_MAX 100u
#define AWAY_TICK_NS   (20 * FC_NS_PER_MS) /* while the broker is away */

/* True: something was received. Does not wait; other threads that receive do so for this one too.
 */
static bool flusher_receive(struct feature *feature) {
    struct fc_link *link = fc_connection_link(feature);
    bool any = false, came = true;
    int error;
    while (came && link && link->abandoned && !link->receiving) {
        fc_link_ref(link);
        came = fc_receive_one(link, 0, &error);
        fc_receive_offer(link);
        fc_link_unref(link);
        any |= came;
        link = fc_connection_link(feature);
    }
    return any;
}

/* There is something to say and no connection. Nobody else may need one for a long time, and a
 * sample that was consumed is not free until the broker hears of it; so this thread connects. */
static void flusher_connect(struct feature *feature) {
    if (fc_connection_step(feature))
        fc_connection_wait(feature, fc_after_ns(fc_now_ns(), AWAY_TICK_NS));
}

/* All under the feature's lock, which is given up while it waits. Sending does not wait, so the
 * lock is never held for long. */
static void *flusher_run(void *context) {
    struct feature *feature = context;
    struct fc_flusher *flusher = &feature->flusher;
    pthread_mutex_lock(&feature->hub.lock);
    while (!flusher->stop) {
        bool some = flusher->send(feature), received = flusher_receive(feature);
        if (some || received)
            flusher->idle_ticks = 0;
        if (some && !feature->closed && !fc_connection_link(feature)) {
            flusher_connect(feature);
        } else if (flusher->idle_ticks++ < IDLE_TICKS_MAX) {
            struct timespec tick = fc_timespec(fc_after_ns(fc_now_ns(), TICK_NS));
            pthread_cond_clockwait(&flusher->wake, &feature->hub.lock, CLOCK_MONOTONIC, &tick);
        } else {
            flusher->asleep = true;
            pthread_cond_wait(&flusher->wake, &feature->hub.lock);
            flusher->asleep = false;
            flusher->idle_ticks = 0;
        }
    }
    pthread_mutex_unlock(&feature->hub.lock);
    return NULL;
}

/* Signals stay with the application's own threads: the mask is inherited, so it is set for the
 * moment in which the thread is made. If it cannot be made, the caller sends the release itself. */
static bool flusher_start(struct feature *feature) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_cond_init(&feature->flusher.wake, NULL);
    feature->flusher.started =
        !pthread_create(&feature->flusher.thread, NULL, flusher_run, feature);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return feature->flusher.started;
}

bool fc_flusher_wake(struct feature *feature) {
    struct fc_flusher *flusher = &feature->flusher;
    flusher->idle_ticks = 0;
    if (!flusher->started)
        return flusher_start(feature);
    if (flusher->asleep)
        pthread_cond_signal(&flusher->wake);
    return true;
}

void fc_flusher_settle(struct feature *feature) {
    struct fc_link *link = fc_connection_link(feature);
    if (link && (link->untold || link->abandoned))
        (void)fc_flusher_wake(feature);
}

/* Joined without the lock: the thread needs it to end. feature_disconnect() has sent what was
 * waiting, or does so next. */
void fc_flusher_stop(struct feature *feature) {
    struct fc_flusher *flusher = &feature->flusher;
    pthread_mutex_lock(&feature->hub.lock);
    bool started = flusher->started;
    flusher->stop = true;
    if (started)
        pthread_cond_signal(&flusher->wake);
    pthread_mutex_unlock(&feature->hub.lock);
    if (!started)
        return;
    pthread_join(flusher->thread, NULL);
    pthread_cond_destroy(&flusher->wake);
}
