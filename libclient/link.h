/* SPDX-License-Identifier: Apache-2.0
 *
 * One connection to the broker and the calls in flight on it. Many threads call at once and there
 * is no receiving thread: of those that wait, one has the receive role; it polls the socket and
 * hands each reply to the call that it answers, and when its own has come it passes the role on. No
 * lock is held while it waits.
 *
 * All functions except fc_link_new() are called with the link's lock held and return with it held.
 */
#ifndef FEATURED_LIBCLIENT_LINK_H
#define FEATURED_LIBCLIENT_LINK_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "client.pb-c.h"
#include "fork.h"
#include "proto/bump.h"
#include "proto/frame.h"

/* Of a decoded reply: 256 items as structs, or fewer with their specs. */
#define LINK_SPARE_BYTES 65536u

struct fc_limits {
    uint32_t frame_bytes, inline_bytes, batch_items;
};

struct fc_call;
struct fc_abandoned; /* see late.h */
struct fc_untold;

struct fc_link {
    pthread_mutex_t *lock; /* borrowed */
    unsigned refs;
    struct fc_inherited socket;
    uint64_t epoch; /* numbers the connections of one handle, from 1 */
    bool broken;
    char why[128]; /* it broke */
    bool receiving;
    unsigned arenas_due; /* replies that may bring a descriptor */
    uint32_t last_request_id;
    struct fc_call *calls;
    struct fc_abandoned *abandoned;
    struct fc_untold *untold; /* oldest first */
    /* what the broker said in its HelloReply */
    uint64_t session_id, incarnation;
    char node[65];
    bool admin;
    struct fc_limits limits;
    /* of whoever has the receive role: */
    struct fc_inherited arriving; /* came with the packet and is not yet handed on */
    uint8_t packet[FRAME_CLIENT_BYTES_MAX];
    struct bump spare; /* LINK_SPARE_BYTES to decode in when malloc() fails */
};

/* Takes fd; without the link's lock, with that of fork.h. NULL when out of memory (fd is then
 * closed). */
struct fc_link *fc_link_new(int fd, uint64_t epoch, pthread_mutex_t *lock);
void fc_link_ref(struct fc_link *link);
void fc_link_unref(struct fc_link *link);
/* Ends the connection, once: the calls in flight end with FC_LINK_LOST. Only for what the broker
 * did, or the socket's end: what this process lacks is the failure of one call. */
void fc_link_break(struct fc_link *link, const char *why);

#define FC_LINK_LOST                                                                               \
    1 /* outcome: the connection broke; whether the request was carried out is not known */

typedef bool (*fc_notice_fn)(void *context, const Fb__ClientNotice *notice);

struct fc_exchange {
    Fb__ClientRequest *request;
    struct iovec
        *parts; /* payload in parts[1 .. part_count - 1]; parts[0] is filled in. NULL = none */
    size_t part_count;
    uint64_t deadline_ns; /* when to give up; */
    uint64_t patience_ns; /* each notice moves it to at least this long from then */
    fc_notice_fn
        notice; /* called in this thread without the lock; NULL = notices only move the deadline */
    void *notice_context;
    /* Set: `request` carries releases. Called with the lock held once it was sent at the first
     * attempt, else not, and it goes without them. */
    void (*rode)(void *context);
    void *rode_context;
    /* out, all the caller's: */
    Fb__ClientReply *reply;
    struct fc_inherited descriptor; /* that came with it; fd -1 = none */
    bool descriptor_lost;           /* one came, and this process could not take it */
};
/* Sends the request and waits for its reply. FEATURE_OK, FC_LINK_LOST, or FEATURE_E_TIMEOUT,
 * _INVALID (too large), _FULL (a limit of this process) with a sentence. What the broker grants
 * after the caller gave up is handed back by whoever receives it. */
int fc_link_call(struct fc_link *link, struct fc_exchange *exchange);
/* fc_link_call() of an Events request, then gives every event to exchange->notice until that
 * returns false (FEATURE_OK) or patience_ns pass without one (FEATURE_E_TIMEOUT). */
int fc_link_listen(struct fc_link *link, struct fc_exchange *exchange);
/* Sends a request that wants no answer; does not wait. 0, or -EAGAIN when it cannot be sent now; a
 * link found lost is broken, which counts as sent. */
int fc_link_note(struct fc_link *link, const Fb__ClientRequest *request);
/* fc_link_note() of what must not be left unsaid: what cannot be sent now is kept, and goes before
 * the next request or with fc_link_tell_kept(). */
void fc_link_tell(struct fc_link *link, const Fb__ClientRequest *request);
/* 0, or -EAGAIN while something kept cannot be sent. */
int fc_link_tell_kept(struct fc_link *link);
/* Frees what came with a reply. */
void fc_exchange_deinit(struct fc_exchange *exchange);

#endif
