/* SPDX-License-Identifier: Apache-2.0
 *
 * A call is on link->calls from before its frame is sent until its owner leaves fc_link_call(); it
 * lives on the owner's stack. Invariants, under the lock:
 *  - at most one thread has the receive role (link->receiving); it alone touches link->packet and
 * reads fd;
 *  - while calls wait and nobody receives, one of them has been woken to take the role: whoever
 * gives it up wakes one that is really asleep, before it looks at notices too, which may take long;
 *  - a request_id is on link->calls, or on link->abandoned, or has been answered.
 * An abandoned get, reserve or store open stays known until its reply comes, so that what the
 * broker granted by it is handed back (late.c). A link that breaks needs none of this: the broker
 * takes back all of its session.
 *
 * Only what the broker does breaks a link: an end of the socket, or a packet that is no frame. A
 * limit of this process (descriptors, memory, room in the socket) fails the call that met it: every
 * lease of the handle hangs on the link.
 */
#include "link.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "error.h"
#include "late.h"
#include "limit.h"
#include "socket.h"

#define NOTICES_KEPT_MAX 256u
/* A note of FRAME_BATCH_ITEMS_MAX releases fits: what ends leases needs no memory. */
#define BODY_SMALL_BYTES 8192u

/* What the broker has said about a call while it is under way. It waits in a list until the owner
 * of the call runs: the owner's function may take long, and the thread that received the packet
 * has other calls' answers to hand on. */
struct fc_notice {
    struct fc_notice *next;
    Fb__ClientNotice *message;
};

/* A call lives on the stack of the thread that makes it. Others reach it only through link->calls
 * and under the lock, and it is taken off that list before its owner returns. */
struct fc_call {
    struct fc_call *next;
    uint32_t request_id; /* 0 = listens to events */
    pthread_cond_t wake;
    uint64_t deadline_ns, patience_ns;
    const Fb__ClientRequest *request;
    bool waiting;              /* its owner sleeps on `wake` */
    struct fc_notice *notices; /* oldest first */
    unsigned notice_count;
    bool done;
    Fb__ClientReply *reply;
    bool undecoded;    /* done, but there was no memory for the reply */
    int receive_error; /* its owner cannot receive: an errno of this process */
    struct fc_inherited descriptor;
    bool descriptor_lost;
};

struct fc_link *fc_link_new(int fd, uint64_t epoch, pthread_mutex_t *lock) {
    struct fc_link *link = calloc(1, sizeof *link);
    if (!link || bump_init(&link->spare, LINK_SPARE_BYTES)) {
        free(link);
        close(fd);
        return NULL;
    }
    link->lock = lock;
    link->refs = 1;
    link->socket.fd = fd;
    link->arriving.fd = -1;
    link->epoch = epoch;
    fc_fork_enter(&link->socket);
    return link;
}

void fc_link_ref(struct fc_link *link) {
    link->refs++;
}

void fc_link_unref(struct fc_link *link) {
    if (--link->refs)
        return;
    fc_late_deinit(link);
    fc_fork_close(&link->socket);
    bump_deinit(&link->spare);
    free(link);
}

/* From here on nothing is sent or received, and every call in flight ends with FC_LINK_LOST. What
 * the broker had granted is its own to take back: it does so when it sees the end of the session.
 */
void fc_link_break(struct fc_link *link, const char *why) {
    if (link->broken)
        return;
    link->broken = true;
    snprintf(link->why, sizeof link->why, "%s", why);
    /* Also wakes the thread that polls it; the descriptor itself closes with the last reference. */
    shutdown(link->socket.fd, SHUT_RDWR);
    for (struct fc_call *call = link->calls; call; call = call->next)
        pthread_cond_signal(&call->wake);
}

/* ---- sending ---- */

/* The payload is never copied: it goes out from where the caller has it, behind header and body.
 * parts[0] was left free by the caller for those two. A body that is small, which is nearly every
 * one, is packed on the stack, so that a release can be sent when malloc() fails. */
