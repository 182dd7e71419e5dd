/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of the kinds of request, one line for each operation of the client protocol: its number
 * (FB__CLIENT_REQUEST__OP_...), and the kind that carries it out. A new kind is a line here, and a
 * file that defines the struct request_kind of that name.
 *
 * This is the header that the files of this folder share.
 */
#ifndef FEATURED_REQUESTS_KINDS_H
#define FEATURED_REQUESTS_KINDS_H

#include "exchange/exchange.h"
#include "requests/requests.h"

#define REQUEST_KINDS(KIND)                                                                        \
    KIND(HELLO, hello_kind)                                                                        \
    KIND(STORE_OPEN, store_open_kind)                                                              \
    KIND(STORE_PROVE, store_prove_kind)                                                            \
    KIND(STORE_CREATE, store_create_kind)                                                          \
    KIND(STORE_DROP, store_drop_kind)                                                              \
    KIND(STORE_CLOSE, store_close_kind)                                                            \
    KIND(STORES, stores_kind)                                                                      \
    KIND(RESERVE, put_reserve_kind)                                                                \
    KIND(COMMIT, put_commit_kind)                                                                  \
    KIND(CANCEL, put_cancel_kind)                                                                  \
    KIND(PUT, put_inline_kind)                                                                     \
    KIND(GET, get_kind)                                                                            \
    KIND(RELEASE, release_kind)                                                                    \
    KIND(ACK, ack_kind)                                                                            \
    KIND(ABORT, abort_kind)                                                                        \
    KIND(STAT, stat_kind)                                                                          \
    KIND(LIST, list_kind)                                                                          \
    KIND(LEASES, leases_kind)                                                                      \
    KIND(EXPLAIN, explain_kind)                                                                    \
    KIND(HEALTH, health_kind)                                                                      \
    KIND(NODES, nodes_kind)                                                                        \
    KIND(GC, gc_kind)                                                                              \
    KIND(DRAIN, drain_kind)                                                                        \
    KIND(EVENTS, events_kind)                                                                      \
    KIND(INDEX_LIST, index_list_kind)                                                              \
    KIND(INDEX_CHECK, index_check_kind)                                                            \
    KIND(SESSIONS, sessions_kind)                                                                  \
    KIND(GIVE_UP, give_up_kind)                                                                    \
    KIND(HOLDS, holds_kind)

/* Kept with the broker: items that wait for neither a store nor an answer. */
struct requests {
    TAILQ_HEAD(, gc_item) gc_asked;  /* carried out one after the other (gc.c) */
    TAILQ_HEAD(, drain_item) drains; /* wait until everything has reached its home (drain.c) */
};

#define REQUEST_KIND_DECLARE(op, kind) extern const struct request_kind kind;
REQUEST_KINDS(REQUEST_KIND_DECLARE)
#undef REQUEST_KIND_DECLARE

/* The session was come back to: its client says next what it holds. (claim.c) */
void claim_begin(struct broker_session *session);

/* The store that the session has opened under the handle, or else, for an admin, the one of that
 * name. NULL: there is none, and the request has been answered. (requests.c) */
struct space *request_space(const struct request *request, uint32_t handle, const char *name);

#endif
