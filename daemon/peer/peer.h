/* SPDX-License-Identifier: Apache-2.0
 *
 * The brokers we talk to. A `peer` is a node that we may ask (we dial it); an `asker` is a node
 * that asks us (it dialled). Each pair of brokers thus has up to two connections, one per direction
 * of asking, and no tie to break. Owns links, their back-off and liveness, and the matching of
 * answers to calls; knows nothing of stores. now_ns is an argument; the transport is whatever was
 * handed in.
 *
 *   IDLE --call or address--> CONNECTING --up--> UP --silence, error--> BACKOFF --time or call-->
 * CONNECTING
 *
 * A link that stays silent for timeout_ns is closed; pings keep an idle one talking. One lost
 * connection never disables a peer: calls made while it is down trigger a new attempt and fail only
 * when that fails.
 *
 * Circle: asker.c, peer.c, peers.c, twins.c: peers.c hands each event of the transport to the peer
 * or the asker that it is of, and both send by peers.c; twins.c compares all of them whenever one
 * is heard.
 */
#ifndef FEATURED_PEER_PEER_H
#define FEATURED_PEER_PEER_H

#include <stdbool.h>
#include <stdint.h>

#include "peer.pb-c.h"
#include "proto/layout.h"
#include "proto/place.h"
#include "time/deadlines.h"
#include "transport/transport.h"

struct peers;
struct peer;
struct asker;

struct peers_options {
    const char *node; /* ours */
    uint64_t incarnation;
    uint64_t ping_interval_ns, timeout_ns, reconnect_max_ns;
    /* The time of an event of the transport, which carries none; NULL: that of the last tick or
     * call. */
    uint64_t (*clock_ns)(void *clock_context);
    void *clock_context;
    struct deadlines *deadlines; /* of whoever runs the loop; must not be NULL, and outlives us */
};

struct peers_events {
    /* A link of ours has come up: what waited for it may be sent. */
    void (*link_up)(void *owner, struct peer *peer);
    /* Another broker asks us. Returns the owner's pointer for it (NULL: out of memory, the
     * connection is refused). */
    void *(*asker_open)(void *owner, struct asker *asker, const char *node, uint64_t incarnation);
    /* request, payload: valid during the call. Answer with asker_reply() now or later if
     * wants_reply. */
    void (*asker_request)(void *owner, void *asker_user, uint32_t request_id, bool wants_reply,
                          const Fb__PeerRequest *request);
    /* Its connection is proven dead: it can read no further byte. */
    void (*asker_closed)(void *owner, void *asker_user);
};

/* One of these is handed to the transport. */
extern const struct transport_events peers_transport_events;

/* The transport's owner pointer must be the peers; transport may be NULL (a node without peers). */
int peers_new(const struct peers_options *options, const struct peers_events *events, void *owner,
              struct peers **out);
void peers_set_transport(struct peers *peers, struct transport *transport);
/* Destroys the transport; closed(closed_owner) once it is gone, from inside this call when there
 * was none. */
void peers_close(struct peers *peers, void (*closed)(void *owner), void *closed_owner);
/* After the transport was destroyed. */
void peers_free(struct peers *peers);
/* 0 or -errno; bound_out as in transport.h. */
int peers_listen(struct peers *peers, const char *address, char bound_out[64]);
/* At the beginning of each turn of the loop, before deadlines_run(): takes note of the time, and
 * forgives everybody's silence if the process itself was stopped for a while. */
void peers_begin_turn(struct peers *peers, uint64_t now_ns);

/* address "": not known yet; it is dialled when a later call says it.
 * Adds a node or gives it new addresses, for the next connection: of messages, and of bulk bytes if
 * that is another ("" = the same). A data address that cannot be reached is said in the log of both
 * nodes, and by peer_query() and peers_data_failure(). */
struct peer *peers_add(struct peers *peers, const char *node, const char *address,
                       const char *data_address);
struct peer *peers_find(struct peers *peers, const char *node);
/* NULL to begin; NULL at the end. */
struct peer *peers_next(struct peers *peers, struct peer *previous);

/* reply NULL: failed, `why` says how (one sentence, without the node's name). It is freed after the
 * call, as fb__peer_reply__free_unpacked() does: parts of it may be taken out. */
