/* SPDX-License-Identifier: Apache-2.0
 *
 * Invariants, under the lock:
 *  - at most one thread has the receive role (link->receiving); it alone touches link->packet and
 * reads the socket;
 *  - while threads sleep until something is received and nobody receives, one of them has been
 * woken to take the role: whoever gives it up and does not go on wakes one that is really asleep,
 * before it does anything that may take long;
 *  - a request_id is on link->calls, or on link->abandoned, or has been answered.
 * Queues need no waking: they poll the socket, and find it readable as long as a packet is in it.
 *
 * A link that breaks needs none of the handing back: what the handle does not name when it comes
 * back ends (session.c).
 */
#include "receive.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "call.h"
#include "clock.h"
#include "late.h"
#include "limit.h"
#include "socket.h"

#define NOTICES_KEPT_MAX 256u

/* ---- handing on ---- */

void fc_receive_answered(struct fc_link *link, uint32_t items) {
    link->requests--;
    link->items -= items;
    if (!link->stalled)
        return;
    link->stalled = false;
    fc_hub_announce(link->hub);
}

static void receive_wake(struct fc_call *call) {
    if (call->woken)
        call->woken(call);
    else
        pthread_cond_signal(&call->wake);
}

/* Some hundred calls are in flight at most (limits.requests), and mostly one for each thread that
 * waits; a list is enough. */
static struct fc_call *receive_find_call(struct fc_link *link, uint32_t request_id) {
    struct fc_call *call = link->calls;
    while (call && call->request_id != request_id)
        call = call->next;
    return call;
}

/* A reply that nobody waits for is one that came after its caller gave up, or one that the broker
 * should not have sent. If it grants something (a lease, a reservation, an open store), that is
 * handed back at once; otherwise it would be held until the session ends, by nobody. reply NULL:
 * there was no memory to decode it. */
static void receive_deliver_reply(struct fc_link *link, uint32_t request_id, Fb__ClientReply *reply,
                                  bool descriptor_lost) {
    struct fc_call *call = request_id ? receive_find_call(link, request_id) : NULL;
    uint32_t items;
    if (!call || call->done) {
        if (fc_late_reply(link, request_id, reply, &items))
            fc_receive_answered(link, items);
        if (reply)
            fb__client_reply__free_unpacked(reply, NULL);
        return;
    }
    if (reply && call->promised)
        fc_held_enter(&link->hub->held, call->abandoned->handle, reply, call->promised);
    call->reply = reply;
    call->undecoded = !reply;
    call->descriptor_lost = descriptor_lost;
    if (link->arriving.fd >= 0)
        fc_fork_move(&link->arriving, &call->descriptor);
    call->done = true;
    receive_wake(call);
}

/* A notice shows that the broker is alive and at work, so the call may wait on: its deadline
 * moves. If its owner is slow, notices beyond NOTICES_KEPT_MAX are dropped. They are hints, and a
 * later one says all that an earlier one said. */
static void receive_deliver_notice(struct fc_link *link, uint32_t request_id,
                                   Fb__ClientNotice *message) {
    struct fc_call *call = receive_find_call(link, request_id);
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
    receive_wake(call);
}

/* There was no memory for the reply, so its call fails. But the reply may grant leases, and a
 * lease that nobody knows of holds memory at the broker until this process ends. So it is decoded
 * once more, into memory that was put aside when the link was made, only to see what is to be
 * handed back. */
static void receive_deliver_without_memory(struct fc_link *link,
                                           const struct frame_header *header) {
    const Fb__ClientReply *reply = fb__client_reply__unpack(
        bump_begin(&link->spare), header->body_bytes, link->packet + FRAME_HEADER_BYTES);
    pthread_mutex_lock(&link->hub->lock);
    struct fc_call *call = header->request_id ? receive_find_call(link, header->request_id) : NULL;
    const bool wanted = call && !call->done;
    uint32_t items;
    if (reply && wanted && call->abandoned)
        fc_late_hand_back(link, call->abandoned->handle, reply);
    else if (!wanted && fc_late_reply(link, header->request_id, reply, &items))
        fc_receive_answered(link, items);
    fc_fork_close(&link->arriving);
    if (wanted)
        receive_deliver_reply(link, header->request_id, NULL, false);
    pthread_mutex_unlock(&link->hub->lock);
}

