/* SPDX-License-Identifier: Apache-2.0
 *
 * The asking side: one link per peer, see the states in peer.h. Every call sits in `pending` from
 * peer_call() until its one `done`; every read in `readings` until its one `done`. Both end with
 * the connection they were made on. The region keys of a home are learned once per connection.
 *
 * When the transport says that a better connection could be had (TCP now, RDMA again), the link is
 * closed and dialled anew at a moment when nothing is under way on it; calls not sent by then wait
 * for the new one.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/log.h"
#include "peer/peer_internal.h"
#include "proto/decoding.h"

/* A link that goes may leave thousands of calls behind. Each one that fails sets something in
 * motion (a retry, an answer to a client), so they are told in portions, and the loop looks at its
 * other work in between. */
#define FAILED_PER_TURN 256u
/* 50 ms is below what a user notices, and enough for a peer that is being restarted to have its
 * listener back. The pause doubles up to reconnect_max of the configuration. */
#define BACKOFF_FIRST_NS (50ull * 1000 * 1000)
/* A link that is never idle is moved by holding new calls back: for so long, every so often. */
#define HOLD_EVERY_NS (5000ull * 1000 * 1000)
#define HOLD_NS       (1000ull * 1000 * 1000)

static struct transport *peer_transport_of(const struct peer *peer) {
    return peer->end.peers->transport;
}

static void peer_on_due(struct deadline *due, uint64_t now_ns);

/* Not an allocation of its own, for the seeker is a peer inside of struct peers. */
void peer_init(struct peer *peer, struct peers *peers, const char *node) {
    peer->end = (struct end){.kind = END_PEER, .peers = peers};
    snprintf(peer->node, sizeof peer->node, "%s", node);
    TAILQ_INIT(&peer->pending);
    TAILQ_INIT(&peer->failed);
    TAILQ_INIT(&peer->readings);
    TAILQ_INIT(&peer->keys);
    peer->backoff_ns = BACKOFF_FIRST_NS;
    deadline_init(&peer->due, peer_on_due);
}

/* A key opens a region on one connection only, so the keys go with the connection. */
static void peer_forget_keys(struct peer *peer) {
    struct region_key *key;
    while ((key = TAILQ_FIRST(&peer->keys))) {
        TAILQ_REMOVE(&peer->keys, key, link);
        free(key);
    }
}

/* At most `budget` of those who are owed the news that their link has gone; the rest in the
 * next turns: there may be many, and what each of them does takes a while. */
static void peer_fail_some(struct peer *peer, uint32_t budget) {
    struct peer_pending *pending;
    for (; budget && (pending = TAILQ_FIRST(&peer->failed)); budget--) {
        TAILQ_REMOVE(&peer->failed, pending, link);
        pending->done(pending->context, NULL, NULL, 0, peer->failed_why);
        free(pending);
    }
}

/* `pending` is for the next connection now; those that are owed an end move to `failed`. */
static void peer_fail_pending(struct peer *peer, const char *why, uint32_t budget) {
    snprintf(peer->failed_why, sizeof peer->failed_why, "%s", why);
    TAILQ_CONCAT(&peer->failed, &peer->pending, link);
    peer_fail_some(peer, budget);
}

/* Taken out before `done` runs: the owner may begin another read from within. */
static void peer_end_reading(struct peer_reading *reading, int status, const char *why) {
    TAILQ_REMOVE(&reading->peer->readings, reading, link);
    reading->read.done(reading->read.context, status, why);
    free(reading);
}

void peer_deinit(struct peer *peer) {
    peer_fail_pending(peer, "this node is stopping", UINT32_MAX);
    while (!TAILQ_EMPTY(&peer->readings))
        peer_end_reading(TAILQ_FIRST(&peer->readings), -ECANCELED, "this node is stopping");
    peer_forget_keys(peer);
    deadlines_clear(peer->end.peers->options.deadlines, &peer->due);
}

/* The first pause after a connection that was up is short again: peer_on_up() sets it back. */
static void peer_back_off(struct peer *peer, uint64_t now_ns) {
    peer->state = PEER_BACKOFF;
    peer->retry_ns = now_ns + peer->backoff_ns;
    peer->backoff_ns *= 2;
    if (peer->backoff_ns > peer->end.peers->options.reconnect_max_ns)
        peer->backoff_ns = peer->end.peers->options.reconnect_max_ns;
}

