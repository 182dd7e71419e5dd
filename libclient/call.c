/* SPDX-License-Identifier: Apache-2.0
 *
 * A call:
 *
 *    fc_call_begin() --> in flight --answered, link broken, deadline--> over --> fc_call_end()
 *
 * It is on link->calls from before its frame is sent, as the reply may come at once, to another
 * thread, until it is ended. Others reach it only through that list and under the lock.
 *
 * Two kinds of owners, one path. One that waits sleeps in fc_call_wait(), and may itself receive
 * for everybody. One that does not (a queue, the making of a connection or the opening of a store,
 * which are nobody's own) has set call->woken, hears by it that there is something to look at, and
 * then asks fc_call_is_over().
 *
 * A get, a reserve or the opening of a store that is given up stays known until its reply comes, so
 * that what the broker granted by it is handed back (late.c).
 */
#include "call.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "error.h"
#include "late.h"
#include "limit.h"
#include "receive.h"
#include "socket.h"

/* ---- begin ---- */

/* Only the answers to these may carry a descriptor; while none is due, packets are received without
 * taking the lock of fork.h first. */
static bool call_brings_descriptor(const Fb__ClientRequest *request) {
    return request->op_case == FB__CLIENT_REQUEST__OP_HELLO ||
           request->op_case == FB__CLIENT_REQUEST__OP_STORE_OPEN ||
           request->op_case == FB__CLIENT_REQUEST__OP_STORE_PROVE;
}

/* From here on a reply to it can be delivered. It holds a reference to the link, so that the link
 * lives until the owner has left. */
static void call_add(struct fc_call *call, struct fc_link *link) {
    call->reply = NULL;
    call->descriptor = (struct fc_inherited){.fd = -1};
    call->descriptor_lost = false;
    call->next = link->calls;
    call->link = link;
    call->waiting = false;
    call->notices = NULL;
    call->notice_count = 0;
    call->done = call->undecoded = false;
    call->receive_error = 0;
    call->request_id = 0;
    call->arena_due = false;
    call->promised = 0;
    call->abandoned = NULL;
    pthread_cond_init(&call->wake, NULL);
    link->calls = call;
    fc_link_ref(link);
}

static void call_free_notices(struct fc_call *call) {
    while (call->notices) {
        struct fc_notice *notice = call->notices;
        call->notices = notice->next;
        fb__client_notice__free_unpacked(notice->message, NULL);
        free(notice);
    }
}

/* Notices that nobody wants any more are freed. The role is offered once more: its owner may have
 * been the one that was to receive. */
static void call_remove(struct fc_call *call) {
    struct fc_link *link = call->link;
    struct fc_call **at = &link->calls;
    while (*at != call)
        at = &(*at)->next;
    *at = call->next;
    call_free_notices(call);
    pthread_cond_destroy(&call->wake);
    fc_receive_offer(link);
    call->link = NULL;
    fc_link_unref(link);
}

/* Only a socket that has ended breaks the link. A request that is too large, or for which there is
 * no memory, fails alone. */
static int call_send_failed(struct fc_link *link, int error) {
    switch (error) {
    case EAGAIN:
        return -EAGAIN;
    case EMSGSIZE:
        return fc_fail(FEATURE_E_INVALID,
                       "the request is larger than a frame of %u bytes, or than the socket takes "
                       "(net.core.wmem_default)",
                       FRAME_CLIENT_BYTES_MAX);
    case ENOMEM:
    case ENOBUFS:
        return fc_fail_memory("send a request");
    case EFAULT:
        return fc_fail(FEATURE_E_INVALID, "a buffer that was given cannot be read");
    default:
        if (!fc_socket_is_lost(error))
            return fc_fail(FEATURE_E_INTERNAL, "send a request: %s", strerror(error));
        fc_link_break(link, strerror(error));
        return FC_LINK_LOST;
    }
}

/* Without waiting and under the lock, so that it is well defined what was sent before it: a
 * release that was sent before a request has been carried out when the request is answered. */
static int call_send(struct fc_call *call) {
    int rc = fc_link_tell_kept(call->link);
    if (!rc)
        rc = fc_link_send(call->link, FRAME_REQUEST, call->request_id, call->request, call->parts,
                          call->part_count);
    if (rc)
        return call_send_failed(call->link, -rc);
    if (call->rode)
        call->rode(call->rode_context);
    return FEATURE_OK;
}

/* Memory for giving up is allocated before anything is sent, as there may be none later. */
int fc_call_begin(struct fc_call *call, struct fc_link *link) {
    struct fc_abandoned *abandoned = NULL;
    uint32_t handle, promised = fc_late_count(call->request);
    if (link->broken)
        return FC_LINK_LOST;
    if (fc_late_grants(call->request, &handle)) {
        abandoned = malloc(sizeof *abandoned);
        if (!abandoned || !fc_held_promise(&link->hub->held, promised)) {
            free(abandoned);
            return fc_fail_memory("send a request");
        }
    }
    call_add(call, link);
    call->request_id = ++link->last_request_id ? link->last_request_id : ++link->last_request_id;
    call->arena_due = call_brings_descriptor(call->request);
    call->abandoned = abandoned;
    call->promised = promised;
    if (abandoned)
        *abandoned = (struct fc_abandoned){.request_id = call->request_id,
                                           .handle = handle,
                                           .items = call->items,
                                           .arena_due = call->arena_due};
    link->arenas_due += call->arena_due;
    int rc = call_send(call);
    if (!rc) {
        link->requests++;
        link->items += call->items;
        return FEATURE_OK;
    }
    link->arenas_due -= call->arena_due;
    fc_held_unpromise(&link->hub->held, promised);
    free(abandoned);
    call_remove(call);
    return rc;
}

