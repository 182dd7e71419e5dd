/* SPDX-License-Identifier: Apache-2.0
 *
 * States: BUSY, `expected` naming the one message type that may come next (0: none), then PROVEN
 * (answerer only), DONE or FAILED. Invariants: in_bytes never exceeds the message being read; at
 * most one message is waiting to be sent; `theirs` is written only from a message of checked
 * length, and trusted only after its proof has been checked; a refusal is not authenticated and
 * does no more than a reset by whoever sits on the path could do: it ends this socket.
 */
#include "transport/handshake.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "proto/little_endian.h"

enum message_type { HELLO = 1, CHALLENGE, PROOF, WELCOME, REFUSE };

enum { FLAG_SECRET = 1 };

#define HELLO_BODY_BYTES     (4u + 8u + AUTH_NONCE_BYTES)
#define CHALLENGE_BODY_BYTES (4u + AUTH_NONCE_BYTES)
#define PROOF_BODY_BYTES     AUTH_PROOF_BYTES
#define WELCOME_BODY_BYTES   (8u + AUTH_PROOF_BYTES)
#define REFUSE_BODY_BYTES    1u

__attribute__((format(printf, 2, 3))) static void handshake_fail(struct handshake *h,
                                                                 const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(h->why, sizeof h->why, format, arguments);
    va_end(arguments);
    h->state = HANDSHAKE_FAILED;
    h->expected = 0;
}

/* ---- what is sent ---- */

/* Starts a message; its body follows at the place returned. */
static uint8_t *handshake_message_start(struct handshake *h, enum message_type type,
                                        size_t body_bytes) {
    assert(h->out_sent == h->out_bytes);
    put32(h->out, HANDSHAKE_MAGIC);
    h->out[4] = (uint8_t)type;
    h->out[5] = HANDSHAKE_VERSION;
    put16(h->out + 6, (uint16_t)body_bytes);
    h->out_bytes = HANDSHAKE_HEADER_BYTES + body_bytes;
    h->out_sent = 0;
    return h->out + HANDSHAKE_HEADER_BYTES;
}

/* With its length in front, so that no two pairs of hellos give the same bytes. */
static uint8_t *handshake_put_hello(uint8_t *out, const struct handshake_hello *hello) {
    put16(out, hello->bytes);
    memcpy(out + 2, hello->data, hello->bytes);
    return out + 2 + hello->bytes;
}

/* What a proof is bound to beside role and nonces: the protocol, the socket, and every hello sent
 * so far (the asker's proof leaves before it has seen the answerer's; the answerer's covers both).
 */
static void handshake_make_proof(const struct handshake *h, enum auth_role role,
                                 uint8_t out[AUTH_PROOF_BYTES]) {
    bool asker = h->role == AUTH_ROLE_ASKER;
    uint8_t context[32 + 2 * (2 + TRANSPORT_HELLO_BYTES_MAX)], *at = context;
    put32(at, HANDSHAKE_MAGIC);
    put32(at + 4, HANDSHAKE_VERSION);
    put32(at + 8, (uint32_t)h->kind);
    put64(at + 12, h->connection_id);
    at = handshake_put_hello(at + 20, asker ? &h->ours : &h->theirs);
    if (role == AUTH_ROLE_ANSWERER)
        at = handshake_put_hello(at, asker ? &h->theirs : &h->ours);
    auth_proof(h->key, role, context, (size_t)(at - context), h->asker_nonce, h->answerer_nonce,
               out);
}

/* The kind and the id go in clear: they are no secrets, and the proof covers them. */
static void handshake_send_hello(struct handshake *h) {
    uint8_t *body = handshake_message_start(h, HELLO, HELLO_BODY_BYTES);
    memset(body, 0, 4);
    body[0] = (uint8_t)h->kind;
    body[1] = h->keyed ? FLAG_SECRET : 0;
    put64(body + 4, h->connection_id);
    memcpy(body + 12, h->asker_nonce, AUTH_NONCE_BYTES);
}

/* The flag says whether a secret is configured, so that an asker without one can say so in words
 * instead of failing with "wrong secret". A stranger learns that much and no more. */
static void handshake_send_challenge(struct handshake *h) {
    uint8_t *body = handshake_message_start(h, CHALLENGE, CHALLENGE_BODY_BYTES);
    memset(body, 0, 4);
    body[0] = h->keyed ? FLAG_SECRET : 0;
    memcpy(body + 4, h->answerer_nonce, AUTH_NONCE_BYTES);
}