/* A dial counts as something heard: the silence that peer_tick() measures begins now. */
static void peer_dial(struct peer *peer, uint64_t now_ns) {
    peer->end.heard_ns = now_ns;
    peer->state = PEER_CONNECTING;
    /* Known by name alone, since a restart: peers_add() will say where it is. */
    int result = !*peer->address
                     ? -EDESTADDRREQ
                     : peer_transport_of(peer)->ops->connect(peer_transport_of(peer), peer->address,
                                                             peer->data_address, &peer->end,
                                                             &peer->end.conn);
    if (result < 0) {
        snprintf(peer->last_failure, sizeof peer->last_failure, "cannot connect to %s: %s",
                 peer->address, strerror(-result));
        peer->errors++;
        peer_back_off(peer, now_ns);
    }
}

/* A send that fails means that the peer does not read (-ENOBUFS) or that the link is ending; in
 * both cases the link goes, and the calls are told by peer_on_closed(). */
static void peer_send_pending(struct peer *peer, struct peer_pending *pending) {
    struct frame_header header = {FRAME_VERSION, FRAME_REQUEST, pending->request_id,
                                  (uint32_t)pending->body_bytes, 0};
    int result = peers_send(&peer->end, &header, pending->body, NULL);
    if (!result) {
        pending->sent = true;
        return;
    }
    snprintf(peer->last_failure, sizeof peer->last_failure, "cannot send to %s: %s", peer->address,
             strerror(-result));
    peer->dropped = true;
    peer_transport_of(peer)->ops->close(peer->end.conn);
}

/* What dialling has shown of the way that bulk bytes were to take. */
static void peer_note_data_failure(struct peer *peer) {
    struct transport_info info;
    peer_transport_of(peer)->ops->query(peer->end.conn, &info);
    if (strcmp(info.data_failure, peer->data_failure) == 0)
        return;
    snprintf(peer->data_failure, sizeof peer->data_failure, "%s", info.data_failure);
    if (*peer->data_failure)
        log_limited(LOG_LEVEL_WARNING, log_source(peer->node),
                    "node %s: its data address %s cannot be reached from here: %s; its bytes come "
                    "from its address %s instead: check [peers] data_address there",
                    peer->node, peer->data_address, peer->data_failure, peer->address);
    else
        log_limited(LOG_LEVEL_INFO, log_source(peer->node),
                    "node %s: its data address %s is reached", peer->node, peer->data_address);
}

static void peer_send_unsent(struct peer *peer) {
    struct peer_pending *pending;
    TAILQ_FOREACH (pending, &peer->pending, link)
        if (!pending->sent)
            peer_send_pending(peer, pending);
}

/* The seeker is a peer like the others, but nobody has asked it for anything, so nobody is told
 * (peers_seek). `epoch` counts connections: whoever remembers a region of the peer remembers it
 * with the epoch, and finds out that it is of another connection. */
void peer_on_up(struct peer *peer, uint64_t incarnation) {
    uint64_t now_ns = peer->end.peers->now_ns;
    bool seeks = peer == &peer->end.peers->seeker;
    if (!seeks)
        log_limited(LOG_LEVEL_INFO, log_source(peer->node),
                    "link to node %s at %s is up, incarnation %llu", peer->node, peer->address,
                    (unsigned long long)incarnation);
    peer->state = PEER_UP;
    peer->incarnation = incarnation;
    peer->epoch++;
    peer->backoff_ns = BACKOFF_FIRST_NS;
    peer->better_ns = 0;
    peer->ping_out = false;
    peer_note_data_failure(peer);
    peer->ping_ns = now_ns; /* at once: it says what became of the data address */
    peer->end.heard_ns = now_ns;
    twins_begin(&peer->end, peer->node);
    peer_send_unsent(peer);
    peer_schedule(peer);
    if (!seeks)
        peer->end.peers->events.link_up(peer->end.peers->owner, peer);
}

/* There are three cases. The link was moving to a better one: it is dialled again at once, and
 * calls that wait for it go on waiting. We have dropped it: last_failure says why already.
 * Otherwise the transport says why. In the last two, everything that was asked for on it has
 * failed. */
