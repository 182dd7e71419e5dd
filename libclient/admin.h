/* SPDX-License-Identifier: Apache-2.0
 *
 * Library-internal surface used by featurectl, linked statically; not installed, not exported.
 */
#ifndef FEATURED_LIBCLIENT_ADMIN_H
#define FEATURED_LIBCLIENT_ADMIN_H

#include "client.pb-c.h"
#include "feature.h"

/* Sends one request and waits for its answer, at most deadline_ms (0 = 10 s) and two seconds more
 * in which the broker can say that it did not get one from others. FEATURE_OK: *reply_out has
 * status OK and is freed with fb__client_reply__free_unpacked(reply, NULL). Otherwise the broker's
 * status and sentence. */
int feature_admin_call(struct feature *feature, const Fb__ClientRequest *request,
                       uint32_t deadline_ms, Fb__ClientReply **reply_out);
/* Handle that names the store in requests of the present connection. */
uint32_t feature_admin_handle(struct feature_store *store);
/* Sends Events{subscribe} and calls visit() for each until it gives false or timeout_ms pass
 * without one (0 = for ever). */
int feature_admin_events(struct feature *feature, const char *store, uint32_t timeout_ms,
                         bool (*visit)(void *context, const Fb__Event *event), void *context);

#endif
