/* SPDX-License-Identifier: Apache-2.0
 *
 * While a release waits to be sent the thread is not asleep, or has been woken. Ticking rather than
 * being woken for each release keeps the wake-up, which costs more than a whole request, off the
 * path of a loop that gets and releases.
 */
#include "flusher.h"

#include <signal.h>

#include "clock.h"
#include "connection.h"
#include "release.h"

#define TICK_NS        (1 * FC_NS_PER_MS)
#define IDLE_TICKS_MAX 100u

static void *flusher_run(void *context) {
    struct feature *feature = context;
    struct fc_flusher *flusher = &feature->flusher;
    pthread_mutex_lock(&feature->lock);
    while (!flusher->stop) {
        if (fc_release_send_all(feature))
            flusher->idle_ticks = 0;
        if (flusher->idle_ticks++ < IDLE_TICKS_MAX) {
            struct timespec tick = fc_timespec(fc_after_ns(fc_now_ns(), TICK_NS));
            pthread_cond_clockwait(&flusher->wake, &feature->lock, CLOCK_MONOTONIC, &tick);
        } else {
            flusher->asleep = true;
            pthread_cond_wait(&flusher->wake, &feature->lock);
            flusher->asleep = false;
            flusher->idle_ticks = 0;
        }
    }
    pthread_mutex_unlock(&feature->lock);
    return NULL;
}

/* Signals stay with the application's own threads. */
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

void fc_flusher_stop(struct feature *feature) {
    struct fc_flusher *flusher = &feature->flusher;
    pthread_mutex_lock(&feature->lock);
    bool started = flusher->started;
    flusher->stop = true;
    if (started)
        pthread_cond_signal(&flusher->wake);
    pthread_mutex_unlock(&feature->lock);
    if (!started)
        return;
    pthread_join(flusher->thread, NULL);
    pthread_cond_destroy(&flusher->wake);
}
