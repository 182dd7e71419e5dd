/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests of clients, and what the kinds of request have in common.
 *
 * A *request* is one message of a client. Its *kind* says what to do with it: a table of functions,
 * one for each operation of the protocol (requests/). A request that cannot be answered at once
 * becomes a *call*: a list of *items*, answered by one message when its last item is done.
 *
 * An item may wait in the waiter queue of a store (in_store), for answers of peers or of the
 * directory (asks), or wherever its kind has put it. When it is done, for whatever reason, it
 * leaves all of them: its asks become orphans (their item is NULL), and whoever brings something to
 * an orphan, a lease for example, gives it back. So no call outlives its session.
 *
 * What only one kind needs is in a struct of that kind, which has the item as its first member:
 *
 *     struct put_item { struct item item; uint64_t reservation; ... };
 *     static const struct request_kind kind = { .item_bytes = sizeof(struct put_item), ... };
 *     container_of(item, struct put_item, item)->reservation
 */
#ifndef FEATURED_NODE_CALL_H
#define FEATURED_NODE_CALL_H

#include "node/node.h"
#include "node/ref.h"
#include "proto/cleanup.h"
#include "proto/container.h"

struct call;
struct item;
struct request;

#define PHASES_BYTES 192u

/* Functions that may be NULL are those whose kind has nothing to do then. */
struct request_kind {
    /* Carries out the request, or makes a call of it. A request that breaks the protocol is not
     * answered: `breach` is set instead. */
    void (*begin)(struct request *request);
    bool is_greeting; /* Hello alone may come before Hello */
    /* ---- for kinds that make calls ---- */
    size_t item_bytes; /* of the struct around an item, which begins with the item */
    /* All items are done: composes the one answer and hands it to call_send(). */
    void (*answer)(const struct call *call);
    /* The item's deadline has passed: ends it, or lets it go on without a deadline. NULL:
     * item_expire_unanswered(). */
    void (*expire)(struct item *item);
    /* The item is done, or its session is gone: takes it out of wherever the kind has put it, and
     * gives back what it holds there. */
    void (*leave)(struct item *item);
    /* The item has ended well, so long after its request came: for the counts of this node. */
    void (*took)(const struct item *item, uint64_t ns);
    /* What it is called where one that was slow is logged; NULL: it never is. */
    const char *name;
    /* Where the time went, in words that follow ": "; may be NULL. */
    void (*phases)(const struct item *item, char out[PHASES_BYTES]);
    /* The call is about to be freed: frees the memory that the item owns. */
    void (*free_item)(struct item *item);
};

struct request {
    const struct request_kind *kind;
    struct broker_session *session;
    uint32_t request_id;
    bool wants_reply;
    const Fb__ClientRequest *message; /* valid, as the payload, while the request is begun */
    const uint8_t *payload;
    size_t payload_bytes;
    const char *breach; /* how it breaks the protocol: the session will be closed; else NULL */
};

/* One question under way for an item. Freed by its answer. */
struct ask {
    LIST_ENTRY(ask) link;
    struct item *item; /* NULL = nobody waits any more */
    struct broker *broker;
    struct space *space;
    struct peer *peer;    /* NULL: the directory */
    struct account *user; /* whose question it is: it may outlive the session */
    uint64_t remote;      /* remote_lease that is asked for; 0 = none */
    uint64_t generation;
    uint64_t asked_ns;
};

struct item {
    struct waiter waiter; /* an effect's tag is a pointer to it */
    struct call *call;
    struct deadline timed; /* for items whose time no store keeps */
    bool done;
    bool in_store;         /* a store's waiter queue holds it */
    bool no_memory;        /* somebody could not be asked for lack of memory: its refusal says so */
    LIST_HEAD(, ask) asks; /* questions to peers or the directory not answered yet */
    uint32_t ask_count;
    Fb__Status status;
    char *error; /* malloc'ed; NULL while OK. Of a get that looks again: why there was nothing */
    struct ref ref;
    struct store_op op; /* the client's number of this operation; {0}: none */
};

