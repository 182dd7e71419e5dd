/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of peers and askers, and the dispatch of transport events to them. A transport
 * connection's user pointer is always a `struct end`, which says which side of the conversation it
 * is.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "ops/log.h"
#include "peer/peer_internal.h"
#include "proto/version.h"

#define WHY_BYTES 256u

static struct peer *peers_as_peer(struct end *end) {
    return end->kind == END_PEER ? (struct peer *)end : NULL;
}

static struct asker *peers_as_asker(struct end *end) {
    return end->kind == END_ASKER ? (struct asker *)end : NULL;
}

/* What each node says of itself in the handshake of the transport, where it is covered by the
 * proof. The name and the incarnation come before anything can be asked. */
size_t peers_hello(const struct peers_options *options, uint8_t out[TRANSPORT_HELLO_BYTES_MAX]) {
    Fb__PeerHello hello = FB__PEER_HELLO__INIT;
    hello.version_min = VERSION_PEER.lowest;
    hello.version_max = VERSION_PEER.highest;
    hello.node = (char *)options->node;
    hello.incarnation = options->incarnation;
    return fb__peer_hello__pack(&hello, out);
}

/* NULL: not a hello that we can work with; `why` says how, else it is empty. Both sides read the
 * other's range of versions and choose from it alike, so there is nothing to answer. The hello is
 * proven but not trusted: its other side may be of another version, or broken. */
static Fb__PeerHello *peers_unpack_hello(const void *hello, size_t hello_bytes,
                                         char why[WHY_BYTES]) {
    Fb__PeerHello *peer = fb__peer_hello__unpack(NULL, hello_bytes, hello);
    why[0] = '\0';
    if (!peer) {
        snprintf(why, WHY_BYTES, "its hello is malformed");
    } else if (layout_check_name(peer->node)) {
        snprintf(why, WHY_BYTES, "its node name is malformed");
    } else {
        const struct version_range theirs = {peer->version_min, peer->version_max};
        char our_words[VERSION_WORDS_BYTES], their_words[VERSION_WORDS_BYTES];
        if (!version_choose(VERSION_PEER, theirs))
            snprintf(why, WHY_BYTES,
                     "node %s speaks %s of the peer protocol, this node %s: run versions of "
                     "featured that have one in common",
                     peer->node, version_words(theirs, their_words),
                     version_words(VERSION_PEER, our_words));
    }
    if (*why && peer) {
        fb__peer_hello__free_unpacked(peer, NULL);
        peer = NULL;
    }
    return peer;
}

/* Events of the transport carry no time, so it is taken here, once per event. The simulator has no
 * clock and leaves it at the last tick. */
static void peers_touch(struct peers *peers) {
    if (peers->options.clock_ns)
        peers->now_ns = peers->options.clock_ns(peers->options.clock_context);
}

/* Another broker wants to ask us. One that is ourselves (same name, same incarnation) has dialled
 * its own address, by a mistake in the configuration or while looking for a twin. */
static void *peers_on_accepted(void *owner, struct transport_conn *conn, const void *hello,
                               size_t hello_bytes) {
    struct peers *peers = owner;
    peers_touch(peers);
    char why[WHY_BYTES];
    Fb__PeerHello *peer = peers_unpack_hello(hello, hello_bytes, why);
    if (!peer) {
        log_limited(LOG_LEVEL_WARNING, 0, "peer connection refused: %s", why);
        return NULL;
    }
    struct asker *asker = NULL;
    bool own_name = !strcmp(peer->node, peers->node);
    if (!own_name || peer->incarnation != peers->options.incarnation)
        asker = asker_new(peers, conn, peer->node, peer->incarnation);
    else if (!peers->seeking) /* else we have looked for another, and found ourselves */
        log_limited(LOG_LEVEL_WARNING, 0,
                    "peer connection refused: it says it is node %s, which is this node",
                    peer->node);
    fb__peer_hello__free_unpacked(peer, NULL);
    return asker ? &asker->end : NULL;
}

/* We dialled an address to reach a node of a certain name. Whoever answers under another name is
 * not used: the address is wrong, and reading from the wrong home would end in NOT_FOUND for
 * samples that exist. */
