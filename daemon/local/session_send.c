/* SPDX-License-Identifier: Apache-2.0
 *
 * Answers to a client, and what it has not taken of them yet: packets that are queued here, and
 * descriptors that are in its socket. Both are charged to its account, and come back when it has
 * read.
 *
 * An answer is sent at once if nothing is queued. If the socket is full it is queued, and the
 * socket is watched for room. A client that has half of its limit queued is not listened to any
 * more (paused); the other half is for answers to requests that are under way already. A client
 * over its limit loses its session: it has stopped reading.
 *
 * Descriptors are a matter of their own. The kernel counts those in flight per user and refuses
 * (ETOOMANYREFS) beyond RLIMIT_NOFILE, no matter whose sockets they are in. There is no event for
 * "the client has taken it", so that a timer looks at the sockets with descriptors in them:
 * UNREAD_FIRST_MS after one was sent, then ever more rarely, up to UNREAD_LAST_MS.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <linux/sockios.h>

#include "local/packet.h"
#include "local/session_internal.h"
#include "node/account_words.h"

#define UNREAD_FIRST_MS 5u
#define UNREAD_LAST_MS  200u

/* 0 when the packet was taken, or dropped because nobody is there to take it; else -errno. */
int session_transmit(struct session *session, const void *data, size_t bytes, int fd) {
    int error = packet_send(session->fd, data, bytes, fd);
    session->peer_gone |= error == -EPIPE;
    return error == -EPIPE ? 0 : error;
}

static void session_send_on_unread_timer(uv_timer_t *timer);

/* Does the client take its answers? Half of what may lie unread is left to the answers of requests
 * that are under way. */
static bool session_reads(const struct session *session) {
    struct charge_refusal full;
    if (!send_queue_front(&session->queue))
        return true;
    uint64_t limit_bytes = session->account
                               ? session->account->limits->of[ACCOUNT_SESSION][CHARGE_UNREAD_BYTES]
                               : session->queue.limit_bytes;
    return session->queue.queued_bytes <= limit_bytes / 2 &&
           account_has_room(session->account, CHARGE_UNREAD_BYTES, limit_bytes / 2, &full);
}

/* One more request may bring one more descriptor. */
bool session_may_ask(const struct session *session) {
    struct charge_refusal full;
    return session_reads(session) &&
           account_has_room(session->account, CHARGE_UNREAD_DESCRIPTORS, 1, &full);
}

/* While paused only the end of the connection is of interest. While the kernel refuses descriptors
 * (stalled) the socket is not watched for room, for it has room, and the loop would spin; the timer
 * tries again. */
void session_listen(struct session *session) {
    session->paused = !session_may_ask(session);
    if (session->paused)
        session_forget_put_off(session);
    int events = session->paused ? UV_DISCONNECT : UV_READABLE;
    if (send_queue_front(&session->queue) && !session->stalled)
        events |= UV_WRITABLE;
    uv_poll_start(&session->poll, events, session_on_poll);
}

/* error: from session_transmit() or from send_queue_push(). */
void session_drop_unsent(struct session *session, int error) {
    char why[160];
    if (error == -ENOBUFS)
        snprintf(why, sizeof why, "stopped reading: %llu of %llu bytes of answers are queued",
                 (unsigned long long)session->queue.queued_bytes,
                 (unsigned long long)session->queue.limit_bytes);
    else
        snprintf(why, sizeof why, "an answer could not be sent: %s", strerror(-error));
    session_drop(session, why);
}

static void session_drop_unread(struct session *session, const struct charge_refusal *full) {
    char why[400], limit[320];
    account_sentence(limit, sizeof limit, full);
    snprintf(why, sizeof why, "does not read its answers: %s", limit);
    session_drop(session, why);
}

/* A packet costs its bytes and a head. The descriptor is duplicated by the queue, because the
 * caller's may be closed before this packet's turn comes. */
static void session_enqueue(struct session *session, const void *data, size_t bytes, int fd) {
    struct charge_refusal full;
    uint64_t cost_bytes = send_queue_cost_bytes(bytes);
    if (!account_has_room(session->account, CHARGE_UNREAD_BYTES, cost_bytes, &full)) {
        session_drop_unread(session, &full);
        return;
    }
    int error = send_queue_push(&session->queue, data, bytes, fd);
    if (error)
        session_drop_unsent(session, error);
    else
        account_add(session->account, CHARGE_UNREAD_BYTES, cost_bytes);
}

