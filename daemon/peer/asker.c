/* SPDX-License-Identifier: Apache-2.0
 *
 * The answering side: one asker per accepted connection. Whatever it may hold at this node ends
 * when its connection is proven dead.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/log.h"
#include "peer/peer_internal.h"
#include "proto/decoding.h"

static uint64_t asker_silent_ns(const struct asker *asker) {
    return asker->end.heard_ns + asker->end.peers->options.timeout_ns;
}

/* The deadline was set when the asker was heard last but one, say: it may have been heard since. */
static void asker_on_silent(struct deadline *silent, uint64_t now_ns) {
    struct asker *asker = container_of(silent, struct asker, silent);
    struct peers *peers = asker->end.peers;
    bool is_silent = asker->end.conn && asker_silent_ns(asker) <= now_ns;
    if (is_silent) {
        log_warning("node %s has been silent for %llu ms: its leases here are returned",
                    asker->node, (unsigned long long)((now_ns - asker->end.heard_ns) / 1000000));
        asker->end.heard_ns =
            now_ns; /* once is enough: it is freed when the connection has ended */
    }
    deadlines_set(peers->options.deadlines, silent, asker_silent_ns(asker));
    if (is_silent)
        peers->transport->ops->close(asker->end.conn); /* may free it at once */
}

/* A broker of our own name is let in as a twin: it is told that two of the name live, and gets
 * nothing else (asker_answer_twin). For every other the owner makes what it needs to know of an
 * asker, its leases above all. */
struct asker *asker_new(struct peers *peers, struct transport_conn *conn, const char *node,
                        uint64_t incarnation) {
    struct asker *asker = calloc(1, sizeof *asker);
    if (!asker)
        return NULL;
    asker->end =
        (struct end){.kind = END_ASKER, .peers = peers, .conn = conn, .heard_ns = peers->now_ns};
    deadline_init(&asker->silent, asker_on_silent);
    deadlines_set(peers->options.deadlines, &asker->silent, asker_silent_ns(asker));
    twins_begin(&asker->end, node);
    snprintf(asker->node, sizeof asker->node, "%s", node);
    asker->incarnation = incarnation;
    if ((asker->twin = !strcmp(node, peers->node))) {
        TAILQ_INSERT_TAIL(&peers->askers, asker, link);
        twins_met(peers, &asker->end, "asking from", incarnation);
        return asker;
    }
    asker->user = peers->events.asker_open(peers->owner, asker, asker->node, incarnation);
    if (!asker->user) {
        deadlines_clear(peers->options.deadlines, &asker->silent);
        free(asker);
        return NULL;
    }
    TAILQ_INSERT_TAIL(&peers->askers, asker, link);
    log_limited(LOG_LEVEL_INFO, log_source(node), "node %s asks us from now on, incarnation %llu",
                node, (unsigned long long)incarnation);
    return asker;
}

/* The owner ends the leases of the asker in here. That is right only because the transport
 * promises, with `closed`, that the other side can read no further byte. */
void asker_free(struct asker *asker) {
    struct peers *peers = asker->end.peers;
    TAILQ_REMOVE(&peers->askers, asker, link);
    deadlines_clear(peers->options.deadlines, &asker->silent);
    if (!asker->twin)
        peers->events.asker_closed(peers->owner, asker->user);
    free(asker);
}

/* What the other node found when it dialled our data address. */
static void asker_note_data_failure(struct asker *asker, const Fb__PeerPing *ping) {
    char failure[sizeof asker->data_failure];
    snprintf(failure, sizeof failure, "%s", ping->data_failure);
    if (strcmp(failure, asker->data_failure) == 0)
        return;
    strcpy(asker->data_failure, failure);
    if (*failure)
        log_limited(LOG_LEVEL_WARNING, log_source(asker->node),
                    "node %s cannot reach the data address of this node, %.255s: %s; it reads by "
                    "the address for messages: check [peers] data_address",
                    asker->node, ping->data_address, failure);
    else
        log_limited(LOG_LEVEL_INFO, log_source(asker->node),
                    "node %s reaches the data address of this node", asker->node);
}

/* A broker of our name is told that we live, and no more: it is not for us to serve. */
static void asker_answer_twin(struct asker *asker, uint32_t request_id, bool wants_reply) {
    Fb__PeerReply reply = FB__PEER_REPLY__INIT;
    reply.status = FB__STATUS__UNAVAILABLE;
    reply.error = (char *)"this broker has the same node name as the one that asks, and both live: "
                          "give one of the two another [node] name";
    if (wants_reply)
        asker_reply(asker, request_id, &reply, NULL, 0);
}

/* The operation of a newer broker: what it is lies in a field that we do not know. */
static void asker_answer_unknown(struct asker *asker, uint32_t request_id, bool wants_reply) {
    Fb__PeerReply reply = FB__PEER_REPLY__INIT;
    reply.status = FB__STATUS__UNSUPPORTED;
    reply.error = (char *)"this node (featured " FEATURED_VERSION ") does not know that request";
    if (wants_reply)
        asker_reply(asker, request_id, &reply, NULL, 0);
}