/* The asker's hello goes with its proof, not before it: a stranger cannot make us parse one. */
static void handshake_send_proof(struct handshake *h) {
    uint8_t *body = handshake_message_start(h, PROOF, PROOF_BODY_BYTES + h->ours.bytes);
    handshake_make_proof(h, AUTH_ROLE_ASKER, body);
    memcpy(body + AUTH_PROOF_BYTES, h->ours.data, h->ours.bytes);
}

static void handshake_send_refusal(struct handshake *h, enum handshake_refusal reason) {
    *handshake_message_start(h, REFUSE, REFUSE_BODY_BYTES) = (uint8_t)reason;
}

/* ---- what comes in ---- */

/* In the words of the side that was refused: this is what its log says. */
static const char *handshake_refusal_text(uint8_t reason) {
    switch (reason) {
    case HANDSHAKE_REFUSE_VERSION:
        return "the other side speaks another version of the peer protocol";
    case HANDSHAKE_REFUSE_NO_SECRET:
        return "the other side requires a cluster secret, none is configured here";
    case HANDSHAKE_REFUSE_SECRET:
        return "a cluster secret is configured here but not on the other side";
    case HANDSHAKE_REFUSE_PROOF:
        return "wrong cluster secret";
    case HANDSHAKE_REFUSE_LIMIT:
        return "the other side has reached its limit of connections";
    case HANDSHAKE_REFUSE_OWNER:
        return "the other side refused this broker";
    case HANDSHAKE_REFUSE_CONNECTION:
        return "the other side no longer knows this connection";
    default:
        return "the other side refused for a reason unknown here";
    }
}

/* A side with a secret and one without cannot talk; who of the two is wrong is for the
 * administrator to say, so the sentence names both. */
static void handshake_on_hello(struct handshake *h, const uint8_t *body) {
    bool keyed = body[1] & FLAG_SECRET;
    if (body[0] != HANDSHAKE_CONTROL && body[0] != HANDSHAKE_BULK) {
        handshake_fail(h, "peer sent a bad handshake: unknown kind of socket %u", body[0]);
        return;
    }
    if (keyed != h->keyed) {
        handshake_send_refusal(h, h->keyed ? HANDSHAKE_REFUSE_NO_SECRET : HANDSHAKE_REFUSE_SECRET);
        handshake_fail(h, h->keyed
                              ? "a cluster secret is configured here but not on the other side"
                              : "the other side has a cluster secret, none is configured here");
        return;
    }
    h->kind = body[0];
    h->connection_id = get64(body + 4);
    memcpy(h->asker_nonce, body + 12, AUTH_NONCE_BYTES);
    handshake_send_challenge(h);
    h->expected = PROOF;
}

/* An asker with a secret does not go on with an answerer that claims to have none: somebody on the
 * path could say so to get a connection without tags. */
static void handshake_on_challenge(struct handshake *h, const uint8_t *body) {
    if ((bool)(body[0] & FLAG_SECRET) != h->keyed) {
        handshake_fail(h, "%s",
                       handshake_refusal_text(h->keyed ? HANDSHAKE_REFUSE_SECRET
                                                       : HANDSHAKE_REFUSE_NO_SECRET));
        return;
    }
    memcpy(h->answerer_nonce, body + 4, AUTH_NONCE_BYTES);
    handshake_send_proof(h);
    h->expected = WELCOME;
}

/* Its length has been checked with the header's (handshake_message_bounds). */
static void handshake_take_hello(struct handshake *h, const uint8_t *data, size_t bytes) {
    h->theirs.bytes = (uint16_t)bytes;
    memcpy(h->theirs.data, data, bytes);
}

/* The comparison takes as long for a wrong proof as for a right one. */
static void handshake_on_proof(struct handshake *h, const uint8_t *body, size_t bytes) {
    uint8_t expected[AUTH_PROOF_BYTES];
    handshake_take_hello(h, body + PROOF_BODY_BYTES, bytes - PROOF_BODY_BYTES);
    handshake_make_proof(h, AUTH_ROLE_ASKER, expected);
    if (!auth_equal(expected, body, AUTH_PROOF_BYTES)) {
        handshake_send_refusal(h, HANDSHAKE_REFUSE_PROOF);
        handshake_fail(h, "wrong cluster secret");
        return;
    }
    h->state = HANDSHAKE_PROVEN;
    h->expected = 0;
}

/* The id is taken over before the proof is checked, because the proof covers it; a wrong one fails
 * the handshake, and nobody looks at the id then. */