/* Decodes the packet outside the lock and hands it on. NULL, or what is wrong with it. */
static const char *receive_dispatch(struct fc_link *link, size_t bytes, bool descriptor_lost) {
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
            receive_deliver_without_memory(link, &header);
            return NULL;
        }
        pthread_mutex_lock(&link->hub->lock);
        receive_deliver_reply(link, header.request_id, reply, descriptor_lost);
        pthread_mutex_unlock(&link->hub->lock);
        return NULL;
    }
    if (header.type != FRAME_NOTICE || link->arriving.fd >= 0)
        return "a frame that only clients may send";
    Fb__ClientNotice *notice = fb__client_notice__unpack(&allocator, header.body_bytes, body);
    if (!notice)
        return short_of_memory ? NULL : "a notice that does not decode";
    pthread_mutex_lock(&link->hub->lock);
    receive_deliver_notice(link, header.request_id, notice);
    pthread_mutex_unlock(&link->hub->lock);
    return NULL;
}

/* ---- the role ---- */

/* The next packet into link->packet, and its descriptor into link->arriving. A child that is
 * forked between recvmsg() and fc_fork_enter() would inherit a descriptor that nobody closes in
 * it. So where one may come, the thread waits for the packet first and takes the lock of fork.h
 * only for the moment in which it is received. */
static ssize_t receive_packet(struct fc_link *link, bool arena_due, uint64_t deadline_ns,
                              bool *descriptor_lost) {
    int fd;
    *descriptor_lost = false;
    if (arena_due) {
        int rc = deadline_ns ? fc_socket_await_packet(link->socket.fd, deadline_ns) : 0;
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

/* Called with the role and without the lock. NULL, or why the connection is to end. *came_out:
 * something was received. *error_out: what kept this thread from receiving, an errno; it fails this
 * thread's call and no other. */
static const char *receive_and_dispatch(struct fc_link *link, bool arena_due, uint64_t deadline_ns,
                                        bool *came_out, int *error_out) {
    bool descriptor_lost = false;
    ssize_t bytes = receive_packet(link, arena_due, deadline_ns, &descriptor_lost);
    if (bytes == -EAGAIN)
        return NULL;
    *came_out = true;
    if (bytes > 0) {
        const char *wrong = receive_dispatch(link, (size_t)bytes, descriptor_lost);
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
    *came_out = false;
    *error_out = (int)-bytes;
    return NULL;
}

/* What is wrong with the packet is learnt without the lock, and the link is broken under it. */
bool fc_receive_one(struct fc_link *link, uint64_t deadline_ns, int *error_out) {
    bool arena_due = link->arenas_due, came = false;
    *error_out = 0;
    link->receiving = true;
    pthread_mutex_unlock(&link->hub->lock);
    const char *wrong = receive_and_dispatch(link, arena_due, deadline_ns, &came, error_out);
    pthread_mutex_lock(&link->hub->lock);
    link->receiving = false;
    if (wrong)
        fc_link_break(link, wrong);
    return came;
}

/* A queue has hundreds of calls in flight, of which none sleeps: they are not walked over in vain.
 * One that is awake will look by itself: it takes the role before it sleeps. Onlookers sleep on a
 * condition that they share, so all of them are woken; there are some only while a connection or a
 * store is being opened. */
void fc_receive_offer(struct fc_link *link) {
    struct fc_call *call = link->sleepers ? link->calls : NULL;
    if (link->receiving)
        return;
    while (call && !call->waiting)
        call = call->next;
    if (call)
        pthread_cond_signal(&call->wake);
    else if (link->onlookers)
        pthread_cond_broadcast(&link->hub->changed);
}

/* In the first case the answer that the caller waits for may be among what was received, in the
 * second another thread has received it and announced what follows from it. A thread that cannot
 * receive sleeps for a moment instead of trying again at once. */
void fc_receive_look(struct fc_link *link, uint64_t deadline_ns) {
    int error = 0;
    fc_link_ref(link); /* another thread may replace it meanwhile */
    bool follows = link->receiving;
    if (!follows) {
        (void)fc_receive_one(link, deadline_ns, &error);
        fc_receive_offer(link);
    }
    if (follows || error) {
        uint64_t soon_ns = fc_after_ns(fc_now_ns(), FC_NS_PER_MS);
        struct timespec until = fc_timespec(error && soon_ns < deadline_ns ? soon_ns : deadline_ns);
        link->onlookers++;
        pthread_cond_clockwait(&link->hub->changed, &link->hub->lock, CLOCK_MONOTONIC, &until);
        link->onlookers--;
    }
    fc_link_unref(link);
}
