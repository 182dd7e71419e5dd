/* SPDX-License-Identifier: Apache-2.0
 *
 * The steps that every request goes through:
 *
 *    ready (connect, open the store) --> releases ride along --> sent --> answered
 *      ^                                                           |
 *      +------------------- the connection broke ------------------+   (but for `once`)
 *
 * Repeating is safe because each request changes nothing, or carries an op_id by which the broker
 * knows it again, or what it granted has ended by then (session.c). The deadline of the whole stays
 * the same however often it is sent.
 */
#include "request.h"

#include <errno.h>
#include <string.h>

#include "clock.h"
#include "error.h"
#include "late.h"
#include "receive.h"
#include "release.h"

#define LOOK_MS 100u /* between two questions whether the caller is interrupted */

uint64_t fc_deadline_ns(uint32_t deadline_ms) {
    return fc_after_ns(fc_now_ns(), (deadline_ms ? deadline_ms : FC_ROUND_TRIP_MS) * FC_NS_PER_MS);
}

/* Rounded upwards, so that the broker does not give up before the caller does. */
uint32_t fc_left_ms(uint64_t deadline_ns) {
    uint64_t left_ms = (fc_left_ns(deadline_ns) + FC_NS_PER_MS - 1) / FC_NS_PER_MS;
    return left_ms < UINT32_MAX ? (uint32_t)left_ms : UINT32_MAX;
}

/* A reservation lives and dies with its session, so a commit is first sent in that one or not at
 * all. Once it has been sent and the answer was lost, it may be repeated to the same broker (same
 * incarnation), which then gives its first answer again. */
static int request_check_connection(const struct fc_request *request) {
    const struct fc_link *link = fc_connection_link(request->feature);
    if (!request->session_wanted || !link)
        return FEATURE_OK;
    if (!request->epoch && link->session != request->session_wanted)
        return fc_fail(FEATURE_E_UNAVAILABLE,
                       "%s: its room went with the session it was reserved in; put it again",
                       request->what);
    if (request->epoch && link->incarnation != request->incarnation)
        return fc_fail(FEATURE_E_UNAVAILABLE,
                       "%s: the broker restarted before it answered; put it again", request->what);
    return FEATURE_OK;
}

/* Link and store, and that the request may go to them. */
static int request_ready(struct fc_request *request) {
    int rc = request_check_connection(request);
    if (rc)
        return rc;
    rc = request->store ? fc_store_step(request->store) : fc_connection_step(request->feature);
    if (rc == FC_PENDING)
        request->awaited = request->store && request->store->asked ? FC_AWAITS_STORE
                           : fc_connection_link(request->feature)  ? FC_AWAITS_ROOM
                                                                   : FC_AWAITS_CONNECTION;
    return rc ? rc : request_check_connection(request);
}

/* What the answer will refer to: offsets in this mapping, leases of this epoch, this node. Taken
 * with the lock held and right before sending, as another thread may connect anew at any time. */
