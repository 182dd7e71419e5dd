/* SPDX-License-Identifier: Apache-2.0
 *
 * Mutual challenge-response at the start of every socket between two brokers. Pure: bytes in, bytes
 * out; the caller moves them, keeps the time and brings the random nonce.
 *
 *   asker                                       answerer
 *   HELLO     kind, connection id, nonce   ->
 *                                          <-   CHALLENGE  nonce
 *   PROOF     asker's proof, hello         ->
 *                                          <-   WELCOME    connection id, answerer's proof, hello
 *   (instead of either answer: REFUSE with a reason)
 *
 * The asker proves itself first: a stranger who dials learns a random nonce and whether a secret is
 * configured, nothing that depends on the secret and nothing about the node. A proof covers its
 * maker's role, the kind of socket, the connection id, both nonces and every hello sent so far, so
 * it can be neither reflected, replayed, nor moved to another socket. Without a cluster secret the
 * proofs are made with an all-zero key; a side with a secret refuses one without, and the other way
 * round.
 *
 * Bytes on the wire (little-endian): magic u32 | type u8 | version u8 | body_bytes u16 | body.
 */
#ifndef FEATURED_PEER_HANDSHAKE_H
#define FEATURED_PEER_HANDSHAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/auth.h"
#include "transport/transport.h"

#define HANDSHAKE_MAGIC        0x48504246u /* "FBPH" */
#define HANDSHAKE_VERSION      1u
#define HANDSHAKE_HEADER_BYTES 8u
#define HANDSHAKE_MESSAGE_BYTES_MAX                                                                \
    (HANDSHAKE_HEADER_BYTES + 8u + AUTH_PROOF_BYTES + TRANSPORT_HELLO_BYTES_MAX)

enum handshake_kind { HANDSHAKE_CONTROL = 1, HANDSHAKE_BULK = 2 };

enum handshake_state {
    HANDSHAKE_BUSY = 0, /* wants bytes, or has some to send */
    HANDSHAKE_PROVEN,   /* answerer: the asker proved itself; call handshake_accept or _refuse */
    HANDSHAKE_DONE,     /* both proved themselves; holds once the output has been sent */
    HANDSHAKE_FAILED,   /* see why; the output may hold a refusal worth sending */
};

enum handshake_refusal {
    HANDSHAKE_REFUSE_VERSION = 1, /* speaks another version */
    HANDSHAKE_REFUSE_NO_SECRET,   /* the asker has no secret, the answerer requires one */
    HANDSHAKE_REFUSE_SECRET,      /* the asker has a secret, the answerer has none */
    HANDSHAKE_REFUSE_PROOF,       /* wrong secret */
    HANDSHAKE_REFUSE_LIMIT,       /* too many connections */
    HANDSHAKE_REFUSE_OWNER,       /* the owner of the transport does not want this peer */
    HANDSHAKE_REFUSE_CONNECTION,  /* a bulk socket for a connection nobody knows */
};

struct handshake_hello {
    uint16_t bytes;
    uint8_t data[TRANSPORT_HELLO_BYTES_MAX];
};

struct handshake_params {
    const uint8_t *cluster_key; /* AUTH_KEY_BYTES, or NULL: no secret */
    const void *hello;          /* at most TRANSPORT_HELLO_BYTES_MAX; copied */
    size_t hello_bytes;
};

struct handshake {
    enum handshake_state state;
    enum auth_role role;
    enum handshake_kind kind; /* answerer: valid from HANDSHAKE_PROVEN */
    uint64_t
        connection_id; /* control: answerer's choice; bulk: the asker's, of its control socket */
    struct handshake_hello theirs; /* valid from HANDSHAKE_PROVEN / HANDSHAKE_DONE */
    char why[112];                 /* HANDSHAKE_FAILED: one sentence */

    /* private */
    bool keyed;
    uint8_t expected;
    uint8_t key[AUTH_KEY_BYTES];
    uint8_t asker_nonce[AUTH_NONCE_BYTES], answerer_nonce[AUTH_NONCE_BYTES];
    struct handshake_hello ours;
    uint8_t in[HANDSHAKE_MESSAGE_BYTES_MAX], out[HANDSHAKE_MESSAGE_BYTES_MAX];
    size_t in_bytes, out_bytes, out_sent;
};

/* connection_id: 0 for a control socket. */
void handshake_ask(struct handshake *h, const struct handshake_params *params,
                   enum handshake_kind kind, uint64_t connection_id,
                   const uint8_t nonce[AUTH_NONCE_BYTES]);
void handshake_answer(struct handshake *h, const struct handshake_params *params,
                      const uint8_t nonce[AUTH_NONCE_BYTES]);
/* Wipes the key. */
void handshake_deinit(struct handshake *h);

/* Where the next bytes of the socket go and how many are wanted: never more than belong to the
 * handshake, so that what follows it stays in the socket. 0 when none are wanted. */
size_t handshake_want(struct handshake *h, uint8_t **into);
/* That many bytes (1..want) have been put there. */
void handshake_received(struct handshake *h, size_t bytes);

/* Bytes to send; 0 when there are none. */
size_t handshake_output(const struct handshake *h, const uint8_t **out);
void handshake_sent(struct handshake *h, size_t bytes);

/* HANDSHAKE_PROVEN only. connection_id: goes to the asker; of a bulk socket its own again. */
void handshake_accept(struct handshake *h, uint64_t connection_id);
void handshake_refuse(struct handshake *h, enum handshake_refusal reason);

/* HANDSHAKE_DONE only: keys of the frame tags, ours and theirs. */
void handshake_keys(const struct handshake *h, uint8_t send_key[AUTH_KEY_BYTES],
                    uint8_t receive_key[AUTH_KEY_BYTES]);

#endif