static void peers_on_up(void *owner, void *user, const void *hello, size_t hello_bytes) {
    struct peers *peers = owner;
    peers_touch(peers);
    struct peer *peer = peers_as_peer(user);
    char why[WHY_BYTES];
    Fb__PeerHello *said = peers_unpack_hello(hello, hello_bytes, why);
    if (!said)
        log_limited(LOG_LEVEL_WARNING, log_source(peer->node), "node %s at %s is not asked: %s",
                    peer->node, peer->address, why);
    if (said && !strcmp(said->node, peers->node) &&
        said->incarnation != peers->options.incarnation && peer != &peers->seeker)
        twins_met(peers, &peer->end, "answering at", said->incarnation);
    if (said && strcmp(said->node, peer->node)) {
        log_limited(LOG_LEVEL_WARNING, log_source(peer->node),
                    "node %s at %s says it is node %s: check its [peer] address", peer->node,
                    peer->address, said->node);
        snprintf(why, sizeof why, "another node answers at its address");
    }
    if (said && !*why) {
        peer->said_ns = peers->now_ns;
        peer_on_up(peer, said->incarnation);
    } else {
        snprintf(peer->last_failure, sizeof peer->last_failure, "%s", why);
        peer->dropped = true;
        peers->transport->ops->close(peer->end.conn);
    }
    if (said)
        fb__peer_hello__free_unpacked(said, NULL);
}

/* Whatever comes in is a sign of life. */
static void peers_on_message(void *owner, void *user, const void *data, size_t bytes) {
    struct peers *peers = owner;
    peers_touch(peers);
    struct end *end = user;
    end->heard_ns = peers->now_ns;
    if (end->kind == END_PEER) {
        peers_as_peer(end)->said_ns = peers->now_ns;
        peer_on_message(peers_as_peer(end), data, bytes);
    } else {
        asker_on_message(peers_as_asker(end), data, bytes);
    }
}

static void peers_on_read_done(void *owner, void *user, void *read_user, int status) {
    peers_touch(owner);
    peer_on_read_done(peers_as_peer(user), read_user, status);
}

static void peers_on_read_progress(void *owner, void *user, void *read_user, uint64_t bytes_done,
                                   uint64_t prefix_bytes) {
    struct peers *peers = owner;
    peers_touch(peers);
    struct end *end = user;
    struct peer_reading *reading = read_user;
    end->heard_ns = peers->now_ns;
    if (reading->read.progress)
        reading->read.progress(reading->read.context, bytes_done, prefix_bytes, peers->now_ns);
}

static void peers_on_better(void *owner, void *user) {
    peers_touch(owner);
    peer_on_better(peers_as_peer(user));
}

/* For an asker this is the end: asker_free() returns its leases. A peer goes on existing and is
 * dialled again. */
static void peers_on_closed(void *owner, void *user, const char *why) {
    peers_touch(owner);
    struct end *end = user;
    end->conn = NULL;
    if (end->kind == END_PEER) {
        peer_on_closed(peers_as_peer(end), why);
        return;
    }
    struct asker *asker = peers_as_asker(end);
    if (!asker->twin)
        log_limited(LOG_LEVEL_INFO, log_source(asker->node), "node %s no longer asks us%s%s",
                    asker->node, *why ? ": " : "", why);
    asker_free(asker);
}

const struct transport_events peers_transport_events = {
    .accepted = peers_on_accepted,
    .up = peers_on_up,
    .message = peers_on_message,
    .read_done = peers_on_read_done,
    .read_progress = peers_on_read_progress,
    .better = peers_on_better,
    .closed = peers_on_closed,
};

int peers_new(const struct peers_options *options, const struct peers_events *events, void *owner,
              struct peers **out) {
    struct peers *peers = calloc(1, sizeof *peers);
    if (!peers)
        return -ENOMEM;
    peers->options = *options;
    snprintf(peers->node, sizeof peers->node, "%s", options->node);
    peers->options.node = peers->node;
    peers->events = *events;
    peers->owner = owner;
    TAILQ_INIT(&peers->peers);
    TAILQ_INIT(&peers->askers);
    peer_init(&peers->seeker, peers, peers->node);
    deadline_init(&peers->twin.over, twins_on_over);
    *out = peers;
    return 0;
}

void peers_set_transport(struct peers *peers, struct transport *transport) {
    struct peer *peer;
    peers->transport = transport;
    TAILQ_FOREACH (peer, &peers->peers, link)
        peer_schedule(peer);
    peer_schedule(&peers->seeker);
}

static void peers_on_transport_destroyed(void *owner) {
    struct peers *peers = owner;
    peers->transport = NULL;
    peers->closed(peers->closed_owner);
}

/* Connections end with their events, so the peers and askers must outlive this: peers_free() comes
 * after `closed`. */
void peers_close(struct peers *peers, void (*closed)(void *owner), void *closed_owner) {
    peers->closed = closed;
    peers->closed_owner = closed_owner;
    if (peers->transport)
        peers->transport->ops->destroy(peers->transport, peers_on_transport_destroyed);
    else
        closed(closed_owner);
}