struct call {
    TAILQ_ENTRY(call) link;
    const struct request_kind *kind;
    struct broker *broker;
    struct broker_session *session;
    struct space *space; /* NULL where the request is about no store of this node */
    uint32_t holder;     /* of the session in that store */
    uint32_t request_id;
    bool wants_reply;
    bool wait_cut; /* to max_wait of the store */
    uint64_t begun_ns, wait_ns, patience_ns;
    uint32_t count, open; /* items; those not done, + 1 while the call is being begun */
    size_t spec_bytes;    /* of its items' answers so far */
    /* Of item_bytes of the kind each: call_item(). */
    _Alignas(max_align_t) unsigned char items[];
};

static inline struct item *call_item(const struct call *call, size_t index) {
    return (struct item *)(void *)((unsigned char *)call->items + index * call->kind->item_bytes);
}
/* Which of the call's items it is. */
static inline size_t item_index(const struct item *item) {
    return (size_t)((const unsigned char *)item - item->call->items) / item->call->kind->item_bytes;
}

/* ---- answering a request that makes no call ---- */

/* The one answer. fd: passed along, -1 = none. */
void request_send(const struct request *request, const Fb__ClientReply *reply, int fd);
/* An answer without a result; sentence: NULL = none. */
void request_reply(const struct request *request, Fb__Status status, const char *sentence);
/* Answers FULL: which limit, of whom, and what to do. */
void request_refuse_full(const struct request *request, const struct charge_refusal *full,
                         const char *remedy);
/* Answers DENIED, unless the session has opened a store under that handle. */
struct attachment *request_attachment(const struct request *request, uint32_t handle);

/* ---- calls ---- */

/* A call of so many items of the request's kind, and about that store (may be NULL). NULL: no
 * memory, one limit too many, or too many items; the request is answered, or is a breach. */
struct call *call_new(struct request *request, struct space *space, size_t count);
/* The same for a store that the session has opened under that handle. read_only_refusal: why not,
 * where it was opened read-only; NULL: that does not matter. */
struct call *call_open(struct request *request, uint32_t handle, size_t count,
                       const char *read_only_refusal);
/* Answers and frees the call if all its items are done. To be called once after the items were
 * begun. */
void call_begun(struct call *call);
/* The one answer to a call, by what composes it. */
void call_send(const struct call *call, const Fb__ClientReply *reply);
/* The session has closed: its calls end without an answer. */
void calls_abandon(struct broker_session *session);

/* ---- items ---- */

/* The item's one end. error: printf-style; NULL with OK. May free the call. */
void item_done(struct item *item, Fb__Status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The sentence of an item that has failed, for messages; "" = none. Owned by the item. */
char *item_error(const struct item *item);
/* Says which sample a ref means. False: it is malformed and the item ended. */
bool item_name(struct item *item, const char *sample_id, uint64_t generation, const char *home,
               uint64_t incarnation);
/* One of the places where it was looked for has it: leaves the others, so that it never waits in
 * two fetches or twice in a store's queue. */
void item_found(struct item *item);
/* Gives the item a deadline that the broker watches. */
void item_set_deadline(struct item *item, uint64_t deadline_ns);
/* Ends an item whose deadline has passed: says who has not answered. */
void item_expire_unanswered(struct item *item);
/* The node that it waits for, for such a sentence. */
const char *item_silent_node(const struct item *item);
unsigned long long item_waited_ms(const struct item *item);
/* Since its request came. */
uint64_t item_took_ns(const struct item *item);
/* ---- asks ---- */

/* NULL: out of memory, which the item's refusal will say. */
struct ask *ask_new(struct item *item, struct peer *peer);
/* Asks its peer; `done` is called with the ask, once, if this returns 0. Otherwise, as with ask
 * NULL, the ask is taken: -errno. */
int ask_send(struct ask *ask, const Fb__PeerRequest *request, peer_reply_fn done);
/* Takes the ask out of its item and frees it; returns the item, NULL if orphaned. */
struct item *ask_take(struct ask *ask);
/* Takes a part out of a peer's reply, which is freed without it then: the part is malloc'ed, and
 * the caller's. */
#define peer_reply_take(reply, part) steal_pointer(&((Fb__PeerReply *)(reply))->part)
/* Of a reply without the result that was asked for, NULL = none came: why, for a sentence. */
const char *ask_failure(const Fb__PeerReply *reply, const char *why);

#endif