void peer_on_closed(struct peer *peer, const char *why) {
    struct peers *peers = peer->end.peers;
    peer->better_ns = 0;
    if (peer->moving) {
        peer->moving = false;
        peer_forget_keys(peer);
        peer_dial(peer, peers->now_ns);
        peer_schedule(peer);
        return;
    }
    if (*why || !peer->dropped)
        snprintf(peer->last_failure, sizeof peer->last_failure, "%s", *why ? why : "closed by us");
    peer->dropped = false;
    bool seeks = peer == &peers->seeker; /* its owner says what it has found */
    if (peer->state == PEER_UP && !seeks)
        log_limited(LOG_LEVEL_WARNING, log_source(peer->node), "link to node %s at %s is down: %s",
                    peer->node, peer->address, peer->last_failure);
    else if (peer->backoff_ns == BACKOFF_FIRST_NS && !seeks)
        log_limited(LOG_LEVEL_INFO, log_source(peer->node),
                    "node %s at %s cannot be reached: %s (trying on)", peer->node, peer->address,
                    peer->last_failure);
    peer->errors++;
    peer_back_off(peer, peers->now_ns);
    peer_forget_keys(peer);
    /* Those not yet posted to the transport; it has reported the others. */
    while (!TAILQ_EMPTY(&peer->readings))
        peer_end_reading(TAILQ_FIRST(&peer->readings), -ECONNRESET, peer->last_failure);
    peer_fail_pending(peer, peer->last_failure, FAILED_PER_TURN);
    peer_schedule(peer);
}

/* ---- moving to a better connection ---- */

/* Calls that wait for the link do not count: they go over the next one just as well. */
static bool peer_is_idle(const struct peer *peer) {
    const struct peer_pending *pending;
    TAILQ_FOREACH (pending, &peer->pending, link)
        if (pending->sent)
            return false;
    return TAILQ_EMPTY(&peer->readings);
}

/* Called wherever something ends, because that may have been the last thing under way. */
static void peer_move_if_idle(struct peer *peer) {
    if (!peer->better_ns || peer->moving || peer->dropped || peer->state != PEER_UP ||
        !peer_is_idle(peer))
        return;
    log_limited(LOG_LEVEL_INFO, log_source(peer->node),
                "link to node %s is dialled again, for a better one", peer->node);
    peer->moving = true;
    peer_transport_of(peer)->ops->close(peer->end.conn);
}

/* Under steady load a link is never idle by itself. So for HOLD_NS at the start of every
 * HOLD_EVERY_NS new calls wait, what is under way ends, and the link can move. If a long read keeps
 * it busy for longer, the calls go out after all and it is tried again later: one call in five
 * waits, for a second at most. */
static bool peer_holds_back(const struct peer *peer, uint64_t now_ns) {
    return peer->moving ||
           (peer->better_ns && (now_ns - peer->better_ns) % HOLD_EVERY_NS < HOLD_NS);
}

/* When what is held back, now or next time, is sent after all. */
static uint64_t peer_hold_ends_ns(const struct peer *peer) {
    uint64_t now_ns = peer->end.peers->now_ns, since_ns = now_ns - peer->better_ns;
    uint64_t end_ns = now_ns - since_ns % HOLD_EVERY_NS + HOLD_NS;
    return end_ns > now_ns ? end_ns : end_ns + HOLD_EVERY_NS;
}

void peer_on_better(struct peer *peer) {
    peer->better_ns = peer->end.peers->now_ns;
    peer_move_if_idle(peer);
    peer_schedule(peer); /* for the times at which what is held back is sent after all */
}

/* ---- calls ---- */

/* The body is packed here and kept until it is sent, because the caller's request is gone by then.
 * A question for a region's key is never held back: the read that needs it is under way already,
 * and holding it back would keep the link busy for ever. */
