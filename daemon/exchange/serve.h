/* SPDX-License-Identifier: Apache-2.0
 *
 * Answering other brokers: what the files that carry out their requests share (serve.c has the
 * table of the requests).
 */
#ifndef FEATURED_EXCHANGE_SERVE_H
#define FEATURED_EXCHANGE_SERVE_H

#include "exchange/exchange_internal.h"

/* ---- serve_answer.c: answers of every kind ---- */

/* status OK: it has been done after all, and the sentence is empty. For an answer that comes when
 * the request itself is no longer there. */
void serve_refuse(struct asking *asking, uint32_t request_id, Fb__Status status,
                  const char *sentence);
/* FULL: which limit of that node. */
void serve_refuse_full(struct asking *asking, uint32_t request_id,
                       const struct charge_refusal *full);
/* INVALID, which is also logged: a broker that asks so is faulty. what: "it names no sample". */
void serve_refuse_malformed(const struct serve_asked *asked, const char *what);
/* It has been done, and has no result. Nothing is sent where no answer is wanted. */
void serve_confirm(const struct serve_asked *asked);

/* ---- serve_lease.c, serve_retire.c: operations of the table ---- */

void serve_lease(const struct serve_asked *asked);
void serve_release(const struct serve_asked *asked);
void serve_retire(const struct serve_asked *asked);
/* The connection is gone: its leases that still wait for a sample are forgotten. */
void serve_forget_waiting(struct asking *asking);

#endif
