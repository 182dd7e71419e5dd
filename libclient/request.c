/* SPDX-License-Identifier: Apache-2.0
 *
 * The loop that every request goes through:
 *
 *    ready (connect, open the store) --> releases ride along --> sent --> answered
 *      ^                                                           |
 *      +------------------- the connection broke ------------------+   (but for `once`)
 *
 * Repeating is safe because each request changes nothing, or carries an op_id by which the broker
 * knows it again, or what it granted has gone with the session. The deadline of the whole stays
 * the same however often it is sent.
 */
#include "request.h"

#include <string.h>

#include "clock.h"
#include "error.h"
#include "release.h"

uint64_t fc_deadline_ns(uint32_t deadline_ms) {
    return fc_after_ns(fc_now_ns(), (deadline_ms ? deadline_ms : FC_ROUND_TRIP_MS) * FC_NS_PER_MS);
}

/* Rounded upwards, so that the broker does not give up before the caller does. */
uint32_t fc_left_ms(uint64_t deadline_ns) {
    uint64_t left_ms = (fc_left_ns(deadline_ns) + FC_NS_PER_MS - 1) / FC_NS_PER_MS;
    return left_ms < UINT32_MAX ? (uint32_t)left_ms : UINT32_MAX;
}

/* A reservation lives and dies with its connection, so a commit is first sent on that one or not
 * at all. Once it has been sent and the answer was lost, it may be repeated to the same broker
 * (same incarnation), which then gives its first answer again. */
static int request_check_connection(const struct fc_request *request) {
    const struct fc_link *link = fc_connection_link(request->feature);
    if (!request->epoch_wanted)
        return FEATURE_OK;
    if (!request->epoch && (!link || link->epoch != request->epoch_wanted))
        return fc_fail(FEATURE_E_UNAVAILABLE,
                       "%s: its room went with the connection it was reserved on; put it again",
                       request->what);
    if (request->epoch && link && link->incarnation != request->incarnation)
        return fc_fail(FEATURE_E_UNAVAILABLE,
                       "%s: the broker restarted before it answered; put it again", request->what);
    return FEATURE_OK;
}

/* With the lock held: link and store, and that the request may go to them. */
static int request_ready(const struct fc_request *request, uint64_t deadline_ns) {
    int rc = request_check_connection(request);
    if (rc)
        return rc;
    rc = request->store ? fc_store_ready(request->store, deadline_ns)
                        : fc_connection_ready(request->feature, deadline_ns);
    return rc ? rc : request_check_connection(request);
}

/* What the answer will refer to: offsets in this mapping, leases of this epoch, this node. Taken
 * with the lock held and right before sending, as another thread may connect anew at any time. */
static void request_note_connection(struct fc_request *request) {
    const struct fc_link *link = request->feature->link;
    request->epoch = link->epoch;
    request->incarnation = link->incarnation;
    memcpy(request->node, link->node, sizeof request->node);
    if (!request->store)
        return;
    fc_mapping_unref(request->mapping);
    request->mapping = fc_mapping_ref(request->store->mapping);
    *request->handle = request->store->handle;
}

/* For `once`: the caller is to know that it may have been carried out, and decides whether to ask
 * again. */
static int request_lost(struct fc_request *request, const struct fc_link *link) {
    return fc_fail(FEATURE_E_UNAVAILABLE, "%s: the connection to the broker was lost: %s",
                   request->what, link->why);
}

/* A request may get a descriptor that it has not asked for: it is closed. An answer of another
 * kind than was asked for is nonsense, and nothing of it is used. */
static int request_take_reply(struct fc_request *request, struct fc_exchange *exchange) {
    request->reply = exchange->reply;
    fc_fork_close(&exchange->descriptor);
    const Fb__ClientReply *reply = request->reply;
    if (reply->status != FB__STATUS__OK)
        return fc_fail_status(reply->status, reply->error, request->what);
    if (request->expected && reply->result_case != request->expected)
        return fc_request_nonsense(request);
    return FEATURE_OK;
}

static size_t request_payload_bytes(const struct fc_request *request) {
    size_t bytes = 0;
    for (size_t i = 1; i < request->part_count; i++)
        bytes += request->parts[i].iov_len;
    return bytes;
}

/* With the lock held. The releases that have waited ride on the request or go in front of it, so
 * that what the caller has released before is free before the broker looks at what it asks for. */
static int request_send_until_answered(struct fc_request *request) {
    struct feature *feature = request->feature;
    const uint64_t begun_ns = fc_now_ns();
    const uint64_t deadline_ns = request->deadline_ns ? request->deadline_ns : fc_deadline_ns(0);
    struct fc_exchange exchange = {
        .request = &request->message,
        .parts = request->parts,
        .part_count = request->part_count,
        .deadline_ns = fc_after_ns(deadline_ns, request->grace_ms * FC_NS_PER_MS),
        .patience_ns = request->patience_ms * FC_NS_PER_MS,
        .notice = request->notice,
        .notice_context = request->notice_context,
    };
    for (;;) {
        int rc = request_ready(request, deadline_ns);
        if (rc)
            return rc;
        struct fc_link *link = feature->link;
        if (!fc_left_ns(exchange.deadline_ns))
            return fc_fail(FEATURE_E_TIMEOUT, "%s: its deadline passed before it could be sent",
                           request->what);
        request_note_connection(request);
        struct fc_ride ride;
        bool rides = fc_release_ride(feature, request->store, &request->message,
                                     request_payload_bytes(request), &ride);
        exchange.rode = rides ? fc_release_rode : NULL;
        exchange.rode_context = &ride;
        if (!rides) /* no room for them: then in front of it */
            (void)fc_release_send_all(feature);
        uint64_t releases_before = feature->release_count;
        ride.number = 0;
        fc_link_ref(link);
        rc = fc_link_call(link, &exchange);
        if (!rc)
            fc_release_confirm(feature, link->epoch, ride.number ? ride.number : releases_before);
        else if (rc == FC_LINK_LOST && request->once)
            rc = request_lost(request, link);
        fc_link_unref(link);
        fc_connection_settle(feature);
        if (rc == FEATURE_E_TIMEOUT)
            return fc_fail(rc, "%s: the broker did not answer within %llu ms", request->what,
                           (unsigned long long)((fc_now_ns() - begun_ns) / FC_NS_PER_MS));
        if (rc != FC_LINK_LOST)
            return rc ? rc : request_take_reply(request, &exchange);
    }
}

int fc_request(struct fc_request *request) {
    int rc = fc_connection_check(request->feature);
    if (rc)
        return rc;
    pthread_mutex_lock(&request->feature->lock);
    rc = request_send_until_answered(request);
    pthread_mutex_unlock(&request->feature->lock);
    return rc;
}

void fc_request_deinit(struct fc_request *request) {
    if (request->reply)
        fb__client_reply__free_unpacked(request->reply, NULL);
    fc_mapping_unref(request->mapping);
}

int fc_request_nonsense(const struct fc_request *request) {
    return fc_fail(FEATURE_E_INTERNAL, "%s: the broker's answer does not fit the question",
                   request->what);
}