static int link_send_frame(struct fc_link *link, enum frame_type type, uint32_t request_id,
                           const Fb__ClientRequest *request, struct iovec *parts, size_t part_count,
                           uint64_t deadline_ns) {
    size_t body_bytes = fb__client_request__get_packed_size(request);
    size_t payload_bytes = 0;
    for (size_t i = 1; i < part_count; i++)
        payload_bytes += parts[i].iov_len;
    if (FRAME_HEADER_BYTES + body_bytes + payload_bytes > FRAME_CLIENT_BYTES_MAX)
        return -EMSGSIZE;
    uint8_t small[FRAME_HEADER_BYTES + BODY_SMALL_BYTES];
    uint8_t *frame =
        body_bytes > BODY_SMALL_BYTES ? malloc(FRAME_HEADER_BYTES + body_bytes) : small;
    if (!frame)
        return -ENOMEM;
    struct frame_header header = {.version = FRAME_VERSION,
                                  .type = (uint8_t)type,
                                  .request_id = request_id,
                                  .body_bytes = (uint32_t)body_bytes,
                                  .payload_bytes = (uint32_t)payload_bytes};
    frame_encode(&header, frame);
    fb__client_request__pack(request, frame + FRAME_HEADER_BYTES);
    struct iovec only, *first = parts ? parts : &only;
    *first = (struct iovec){.iov_base = frame, .iov_len = FRAME_HEADER_BYTES + body_bytes};
    int rc = fc_socket_send(link->socket.fd, first, parts ? part_count : 1, deadline_ns);
    if (frame != small)
        free(frame);
    return rc;
}

/* A note that cannot be sent now has not been sent at all: a packet goes whole or not at all. So
 * the caller may keep it and try again. */
int fc_link_note(struct fc_link *link, const Fb__ClientRequest *request) {
    int rc = link_send_frame(link, FRAME_NOTE, 0, request, NULL, 0, 0);
    if (rc && !fc_socket_is_lost(-rc))
        return -EAGAIN;
    if (rc)
        fc_link_break(link, strerror(-rc));
    return 0;
}

/* ---- receiving ---- */

/* A handful of calls are in flight at a time, one for each thread that waits; a list is enough. */
static struct fc_call *link_find_call(struct fc_link *link, uint32_t request_id) {
    struct fc_call *call = link->calls;
    while (call && call->request_id != request_id)
        call = call->next;
    return call;
}

/* A reply that nobody waits for is one that came after its caller gave up, or one that the broker
 * should not have sent. If it grants something (a lease, a reservation, an open store), that is
 * handed back at once; otherwise it would be held until the session ends, by nobody. reply NULL:
 * there was no memory to decode it. */
static void link_deliver_reply(struct fc_link *link, uint32_t request_id, Fb__ClientReply *reply,
                               bool descriptor_lost) {
    struct fc_call *call = request_id ? link_find_call(link, request_id) : NULL;
    if (!call || call->done) {
        if (reply)
            fc_late_reply(link, request_id, reply);
        fb__client_reply__free_unpacked(reply, NULL);
        return;
    }
    call->reply = reply;
    call->undecoded = !reply;
    call->descriptor_lost = descriptor_lost;
    if (link->arriving.fd >= 0)
        fc_fork_move(&link->arriving, &call->descriptor);
    call->done = true;
    pthread_cond_signal(&call->wake);
}

/* A notice shows that the broker is alive and at work, so the call may wait on: its deadline
 * moves. If its owner is slow, notices beyond NOTICES_KEPT_MAX are dropped. They are hints, and a
 * later one says all that an earlier one said. */
static void link_deliver_notice(struct fc_link *link, uint32_t request_id,
                                Fb__ClientNotice *message) {
    struct fc_call *call = link_find_call(link, request_id);
    struct fc_notice *notice = NULL;
    if (call) {
        uint64_t patient_ns = fc_after_ns(fc_now_ns(), call->patience_ns);
        if (patient_ns > call->deadline_ns)
            call->deadline_ns = patient_ns;
        if (call->notice_count < NOTICES_KEPT_MAX)
            notice = malloc(sizeof *notice);
    }
    if (!notice) {
        fb__client_notice__free_unpacked(message, NULL);
        return;
    }
    *notice = (struct fc_notice){.message = message};
    struct fc_notice **end = &call->notices;
    while (*end)
        end = &(*end)->next;
    *end = notice;
    call->notice_count++;
    pthread_cond_signal(&call->wake);
}

