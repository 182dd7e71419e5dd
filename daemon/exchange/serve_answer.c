/* SPDX-License-Identifier: Apache-2.0
 *
 * The answers to another broker that have no result of their own: a refusal with its sentence, and
 * "it has been done". Every file that carries out a request of a peer may give them.
 */
#include <stdio.h>

#include "exchange/serve.h"

/* `error` is not written to: protobuf-c declares all its strings as not const. */
void serve_refuse(struct asking *asking, uint32_t request_id, Fb__Status status,
                  const char *sentence) {
    Fb__PeerReply reply = FB__PEER_REPLY__INIT;
    reply.status = status;
    reply.error = (char *)sentence;
    asker_reply(asking->asker, request_id, &reply, NULL, 0);
}

void serve_confirm(const struct serve_asked *asked) {
    Fb__PeerReply reply = FB__PEER_REPLY__INIT;
    if (asked->wants_reply)
        asker_reply(asked->asking->asker, asked->request_id, &reply, NULL, 0);
}

/* The sentence names the limit of this node, so that the asking node's user sees whose limit it is.
 */
void serve_refuse_full(struct asking *asking, uint32_t request_id,
                       const struct charge_refusal *full) {
    char sentence[SENTENCE_BYTES];
    account_sentence(sentence, sizeof sentence, full);
    serve_refuse(asking, request_id, FB__STATUS__FULL, sentence);
}

/* Limited for each node, because a faulty one may send many. */
void serve_refuse_malformed(const struct serve_asked *asked, const char *what) {
    char sentence[SENTENCE_BYTES];
    snprintf(sentence, sizeof sentence, "%s was asked for by a request that is not well formed: %s",
             asked->name, what);
    log_limited(LOG_LEVEL_WARNING, log_source(asked->asking->name), "%s: %s", asked->asking->name,
                sentence);
    serve_refuse(asked->asking, asked->request_id, FB__STATUS__INVALID, sentence);
}
