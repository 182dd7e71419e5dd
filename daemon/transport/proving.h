/* SPDX-License-Identifier: Apache-2.0
 *
 * How a link (a socket, a QP) goes through the handshake: what a transport does around the pure
 * protocol of handshake.h. The transport moves the bytes and asks proving_next() what to do.
 */
#ifndef FEATURED_TRANSPORT_PROVING_H
#define FEATURED_TRANSPORT_PROVING_H

#include "transport/handshake.h"
#include "transport/sealed_frame.h"
#include "transport/transport.h"

enum proving_step {
    PROVING_ADOPT, /* the other side has proved itself: handshake_accept() or _refuse() it */
    PROVING_SEND,  /* handshake_output() has bytes for the other side */
    PROVING_END,   /* it has failed; handshake->why says how. What there was to say has been sent */
    PROVING_OPEN,  /* both have proved themselves: the link may carry frames */
    PROVING_RECEIVE, /* bytes of the other side are needed */
};
enum proving_step proving_next(const struct handshake *handshake);

/* A handshake with a fresh nonce and what the options say of us; NULL: out of memory. */
struct handshake *proving_new_asker(const struct transport_options *options,
                                    enum handshake_kind kind, uint64_t connection_id);
struct handshake *proving_new_answerer(const struct transport_options *options);
/* Wipes its keys. NULL is allowed. */
void proving_free(struct handshake *handshake);

/* PROVING_OPEN only: the seals of both directions of this link, from what the handshake agreed. */
void proving_make_seals(const struct handshake *handshake, const struct transport_options *options,
                        struct seal *out, struct seal *in);

/* A random number that an outsider cannot guess. */
uint64_t proving_random(void);

#endif