/* There was no memory for the reply, so its call fails. But the reply may grant leases, and a
 * lease that nobody knows of holds memory at the broker until this process ends. So it is decoded
 * once more, into memory that was put aside when the link was made, only to see what is to be
 * handed back. */
static void link_deliver_without_memory(struct fc_link *link, const struct frame_header *header) {
    const Fb__ClientReply *reply = fb__client_reply__unpack(
        bump_begin(&link->spare), header->body_bytes, link->packet + FRAME_HEADER_BYTES);
    pthread_mutex_lock(link->lock);
    struct fc_call *call = header->request_id ? link_find_call(link, header->request_id) : NULL;
    uint32_t handle;
    if (reply && call && !call->done && fc_late_grants(call->request, &handle))
        fc_late_hand_back(link, handle, reply);
    else if (reply && !call)
        fc_late_reply(link, header->request_id, reply);
    fc_fork_close(&link->arriving);
    if (call && !call->done)
        link_deliver_reply(link, header->request_id, NULL, false);
    pthread_mutex_unlock(link->lock);
}

/* Decodes the packet outside the lock and hands it on. NULL, or what is wrong with it. */
static const char *link_dispatch(struct fc_link *link, size_t bytes, bool descriptor_lost) {
    struct frame_header header;
    bool short_of_memory = false;
    ProtobufCAllocator allocator = fc_noting_allocator(&short_of_memory);
    const char *wrong = frame_open(link->packet, bytes, FRAME_CLIENT_BYTES_MAX, &header);
    if (wrong)
        return wrong;
    const uint8_t *body = link->packet + FRAME_HEADER_BYTES;
    if (header.type == FRAME_REPLY) {
        Fb__ClientReply *reply = fb__client_reply__unpack(&allocator, header.body_bytes, body);
        if (!reply && !short_of_memory)
            return "a reply that does not decode";
        if (!reply) {
            link_deliver_without_memory(link, &header);
            return NULL;
        }
        pthread_mutex_lock(link->lock);
        link_deliver_reply(link, header.request_id, reply, descriptor_lost);
        pthread_mutex_unlock(link->lock);
        return NULL;
    }
    if (header.type != FRAME_NOTICE || link->arriving.fd >= 0)
        return "a frame that only clients may send";
    Fb__ClientNotice *notice = fb__client_notice__unpack(&allocator, header.body_bytes, body);
    if (!notice)
        return short_of_memory ? NULL : "a notice that does not decode";
    pthread_mutex_lock(link->lock);
    link_deliver_notice(link, header.request_id, notice);
    pthread_mutex_unlock(link->lock);
    return NULL;
}

/* The next packet into link->packet, and its descriptor into link->arriving. A child that is
 * forked between recvmsg() and fc_fork_enter() would inherit a descriptor that nobody closes in
 * it. So where one may come, the thread waits for the packet first and takes the lock of fork.h
 * only for the moment in which it is received. */
static ssize_t link_receive_packet(struct fc_link *link, bool arena_due, uint64_t deadline_ns,
                                   bool *descriptor_lost) {
    int fd;
    *descriptor_lost = false;
    if (arena_due) {
        int rc = fc_socket_await_packet(link->socket.fd, deadline_ns);
        if (rc)
            return rc == -ETIMEDOUT ? -EAGAIN : rc;
        fc_fork_lock();
    }
    ssize_t bytes = fc_socket_receive(link->socket.fd, link->packet, sizeof link->packet,
                                      arena_due ? 0 : deadline_ns, &fd);
    if (!arena_due && fd >= 0)
        fc_fork_lock();
    if (fd >= 0) {
        link->arriving.fd = fd;
        fc_fork_enter(&link->arriving);
    }
    if (arena_due || fd >= 0)
        fc_fork_unlock();
    *descriptor_lost = fd == FC_SOCKET_FD_LOST;
    return bytes;
}

