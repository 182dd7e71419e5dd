/* SPDX-License-Identifier: Apache-2.0
 *
 * The answers to another broker that have no result of their own: a refusal with its sentence, and
 * "it has been done". Every file that carries out a request of a peer may give them.
 */
#include "exchange/serve.h"

void serve_refuse(struct asking *asking, uint32_t request_id, Fb__Status status,
                  const char *sentence) {
    Fb__PeerReply reply = FB__PEER_REPLY__INIT;
    reply.status = status;
    reply.error = (char *)sentence;
    asker_reply(asking->asker, request_id, &reply, NULL, 0);
}

void serve_confirm(struct asking *asking, uint32_t request_id) {
    Fb__PeerReply reply = FB__PEER_REPLY__INIT;
    asker_reply(asking->asker, request_id, &reply, NULL, 0);
}

void serve_refuse_full(struct asking *asking, uint32_t request_id,
                       const struct charge_refusal *full) {
    char sentence[SENTENCE_BYTES];
    account_sentence(sentence, sizeof sentence, full);
    serve_refuse(asking, request_id, FB__STATUS__FULL, sentence);
}
