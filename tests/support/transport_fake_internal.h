/* SPDX-License-Identifier: Apache-2.0
 *
 * What the two halves of the fake share: transport_fake_clock.c (events and when they happen) and
 * transport_fake.c (what they do to the sides of connections).
 */
#ifndef FEATURED_TESTS_TRANSPORT_FAKE_INTERNAL_H
#define FEATURED_TESTS_TRANSPORT_FAKE_INTERNAL_H

#include <sys/queue.h>

#include "support/transport_fake.h"
#include "transport/regions.h"

enum event_type {
    CONNECT, /* to whoever listens there then; carries the dialler's side */
    ANSWER,  /* to a CONNECT; why: refused */
    TIMEOUT, /* own: of the handshake */
    MESSAGE,
    READ,
    READ_FAILED,
    CHUNK,
    SERVE, /* own: the last chunk has arrived */
    FIN,
    END,       /* own: report what is left, and `closed` */
    DESTROYED, /* own, of a transport */
};

enum lane { LANE_CONTROL, LANE_BULK, LANES };

struct event {
    uint64_t due_ns, number;
    enum event_type type;
    uint32_t from;         /* endpoint, to find a cut; an own event's own number */
    struct fake *to;       /* valid while `end` is not dead; NULL: a CONNECT, or nobody any more */
    struct end *end;       /* the receiver's; of a CONNECT the dialler's; NULL: DESTROYED */
    struct end *home;      /* CHUNK */
    const uint8_t *source; /* CHUNK */
    const char *why;       /* ANSWER */
    uint64_t id, offset, bytes;
    int status;
    size_t data_bytes;
    uint8_t data[]; /* message or key */
};

struct ask { /* a read of ours */
    TAILQ_ENTRY(ask) all;
    struct transport_read read;
    uint64_t id, bytes_done;
    bool sent;
    uint8_t key[];
};

struct serve { /* a read of the other side's */
    TAILQ_ENTRY(serve) turn;
    uint64_t id, offset, bytes_left;
    uint32_t region;
    const uint8_t *next;
};

struct end { /* the owner's struct transport_conn */
    struct fake *fake;
    struct end *other; /* holds a reference */
    LIST_ENTRY(end) all;
    unsigned refs;
    uint64_t number; /* of its fake: what region keys are for */
    bool accepted_here, announced, up, ending, dead;
    void *user;
    char address[64];
    char why[128];
    int end_status;
    uint64_t lane_due_ns[LANES];
    uint64_t next_id, queued_bytes;
    uint32_t asks_sent;
    TAILQ_HEAD(, ask) asks;
    TAILQ_HEAD(, serve) serves; /* the first is next */
    struct serve *sending;      /* its chunk is under way; one at a time paces the home */
    struct transport_info counters;
};

struct fake {
    struct transport base;
    struct fake_network *network;
    struct transport_options options;
    struct transport_events events;
    void *owner;
    void (*on_destroyed)(void *owner);
    uint8_t cluster_key[AUTH_KEY_BYTES], hello[TRANSPORT_HELLO_BYTES_MAX];
    struct regions regions;
    char address[64];
    uint32_t number, accepted_count;
    uint64_t next_end;
    bool frozen, destroying, killed;
    LIST_HEAD(, end) ends;
};

struct fake_network {
    uint64_t random, delay_ns_min, delay_ns_max, now_ns, next_number;
    uint32_t next_port;
    struct event **heap, **held; /* held: kept back by a cut or a freeze, in order of arrival */
    size_t heap_count, heap_capacity, held_count, held_capacity;
    struct fake *endpoints[FAKE_ENDPOINTS_MAX];
    uint64_t cut[FAKE_ENDPOINTS_MAX]; /* by sender; a bit per receiver */
};

static inline struct fake *fake_from_base(struct transport *t) {
    return (struct fake *)t; /* base is its first member */
}

/* ---- transport_fake_clock.c ---- */
void *fake_must(void *memory);
uint64_t fake_random(struct fake_network *n);
uint64_t fake_random_delay(struct fake_network *n);
struct event *fake_event_new(struct fake *fake, enum event_type type, struct end *end,
                             size_t data_bytes);
void fake_post(struct fake_network *n, struct event *event, uint64_t due_ns);
/* An event of this side alone. */
void fake_post_own(struct end *end, enum event_type type, uint64_t delay_ns);
/* One for the other side, behind what went before on the same lane. */
struct event *fake_to_other(struct end *end, enum event_type type, size_t data_bytes);
void fake_post_other(struct end *end, enum lane lane, struct event *event);
void fake_end_unref(struct end *end);

/* ---- transport_fake.c ---- */
void fake_happen(struct fake_network *n, struct event *event);
struct fake *fake_find_listener(struct fake_network *n, const char *address);

#endif
