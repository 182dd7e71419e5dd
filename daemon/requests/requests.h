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

/* ---- each turn of the loop (steer.c) ---- */
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
/* Grants a local lease on a generation that is readable here; ends the item. */
void get_grant(struct item *item, const struct store_lease *lease);
/* The lease could not be used: give it back, at home or here. */
void get_local_not_found(struct item *item);
/* What the index named is gone, for that reason: does it name another by now? */
void get_look_again(struct item *item, const char *why);
/* How long a get of this generation waits at its home: longer while it is on its way to the index,
 * for whoever asks may have heard of it from there. */
uint64_t get_wait_ns(const struct space *space, uint64_t generation, uint64_t wait_ns);

/* ---- probe.c: shared with serve.c and list.c ---- */
/* Holders are listed in info->holders, malloc'ed; free with probe_free_info(). */
void probe_fill_info(const struct broker *broker, const struct space *space,
                     const struct store_info *from, bool holders, Fb__SampleInfo *to);
void probe_free_info(Fb__SampleInfo *info);
bool probe_find(const struct space *space, const Fb__RetireItem *asked, struct store_info *info);
/* The ref was made before this node last restarted. */
bool probe_earlier_incarnation(const struct broker *broker, const Fb__RetireItem *asked);
/* The more useful of two states to report has the higher rank. */
int probe_rank(Fb__SampleState state);
/* What this node itself knows, packed (malloc'ed): a Fb__StatResult or a Fb__ExplainReply. NULL =
 * no memory. explain: space may be NULL. */
uint8_t *probe_stat_here(const struct broker *broker, const struct space *space,
                         const Fb__RetireItem *asked, size_t *bytes_out,
                         Fb__SampleState *state_out);
uint8_t *explain_here(const struct broker *broker, const struct space *space,
                      const Fb__RetireItem *asked, size_t *bytes_out, Fb__SampleState *state_out);
/* ---- list.c, list_nodes.c ---- */
void list_serve(struct asking *asking, uint32_t request_id, const Fb__List *asked);
void list_serve_health(struct asking *asking, uint32_t request_id);

/* ---- index_check.c ---- */
void index_serve_check(struct asking *asking, uint32_t request_id, const Fb__PeerIndexCheck *asked);
void index_forget_checks(struct broker *broker, const struct asking *asking);

#endif
