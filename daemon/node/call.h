/* SPDX-License-Identifier: Apache-2.0
 *
 * A *call* is one client request, made of items; it is answered when its last item is done. An item
 * may wait in a store's waiter queue (in_store), for peers or the directory (asks), or in a fetch.
 * When it ends, for whatever reason, it leaves all of them: its asks are orphaned (item NULL), and
 * whoever brings a lease to an orphan gives it back. So calls never outlive their session.
 */
#ifndef FEATURED_NODE_CALL_H
#define FEATURED_NODE_CALL_H

#include "node/node.h"

enum call_kind {
    CALL_PUT,
    CALL_GET,
    CALL_RETIRE,
    CALL_STAT,
    CALL_EXPLAIN,
    CALL_DRAIN,
    CALL_NODES, /* an item for each peer */
    CALL_LIST,  /* of another node's samples */
    CALL_INDEX_LIST,
    CALL_INDEX_CHECK,
    CALL_GC,
};

/* One question under way for an item. Freed by its answer. */
struct ask {
    LIST_ENTRY(ask) link;
    struct item *item; /* NULL = nobody waits any more */
    struct broker *broker;
    struct space *space;
    struct peer *peer;
    struct account *user; /* whose question it is: it may outlive the session */
    uint64_t generation;
    struct store_op op;
};

struct inline_put;
struct fetch;
struct publishing;

struct item {
    struct waiter waiter; /* first: an effect's tag is a pointer to it */
    struct call *call;
    struct deadline timed; /* for items whose time no store keeps */
    bool done;
    bool in_store;   /* a store's waiter queue holds it */
    bool draining;   /* in broker->drains, by drain_link */
    bool collecting; /* in broker->gc_asked, by drain_link */
    bool gc_begun;
    uint64_t gc_hold_ns, gc_freed;
    LIST_HEAD(, ask) asks; /* questions to peers or the directory not answered yet */
    uint32_t ask_count;
    Fb__Status status;
    char *error; /* malloc'ed; NULL while OK. Of a get that looks again: why there was nothing */
    TAILQ_ENTRY(item) fetch_link, drain_link;
    struct fetch *fetch;
    struct store_op op;
    char sample_id[LAYOUT_ID_BYTES_MAX + 1];
    uint64_t generation, incarnation;
    char home[LAYOUT_NAME_BYTES_MAX + 1];
    bool want_spec, over_network;
    /* put */
    uint64_t reservation, extent_offset, extent_bytes;
    struct inline_put *inline_put;
    struct publishing *publishing;
    /* get */
    uint64_t lease_hi, lease_lo;
    uint32_t slot;
    uint8_t *spec, *checksums; /* malloc'ed when want_spec */
    uint32_t spec_bytes, checksums_bytes;
    uint64_t remote;      /* remote_lease id, 0 = none */
    uint64_t transfer;    /* of the fetch that brought the bytes for it, 0 = they were here */
    struct peer *unheard; /* one that might have the id and could not be asked; NULL = none */
    bool located;         /* home and generation are what the index says of the id */
    uint64_t missed;      /* what it said before, and was gone when asked for; 0 = nothing */
    /* Packed, malloc'ed: the best Fb__StatResult or Fb__ExplainReply so far; Fb__HealthReply
     * (nodes), Fb__IndexFinding (index check), a whole Fb__ClientReply (list, index list). */
    uint8_t *answer;
    size_t answer_bytes;
    Fb__SampleState answer_state;
    Fb__ExplainReply *explained; /* explain.c */
};

struct call {
    TAILQ_ENTRY(call) link;
    struct broker *broker;
    struct broker_session *session; /* NULL once closed */
    struct space *space;            /* NULL where the request is about no store of this node */
    char store[LAYOUT_NAME_BYTES_MAX + 1]; /* its name then, if it has one */
    uint32_t holder;
    uint32_t request_id;
    bool wants_reply, write_ok;
    bool wants_landed; /* CALL_GET */
    bool wait_cut;     /* to max_wait of the store */
    enum call_kind kind;
    enum store_reason reason; /* CALL_RETIRE */
    uint64_t begun_ns, wait_ns, patience_ns;
    uint32_t count, open; /* items; those not done, + 1 while the call is being begun */
    size_t spec_bytes;    /* of its items' answers so far */
    struct item items[];
};

/* NULL: no memory or one limit too many, and the request is answered so. */
struct call *call_new(struct broker_session *session, enum call_kind kind, size_t count,
                      uint32_t request_id, bool wants_reply);
/* Answers FULL: which limit, of whom, and what to do. */
void call_refuse(struct broker_session *session, uint32_t request_id, bool wants_reply,
                 const struct charge_refusal *full, const char *remedy);
/* The same for a request on a store that the session has opened. NULL: the request is answered (no
 * such handle, or opened read-only and read_only_refusal is not NULL), or *why is set: a breach. */
struct call *call_open(struct broker_session *session, enum call_kind kind, uint32_t handle,
                       size_t count, uint32_t request_id, bool wants_reply,
                       const char *read_only_refusal, const char **why);
/* Answers and frees the call if all its items are done. To be called once after the items were
 * begun. */
void call_begun(struct call *call);
struct ask *ask_new(struct item *item, struct peer *peer);
/* Takes the ask out of its item and frees it; returns the item, NULL if orphaned. */
struct item *ask_take(struct ask *ask);
/* Of a reply without the result that was asked for, NULL = none came: why, for a sentence. */
const char *ask_failure(const Fb__PeerReply *reply, const char *why);
/* Says which sample a ref means (home "" = this node or any). False: it is malformed and the item
 * ended. */
bool item_name(struct item *item, const char *sample_id, uint64_t generation, const char *home,
               uint64_t incarnation);
/* One of the places where it was looked for has it: leaves the others, so that it never waits in
 * two fetches or twice in a store's queue. */
void item_found(struct item *item);
/* The item's one end. error: printf-style; NULL with OK. May free the call. */
void item_done(struct item *item, Fb__Status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Gives the item a deadline that the broker watches. */
void item_set_deadline(struct item *item, uint64_t deadline_ns);
void calls_abandon(struct broker_session *session);
/* Ends the item well, with this for the answer (packed into item->answer). */
void item_answer(struct item *item, const ProtobufCMessage *message);
/* The one answer to a call, by what composes it. */
void call_send(const struct call *call, const Fb__ClientReply *reply);
void call_reply_simple(struct broker_session *session, uint32_t request_id, bool wants_reply,
                       Fb__Status status, const char *sentence);

#endif