/* Peers that still have calls under way end them here, with "this node is stopping". */
void peers_free(struct peers *peers) {
    if (!peers)
        return;
    struct peer *peer;
    while ((peer = TAILQ_FIRST(&peers->peers))) {
        TAILQ_REMOVE(&peers->peers, peer, link);
        peer_deinit(peer);
        free(peer);
    }
    peer_deinit(&peers->seeker);
    struct asker *asker;
    while ((asker = TAILQ_FIRST(&peers->askers)))
        asker_free(asker);
    deadlines_clear(peers->options.deadlines, &peers->twin.over);
    free(peers);
}

int peers_listen(struct peers *peers, const char *address, char bound_out[64]) {
    return peers->transport->ops->listen(peers->transport, address, bound_out);
}

/* By name. There are as many as nodes, and a name is looked for when something is asked of a node,
 * not per event: events bring their `struct end`. */
struct peer *peers_find(struct peers *peers, const char *node) {
    struct peer *peer;
    TAILQ_FOREACH (peer, &peers->peers, link)
        if (!strcmp(peer->node, node))
            return peer;
    return NULL;
}

uint64_t peer_number(const struct peer *peer) {
    return XXH3_64bits(peer->node, strlen(peer->node));
}

struct peer *peers_of_number(const struct peers *peers, uint64_t number) {
    struct peer *peer;
    TAILQ_FOREACH (peer, &peers->peers, link)
        if (peer_number(peer) == number)
            return peer;
    return NULL;
}

/* A peer keeps its connection when it gets a new address; the address counts from the next dial on.
 */
struct peer *peers_add(struct peers *peers, const char *node, const char *address,
                       const char *data_address) {
    struct peer *peer = peers_find(peers, node);
    if (!peer) {
        peer = calloc(1, sizeof *peer);
        if (!peer)
            return NULL;
        peer_init(peer, peers, node);
        TAILQ_INSERT_TAIL(&peers->peers, peer, link);
    }
    bool same = !strcmp(address, data_address);
    if (!*peer->address)
        peer->retry_ns = 0; /* only now can it be dialled */
    snprintf(peer->address, sizeof peer->address, "%s", address);
    snprintf(peer->data_address, sizeof peer->data_address, "%s", same ? "" : data_address);
    peer_schedule(peer); /* a new one is dialled at once */
    return peer;
}

struct peer *peers_next(struct peers *peers, struct peer *previous) {
    return previous ? TAILQ_NEXT(previous, link) : TAILQ_FIRST(&peers->peers);
}

/* The first one will do: the sentence is for an administrator, who mends the address once for all
 * nodes. */
void peers_data_failure(const struct peers *peers, char *out, size_t out_bytes) {
    const struct asker *asker;
    *out = '\0';
    TAILQ_FOREACH (asker, &peers->askers, link)
        if (*asker->data_failure) {
            snprintf(out, out_bytes, "from node %s: %s", asker->node, asker->data_failure);
            return;
        }
}

/* After a pause of our own (SIGSTOP, a suspended machine) nobody was silent: we were deaf. Without
 * this, every pause longer than peer_timeout would end all connections, and with them the leases of
 * all askers. Half of the timeout is as long as a tick is ever late in a daemon that runs. */
static void peers_forgive_own_pause(struct peers *peers, uint64_t now_ns) {
    uint64_t since_ns = now_ns - peers->turn_ns;
    bool first = !peers->turn_ns;
    peers->turn_ns = now_ns;
    if (first || since_ns < peers->options.timeout_ns / 2)
        return;
    struct peer *peer;
    TAILQ_FOREACH (peer, &peers->peers, link)
        peer->end.heard_ns = now_ns;
    peers->seeker.end.heard_ns = now_ns;
    struct asker *asker;
    TAILQ_FOREACH (asker, &peers->askers, link)
        asker->end.heard_ns = now_ns;
}

void peers_begin_turn(struct peers *peers, uint64_t now_ns) {
    peers_forgive_own_pause(peers, now_ns);
    peers->now_ns = now_ns;
}

/* Three parts, one message: nothing is copied together. */
int peers_send(const struct end *end, const struct frame_header *header, const void *body,
               const void *payload) {
    if (!end->conn)
        return -ENOTCONN;
    uint8_t head[FRAME_HEADER_BYTES];
    frame_encode(header, head);
    struct iovec parts[3] = {
        {head, sizeof head},
        {(void *)body, header->body_bytes},
        {(void *)payload, header->payload_bytes},
    };
    return end->peers->transport->ops->send(end->conn, parts, header->payload_bytes ? 3 : 2);
}
