/* SPDX-License-Identifier: Apache-2.0
 *
 * Is it an answer to what was asked? believe.c, for the search of a get (find.c). What the answer
 * to a stat must hold is in exchange.h.
 */
#ifndef FEATURED_EXCHANGE_BELIEVE_H
#define FEATURED_EXCHANGE_BELIEVE_H

#include "exchange/exchange_internal.h"

/* Does the lease answer what this item asked the peer for? As believe_stat(). */
bool believe_lease(const struct item *item, struct peer *peer, uint64_t generation,
                   const Fb__PeerLeaseReply *lease, char why[SENTENCE_BYTES]);
/* Does the granted lease agree with what lies in this node's memory under that generation? False,
 * for example, when the peer claims to be the home of a generation whose home is this node. */
bool believe_copy(const struct item *item, struct peer *peer, const Fb__PeerLeaseReply *lease,
                  char why[SENTENCE_BYTES]);
/* The layout that the spec of the answer stands for, or a sentence: the spec, the sizes or the
 * checksums are no good. */
const char *believe_spec(struct broker *broker, const Fb__PeerLeaseReply *reply,
                         size_t payload_bytes, struct layout *layout);
/* Counts an answer that is none to what was asked, and logs the 1st, 2nd, 4th, 8th ... of a peer.
 */
void believe_not(struct peer *peer, const char *sentence);

#endif
