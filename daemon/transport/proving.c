/* SPDX-License-Identifier: Apache-2.0
 *
 * The order of the steps is the same for each medium, and it matters:
 *
 * - ADOPT before SEND: the answer to a proof (WELCOME or REFUSE) is made by adopting or refusing.
 * - SEND before END: a handshake that has failed may still have a refusal to say, and the other
 *   side's log is the place where an administrator looks for "wrong cluster secret".
 * - SEND before OPEN: the other side needs our last message to open its end. If frames went out
 *   before it, they would be read as handshake.
 * - SEND before RECEIVE: whoever does not take our answers gets no further one.
 */
#include "transport/proving.h"

#include <stdlib.h>
#include <string.h>

/* Asked again after each step, until there is nothing to do or the link has gone. */
enum proving_step proving_next(const struct handshake *handshake) {
    const uint8_t *unsent;
    if (handshake->state == HANDSHAKE_PROVEN)
        return PROVING_ADOPT;
    if (handshake_output(handshake, &unsent) > 0)
        return PROVING_SEND;
    switch (handshake->state) {
    case HANDSHAKE_FAILED:
        return PROVING_END;
    case HANDSHAKE_DONE:
        return PROVING_OPEN;
    default:
        return PROVING_RECEIVE;
    }
}

static struct handshake_params proving_params(const struct transport_options *options) {
    return (struct handshake_params){options->cluster_key, options->hello, options->hello_bytes};
}

struct handshake *proving_new_asker(const struct transport_options *options,
                                    enum handshake_kind kind, uint64_t connection_id) {
    struct handshake_params params = proving_params(options);
    uint8_t nonce[AUTH_NONCE_BYTES];
    struct handshake *handshake = malloc(sizeof *handshake);
    if (handshake == NULL)
        return NULL;
    auth_nonce(nonce);
    handshake_ask(handshake, &params, kind, connection_id, nonce);
    return handshake;
}

struct handshake *proving_new_answerer(const struct transport_options *options) {
    struct handshake_params params = proving_params(options);
    uint8_t nonce[AUTH_NONCE_BYTES];
    struct handshake *handshake = malloc(sizeof *handshake);
    if (handshake == NULL)
        return NULL;
    auth_nonce(nonce);
    handshake_answer(handshake, &params, nonce);
    return handshake;
}

/* The struct holds the cluster key and both nonces. */
void proving_free(struct handshake *handshake) {
    if (handshake != NULL)
        handshake_deinit(handshake);
    free(handshake);
}

void proving_make_seals(const struct handshake *handshake, const struct transport_options *options,
                        struct seal *out, struct seal *in) {
    *out = *in = (struct seal){.keyed = options->cluster_key != NULL};
    handshake_keys(handshake, out->key, in->key);
}

uint64_t proving_random(void) {
    uint8_t random[AUTH_NONCE_BYTES];
    uint64_t number;
    auth_nonce(random);
    memcpy(&number, random, sizeof number);
    return number;
}
