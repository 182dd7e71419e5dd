/* SPDX-License-Identifier: Apache-2.0
 *
 * What clients ask for: one file for each kind of request.
 */
#ifndef FEATURED_REQUESTS_REQUESTS_H
#define FEATURED_REQUESTS_REQUESTS_H

#include "exchange/exchange.h"

/* ---- one per group of requests ---- */
typedef bool request_fn(struct broker_session *session, uint32_t request_id, bool wants_reply,
                        const Fb__ClientRequest *request, const uint8_t *payload,
                        size_t payload_bytes, const char **why);
request_fn access_hello, access_store_open, access_store_prove, access_store_create,
    access_store_drop, access_store_close;                  /* access.c */
request_fn put_reserve, put_commit, put_cancel, put_inline; /* put.c */
request_fn get_get, get_release;                            /* get.c */
request_fn retire_ack, retire_abort;                        /* retire.c */
request_fn probe_stat;                                      /* probe.c */
request_fn explain_sample;                                  /* explain.c */
request_fn list_samples, list_leases, list_stores;          /* list.c */
request_fn list_nodes, list_health;                         /* list_nodes.c */
request_fn list_sessions;                                   /* list_sessions.c */
request_fn steer_gc, steer_drain, steer_events;             /* steer.c */
request_fn index_list, index_check;                         /* index_check.c */

/* ---- get.c ---- */
void put_forget_payload(struct item *item); /* put.c */
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
/* The store that an admin names or a session has opened; answers the request itself when there is
 * none. */
struct space *probe_space(struct broker_session *session, uint32_t handle, const char *name,
                          uint32_t request_id, bool wants_reply);

/* ---- list.c, list_nodes.c ---- */
void list_serve(struct asking *asking, uint32_t request_id, const Fb__List *asked);
void list_serve_health(struct asking *asking, uint32_t request_id);
void list_answer_nodes(struct call *call);

/* ---- explain.c ---- */
void explain_expired(struct item *item);
void explain_answer(struct call *call);
void explain_free(Fb__ExplainReply *explained);

/* ---- index_check.c ---- */
void index_serve_check(struct asking *asking, uint32_t request_id, const Fb__PeerIndexCheck *asked);
void index_forget_checks(struct broker *broker, const struct asking *asking);
void index_answer(struct call *call);

/* ---- steer.c ---- */
void steer_pump_events(struct broker *broker);
/* Goes on with what clients asked to be freed. True: there is more. */
bool steer_gc_on(struct broker *broker);
/* Answers those who wait until everything has reached its home, if that is so. */
void steer_check_drains(struct broker *broker);
/* Answers one of them, whose time is over: what has not reached its home yet. */
void steer_drained(struct item *item);

#endif