int peer_call(struct peer *peer, const Fb__PeerRequest *request, peer_reply_fn done, void *context,
              uint64_t now_ns) {
    if (!peer_transport_of(peer))
        return -ENOTCONN;
    size_t body_bytes = fb__peer_request__get_packed_size(request);
    if (body_bytes + FRAME_HEADER_BYTES > FRAME_PEER_BYTES_MAX)
        return -EMSGSIZE;
    struct peer_pending *pending = malloc(sizeof *pending + body_bytes);
    if (!pending)
        return -ENOMEM;
    *pending = (struct peer_pending){.request_id = peer->next_request_id++,
                                     .done = done,
                                     .context = context,
                                     .body_bytes = body_bytes};
    fb__peer_request__pack(request, pending->body);
    TAILQ_INSERT_TAIL(&peer->pending, pending, link);
    bool for_read = request->op_case == FB__PEER_REQUEST__OP_REGION; /* that is under way */
    if (peer->state == PEER_UP && (for_read || !peer_holds_back(peer, now_ns)))
        peer_send_pending(peer, pending);
    else if (peer->state == PEER_UP)
        peer_move_if_idle(peer);
    else if (peer->state != PEER_CONNECTING &&
             peer->retry_ns < now_ns + peer->end.peers->options.reconnect_max_ns) {
        peer->retry_ns = now_ns; /* somebody wants it: try in the next turn */
        peer_schedule(peer);
    }
    return 0;
}

/* One that has not been sent cannot have been answered, whatever its number. */
static struct peer_pending *peer_find_pending(struct peer *peer, uint32_t request_id) {
    struct peer_pending *pending;
    TAILQ_FOREACH (pending, &peer->pending, link)
        if (pending->request_id == request_id && pending->sent)
            return pending;
    return NULL;
}

/* `dropped` keeps the reason that is set here: the transport says "" of a connection that we close
 * ourselves. */
static void peer_drop_link(struct peer *peer, const char *why) {
    snprintf(peer->last_failure, sizeof peer->last_failure, "%s", why);
    peer->dropped = true;
    peer_transport_of(peer)->ops->close(peer->end.conn);
}

/* An answer to nothing that we asked is a broken peer, not a late answer: answers of a connection
 * end with the connection, and each call is answered once. */
void peer_on_message(struct peer *peer, const uint8_t *data, size_t bytes) {
    struct frame_header header;
    const char *wrong = frame_open(data, bytes, FRAME_PEER_BYTES_MAX, &header);
    if (!wrong && header.type != FRAME_REPLY)
        wrong = "not an answer";
    struct peer_pending *pending = wrong ? NULL : peer_find_pending(peer, header.request_id);
    struct decoding decoding;
    decoding_init(&decoding);
    Fb__PeerReply *reply = pending ? fb__peer_reply__unpack(&decoding.allocator, header.body_bytes,
                                                            data + FRAME_HEADER_BYTES)
                                   : NULL;
    if (!reply) {
        /* Without memory, too, the link ends: the answer may have granted a lease, which the home
         * gives up with the link. */
        peer_drop_link(peer, wrong                    ? wrong
                             : !pending               ? "answer to nothing we asked"
                             : decoding.out_of_memory ? "this node is out of memory for its answer"
                                                      : "malformed answer");
        return;
    }
    TAILQ_REMOVE(&peer->pending, pending, link);
    pending->done(pending->context, reply, data + FRAME_HEADER_BYTES + header.body_bytes,
                  header.payload_bytes, "");
    free(pending);
    fb__peer_reply__free_unpacked(reply, NULL);
    peer_move_if_idle(peer);
}

/* ---- liveness ---- */

/* Also called when the ping has failed with its link; then there is no reply, and nothing to learn
 * from it. */
static void peer_on_pong(void *context, const Fb__PeerReply *reply, const uint8_t *payload,
                         size_t payload_bytes, const char *why) {
    (void)payload, (void)payload_bytes, (void)why;
    struct peer *peer = context;
    peer->ping_out = false;
    if (reply)
        twins_pulse(&peer->end);
    if (reply && *reply->twin)
        twins_told(peer->end.peers, peer->node, reply->twin);
}

/* At most one ping is out: a peer that does not answer is found out by its silence, and more pings
 * would only fill its queue. */
static void peer_send_ping(struct peer *peer, uint64_t now_ns) {
    Fb__PeerPing ping = FB__PEER_PING__INIT;
    if (*peer->data_failure) {
        ping.data_address = peer->data_address;
        ping.data_failure = peer->data_failure;
    }
    Fb__PeerRequest request = FB__PEER_REQUEST__INIT;
    request.op_case = FB__PEER_REQUEST__OP_PING;
    request.ping = &ping;
    peer->ping_ns = now_ns + peer->end.peers->options.ping_interval_ns;
    if (!peer->ping_out)
        peer->ping_out = peer_call(peer, &request, peer_on_pong, peer, now_ns) == 0;
}

/* Silence is measured from the last thing heard, also a chunk of a read: a peer that is busy
 * sending us a large sample need not answer pings in time. */
