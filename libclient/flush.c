/* SPDX-License-Identifier: Apache-2.0
 *
 * A release is a note that nobody answers. That it has arrived is known when a request that was
 * sent behind it has been answered (release.c). Normally the application's next request does that;
 * before a connection is closed, one is made.
 */
#include "flush.h"

#include "clock.h"
#include "request.h"

/* A store whose last reference has gone is being taken apart by another thread, which waits for
 * the lock. It must not be brought back. */
static bool flush_try_ref(struct feature_store *store) {
    unsigned refs = atomic_load(&store->refs);
    while (refs && !atomic_compare_exchange_weak(&store->refs, &refs, refs + 1))
        continue;
    return refs;
}

/* A store with releases that are not known to have arrived, with a reference; NULL = none. */
static struct feature_store *flush_find_unconfirmed(struct feature *feature) {
    pthread_mutex_lock(&feature->hub.lock);
    struct feature_store *store = feature->stores;
    while (store && (!store->release_count || !flush_try_ref(store)))
        store = store->next;
    pthread_mutex_unlock(&feature->hub.lock);
    return store;
}

/* Health changes nothing and is cheap. Its answer shows that all that was sent before it has
 * arrived. */
static int flush_fence(struct feature_store *store, uint64_t deadline_ns) {
    Fb__Health health = FB__HEALTH__INIT;
    uint32_t unused_handle;
    struct fc_request request =
        FC_REQUEST(.feature = store->feature, .store = store, .handle = &unused_handle,
                   .what = "flush releases", .deadline_ns = deadline_ns);
    request.message.op_case = FB__CLIENT_REQUEST__OP_HEALTH;
    request.message.health = &health;
    int rc = fc_request(&request);
    fc_request_deinit(&request);
    return rc;
}

/* On a working link the close goes behind them, and needs no answer. */
void fc_flush_before_close(struct feature_store *store, uint64_t deadline_ns) {
    pthread_mutex_lock(&store->feature->hub.lock);
    bool stranded = store->release_count && !fc_connection_link(store->feature) &&
                    !store->feature->closed && store->feature->session.lasts;
    pthread_mutex_unlock(&store->feature->hub.lock);
    if (stranded)
        (void)flush_fence(store, deadline_ns);
}

/* Until the next attempt to connect. */
static void flush_pause(struct feature *feature, uint64_t deadline_ns) {
    pthread_mutex_lock(&feature->hub.lock);
    fc_connection_wait(feature, deadline_ns);
    fc_connection_unlock(feature);
}

/* Store by store, each with a reference, as the lock is released while a request is under way. A
 * fence that fails for what this process lacks (descriptors, memory) may succeed in a moment; any
 * other failure has waited until the deadline, or waiting is no use. */
void fc_flush_releases(struct feature *feature, uint64_t deadline_ns) {
    int rc = FEATURE_OK;
    while (!rc && fc_left_ns(deadline_ns)) {
        struct feature_store *store = flush_find_unconfirmed(feature);
        if (!store)
            return;
        rc = flush_fence(store, deadline_ns);
        fc_store_unref(store);
        if (rc == FEATURE_E_FULL) {
            flush_pause(feature, deadline_ns);
            rc = FEATURE_OK;
        }
    }
}