static void request_note_connection(struct fc_request *request) {
    const struct fc_link *link = request->feature->link;
    request->epoch = link->epoch;
    request->session = link->session;
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
static int request_lost(const struct fc_request *request, const struct fc_link *link) {
    return fc_fail(FEATURE_E_UNAVAILABLE, "%s: the connection to the broker was lost: %s",
                   request->what, link->why);
}

/* A request may get a descriptor that it has not asked for: it is closed. An answer of another
 * kind than was asked for is nonsense, and nothing of it is used. */
static int request_take_reply(struct fc_request *request) {
    request->reply = request->call.reply;
    fc_fork_close(&request->call.descriptor);
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

/* The releases that have waited ride on the request or go in front of it, so that what the caller
 * has released before is free before the broker looks at what it asks for. What was sent before it,
 * or with it, has arrived when it is answered: release_mark. */
static int request_send(struct fc_request *request) {
    struct feature *feature = request->feature;
    struct fc_ride ride;
    request->call = (struct fc_call){
        .request = &request->message,
        .items = request->items,
        .parts = request->parts,
        .part_count = request->part_count,
        .deadline_ns = fc_after_ns(request->deadline_ns, request->grace_ms * FC_NS_PER_MS),
        .patience_ns = request->patience_ms * FC_NS_PER_MS,
        .notice = request->notice,
        .notice_context = request->notice_context,
        .woken = request->woken,
        .sliced = feature->interrupted && !request->woken,
    };
    if (!fc_left_ns(request->call.deadline_ns))
        return fc_fail(FEATURE_E_TIMEOUT, "%s: its deadline passed before it could be sent",
                       request->what);
    request_note_connection(request);
    ride.number = 0;
    if (fc_release_ride(feature, request->store, &request->message, request_payload_bytes(request),
                        &ride)) {
        request->call.rode = fc_release_rode;
        request->call.rode_context = &ride;
    } else { /* no room for them: then in front of it */
        (void)fc_release_send_all(feature);
    }
    request->release_mark = feature->release_count;
    int rc = fc_call_begin(&request->call, feature->link);
    request->message.n_releases = 0;
    if (ride.number)
        request->release_mark = ride.number;
    return rc;
}

/* The answer has come, or there will be none on this connection. FC_LINK_LOST: send it again. */
static int request_end(struct fc_request *request) {
    struct fc_link *link = request->call.link;
    fc_link_ref(link);
    int rc = fc_call_end(&request->call);
    if (!rc)
        fc_release_confirm(request->feature, link->epoch, request->release_mark);
    else if (rc == FC_LINK_LOST && request->once)
        rc = request_lost(request, link);
    fc_link_unref(link);
    fc_flusher_settle(request->feature);
    if (rc == FEATURE_E_TIMEOUT)
        return fc_fail(rc, "%s: the broker did not answer within %llu ms", request->what,
                       (unsigned long long)((fc_now_ns() - request->begun_ns) / FC_NS_PER_MS));
    return rc ? rc : request_take_reply(request);
}

/* ---- steps ---- */

/* The deadline has passed, and it is not in flight. */
static int request_give_up(const struct fc_request *request) {
    if (request->awaited == FC_AWAITS_ROOM)
        return fc_fail(FEATURE_E_TIMEOUT, "%s: the broker does not read its socket", request->what);
    return request->store ? fc_store_give_up(request->store)
                          : fc_connection_give_up(request->feature);
}

int fc_request_step(struct fc_request *request) {
    if (!request->begun_ns) {
        request->begun_ns = fc_now_ns();
        if (!request->deadline_ns)
            request->deadline_ns = fc_after_ns(request->begun_ns, FC_ROUND_TRIP_MS * FC_NS_PER_MS);
    }
    for (;;) {
        int rc;
        if (request->awaited == FC_AWAITS_ANSWER) {
            if (!fc_call_is_over(&request->call))
                return FC_PENDING;
            request->awaited = FC_AWAITS_NOTHING;
            rc = request_end(request);
            if (rc != FC_LINK_LOST)
                return rc;
        }
        rc = request_ready(request);
        if (!rc) {
            rc = request_send(request);
            request->awaited = rc ? FC_AWAITS_ROOM : FC_AWAITS_ANSWER;
            if (!rc)
                return FC_PENDING;
            fc_flusher_settle(request->feature);
            rc = rc == -EAGAIN ? FC_PENDING : rc;
        }
        if (rc == FC_PENDING && !fc_left_ns(request->deadline_ns))
            return request_give_up(request);
        if (rc != FC_LINK_LOST)
            return rc;
    }
}

/* In flight that is the call's own deadline, which notices move; before, whatever the connection or
 * the store is waiting for, but not longer than the request itself may take. */
uint64_t fc_request_next_ns(const struct fc_request *request) {
    uint64_t next_ns = request->deadline_ns;
    if (request->awaited == FC_AWAITS_ANSWER)
        return request->call.deadline_ns;
    if (request->awaited == FC_AWAITS_CONNECTION || request->awaited == FC_AWAITS_STORE) {
        uint64_t ready_ns = request->store ? fc_store_next_ns(request->store)
                                           : fc_connection_next_ns(request->feature);
        next_ns = ready_ns < next_ns ? ready_ns : next_ns;
    }
    return next_ns;
}

/* So that a get which waits for a sample, or a put which waits for room, does not count until its
 * time is over, and such a put is not carried out after all. */
static void request_tell_given_up(const struct fc_request *request) {
    Fb__GiveUp give_up = FB__GIVE_UP__INIT;
    Fb__ClientRequest note = FB__CLIENT_REQUEST__INIT;
    if (request->message.op_case != FB__CLIENT_REQUEST__OP_GET &&
        request->message.op_case != FB__CLIENT_REQUEST__OP_RESERVE &&
        request->message.op_case != FB__CLIENT_REQUEST__OP_PUT)
        return;
    give_up.request_id = request->call.request_id;
    note.op_case = FB__CLIENT_REQUEST__OP_GIVE_UP;
    note.give_up = &give_up;
    fc_link_tell(request->call.link, &note);
}

void fc_request_abandon(struct fc_request *request) {
    if (request->awaited != FC_AWAITS_ANSWER)
        return;
    struct fc_link *link = request->call.link;
    uint32_t handle;
    request->awaited = FC_AWAITS_NOTHING;
    fc_link_ref(link);
    if (!request->call.done)
        request_tell_given_up(request);
    /* Its answer has come, and nobody has looked at it yet. */
    if (!fc_call_end(&request->call) && fc_late_grants(&request->message, &handle))
        fc_late_hand_back(link, handle, request->call.reply);
    fc_call_deinit(&request->call);
    fc_flusher_settle(request->feature);
    fc_link_unref(link);
}

/* ---- waiting ---- */

/* The lock is given up meanwhile. Whatever wakes it, another step tells whether that was it. */
static void request_wait(struct fc_request *request) {
    uint64_t until_ns = request->deadline_ns;
    if (request->feature->interrupted)
        until_ns = fc_soonest_ns(until_ns, fc_after_ns(fc_now_ns(), FC_SLICE_NS));
    if (request->awaited == FC_AWAITS_ANSWER)
        fc_call_wait(&request->call);
    else if (request->store)
        fc_store_wait(request->store, until_ns);
    else if (fc_connection_link(request->feature))
        fc_link_await_room(request->feature->link, until_ns);
    else
        fc_connection_wait(request->feature, until_ns);
}

static _Thread_local bool request_interrupted;

bool fc_request_was_interrupted(void) {
    bool was = request_interrupted;
    request_interrupted = false;
    return was;
}

/* Asking may cost the caller something (Python has to wait for its GIL), so it is not asked after
 * each wake-up. Its answer may take long: another thread gets the receive role first. The call
 * stays begun meanwhile; what comes for it is looked at by the next step. */
static bool request_ask_interrupted(struct fc_request *request) {
    struct feature *feature = request->feature;
    if (!feature->interrupted)
        return false;
    uint64_t last_ns = request->looked_ns ? request->looked_ns : request->begun_ns;
    uint64_t now_ns = fc_now_ns();
    if (now_ns < fc_after_ns(last_ns, LOOK_MS * FC_NS_PER_MS))
        return false;
    request->looked_ns = now_ns;
    if (request->awaited == FC_AWAITS_ANSWER)
        fc_receive_offer(request->call.link);
    pthread_mutex_unlock(&feature->hub.lock);
    bool interrupted = feature->interrupted(feature->interrupted_context);
    pthread_mutex_lock(&feature->hub.lock);
    return interrupted;
}

int fc_request(struct fc_request *request) {
    int rc = fc_connection_check(request->feature);
    if (rc)
        return rc;
    pthread_mutex_lock(&request->feature->hub.lock);
    while ((rc = fc_request_step(request)) == FC_PENDING) {
        request_wait(request);
        if (!request_ask_interrupted(request))
            continue;
        fc_request_abandon(request);
        request_interrupted = true;
        rc = fc_fail(FEATURE_E_TIMEOUT, "%s: interrupted", request->what);
        break;
    }
    fc_connection_unlock(request->feature);
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
