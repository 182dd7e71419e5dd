/* SPDX-License-Identifier: Apache-2.0
 *
 * What clients ask for: one file for each kind of request.
 */
#ifndef FEATURED_REQUESTS_REQUESTS_H
#define FEATURED_REQUESTS_REQUESTS_H

#include "exchange/exchange.h"

/* NULL: out of memory. */
struct requests *requests_new(void);
/* No session is left. */
void requests_free(struct requests *requests);

/* Finds the kind of a request and carries it out (request->kind and ->breach need not be set).
 * False: the request breaks the protocol, and request->breach says how. */
bool requests_begin(struct request *request);

/* ---- each turn of the loop (gc.c, drain.c, events.c) ---- */
/* Clients have asked for a gc that is not over: max_hold waits meanwhile, for a store keeps one
 * place for both. */
bool requests_have_gc(const struct broker *broker);
/* Goes on with what clients asked to be freed. True: there is more. */
bool requests_gc_on(struct broker *broker);
/* Answers those who wait until everything has reached its home, if that is so. */
void requests_check_drains(struct broker *broker);
/* Tells those who watch what has happened in the stores. */
void requests_pump_events(struct broker *broker);

/* ---- get.c ---- */
void get_release_batch(struct broker_session *session, const Fb__Release *release);

#endif