static void handshake_on_welcome(struct handshake *h, const uint8_t *body, size_t bytes) {
    uint8_t expected[AUTH_PROOF_BYTES];
    uint64_t asked_id = h->connection_id;
    h->connection_id = get64(body);
    handshake_take_hello(h, body + WELCOME_BODY_BYTES, bytes - WELCOME_BODY_BYTES);
    handshake_make_proof(h, AUTH_ROLE_ANSWERER, expected);
    if (!auth_equal(expected, body + 8, AUTH_PROOF_BYTES)) {
        handshake_fail(h, "wrong cluster secret");
        return;
    }
    if (h->kind == HANDSHAKE_BULK && h->connection_id != asked_id) {
        handshake_fail(h, "peer sent a bad handshake: bulk socket attached to another connection");
        return;
    }
    h->state = HANDSHAKE_DONE;
    h->expected = 0;
}

/* Only the messages that carry a hello vary in size. */
static void handshake_message_bounds(enum message_type type, size_t *bytes_min, size_t *bytes_max) {
    static const size_t fixed[] = {
        [HELLO] = HELLO_BODY_BYTES,   [CHALLENGE] = CHALLENGE_BODY_BYTES,
        [PROOF] = PROOF_BODY_BYTES,   [WELCOME] = WELCOME_BODY_BYTES,
        [REFUSE] = REFUSE_BODY_BYTES,
    };
    *bytes_min = fixed[type];
    *bytes_max = fixed[type] + (type == PROOF || type == WELCOME ? TRANSPORT_HELLO_BYTES_MAX : 0);
}

/* The header is complete: may this message come now, with this size? A version that is not ours is
 * answered only by the answerer and only to a HELLO: two sides that refused each other's refusals
 * would never come to an end. */
static void handshake_check_header(struct handshake *h) {
    uint8_t type = h->in[4], version = h->in[5];
    size_t body_bytes = get16(h->in + 6), bytes_min, bytes_max;
    if (get32(h->in) != HANDSHAKE_MAGIC) {
        handshake_fail(h, "peer sent a bad handshake: not a featured broker");
        return;
    }
    if (version != HANDSHAKE_VERSION) {
        if (h->role == AUTH_ROLE_ANSWERER && type == HELLO)
            handshake_send_refusal(h, HANDSHAKE_REFUSE_VERSION);
        handshake_fail(h, "the other side speaks version %u of the peer protocol, this broker %u",
                       version, HANDSHAKE_VERSION);
        return;
    }
    if (type != h->expected && !(type == REFUSE && h->role == AUTH_ROLE_ASKER)) {
        handshake_fail(h, "peer sent a bad handshake: message type %u, expected %u", type,
                       h->expected);
        return;
    }
    handshake_message_bounds(type, &bytes_min, &bytes_max);
    if (body_bytes < bytes_min || body_bytes > bytes_max)
        handshake_fail(
            h, "peer sent a bad handshake: message type %u of %zu bytes, allowed %zu to %zu", type,
            body_bytes, bytes_min, bytes_max);
}

/* handshake_check_header() has let through only the type that may come now, or a refusal. */
static void handshake_on_message(struct handshake *h) {
    const uint8_t *body = h->in + HANDSHAKE_HEADER_BYTES;
    size_t body_bytes = h->in_bytes - HANDSHAKE_HEADER_BYTES;
    h->in_bytes = 0;
    switch (h->in[4]) {
    case HELLO:
        handshake_on_hello(h, body);
        break;
    case CHALLENGE:
        handshake_on_challenge(h, body);
        break;
    case PROOF:
        handshake_on_proof(h, body, body_bytes);
        break;
    case WELCOME:
        handshake_on_welcome(h, body, body_bytes);
        break;
    default:
        handshake_fail(h, "%s", handshake_refusal_text(body[0]));
        break;
    }
}

/* ---- interface ---- */

static void handshake_init(struct handshake *h, const struct handshake_params *params,
                           enum auth_role role) {
    assert(params->hello_bytes <= TRANSPORT_HELLO_BYTES_MAX);
    memset(h, 0, sizeof *h);
    h->role = role;
    h->keyed = params->cluster_key != NULL;
    if (h->keyed)
        memcpy(h->key, params->cluster_key, AUTH_KEY_BYTES);
    h->ours.bytes = (uint16_t)params->hello_bytes;
    if (params->hello_bytes > 0)
        memcpy(h->ours.data, params->hello, params->hello_bytes);
}

