/* SPDX-License-Identifier: Apache-2.0
 *
 * What all connections of one handle have in common: the lock that guards everything of the handle,
 * and the ways of those who wait for something that is not the answer to a call of their own
 * (a connection, a store that is being opened, room for another request) to hear that they should
 * look again.
 *
 * Threads sleep on `changed`. Queues (queue.h), which must not sleep, are watchers: their function
 * is called.
 */
#ifndef FEATURED_LIBCLIENT_HUB_H
#define FEATURED_LIBCLIENT_HUB_H

#include <pthread.h>

#include "held.h"

struct fc_watcher {
    struct fc_watcher *next;
    /* Called with the lock held: something may have moved on. Only makes a note of it. */
    void (*look)(struct fc_watcher *watcher);
};

struct fc_hub {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct fc_watcher *watchers;
    struct fc_held held; /* by the session */
};

/* With the lock held: everybody is to look again. Cheap when nobody waits. */
static inline void fc_hub_announce(struct fc_hub *hub) {
    pthread_cond_broadcast(&hub->changed);
    for (struct fc_watcher *watcher = hub->watchers; watcher; watcher = watcher->next)
        watcher->look(watcher);
}

#endif
