/* SPDX-License-Identifier: Apache-2.0
 *
 * A session, as its files see it: session.c opens, listens and closes, session_send.c answers,
 * session_back.c goes on with an earlier one.
 */
#ifndef FEATURED_LOCAL_SESSION_INTERNAL_H
#define FEATURED_LOCAL_SESSION_INTERNAL_H

#include "local/lasting.h"
#include "local/send_queue.h"
#include "local/session.h"

struct refusal {
    Fb__Status status;
    char sentence[320];
};

struct session {
    struct sessions *set;
    struct session *previous, *next;
    struct lasting *lasting; /* NULL: refused, or another connection has taken its place */
    struct refusal *refusal; /* NULL: not refused */
    int fd;
    uid_t uid; /* of the client: who is charged for lines in the log */
    bool greeted, dropped, peer_gone, put_off;
    bool paused;          /* not listened to: it has answers or descriptors to take first */
    bool stalled;         /* the kernel takes no more descriptors from us for now */
    uint32_t descriptors; /* queued, or sent and not known to be taken */
    LIST_ENTRY(session) unread;
    struct account *account; /* NULL: none */
    uint8_t open_handles;
    uv_poll_t poll;
    uv_timer_t hello_timer;
    bool pidfd_wanted; /* from the client, once; see death.h */
    struct send_queue queue;
};

/* ---- session.c ---- */
extern const struct broker_client_ops session_client_ops;
uint64_t session_clock_now_ns(void);
/* The one answer that it gets; then it is closed. */
void session_answer_refusal(struct session *session, uint32_t request_id, Fb__Status status,
                            const char *sentence);
/* served: the broker was entered, so that it may have effects to be carried out. */
void session_end_turn(const struct sessions *set, bool served, uint64_t now_ns);
void session_on_death(struct session *session);
/* Calls `closed` if that is due. The owner may free the set from within it. */
void sessions_check_closed(struct sessions *set);
const char *session_name(const struct session *session);
void session_drop(struct session *session, const char *why);
void session_drop_quietly(struct session *session);
void session_on_poll(uv_poll_t *poll, int status, int events);
/* Nobody waits for it to be read. */
void session_forget_put_off(struct session *session);

/* ---- session_back.c ---- */
/* Before the first Hello is carried out: takes the session that it names, if it may. */
void session_come_back(struct session *session, const Fb__Hello *hello, uint64_t now_ns);
/* Before it is answered: the descriptor of a new lock for the client, -1 = none. Takes the token
 * out of an answer whose session cannot outlive its connection. *keep_error: the session cannot
 * outlive the broker, as it has to; else 0. */
int session_make_lasting(const struct session *session, Fb__HelloReply *hello, int *keep_error);
/* In place of the answer, after a *keep_error. */
void session_refuse_unkept(struct session *session, uint32_t request_id, int error);

/* ---- session_send.c ---- */
/* Sends now, or queues it. fd: passed along, stays the caller's; -1 = none. */
void session_send(struct session *session, const void *data, size_t bytes, int fd);
/* Sends now or not at all. 0 when the packet was taken, or dropped because nobody is there to take
 * it; else -errno. */
int session_transmit(struct session *session, const void *data, size_t bytes, int fd);
void session_drop_unsent(struct session *session, int error);
/* Sends what is queued, as far as the client takes it. */
void session_flush(struct session *session);
/* Watches the socket for what the session may do now. */
void session_listen(struct session *session);
/* It has taken enough of its answers to be listened to. */
bool session_may_ask(const struct session *session);
/* What it has not taken by its end it does not take any more. */
void session_forget_unread(struct session *session);

#endif