/* ---- wait ---- */

bool fc_call_is_over(const struct fc_call *call) {
    return call->done || call->receive_error || call->link->broken ||
           (call->deadline_ns != FC_NEVER_NS && !fc_left_ns(call->deadline_ns));
}

/* Sleeps until its reply is there, the link has broken, the role is offered, or the time is over.
 */
static void call_wait_as_follower(struct fc_call *call, uint64_t until_ns) {
    struct fc_link *link = call->link;
    call->waiting = true;
    link->sleepers++;
    if (until_ns == FC_NEVER_NS) {
        pthread_cond_wait(&call->wake, &link->hub->lock);
    } else {
        struct timespec deadline = fc_timespec(until_ns);
        pthread_cond_clockwait(&call->wake, &link->hub->lock, CLOCK_MONOTONIC, &deadline);
    }
    call->waiting = false;
    link->sleepers--;
}

/* The function may take long (it may checksum a piece of a large sample), so the receive role is
 * offered to another thread first. */
bool fc_call_show(struct fc_call *call) {
    pthread_mutex_t *lock = &call->link->hub->lock;
    bool more = true;
    if (call->notices)
        fc_receive_offer(call->link);
    while (call->notices) {
        struct fc_notice *notice = call->notices;
        call->notices = notice->next;
        call->notice_count--;
        pthread_mutex_unlock(lock);
        if (more && call->notice)
            more = call->notice(call->notice_context, notice->message);
        fb__client_notice__free_unpacked(notice->message, NULL);
        free(notice);
        pthread_mutex_lock(lock);
    }
    return more;
}

/* Notices come first: a call that is done has still to show those that came before its reply. A
 * thread that finds nobody receiving takes the role itself. */
bool fc_call_wait(struct fc_call *call) {
    for (;;) {
        if (!fc_call_show(call))
            return true;
        if (call->done || call->receive_error || call->link->broken)
            return false;
        if (call->notices)
            continue;
        if (call->deadline_ns != FC_NEVER_NS && !fc_left_ns(call->deadline_ns))
            return false;
        uint64_t until_ns = call->deadline_ns;
        if (call->sliced)
            until_ns = fc_soonest_ns(until_ns, fc_after_ns(fc_now_ns(), FC_SLICE_NS));
        if (call->link->receiving)
            call_wait_as_follower(call, until_ns);
        else
            (void)fc_receive_one(call->link, until_ns, &call->receive_error);
        if (call->sliced && !call->notices && !call->done)
            return false;
    }
}

/* ---- end ---- */

/* If no reply has come, the entry goes on the link's list, so that the reply is known when it comes
 * after all; until then the request counts as one that the broker has to answer. */
static void call_settle_account(struct fc_call *call) {
    struct fc_link *link = call->link;
    link->arenas_due -= call->arena_due;
    fc_held_unpromise(&link->hub->held, call->promised);
    if (call->abandoned && !call->done && !link->broken) {
        link->arenas_due += call->abandoned->arena_due;
        fc_late_abandon(link, call->abandoned);
    } else {
        free(call->abandoned);
        fc_receive_answered(link, call->items);
    }
    call->abandoned = NULL;
}

static int call_outcome(const struct fc_call *call) {
    if (call->undecoded)
        return fc_fail_memory("read the broker's answer");
    if (call->done)
        return FEATURE_OK;
    if (call->link->broken)
        return FC_LINK_LOST;
    if (call->receive_error == ENOMEM || call->receive_error == ENOBUFS)
        return fc_fail_memory("read the broker's answer");
    if (call->receive_error)
        return fc_fail(FEATURE_E_INTERNAL, "read the broker's answer: %s",
                       strerror(call->receive_error));
    return fc_fail(FEATURE_E_TIMEOUT, "the broker did not answer in time");
}

int fc_call_end(struct fc_call *call) {
    int rc = call_outcome(call);
    call_settle_account(call);
    call_remove(call);
    return rc;
}

void fc_call_deinit(struct fc_call *call) {
    if (call->reply)
        fb__client_reply__free_unpacked(call->reply, NULL);
    call->reply = NULL;
    fc_fork_close(&call->descriptor);
}

/* ---- events ---- */

/* A call that waits until it is sent and answered. */
static int call_run(struct fc_call *call, struct fc_link *link) {
    int rc;
    while ((rc = fc_call_begin(call, link)) == -EAGAIN) {
        if (fc_link_await_room(link, call->deadline_ns))
            return fc_fail(FEATURE_E_TIMEOUT, "the broker does not read its socket");
    }
    if (rc)
        return rc;
    fc_call_wait(call);
    return fc_call_end(call);
}

/* The call that hears events (request_id 0) is on the list before the subscription is sent: an
 * event that the broker sends right behind its answer would otherwise find nobody and be dropped.
 * It is never done; it ends by its owner, by its patience, or with the link. */
int fc_call_listen(struct fc_call *call, struct fc_link *link) {
    struct fc_call subscribe = {.request = call->request,
                                .deadline_ns = fc_after_ns(fc_now_ns(), 10000 * FC_NS_PER_MS),
                                .descriptor = {.fd = -1}};
    call_add(call, link);
    int rc = call_run(&subscribe, link);
    if (!rc && subscribe.reply->status == FB__STATUS__OK) {
        bool enough = fc_call_wait(call);
        if (!enough)
            rc = link->broken ? FC_LINK_LOST
                              : fc_fail(FEATURE_E_TIMEOUT, "no event came in that time");
    }
    call_remove(call);
    call->reply = subscribe.reply;
    fc_fork_close(&subscribe.descriptor); /* one that nobody has asked for */
    return rc;
}