static void peer_do_what_is_due(struct peer *peer, uint64_t now_ns) {
    uint64_t timeout_ns = peer->end.peers->options.timeout_ns;
    peer_fail_some(peer, FAILED_PER_TURN);
    switch (peer->state) {
    case PEER_IDLE:
    case PEER_BACKOFF:
        if (peer->retry_ns <= now_ns && peer_transport_of(peer))
            peer_dial(peer, now_ns);
        break;
    case PEER_CONNECTING:
    case PEER_UP:
        peer_move_if_idle(peer);
        if (peer->better_ns && !peer_holds_back(peer, now_ns))
            peer_send_unsent(peer);
        if (peer->end.conn && peer->end.heard_ns + timeout_ns <= now_ns) {
            char why[96];
            snprintf(why, sizeof why, "silent for %llu ms",
                     (unsigned long long)((now_ns - peer->end.heard_ns) / 1000000));
            peer->end.heard_ns = now_ns;
            peer_drop_link(peer, why);
        } else if (peer->state == PEER_UP && peer->ping_ns <= now_ns) {
            peer_send_ping(peer, now_ns);
        }
        break;
    }
}

/* When peer_do_what_is_due() has something to do, as things stand; UINT64_MAX = never. No later
 * than that: the daemon sleeps until then. */
static uint64_t peer_due_ns(const struct peer *peer) {
    const struct peers *peers = peer->end.peers;
    if (!TAILQ_EMPTY(&peer->failed))
        return 0;
    if (!peer_transport_of(peer) || (peer == &peers->seeker && !peers->seeking))
        return UINT64_MAX;
    if (peer->state == PEER_IDLE || peer->state == PEER_BACKOFF)
        return peer->retry_ns;
    uint64_t silent_ns = peer->end.heard_ns + peer->end.peers->options.timeout_ns;
    uint64_t held_ns = peer->better_ns ? peer_hold_ends_ns(peer) : UINT64_MAX;
    silent_ns = held_ns < silent_ns ? held_ns : silent_ns;
    return peer->state == PEER_UP && peer->ping_ns < silent_ns ? peer->ping_ns : silent_ns;
}

void peer_schedule(struct peer *peer) {
    deadlines_set_or_clear(peer->end.peers->options.deadlines, &peer->due, peer_due_ns(peer));
}

static void peer_on_due(struct deadline *due, uint64_t now_ns) {
    struct peer *peer = container_of(due, struct peer, due);
    peer_do_what_is_due(peer, now_ns);
    peer_schedule(peer);
}

/* ---- reads ---- */

static struct region_key *peer_find_key(struct peer *peer, uint32_t region) {
    struct region_key *key;
    TAILQ_FOREACH (key, &peer->keys, link)
        if (key->region == region)
            return key;
    return NULL;
}

/* `posted` is set first: the transport reports a posted read itself, and one that is not posted is
 * ended by peer_on_closed(). */
static int peer_post(struct peer *peer, struct peer_reading *reading,
                     const struct region_key *key) {
    struct transport_read read = {
        .key = key->key,
        .key_bytes = key->key_bytes,
        .remote_offset = reading->read.from.offset,
        .bytes = reading->read.from.bytes,
        .local = reading->read.local,
        .read_user = reading,
    };
    reading->posted = true;
    peer->reads++;
    return peer_transport_of(peer)->ops->read(peer->end.conn, &read);
}

struct key_question {
    struct peer *peer;
    uint64_t epoch;
    uint32_t region;
};

/* Posts or fails the reads that waited for the key of one region. The answer may be of an older
 * connection (`current`): its reads have been ended with it. */
static void peer_on_region(void *context, const Fb__PeerReply *reply, const uint8_t *payload,
                           size_t payload_bytes, const char *why) {
    (void)payload, (void)payload_bytes;
    struct key_question *question = context;
    struct peer *peer = question->peer;
    uint32_t region = question->region;
    bool current = question->epoch == peer->epoch && peer->state == PEER_UP;
    free(question);
    if (!current)
        return; /* peer_on_closed ends the reads */
    struct region_key *key = NULL;
    if (reply && reply->result_case == FB__PEER_REPLY__RESULT_REGION &&
        (key = malloc(sizeof *key + reply->region->key.len))) {
        *key = (struct region_key){.region = region, .key_bytes = reply->region->key.len};
        memcpy(key->key, reply->region->key.data, reply->region->key.len);
        TAILQ_INSERT_TAIL(&peer->keys, key, link);
    }
    struct peer_reading *reading, *next;
    for (reading = TAILQ_FIRST(&peer->readings); reading; reading = next) {
        next = TAILQ_NEXT(reading, link);
        if (reading->posted || reading->read.from.segment != region)
            continue;
        int result = key ? peer_post(peer, reading, key) : -ENOENT;
        if (result < 0)
            peer_end_reading(reading, result,
                             reply && *reply->error ? reply->error
                             : *why                 ? why
                                                    : strerror(-result));
    }
}