/* Called with the receive role and without the lock. NULL, or why the connection is to end.
 * *error_out: what kept this thread from receiving, an errno; it fails this thread's call and no
 * other. */
static const char *link_receive_one(struct fc_link *link, bool arena_due, uint64_t deadline_ns,
                                    int *error_out) {
    bool descriptor_lost = false;
    ssize_t bytes = link_receive_packet(link, arena_due, deadline_ns, &descriptor_lost);
    if (bytes == -EAGAIN)
        return NULL;
    if (bytes > 0) {
        const char *wrong = link_dispatch(link, (size_t)bytes, descriptor_lost);
        fc_fork_close(&link->arriving); /* unless it was handed on */
        return wrong;
    }
    fc_fork_close(&link->arriving); /* an empty packet may bring one */
    if (!bytes)
        return "the broker closed it";
    if (bytes == -EMSGSIZE)
        return "a packet larger than a frame";
    if (bytes == -EPROTO)
        return "a packet with more than one descriptor";
    if (fc_socket_is_lost((int)-bytes))
        return strerror((int)-bytes);
    *error_out = (int)-bytes;
    return NULL;
}

/* ---- waiting ---- */

/* Receives one packet, whoever's it is, and hands it on. No lock is held while it waits for the
 * packet, so others can send meanwhile. What is wrong with the packet is learnt here, and the link
 * is broken under the lock. */
static void link_receive_as_leader(struct fc_link *link, struct fc_call *call) {
    uint64_t deadline_ns = call->deadline_ns;
    bool arena_due = link->arenas_due;
    link->receiving = true;
    pthread_mutex_unlock(link->lock);
    const char *wrong = link_receive_one(link, arena_due, deadline_ns, &call->receive_error);
    pthread_mutex_lock(link->lock);
    link->receiving = false;
    if (wrong)
        fc_link_break(link, wrong);
}

/* Sleeps until its reply is there, the link has broken, the role is offered, or the deadline. */
static void link_wait_as_follower(struct fc_link *link, struct fc_call *call) {
    call->waiting = true;
    if (call->deadline_ns == FC_NEVER_NS) {
        pthread_cond_wait(&call->wake, link->lock);
    } else {
        struct timespec deadline = fc_timespec(call->deadline_ns);
        pthread_cond_clockwait(&call->wake, link->lock, CLOCK_MONOTONIC, &deadline);
    }
    call->waiting = false;
}

/* Wakes one that sleeps, so that somebody receives. One that is awake will look by itself: it
 * takes the role before it sleeps. */
static void link_offer_role(struct fc_link *link) {
    struct fc_call *call = link->calls;
    while (call && !call->waiting)
        call = call->next;
    if (call && !link->receiving)
        pthread_cond_signal(&call->wake);
}

/* Hands queued notices to the owner's function, in its thread and without the lock. The function
 * may take long (it may checksum a piece of a large sample), so the receive role is offered to
 * another thread first. Returns false
 * when that function has asked for no more notices. */
static bool link_show_notices(struct fc_link *link, struct fc_call *call,
                              const struct fc_exchange *x) {
    bool more = true;
    if (call->notices)
        link_offer_role(link);
    while (call->notices) {
        struct fc_notice *notice = call->notices;
        call->notices = notice->next;
        call->notice_count--;
        pthread_mutex_unlock(link->lock);
        if (more && x->notice)
            more = x->notice(x->notice_context, notice->message);
        fb__client_notice__free_unpacked(notice->message, NULL);
        free(notice);
        pthread_mutex_lock(link->lock);
    }
    return more;
}

/* Until done, broken, the deadline, or the owner has asked for no more notices (true). Notices come
 * first: a call that is done has still to show those that came before its reply. A thread that
 * finds nobody receiving takes the role itself. */
