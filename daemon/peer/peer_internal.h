/* SPDX-License-Identifier: Apache-2.0
 *
 * Shared by peers.c (table, transport events), peer.c (asking) and asker.c (being asked).
 */
#ifndef FEATURED_PEER_PEER_INTERNAL_H
#define FEATURED_PEER_PEER_INTERNAL_H

#include <sys/queue.h>

#include "peer/peer.h"
#include "proto/frame.h"

enum peer_state { PEER_IDLE, PEER_CONNECTING, PEER_UP, PEER_BACKOFF };

/* A transport connection's user pointer: either side of it. */
enum end_kind { END_PEER, END_ASKER };
struct end {
    enum end_kind kind;
    struct peers *peers;
    struct transport_conn *conn;
    uint64_t heard_ns; /* when anything last came in */
    /* Times, apart by more than half a ping interval each, at which it was heard since a connection
     * of the same name and another incarnation began: twins.c. */
    uint32_t pulses;
    uint64_t pulse_ns;
};

struct peer_pending { /* one call; sent once the link is up */
    TAILQ_ENTRY(peer_pending) link;
    uint32_t request_id;
    bool sent;
    peer_reply_fn done;
    void *context;
    size_t body_bytes;
    uint8_t body[]; /* packed; kept until sent */
};
TAILQ_HEAD(peer_pending_list, peer_pending);

struct peer_reading {
    TAILQ_ENTRY(peer_reading) link;
    struct peer *peer;
    struct peer_read read;
    bool posted; /* to the transport; else it waits for the region's key */
};
TAILQ_HEAD(peer_reading_list, peer_reading);

struct region_key {
    TAILQ_ENTRY(region_key) link;
    uint32_t region;
    size_t key_bytes;
    uint8_t key[];
};
TAILQ_HEAD(region_key_list, region_key);

struct peer {
    struct end end;
    TAILQ_ENTRY(peer) link;
    /* When peer_on_due() has something to do: never later than peer_due_ns() says, perhaps earlier,
     * for what is heard only moves that time on. */
    struct deadline due;
    char node[LAYOUT_NAME_BYTES_MAX + 1];
    char address[256], data_address[256]; /* data_address: "" = the same */
    char data_failure[128];               /* of the last connection; "" = none */
    enum peer_state state;
    uint64_t incarnation, epoch;
    uint64_t retry_ns, backoff_ns, ping_ns;
    bool ping_out;
    bool dropped;       /* closed by us for last_failure */
    bool moving;        /* closed by us, to be dialled again at once */
    uint64_t better_ns; /* since when a better connection could be had; 0: no */
    uint32_t next_request_id;
    uint64_t reads, errors, odd_answers;
    uint64_t said_ns; /* when it last said anything; end.heard_ns also counts a new connection */
    char last_failure[160];
    struct peer_pending_list pending;
    struct peer_pending_list failed; /* of a link that has gone: not told yet */
    char failed_why[160];
    struct peer_reading_list readings;
    struct region_key_list keys; /* of the present connection */
    void *user;
};
TAILQ_HEAD(peer_list, peer);

struct asker {
    struct end end;
    TAILQ_ENTRY(asker) link;
    struct deadline silent; /* when it has been silent for too long, unless it was heard since */
    char node[LAYOUT_NAME_BYTES_MAX + 1];
    uint64_t incarnation;
    char data_failure[128]; /* why it cannot reach our data address, in its words */
    bool twin;              /* it calls itself by our name: pings alone are answered */
    char rival[256];        /* another of its name lives, in words; "" = none is known */
    void *user;
};
TAILQ_HEAD(asker_list, asker);

/* Another broker that calls itself by our name. */
struct own_twin {
    char words[400]; /* "" = none is known */
    uint64_t seen_ns;
    struct deadline over; /* when it is forgotten, unless it was seen again since */
};

struct peers {
    struct peers_options options;
    char node[LAYOUT_NAME_BYTES_MAX + 1];
    struct peers_events events;
    void *owner;
    struct transport *transport;
    void (*closed)(void *owner); /* set while closing */
    void *closed_owner;
    struct peer_list peers;
    struct asker_list askers;
    struct own_twin twin;
    struct peer seeker; /* of the broker that has our name in the index */
    bool seeking;
    uint64_t turn_ns; /* when the last turn of the loop began */
    uint64_t now_ns;  /* of the last turn or call: for events, which carry no time */
};

void peer_init(struct peer *peer, struct peers *peers, const char *node);
void peer_deinit(struct peer *peer);
/* Sets its deadline anew. To be called after each change that may have brought it nearer. */
void peer_schedule(struct peer *peer);
void peer_on_up(struct peer *peer, uint64_t incarnation);
void peer_on_message(struct peer *peer, const uint8_t *data, size_t bytes);
void peer_on_closed(struct peer *peer, const char *why);
/* A better connection could be had by closing this one: done when nothing is under way on it. */
void peer_on_better(struct peer *peer);
void peer_on_read_done(struct peer *peer, struct peer_reading *reading, int status);

/* ---- twins.c ---- */
/* A broker of our name on this connection; how: "asking from", "answering at". */
void twins_met(struct peers *peers, const struct end *end, const char *how, uint64_t incarnation);
/* Another node has told us of one. */
void twins_told(struct peers *peers, const char *by, const char *words);
/* A connection has come up: those of the same name have to show anew that they live. */
void twins_begin(struct end *end, const char *node);
/* It was heard. */
void twins_pulse(struct end *end);
/* After a message of this asker: does another of its name live? */
void twins_check(struct asker *asker);
/* The address at the other end of a connection. */
void twins_remote(const struct end *end, char out[64]);
/* The deadline of peers->twin. */
void twins_on_over(struct deadline *over, uint64_t now_ns);

struct asker *asker_new(struct peers *peers, struct transport_conn *conn, const char *node,
                        uint64_t incarnation);
void asker_free(struct asker *asker);
void asker_on_message(struct asker *asker, const uint8_t *data, size_t bytes);

/* Packs header + body + payload and sends them as one message; 0 or -errno (-ENOTCONN: down). */
int peers_send(const struct end *end, const struct frame_header *header, const void *body,
               const void *payload);

#endif
