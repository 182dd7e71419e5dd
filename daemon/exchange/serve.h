/* SPDX-License-Identifier: Apache-2.0
 *
 * The answers to another broker that any file may have to give, and the request that serve_retire.c
 * carries out.
 */
#ifndef FEATURED_EXCHANGE_SERVE_H
#define FEATURED_EXCHANGE_SERVE_H

#include "exchange/exchange_internal.h"

void serve_refuse(struct asking *asking, uint32_t request_id, Fb__Status status,
                  const char *sentence);
/* FULL: which limit of that node. */
void serve_refuse_full(struct asking *asking, uint32_t request_id,
                       const struct charge_refusal *full);
/* The ref was made by an earlier incarnation of this node (home: ours or empty). */
bool serve_wrong_incarnation(const struct broker *broker, const char *home, uint64_t incarnation);
/* serve_retire.c: true when it answers by itself, now or later. */
bool serve_retire(struct asking *asking, uint32_t request_id, const Fb__PeerRetire *asked);

#endif