static bool link_wait_for(struct fc_link *link, struct fc_call *call, const struct fc_exchange *x) {
    for (;;) {
        if (!link_show_notices(link, call, x))
            return true;
        if (call->done || call->receive_error || link->broken)
            return false;
        if (call->notices)
            continue;
        if (call->deadline_ns != FC_NEVER_NS && !fc_left_ns(call->deadline_ns))
            return false;
        if (link->receiving)
            link_wait_as_follower(link, call);
        else
            link_receive_as_leader(link, call);
    }
}

/* From here on a reply to it can be delivered. It holds a reference to the link, so that the link
 * lives until the owner has left. */
static void link_add_call(struct fc_link *link, struct fc_call *call, const struct fc_exchange *x) {
    *call = (struct fc_call){.next = link->calls,
                             .deadline_ns = x->deadline_ns,
                             .patience_ns = x->patience_ns,
                             .request = x->request,
                             .descriptor = {.fd = -1}};
    pthread_cond_init(&call->wake, NULL);
    link->calls = call;
    fc_link_ref(link);
}

/* Notices that nobody wants any more are freed. The role is offered once more: its owner may have
 * been the one that was to receive. */
static void link_remove_call(struct fc_link *link, struct fc_call *call) {
    struct fc_call **at = &link->calls;
    while (*at != call)
        at = &(*at)->next;
    *at = call->next;
    while (call->notices) {
        struct fc_notice *notice = call->notices;
        call->notices = notice->next;
        fb__client_notice__free_unpacked(notice->message, NULL);
        free(notice);
    }
    pthread_cond_destroy(&call->wake);
    link_offer_role(link);
    fc_link_unref(link);
}

static int link_send_now(struct fc_link *link, const struct fc_call *call,
                         const struct fc_exchange *x, uint64_t deadline_ns) {
    return link_send_frame(link, FRAME_REQUEST, call->request_id, x->request, x->parts,
                           x->part_count, deadline_ns);
}

/* Only a socket that has ended breaks the link. A request that is too large, or for which there is
 * no memory, fails alone. */