void handshake_ask(struct handshake *h, const struct handshake_params *params,
                   enum handshake_kind kind, uint64_t connection_id,
                   const uint8_t nonce[AUTH_NONCE_BYTES]) {
    handshake_init(h, params, AUTH_ROLE_ASKER);
    h->kind = kind;
    h->connection_id = connection_id;
    memcpy(h->asker_nonce, nonce, AUTH_NONCE_BYTES);
    handshake_send_hello(h);
    h->expected = CHALLENGE;
}

void handshake_answer(struct handshake *h, const struct handshake_params *params,
                      const uint8_t nonce[AUTH_NONCE_BYTES]) {
    handshake_init(h, params, AUTH_ROLE_ANSWERER);
    memcpy(h->answerer_nonce, nonce, AUTH_NONCE_BYTES);
    h->expected = HELLO;
}

void handshake_deinit(struct handshake *h) {
    explicit_bzero(h, sizeof *h);
}

/* Of the message being read; a header's worth until the header is complete. */
static size_t handshake_message_bytes(const struct handshake *h) {
    bool have_header = h->in_bytes >= HANDSHAKE_HEADER_BYTES;
    return HANDSHAKE_HEADER_BYTES + (have_header ? get16(h->in + 6) : 0);
}

/* Never more than one message, so that what follows the handshake on the stream stays there for
 * whoever reads frames. */
size_t handshake_want(struct handshake *h, uint8_t **into) {
    const uint8_t *unsent;
    /* Nothing is read before the last answer has left: whoever does not take answers gets no
     * further one. */
    if (h->state != HANDSHAKE_BUSY || h->expected == 0 || handshake_output(h, &unsent) > 0)
        return 0;
    *into = h->in + h->in_bytes;
    return handshake_message_bytes(h) - h->in_bytes;
}

/* The header is looked at as soon as it is complete, before any byte of the body is read: a wrong
 * size or type ends the handshake there. */
void handshake_received(struct handshake *h, size_t bytes) {
    assert(bytes > 0 && bytes <= handshake_message_bytes(h) - h->in_bytes);
    h->in_bytes += bytes;
    if (h->in_bytes == HANDSHAKE_HEADER_BYTES)
        handshake_check_header(h); /* no message has an empty body: there is more to come */
    else if (h->in_bytes > HANDSHAKE_HEADER_BYTES && h->in_bytes == handshake_message_bytes(h))
        handshake_on_message(h);
}

size_t handshake_output(const struct handshake *h, const uint8_t **out) {
    *out = h->out + h->out_sent;
    return h->out_bytes - h->out_sent;
}

void handshake_sent(struct handshake *h, size_t bytes) {
    assert(bytes <= h->out_bytes - h->out_sent);
    h->out_sent += bytes;
}

/* The connection id goes into the proof, so it must be set first. */
void handshake_accept(struct handshake *h, uint64_t connection_id) {
    assert(h->state == HANDSHAKE_PROVEN);
    h->connection_id = connection_id;
    uint8_t *body = handshake_message_start(h, WELCOME, WELCOME_BODY_BYTES + h->ours.bytes);
    put64(body, connection_id);
    handshake_make_proof(h, AUTH_ROLE_ANSWERER, body + 8);
    memcpy(body + WELCOME_BODY_BYTES, h->ours.data, h->ours.bytes);
    h->state = HANDSHAKE_DONE;
}

/* What is said to the other side is a number; the sentence here is for our own log. */
void handshake_refuse(struct handshake *h, enum handshake_refusal reason) {
    assert(h->state == HANDSHAKE_PROVEN);
    handshake_send_refusal(h, reason);
    handshake_fail(h, "refused here: %s",
                   reason == HANDSHAKE_REFUSE_LIMIT   ? "limit of connections reached"
                   : reason == HANDSHAKE_REFUSE_OWNER ? "not wanted by the owner"
                                                      : "bulk socket for an unknown connection");
}

/* A key for each direction: with one key for both, a frame could be sent back to its sender and
 * would carry a valid tag. */
void handshake_keys(const struct handshake *h, uint8_t send_key[AUTH_KEY_BYTES],
                    uint8_t receive_key[AUTH_KEY_BYTES]) {
    assert(h->state == HANDSHAKE_DONE);
    enum auth_role other = h->role == AUTH_ROLE_ASKER ? AUTH_ROLE_ANSWERER : AUTH_ROLE_ASKER;
    auth_session_key(h->key, h->role, h->asker_nonce, h->answerer_nonce, send_key);
    auth_session_key(h->key, other, h->asker_nonce, h->answerer_nonce, receive_key);
}
