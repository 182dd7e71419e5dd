/* SPDX-License-Identifier: Apache-2.0
 *
 * feature_connect() and feature_disconnect(): what is above the connection (stores, releases, the
 * thread that sends them) is put together and taken apart here, and nowhere else.
 */
#include "clock.h"
#include "error.h"
#include "flush.h"
#include "flusher.h"
#include "limit.h"
#include "proto/auth.h"
#include "release.h"
#include "sized.h"
#include "store_handle.h"

#define CONNECT_TIMEOUT_MS_DEFAULT 5000u
#define DISCONNECT_MS              1000u

/* libsodium chooses its code for this processor once, and the handlers of fork() are registered
 * once; both are done at the first connect, and may fail. Then one connection is made, or the last
 * failure is told. */
int feature_connect(const struct feature_options *options, struct feature **out) {
    FC_NEEDS(out);
    struct feature_options known;
    struct feature *feature = NULL;
    int rc = fc_sized_read(&known, sizeof known, sizeof(size_t), options, "feature_options");
    if (rc)
        return rc;
    if (auth_init())
        return fc_fail(FEATURE_E_INTERNAL, "libsodium could not be initialised");
    if (fc_fork_init())
        return fc_fail_memory("connect");
    rc = fc_connection_new(&known, &feature);
    if (rc)
        return rc;
    feature->flusher.send = fc_release_send_all;
    uint32_t ms = known.connect_timeout_ms ? known.connect_timeout_ms : CONNECT_TIMEOUT_MS_DEFAULT;
    pthread_mutex_lock(&feature->hub.lock);
    rc = fc_connection_ready(feature, fc_after_ns(fc_now_ns(), ms * FC_NS_PER_MS));
    if (rc)
        fc_connection_close(feature);
    fc_connection_unlock(feature);
    if (rc) {
        fc_connection_unref(feature);
        return rc;
    }
    *out = feature;
    return FEATURE_OK;
}

/* First the flusher, so that nobody else sends; then what is still to be said, for at most
 * DISCONNECT_MS; then the link. Stores that are still open are closed. Views, reservations and
 * queues hold references, so the struct lives until the last of them is gone. */
void feature_disconnect(struct feature *feature) {
    if (!feature)
        return;
    if (!fc_connection_forked(feature)) {
        fc_flusher_stop(feature);
        fc_flush_releases(feature, fc_after_ns(fc_now_ns(), DISCONNECT_MS * FC_NS_PER_MS));
        pthread_mutex_lock(&feature->hub.lock);
        fc_connection_close(feature);
        fc_connection_unlock(feature);
    } else if (fc_connection_lock(feature)) {
        fc_connection_forget(feature);
        pthread_mutex_unlock(&feature->hub.lock);
    }
    fc_store_close_all(feature);
    fc_connection_unref(feature);
}