/* The first read of a region on a connection asks for its key; others that come meanwhile wait for
 * the same answer. */
static int peer_ask_region(struct peer *peer, uint32_t region, uint64_t now_ns) {
    const struct peer_reading *other;
    TAILQ_FOREACH (other, &peer->readings, link)
        if (!other->posted && other->read.from.segment == region)
            return 0; /* asked already */
    struct key_question *question = malloc(sizeof *question);
    if (!question)
        return -ENOMEM;
    *question = (struct key_question){peer, peer->epoch, region};
    Fb__PeerRegion ask = FB__PEER_REGION__INIT;
    ask.region = region;
    Fb__PeerRequest request = FB__PEER_REQUEST__INIT;
    request.op_case = FB__PEER_REQUEST__OP_REGION;
    request.region = &ask;
    int result = peer_call(peer, &request, peer_on_region, question, now_ns);
    if (result < 0)
        free(question);
    return result;
}

/* A read of another epoch is refused at once: the region that it names may be another one on this
 * connection, or of another incarnation of the node. */
int peer_read(struct peer *peer, uint64_t epoch, const struct peer_read *read, uint64_t now_ns) {
    if (peer->state != PEER_UP || peer->epoch != epoch)
        return -ESTALE;
    struct peer_reading *reading = malloc(sizeof *reading);
    if (!reading)
        return -ENOMEM;
    *reading = (struct peer_reading){.peer = peer, .read = *read};
    const struct region_key *key = peer_find_key(peer, read->from.segment);
    int result =
        key ? peer_post(peer, reading, key) : peer_ask_region(peer, read->from.segment, now_ns);
    if (result < 0) {
        free(reading);
        return result;
    }
    TAILQ_INSERT_TAIL(&peer->readings, reading, link);
    return 0;
}

/* A read that has succeeded is a sign of life. */
void peer_on_read_done(struct peer *peer, struct peer_reading *reading, int status) {
    if (status)
        peer->errors++;
    else
        peer->end.heard_ns = peer->end.peers->now_ns;
    peer_end_reading(reading, status, status ? strerror(-status) : "");
    peer_move_if_idle(peer);
}

/* ---- what others may know ---- */

uint64_t peer_epoch(const struct peer *peer) {
    return peer->epoch;
}

const char *peer_node(const struct peer *peer) {
    return peer->node;
}

bool peer_is_up(const struct peer *peer) {
    return peer->state == PEER_UP;
}

uint64_t peer_incarnation(const struct peer *peer) {
    return peer->incarnation;
}

/* The data address is shown even where it is that of messages: nobody need know the rule. */
void peer_query(const struct peer *peer, struct peer_info *out) {
    static const char *const states[] = {"idle", "connecting", "up", "back-off"};
    *out = (struct peer_info){
        .node = peer->node,
        .address = peer->address,
        .data_address = *peer->data_address ? peer->data_address : peer->address,
        .state = states[peer->state],
        .last_failure = peer->last_failure,
        .incarnation = peer->incarnation,
        .reads = peer->reads,
        .errors = peer->errors,
        .odd_answers = peer->odd_answers,
        .heard_ns = peer->said_ns,
    };
    if (peer->state == PEER_UP)
        peer_transport_of(peer)->ops->query(peer->end.conn, &out->transport);
}

uint64_t peer_note_odd_answer(struct peer *peer) {
    peer->errors++;
    return ++peer->odd_answers;
}

uint64_t peer_odd_answers(const struct peer *peer) {
    return peer->odd_answers;
}

void peer_set_user(struct peer *peer, void *user) {
    peer->user = user;
}

void *peer_user(const struct peer *peer) {
    return peer->user;
}
