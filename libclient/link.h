/* SPDX-License-Identifier: Apache-2.0
 *
 * One connection to the broker: its socket, how it ends, and what is sent on it. The calls in
 * flight (call.h) and the receiving of packets (receive.h) are in files of their own, and work on
 * this struct.
 *
 * All functions except fc_link_new() are called with the hub's lock held and return with it held.
 */
#ifndef FEATURED_LIBCLIENT_LINK_H
#define FEATURED_LIBCLIENT_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "client.pb-c.h"
#include "fork.h"
#include "hub.h"
#include "proto/bump.h"
#include "proto/frame.h"

/* Of a decoded reply: 256 items as structs, or fewer with their specs. */
#define LINK_SPARE_BYTES 65536u

/* What the broker has said that a session may do. */
struct fc_limits {
    uint32_t frame_bytes, inline_bytes, batch_items;
    uint32_t requests, items; /* unanswered at a time; items: of all those requests together */
};

struct fc_call; /* see call.h */

/* A request whose caller has given up. Its answer may grant something, which is then handed back by
 * whoever receives it (late.c). Made before the request is sent: giving up must not fail. */
struct fc_abandoned {
    struct fc_abandoned *next;
    uint32_t request_id;
    uint32_t handle; /* of the store asked */
    uint32_t items;  /* counted in link->items */
    bool arena_due;  /* counted in link->arenas_due */
};

/* A frame that the socket did not take at once, and that must be sent all the same. */
struct fc_untold {
    struct fc_untold *next;
    size_t bytes;
    uint8_t frame[];
};

struct fc_link {
    struct fc_hub *hub; /* borrowed */
    unsigned refs;
    struct fc_inherited socket;
    uint64_t epoch;   /* numbers the connections of one handle, from 1 */
    uint64_t session; /* the session that it serves: see session.h */
    bool broken;
    char why[128];       /* it broke */
    bool receiving;      /* some thread has the receive role: see receive.h */
    unsigned sleepers;   /* calls whose owners sleep until they are woken */
    unsigned onlookers;  /* threads that sleep on hub->changed until something has been received */
    unsigned arenas_due; /* replies that may bring a descriptor */
    uint32_t last_request_id;
    struct fc_call *calls;
    struct fc_abandoned *abandoned;
    unsigned requests, items; /* not answered yet, those of callers who gave up included */
    bool stalled;             /* some queue waits for these to become fewer */
    struct fc_untold *untold; /* oldest first */
    /* what the broker said in its HelloReply */
    uint64_t incarnation;
    char node[65];
    bool admin;
    struct fc_limits limits;
    /* of whoever has the receive role: */
    struct fc_inherited arriving; /* came with the packet and is not yet handed on */
    uint8_t packet[FRAME_CLIENT_BYTES_MAX];
    struct bump spare; /* LINK_SPARE_BYTES to decode in when malloc() fails */
};

/* Outcomes that are no failure of the library, beside FEATURE_OK (0) and the negative FEATURE_E_*:
 */
#define FC_PENDING 1 /* not yet; look again later */
#define FC_LINK_LOST                                                                               \
    2 /* the connection broke; whether the request was carried out is not known                    \
       */

/* Takes fd; without the hub's lock, with that of fork.h. NULL when out of memory (fd is then
 * closed). */
struct fc_link *fc_link_new(int fd, uint64_t epoch, struct fc_hub *hub);
void fc_link_ref(struct fc_link *link);
/* NULL is fine. */
void fc_link_unref(struct fc_link *link);
/* Ends the connection, once: the calls in flight end with FC_LINK_LOST, and everybody is told to
 * look again. Only for what the broker did, or the socket's end: what this process lacks is the
 * failure of one call. */
void fc_link_break(struct fc_link *link, const char *why);

/* Sends one frame; does not wait. parts[0] is filled in, the payload is in parts[1 ..]; NULL =
 * none. 0, -EAGAIN when the socket is full, -EMSGSIZE, or another -errno. */
int fc_link_send(struct fc_link *link, enum frame_type type, uint32_t request_id,
                 const Fb__ClientRequest *request, struct iovec *parts, size_t part_count);
/* Waits until the socket has room or deadline_ns; the lock is released meanwhile. 0, -ETIMEDOUT or
 * -errno. */
int fc_link_await_room(struct fc_link *link, uint64_t deadline_ns);
/* Sends a request that wants no answer; does not wait. 0, or -EAGAIN when it cannot be sent now; a
 * link found lost is broken, which counts as sent. */
int fc_link_note(struct fc_link *link, const Fb__ClientRequest *request);
/* fc_link_note() of what must not be left unsaid: what cannot be sent now is kept, and goes before
 * the next request or with fc_link_tell_kept(). False: there was no memory to keep it in. */
bool fc_link_tell(struct fc_link *link, const Fb__ClientRequest *request);
/* 0, or -EAGAIN while something kept cannot be sent. */
int fc_link_tell_kept(struct fc_link *link);

#endif
