/* SPDX-License-Identifier: Apache-2.0
 *
 * What featurectl needs beyond feature.h: any request of the protocol as it is, and the stream of
 * events. The requests go through request.c like all others, but once only: an administrator wants
 * to see that the connection broke, not a second answer.
 */
#include "admin.h"

#include "clock.h"
#include "error.h"
#include "request.h"

/* The broker that was asked may ask others, and answers a little after their time is over. */
#define ADMIN_GRACE_MS 2000u

int feature_admin_call(struct feature *feature, const Fb__ClientRequest *message,
                       uint32_t deadline_ms, Fb__ClientReply **reply_out) {
    struct fc_request request =
        FC_REQUEST(.feature = feature, .what = "request",
                   .deadline_ns = fc_deadline_ns(deadline_ms),
                   .grace_ms = deadline_ms ? ADMIN_GRACE_MS : 0, .once = true);
    request.message = *message;
    int rc = fc_request(&request);
    if (!rc) {
        *reply_out = request.reply;
        request.reply = NULL;
    }
    fc_request_deinit(&request);
    return rc;
}

uint32_t feature_admin_handle(struct feature_store *store) {
    struct feature *feature = store->feature;
    uint64_t deadline_ns = fc_after_ns(fc_now_ns(), FC_ROUND_TRIP_MS * FC_NS_PER_MS);
    pthread_mutex_lock(&feature->hub.lock);
    uint32_t handle = fc_store_ready(store, deadline_ns) ? 0 : store->handle;
    fc_connection_unlock(feature);
    return handle;
}

struct listener {
    bool (*visit)(void *context, const Fb__Event *event);
    void *context;
};

static bool admin_show_event(void *context, const Fb__ClientNotice *notice) {
    const struct listener *listener = context;
    return notice->note_case != FB__CLIENT_NOTICE__NOTE_EVENT ||
           listener->visit(listener->context, notice->event);
}

/* With the lock held. The subscription is ended again on the same link, unless the broker is gone;
 * the handle may go on to be used for something else. */
static int admin_listen_on(struct fc_link *link, struct fc_call *call) {
    fc_link_ref(link);
    int rc = fc_call_listen(call, link);
    if (rc == FC_LINK_LOST)
        rc = fc_fail(FEATURE_E_UNAVAILABLE, "events: the connection to the broker was lost: %s",
                     link->why);
    else if (!rc && call->reply->status != FB__STATUS__OK)
        rc = fc_fail_status(call->reply->status, call->reply->error, "events");
    call->request->events->subscribe = false;
    if (!link->broken)
        fc_link_tell(link, call->request);
    fc_link_unref(link);
    return rc == FEATURE_E_TIMEOUT ? FEATURE_OK : rc;
}

int feature_admin_events(struct feature *feature, const char *store, uint32_t timeout_ms,
                         bool (*visit)(void *context, const Fb__Event *event), void *context) {
    struct listener listener = {.visit = visit, .context = context};
    Fb__Events events = FB__EVENTS__INIT;
    events.subscribe = true;
    events.store = (char *)(store ? store : "");
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_EVENTS;
    request.events = &events;
    struct fc_call call = {.request = &request,
                           .patience_ns = timeout_ms ? timeout_ms * FC_NS_PER_MS : FC_NEVER_NS,
                           .notice = admin_show_event,
                           .notice_context = &listener,
                           .descriptor = {.fd = -1}};
    call.deadline_ns = fc_after_ns(fc_now_ns(), call.patience_ns);
    int rc = fc_connection_check(feature);
    if (rc)
        return rc;
    pthread_mutex_lock(&feature->hub.lock);
    rc = fc_connection_ready(feature, fc_after_ns(fc_now_ns(), FC_ROUND_TRIP_MS * FC_NS_PER_MS));
    if (!rc)
        rc = admin_listen_on(feature->link, &call);
    fc_connection_unlock(feature);
    fc_call_deinit(&call);
    return rc;
}
