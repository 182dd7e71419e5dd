/* SPDX-License-Identifier: Apache-2.0
 *
 * One request on one connection, from its sending to its answer. Its owner begins it, waits for it
 * or is woken by it, and ends it; none but fc_call_wait() waits for anything. The struct lives
 * where its owner wants it, and nothing else may move it in between.
 *
 * All functions are called with the hub's lock held and return with it held.
 */
#ifndef FEATURED_LIBCLIENT_CALL_H
#define FEATURED_LIBCLIENT_CALL_H

#include "link.h"

struct fc_notice;

/* A little more than what a thread sleeps in recvmsg() at a time (socket.c), so that it does so. */
#define FC_SLICE_NS 600000000ull

/* Called without the lock. False: no more notices are wanted. */
typedef bool (*fc_notice_fn)(void *context, const Fb__ClientNotice *notice);

struct fc_call {
    /* Set by the owner before it begins: */
    Fb__ClientRequest *request; /* looked at by fc_call_begin() alone */
    uint32_t items;             /* that it counts for among limits.items */
    struct iovec
        *parts; /* payload in parts[1 .. part_count - 1]; parts[0] is filled in. NULL = none */
    size_t part_count;
    uint64_t deadline_ns; /* when to give up; */
    uint64_t patience_ns; /* each notice moves it to at least this long from then */
    fc_notice_fn notice;  /* NULL = notices only move the deadline */
    void *notice_context;
    /* Set: `request` carries releases. Called once it has been sent. */
    void (*rode)(void *context);
    void *rode_context;
    /* How the owner hears that there is something to do: its answer or a notice has come, or the
     * link broke. NULL: it sleeps in fc_call_wait(). Only makes a note of it. */
    void (*woken)(struct fc_call *call);
    /* fc_call_wait() comes back after each sleep, and sleeps for FC_SLICE_NS at most: its owner may
     * be interrupted. */
    bool sliced;

    /* Set by fc_call_end(), all the owner's: */
    Fb__ClientReply *reply;
    struct fc_inherited descriptor; /* that came with it; fd -1 = none */
    bool descriptor_lost;           /* one came, and this process could not take it */

    /* From here on only for call.c and receive.c. */
    struct fc_call *next;
    struct fc_link *link; /* a reference */
    uint32_t request_id;  /* 0 = listens to events */
    pthread_cond_t wake;
    bool waiting;              /* its owner sleeps on `wake` */
    struct fc_notice *notices; /* oldest first */
    unsigned notice_count;
    bool done;
    bool undecoded;                 /* done, but there was no memory for the reply */
    int receive_error;              /* its owner cannot receive: an errno of this process */
    struct fc_abandoned *abandoned; /* for giving up; NULL: its reply grants nothing */
    bool arena_due;
    uint32_t promised; /* of hub->held: what its reply may grant */
};

/* Sends the request, without waiting. FEATURE_OK: it is in flight, and fc_call_end() must be
 * called. Else it is not: -EAGAIN, the socket is full; FC_LINK_LOST; FEATURE_E_INVALID (too large),
 * _FULL (a limit of this process), each with a sentence. */
int fc_call_begin(struct fc_call *call, struct fc_link *link);
/* True once there is no use in waiting: it was answered, the link broke, or the deadline passed. */
bool fc_call_is_over(const struct fc_call *call);
/* Sleeps until it is over (sliced: or for a while), and shows its notices meanwhile; receives for
 * all calls if nobody else does. True: its function has asked for no more notices. */
bool fc_call_wait(struct fc_call *call);
/* Shows the notices that have come, in this thread; the lock is released meanwhile. False: no more
 * are wanted. */
bool fc_call_show(struct fc_call *call);
/* Takes it off the link. FEATURE_OK: `reply` is the answer. FC_LINK_LOST; FEATURE_E_TIMEOUT when it
 * was not answered, _FULL, _INTERNAL, each with a sentence. What the broker grants later is handed
 * back. */
int fc_call_end(struct fc_call *call);
/* Frees what came with the reply. */
void fc_call_deinit(struct fc_call *call);
/* Sends the call, an Events request, then gives every event to call->notice until that returns
 * false (FEATURE_OK) or patience_ns pass without one (FEATURE_E_TIMEOUT). Waits. */
int fc_call_listen(struct fc_call *call, struct fc_link *link);

#endif
