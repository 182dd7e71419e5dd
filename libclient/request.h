/* SPDX-License-Identifier: Apache-2.0
 *
 * One request from start to answer: connects and opens the store when needed, sends, waits, and
 * sends again on a new connection when the old one broke. Every request is safe to repeat: it
 * changes nothing, or it carries an op_id, or what it granted ends when it is not named.
 *
 * Written as steps: fc_request_step() does what can be done without waiting. fc_request() steps and
 * waits in between; a queue (queue.h) steps whenever something has come. So there is one path,
 * whoever takes it.
 *
 * Circle: request.c, store_handle.c, flush.c: a request opens its store first, and a store that is
 * closed while the broker is away has its releases said by a request.
 */
#ifndef FEATURED_LIBCLIENT_REQUEST_H
#define FEATURED_LIBCLIENT_REQUEST_H

#include "store_handle.h"

/* What has to come before the next step is worth while. */
enum fc_awaited {
    FC_AWAITS_NOTHING,
    FC_AWAITS_CONNECTION,
    FC_AWAITS_STORE,
    FC_AWAITS_ROOM, /* in the socket */
    FC_AWAITS_ANSWER,
};

struct fc_request {
    struct feature *feature;
    struct feature_store *store; /* NULL, or whose handle goes into *handle for each sending */
    uint32_t *handle;
    Fb__ClientRequest message;
    const char *what; /* "get from store run0", for sentences */
    /* When the request is over: no more connecting, and no more waiting for the answer but for
     * grace_ms. 0 = FC_ROUND_TRIP_MS from the first step. */
    uint64_t deadline_ns;
    uint32_t grace_ms;    /* FC_GRACE_MS where the broker was told the deadline */
    uint32_t patience_ms; /* each notice gives that much more time; 0 = none */
    uint32_t items;       /* that it counts for at the broker; 0 = none */
    struct iovec *parts;  /* see struct fc_call */
    size_t part_count;
    fc_notice_fn notice;
    void *notice_context;
    void (*woken)(struct fc_call *call);  /* see struct fc_call; NULL: fc_request() waits for it */
    void *owner;                          /* for that function */
    bool once;                            /* not to be repeated on a new connection */
    uint64_t session_wanted;              /* 0, or the only session it may first be sent in */
    Fb__ClientReply__ResultCase expected; /* of the result; NOT_SET = not looked at */

    /* out, on FEATURE_OK */
    Fb__ClientReply *reply;      /* status OK */
    struct fc_mapping *mapping;  /* of the store on the connection that answered; a reference */
    uint64_t epoch, incarnation; /* of that connection; epoch also on failure, 0 = never sent */
    uint64_t session;            /* that it served */
    char node[65];

    /* between steps */
    enum fc_awaited awaited;
    struct fc_call call;   /* in flight when the answer is awaited */
    uint64_t begun_ns;     /* the first step */
    uint64_t looked_ns;    /* when its caller was asked last whether it is interrupted; 0 = never */
    uint64_t release_mark; /* see fc_release_confirm() */
};

#define FC_REQUEST(...) ((struct fc_request){.message = FB__CLIENT_REQUEST__INIT, __VA_ARGS__})

/* FEATURE_OK, or the broker's refusal, or our own with a sentence. Waits. Call fc_request_deinit()
 * in any case. */
int fc_request(struct fc_request *request);
/* Whether fc_request() was interrupted in this thread since the last question: who has more to ask
 * the broker for the same caller does not go on. */
bool fc_request_was_interrupted(void);
/* With the lock held. The same, or FC_PENDING; does not wait. */
int fc_request_step(struct fc_request *request);
/* With the lock held: after FC_PENDING, when a step is worth while although nothing has come. */
uint64_t fc_request_next_ns(const struct fc_request *request);
/* With the lock held: after FC_PENDING, no more steps will follow. What it is granted is handed
 * back. */
void fc_request_abandon(struct fc_request *request);
void fc_request_deinit(struct fc_request *request);
/* The answer does not fit the question: a broken broker. FEATURE_E_INTERNAL. */
int fc_request_nonsense(const struct fc_request *request);

/* The deadline of a call that its caller gave deadline_ms: 0 = that of a round trip. */
uint64_t fc_deadline_ns(uint32_t deadline_ms);
/* What is left until deadline_ns as the relative deadline of a message; 0 once it has passed. */
uint32_t fc_left_ms(uint64_t deadline_ns);

#endif