typedef void (*peer_reply_fn)(void *context, const Fb__PeerReply *reply, const uint8_t *payload,
                              size_t payload_bytes, const char *why);
/* Asks the peer; `done` runs exactly once, never from inside this call: with the answer, or when
 * the link is lost or cannot be had. Dials if need be. 0 or -errno (then `done` does not run). */
int peer_call(struct peer *peer, const Fb__PeerRequest *request, peer_reply_fn done, void *context,
              uint64_t now_ns);

struct peer_read {
    struct place from; /* its segment is the number of a region of the peer */
    void *local;
    /* status 0 or -errno; exactly once. Nothing is written to local afterwards. */
    void (*done)(void *context, int status, const char *why);
    /* As read_progress of transport.h. */
    void (*progress)(void *context, uint64_t bytes_done, uint64_t prefix_bytes, uint64_t now_ns);
    void *context;
};
/* Reads bytes of a region of the peer, on the present connection only: epoch must be peer_epoch()
 * as of the answer that named the region. 0 or -errno (-ESTALE: another connection since). */
int peer_read(struct peer *peer, uint64_t epoch, const struct peer_read *read, uint64_t now_ns);
/* Number of the present connection; changes with each one. */
uint64_t peer_epoch(const struct peer *peer);

const char *peer_node(const struct peer *peer);
/* Made of its name, so that it is the same number in every process: for what outlives this one. */
uint64_t peer_number(const struct peer *peer);
/* NULL: none that is known now. */
struct peer *peers_of_number(const struct peers *peers, uint64_t number);
/* As of its last handshake; 0 = never up. */
uint64_t peer_incarnation(const struct peer *peer);
bool peer_is_up(const struct peer *peer);
struct peer_info {
    const char *node, *address, *data_address, *state, *last_failure;
    uint64_t incarnation, reads, errors;
    uint64_t odd_answers;            /* that were no answers to what was asked */
    uint64_t heard_ns;               /* when it last said anything, 0 = never */
    struct transport_info transport; /* zero when not up */
};
void peer_query(const struct peer *peer, struct peer_info *out);
/* It has answered something else than it was asked. How often so far, this time included. */
uint64_t peer_note_odd_answer(struct peer *peer);
uint64_t peer_odd_answers(const struct peer *peer);
/* A node that says it cannot reach our data address, and why, in words; "" when none says so. */
void peers_data_failure(const struct peers *peers, char *out, size_t out_bytes);
/* ---- brokers of one name: twins.c ---- */
/* Another broker lives that calls itself by our name, in words; "" = none that we know of. */
const char *peers_twin(const struct peers *peers);
/* The owner has found out so, and does again as long as it is true: logged once. */
void peers_twin_seen(struct peers *peers, const char *words);
/* Two brokers live that call themselves by this other node's name (NULL: by some other node's), in
 * words; "" = as far as we know, one at most. */
const char *peers_rival(const struct peers *peers, const char *node);
/* Looks for the broker of our own name that is to be found at this address, until the end. */
void peers_seek(struct peers *peers, const char *address);
void peers_seek_end(struct peers *peers);
enum peers_found { PEERS_SEEKING = 0, PEERS_FOUND_NOBODY, PEERS_FOUND_ONE };
/* why: of nobody, in words. incarnation: of the one that answers. */
enum peers_found peers_found(const struct peers *peers, uint64_t *incarnation_out,
                             const char **why_out);

/* Room for the owner: a pointer kept with the peer. */
void peer_set_user(struct peer *peer, void *user);
void *peer_user(const struct peer *peer);

/* The key with which it reads a region over its connection: bytes written to out, or -ENOENT. */
int asker_region_key(struct asker *asker, uint32_t region, void *out, size_t out_bytes);
const char *asker_node(const struct asker *asker);
uint64_t asker_incarnation(const struct asker *asker);
/* Sends the answer; dropped when the connection is gone by now (its leases are then returned). */
void asker_reply(struct asker *asker, uint32_t request_id, const Fb__PeerReply *reply,
                 const void *payload, size_t payload_bytes);

/* The hello blob this node shows in handshakes; bytes written. */
size_t peers_hello(const struct peers_options *options, uint8_t out[TRANSPORT_HELLO_BYTES_MAX]);

#endif