/* A ping that is answered is the proof of life for both sides, and carries the few things that one
 * node can see of the other and the other cannot see itself: that its data address is not reached,
 * that its name is used twice. */
static void asker_answer_ping(struct asker *asker, uint32_t request_id, const Fb__PeerPing *ping) {
    Fb__PeerReply pong = FB__PEER_REPLY__INIT;
    asker_note_data_failure(asker, ping);
    if (asker->twin)
        twins_met(asker->end.peers, &asker->end, "asking from", asker->incarnation);
    twins_check(asker);
    pong.twin = asker->rival;
    asker_reply(asker, request_id, &pong, NULL, 0);
}

/* A peer that breaks the protocol loses its connection and no more: it may be of another version,
 * and its other connections, and ours to it, are as good as before. */
static void asker_refuse(struct asker *asker, const char *what) {
    log_limited(LOG_LEVEL_WARNING, log_source(asker->node), "node %s: connection closed: %s",
                asker->node, what);
    asker->end.peers->transport->ops->close(asker->end.conn);
}

static void asker_answer_without(struct asker *asker, uint32_t request_id, const char *what) {
    Fb__PeerReply reply = FB__PEER_REPLY__INIT;
    char sentence[160];
    snprintf(sentence, sizeof sentence, "node %s is %s", asker->end.peers->node, what);
    reply.status = FB__STATUS__UNAVAILABLE;
    reply.error = sentence;
    asker_reply(asker, request_id, &reply, NULL, 0);
}

/* A note is a request that wants no answer (a release, say). Whether an answer is wanted is said by
 * the frame, because the kind of request does not tell. */
void asker_on_message(struct asker *asker, const uint8_t *data, size_t bytes) {
    struct peers *peers = asker->end.peers;
    struct frame_header header;
    const char *wrong = frame_open(data, bytes, FRAME_PEER_BYTES_MAX, &header);
    if (!wrong && header.type != FRAME_REQUEST && header.type != FRAME_NOTE)
        wrong = "neither a request nor a note";
    if (wrong) {
        asker_refuse(asker, wrong);
        return;
    }
    struct decoding decoding;
    decoding_init(&decoding);
    Fb__PeerRequest *request =
        fb__peer_request__unpack(&decoding.allocator, header.body_bytes, data + FRAME_HEADER_BYTES);
    const bool empty = !request || request->op_case == FB__PEER_REQUEST__OP__NOT_SET;
    if (!request && decoding.out_of_memory && header.type == FRAME_REQUEST) {
        asker_answer_without(asker, header.request_id, "out of memory for the request");
    } else if (empty && request && request->base.n_unknown_fields) {
        asker_answer_unknown(asker, header.request_id, header.type == FRAME_REQUEST);
    } else if (empty) {
        asker_refuse(asker, "malformed request");
    } else if (request->op_case == FB__PEER_REQUEST__OP_PING) {
        asker_answer_ping(asker, header.request_id, request->ping);
    } else if (asker->twin) {
        asker_answer_twin(asker, header.request_id, header.type == FRAME_REQUEST);
    } else {
        peers->events.asker_request(peers->owner, asker->user, header.request_id,
                                    header.type == FRAME_REQUEST, request);
    }
    if (request)
        fb__peer_request__free_unpacked(request, NULL);
}

/* Most answers are below 16 KiB and are packed on the stack; lists and explanations may be larger.
 */
void asker_reply(struct asker *asker, uint32_t request_id, const Fb__PeerReply *reply,
                 const void *payload, size_t payload_bytes) {
    uint8_t on_stack[16384], *body = on_stack;
    size_t body_bytes = fb__peer_reply__get_packed_size(reply);
    if (body_bytes > sizeof on_stack && !(body = malloc(body_bytes))) {
        /* A lease that has been granted ends with the connection, or nobody would end it. */
        if (reply->result_case == FB__PEER_REPLY__RESULT_LEASE)
            asker_refuse(asker, "out of memory for an answer");
        else
            asker_answer_without(asker, request_id, "out of memory for the answer");
        return;
    }
    fb__peer_reply__pack(reply, body);
    struct frame_header header = {FRAME_VERSION, FRAME_REPLY, request_id, (uint32_t)body_bytes,
                                  (uint32_t)payload_bytes};
    int result = peers_send(&asker->end, &header, body, payload);
    /* An answer that cannot be sent would leave the other side waiting: end the connection instead.
     */
    if (result < 0 && result != -ENOTCONN)
        asker_refuse(asker, "it does not take our answers");
    if (body != on_stack)
        free(body);
}

int asker_region_key(struct asker *asker, uint32_t region, void *out, size_t out_bytes) {
    return asker->end.peers->transport->ops->region_key(asker->end.conn, region, out, out_bytes);
}

const char *asker_node(const struct asker *asker) {
    return asker->node;
}

uint64_t asker_incarnation(const struct asker *asker) {
    return asker->incarnation;
}