static int link_send_failed(struct fc_link *link, int error) {
    switch (error) {
    case ETIMEDOUT:
        return fc_fail(FEATURE_E_TIMEOUT, "the broker does not read its socket");
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
 * release that was sent before a request has been carried out when the request is answered. If the
 * socket is full, the thread waits for room without the lock, and the releases that were to ride
 * go by themselves: another thread may have sent them meanwhile. FEATURE_OK when it is on its way.
 */
static int link_send_request(struct fc_link *link, const struct fc_call *call,
                             const struct fc_exchange *x) {
    bool rides = x->rode;
    for (;;) {
        int rc = fc_link_tell_kept(link);
        if (!rc)
            rc = link_send_now(link, call, x, 0);
        if (!rc && rides)
            x->rode(x->rode_context);
        if (!rc)
            return FEATURE_OK;
        if (rc != -EAGAIN)
            return link_send_failed(link, -rc);
        rides = false;
        x->request->n_releases = 0;
        pthread_mutex_unlock(link->lock);
        rc = fc_socket_await_room(link->socket.fd, x->deadline_ns);
        pthread_mutex_lock(link->lock);
        if (rc)
            return link_send_failed(link, -rc);
        if (link->broken)
            return FC_LINK_LOST;
    }
}

/* What became of a call that was sent and waited for. Takes `abandoned`, which may be NULL: if no
 * reply has come, the entry goes on the link's list, so that the reply is known when it comes
 * after all. */
static int link_finish_call(struct fc_link *link, const struct fc_call *call,
                            struct fc_abandoned *abandoned) {
    if (call->undecoded) {
        free(abandoned);
        return fc_fail_memory("read the broker's answer");
    }
    if (call->done || link->broken) {
        free(abandoned);
        return call->done ? FEATURE_OK : FC_LINK_LOST;
    }
    if (abandoned) {
        link->arenas_due += abandoned->arena_due;
        fc_late_abandon(link, abandoned);
    }
    if (call->receive_error == ENOMEM || call->receive_error == ENOBUFS)
        return fc_fail_memory("read the broker's answer");
    if (call->receive_error)
        return fc_fail(FEATURE_E_INTERNAL, "read the broker's answer: %s",
                       strerror(call->receive_error));
    return fc_fail(FEATURE_E_TIMEOUT, "the broker did not answer in time");
}

/* Only the answers to these two may carry a descriptor; while none is due, packets are received
 * without taking the lock of fork.h first. */
static bool link_brings_arena(const Fb__ClientRequest *request) {
    return request->op_case == FB__CLIENT_REQUEST__OP_STORE_OPEN ||
           request->op_case == FB__CLIENT_REQUEST__OP_STORE_PROVE;
}

/* The order matters. Memory for giving up is allocated first, as there may be none later. The call
 * is on the list before its frame is sent, as the reply may come at once, to another thread.
 * Whatever came with the reply is moved to the exchange before the call is taken off the list. */
int fc_link_call(struct fc_link *link, struct fc_exchange *exchange) {
    struct fc_call call;
    struct fc_abandoned *abandoned = NULL;
    uint32_t handle;
    exchange->reply = NULL;
    exchange->descriptor = (struct fc_inherited){.fd = -1};
    exchange->descriptor_lost = false;
    if (link->broken)
        return FC_LINK_LOST;
    if (fc_late_grants(exchange->request, &handle)) {
        abandoned = malloc(sizeof *abandoned);
        if (!abandoned)
            return fc_fail_memory("send a request");
    }
    const bool arena_due = link_brings_arena(exchange->request);
    link_add_call(link, &call, exchange);
    call.request_id = ++link->last_request_id ? link->last_request_id : ++link->last_request_id;
    if (abandoned)
        *abandoned = (struct fc_abandoned){
            .request_id = call.request_id, .handle = handle, .arena_due = arena_due};
    link->arenas_due += arena_due;
    int rc = link_send_request(link, &call, exchange);
    if (!rc) {
        link_wait_for(link, &call, exchange);
        rc = link_finish_call(link, &call, abandoned);
    } else {
        free(abandoned);
    }
    link->arenas_due -= arena_due;
    exchange->reply = call.reply;
    exchange->descriptor_lost = call.descriptor_lost;
    if (call.descriptor.fd >= 0)
        fc_fork_move(&call.descriptor, &exchange->descriptor);
    link_remove_call(link, &call);
    return rc;
}

void fc_exchange_deinit(struct fc_exchange *exchange) {
    if (exchange->reply)
        fb__client_reply__free_unpacked(exchange->reply, NULL);
    exchange->reply = NULL;
    fc_fork_close(&exchange->descriptor);
}

/* The call that hears events (request_id 0) is on the list before the subscription is sent: an
 * event that the broker sends right behind its answer would otherwise find nobody and be dropped.
 * It is never done; it ends by its owner, by its patience, or with the link. */
int fc_link_listen(struct fc_link *link, struct fc_exchange *exchange) {
    struct fc_call events;
    struct fc_exchange subscribe = *exchange;
    subscribe.deadline_ns = fc_after_ns(fc_now_ns(), 10000 * FC_NS_PER_MS);
    /* The call that hears events is entered before the request is sent: an event that the broker
     * sends right behind its answer would otherwise find nobody and be dropped. */
    link_add_call(link, &events, exchange);
    int rc = fc_link_call(link, &subscribe);
    exchange->reply = subscribe.reply;
    if (subscribe.descriptor.fd >= 0)
        fc_fork_move(&subscribe.descriptor, &exchange->descriptor);
    if (!rc && subscribe.reply->status == FB__STATUS__OK) {
        bool enough = link_wait_for(link, &events, exchange);
        if (!enough)
            rc = link->broken ? FC_LINK_LOST
                              : fc_fail(FEATURE_E_TIMEOUT, "no event came in that time");
    }
    link_remove_call(link, &events);
    return rc;
}