static void session_dequeue(struct session *session) {
    size_t bytes = send_queue_front(&session->queue)->bytes;
    account_release(session->account, CHARGE_UNREAD_BYTES, send_queue_cost_bytes(bytes));
    send_queue_pop(&session->queue);
}

/* The timer is made with the first descriptor that is sent: it is a handle that has to be closed.
 */
static void sessions_look_soon(struct sessions *set) {
    if (!set->has_unread_timer) {
        uv_timer_init(set->loop, &set->unread_timer);
        set->unread_timer.data = set;
        set->has_unread_timer = true;
        set->unfreed++;
    }
    set->unread_ms = UNREAD_FIRST_MS;
    uv_timer_start(&set->unread_timer, session_send_on_unread_timer, set->unread_ms, 0);
}

/* Of a descriptor that has been sent or queued. It counts until the client is seen to have taken
 * all. */
static void session_count_descriptor(struct session *session) {
    account_add(session->account, CHARGE_UNREAD_DESCRIPTORS, 1);
    if (!session->descriptors++)
        LIST_INSERT_HEAD(&session->set->unread, session, unread);
    sessions_look_soon(session->set);
}

static void session_uncount_descriptors(struct session *session) {
    if (!session->descriptors)
        return;
    account_release(session->account, CHARGE_UNREAD_DESCRIPTORS, session->descriptors);
    session->descriptors = 0;
    LIST_REMOVE(session, unread);
}

void session_forget_unread(struct session *session) {
    while (send_queue_front(&session->queue))
        session_dequeue(session);
    session_uncount_descriptors(session);
}

/* True: the packet cannot be sent now, but later. ETOOMANYREFS: too many of this user's descriptors
 * are unread in sockets, whosever they are. */
static bool session_must_wait(struct session *session, int error) {
    session->stalled = error == -ETOOMANYREFS;
    return error == -EAGAIN || error == -ETOOMANYREFS;
}

/* Order is kept: while anything is queued, what comes later is queued behind it. */
void session_send(struct session *session, const void *data, size_t bytes, int fd) {
    if (session->dropped || session->peer_gone)
        return;
    bool idle = !send_queue_front(&session->queue);
    int error = idle ? session_transmit(session, data, bytes, fd) : 0;
    bool waits = !idle || session_must_wait(session, error);
    if (error && !waits) {
        session_drop_unsent(session, error);
        return;
    }
    if (waits)
        session_enqueue(session, data, bytes, fd);
    if (fd >= 0 && !session->dropped)
        session_count_descriptor(session);
    if (idle && waits)
        session_listen(session);
}

/* Listening again is decided at the end, when it is known what is still queued. */
void session_flush(struct session *session) {
    const struct send_packet *packet;
    while (!session->dropped && (packet = send_queue_front(&session->queue))) {
        int error = session_transmit(session, packet->data, packet->bytes, packet->fd);
        if (session_must_wait(session, error))
            break;
        if (error)
            session_drop_unsent(session, error);
        session_dequeue(session);
    }
    session_listen(session);
}

/* True if the client has taken all that was sent to it. SIOCOUTQ tells the bytes of our packets
 * that the other end has not received; 0 means that it has the descriptors, too. */
static bool session_look(struct session *session) {
    int unread_bytes = 0;
    if (session->stalled && !session->dropped)
        session_flush(session);
    if (send_queue_front(&session->queue) ||
        (!ioctl(session->fd, SIOCOUTQ, &unread_bytes) && unread_bytes))
        return false;
    session_uncount_descriptors(session);
    return true;
}

/* When somebody has taken descriptors, others of the same user may go on, wherever they are in the
 * list. */
static void session_send_on_unread_timer(uv_timer_t *timer) {
    struct sessions *set = timer->data;
    struct session *session, *next;
    bool taken = false;
    for (session = LIST_FIRST(&set->unread); session; session = next) {
        next = LIST_NEXT(session, unread);
        taken |= session_look(session);
    }
    for (session = taken ? set->first : NULL; session; session = session->next)
        if (session->paused && !session->dropped)
            session_listen(session);
    set->unread_ms = taken                             ? UNREAD_FIRST_MS
                     : set->unread_ms < UNREAD_LAST_MS ? 2 * set->unread_ms
                                                       : UNREAD_LAST_MS;
    if (!LIST_EMPTY(&set->unread))
        uv_timer_start(&set->unread_timer, session_send_on_unread_timer, set->unread_ms, 0);
}
