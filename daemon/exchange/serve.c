/* SPDX-License-Identifier: Apache-2.0
 *
 * Answering other brokers: their connections, and the table of what they may ask. An asking broker
 * acts for its clients: what it may do was settled by the cluster secret, and its clients' rights
 * by itself.
 *
 * A request goes through the same checks whatever it asks for: does this node know the operation,
 * has it the store, may it answer now? What these are for one operation is said in its row of the
 * table. The function of the row then answers, at once or later, and exactly once.
 *
 * A new operation is a field in proto/peer.proto, a row in the table, and a function: here when it
 * is a few lines, else in a file of its own (serve_lease.c, serve_retire.c).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "exchange/held_check.h"
#include "exchange/index_check.h"
#include "exchange/nodes.h"
#include "exchange/serve.h"
#include "exchange/twin.h"
#include "node/knowledge.h"

/* ---- connections ---- */

/* NULL: it may not ask; the connection is then closed. A node may have several connections at a
 * time, for it gives up one that hangs and dials again before this node sees the old one die. Each
 * of them is charged to the node. */
void *serve_open(void *owner, struct asker *asker, const char *node, uint64_t incarnation) {
    (void)incarnation;
    struct broker *broker = owner;
    struct asking *asking = calloc(1, sizeof *asking);
    struct account *account = asking ? accounts_peer(broker, node) : NULL;
    struct charge_refusal full;
    if (account && !account_charge(account, CHARGE_CONNECTIONS, 1, &full)) {
        char sentence[SENTENCE_BYTES];
        account_sentence(sentence, sizeof sentence, &full);
        log_limited(LOG_LEVEL_WARNING, log_source(node),
                    "node %s may not ask over one more connection: %s", node, sentence);
        accounts_unhold(broker, account);
        account = NULL;
    }
    if (!account) {
        free(asking);
        return NULL;
    }
    asking->account = account;
    asking->broker = broker;
    asking->asker = asker;
    owner_add(broker, &asking->owner, asking->name);
    snprintf(asking->name, sizeof asking->name, "node %s", node);
    for (uint32_t i = 0; i < SPACES_MAX; i++)
        asking->holders[i] = STORE_NO_HOLDER;
    TAILQ_INIT(&asking->waiting);
    TAILQ_INSERT_TAIL(&broker->exchange->askings, asking, link);
    return asking;
}

/* The connection is proven dead: the asking node reads nothing over it any more, and so all that it
 * held is returned, never consumed. Checks that it asked for go on, because they put right what
 * this node holds; nobody is answered. */
void serve_closed(void *owner, void *user) {
    struct broker *broker = owner;
    struct asking *asking = user;
    if (!asking)
        return;
    for (uint32_t i = 0; i < broker->space_end; i++)
        if (asking->holders[i] != STORE_NO_HOLDER)
            (void)space_leave(broker, &broker->spaces[i], asking->holders[i], asking->account);
    serve_forget_waiting(asking);
    index_forget_checks(broker, asking);
    held_checks_forget(broker, asking);
    TAILQ_REMOVE(&broker->exchange->askings, asking, link);
    owner_remove(&asking->owner);
    account_release(asking->account, CHARGE_CONNECTIONS, 1);
    accounts_unhold(broker, asking->account);
    free(asking);
}

/* As long as one lease is left, no asking broker gives up its place: which of them holds that lease
 * the store does not say. */
void serve_leave_space(struct broker *broker, struct space *space) {
    struct asking *asking;
    TAILQ_FOREACH (asking, &broker->exchange->askings, link) {
        struct store_totals totals;
        store_totals(space->store, &totals);
        if (asking->holders[space->index] != STORE_NO_HOLDER && !totals.leases) {
            store_holder_close(space->store, asking->holders[space->index], broker->now_ns);
            asking->holders[space->index] = STORE_NO_HOLDER;
        }
    }
}

/* ---- operations of a few lines ---- */

/* The key with which the asking node's transport may read this region: asked for once for each
 * connection and region, and valid for that connection only. */
static void serve_region(const struct serve_asked *asked) {
    struct asking *asking = asked->asking;
    uint8_t key[TRANSPORT_KEY_BYTES_MAX];
    int key_bytes =
        asker_region_key(asking->asker, asked->message->region->region, key, sizeof key);
    if (key_bytes < 0) {
        serve_refuse(asking, asked->request_id, FB__STATUS__NOT_FOUND,
                     "the store's memory is gone");
        return;
    }
    Fb__PeerRegionReply result = FB__PEER_REGION_REPLY__INIT;
    result.key = (ProtobufCBinaryData){(size_t)key_bytes, key};
    Fb__PeerReply reply = FB__PEER_REPLY__INIT;
    reply.result_case = FB__PEER_REPLY__RESULT_REGION;
    reply.region = &result;
    asker_reply(asking->asker, asked->request_id, &reply, NULL, 0);
}

static const char serve_no_memory[] = "the home is out of memory";

/* Also a fenced node tells what it holds; the answer says that it may have been superseded. */
static void serve_stat(const struct serve_asked *asked) {
    const struct broker *broker = asked->asking->broker;
    const Fb__RetireItem *item = asked->message->stat->item;
    struct ref ref = {0};
    if (!item || ref_from_item(&ref, item)) {
        serve_refuse_malformed(asked, "it names no sample");
        return;
    }
    Fb__PeerReply reply = FB__PEER_REPLY__INIT;
    reply.result_case = FB__PEER_REPLY__RESULT_STAT;
    reply.stat = stat_here(broker, asked->space, &ref,
                           broker_serves(broker) ? NULL : broker_fenced_why(broker));
    if (!reply.stat) {
        serve_refuse(asked->asking, asked->request_id, FB__STATUS__UNAVAILABLE, serve_no_memory);
        return;
    }
    asker_reply(asked->asking->asker, asked->request_id, &reply, NULL, 0);
    fb__stat_result__free_unpacked(reply.stat, NULL);
}

/* What has become of a sample, also of one that has ended. */
static void serve_explain(const struct serve_asked *asked) {
    const Fb__RetireItem *item = asked->message->explain->item;
    struct ref ref = {0};
    if (!item || ref_from_item(&ref, item)) {
        serve_refuse_malformed(asked, "it names no sample");
        return;
    }
    Fb__PeerReply reply = FB__PEER_REPLY__INIT;
    reply.result_case = FB__PEER_REPLY__RESULT_EXPLAIN;
    reply.explain = explain_here(asked->asking->broker, asked->space, &ref);
    if (!reply.explain) {
        serve_refuse(asked->asking, asked->request_id, FB__STATUS__UNAVAILABLE, serve_no_memory);
        return;
    }
    asker_reply(asked->asking->asker, asked->request_id, &reply, NULL, 0);
    fb__explain_reply__free_unpacked(reply.explain, NULL);
}

/* Of a store that this node does not have, the list is empty: the asking broker asks every node for
 * its part of one list. */
static void serve_list(const struct serve_asked *asked) {
    const struct broker *broker = asked->asking->broker;
    const Fb__List *list = asked->message->list->list;
    const struct space *space = list ? list_space(broker, list->store, list->cursor) : NULL;
    Fb__ListReply none = FB__LIST_REPLY__INIT;
    Fb__ListReply *page = space ? list_here(broker, space, list, false) : &none;
    if (!page) {
        serve_refuse(asked->asking, asked->request_id, FB__STATUS__UNAVAILABLE,
                     "the node is out of memory");
        return;
    }
    Fb__PeerReply reply = FB__PEER_REPLY__INIT;
    reply.result_case = FB__PEER_REPLY__RESULT_LIST;
    reply.list = page;
    asker_reply(asked->asking->asker, asked->request_id, &reply, NULL, 0);
    if (page != &none)
        fb__list_reply__free_unpacked(page, NULL);
}

/* Also of a fenced node: why it is fenced is what the asking node wants to show. */
static void serve_health(const struct serve_asked *asked) {
    struct health health;
    health_fill(asked->asking->broker, &health);
    health.reply.n_counters = 0; /* of all nodes together they would outgrow a frame */
    Fb__PeerReply reply = FB__PEER_REPLY__INIT;
    reply.result_case = FB__PEER_REPLY__RESULT_HEALTH;
    reply.health = &health.reply;
    asker_reply(asked->asking->asker, asked->request_id, &reply, NULL, 0);
}

/* ---- the table ---- */

static const char *serve_store_of_lease(const Fb__PeerRequest *request) {
    return request->lease->store;
}

static const char *serve_store_of_stat(const Fb__PeerRequest *request) {
    return request->stat->store;
}

static const char *serve_store_of_explain(const Fb__PeerRequest *request) {
    return request->explain->store;
}

struct peer_operation {
    const char *name; /* for people: node a asks for "a lease" */
    /* The store without which there is nothing to do: one that this node does not have is answered
     * NOT_FOUND, and asked->space is set otherwise. NULL: the operation names none, or knows itself
     * what it means that the store is not here. */
    const char *(*store)(const Fb__PeerRequest *request);
    /* It is answered also while this node is fenced, and while another broker of its name was there
     * first. Nothing may be granted then, for others may have superseded what this node holds. */
    bool when_fenced;
    void (*answer)(const struct serve_asked *asked);
};

/* By the number of the operation. A peer's ping is answered by its link (peer/). */
static const struct peer_operation operations[] = {
    [FB__PEER_REQUEST__OP_LEASE] = {"a lease", serve_store_of_lease, false, serve_lease},
    [FB__PEER_REQUEST__OP_REGION] = {"a region's key", NULL, true, serve_region},
    [FB__PEER_REQUEST__OP_RELEASE] = {"a release", NULL, true, serve_release},
    [FB__PEER_REQUEST__OP_RETIRE] = {"an end", NULL, true, serve_retire},
    [FB__PEER_REQUEST__OP_STAT] = {"a stat", serve_store_of_stat, true, serve_stat},
    [FB__PEER_REQUEST__OP_EXPLAIN] = {"an explanation", serve_store_of_explain, true,
                                      serve_explain},
    [FB__PEER_REQUEST__OP_HEALTH] = {"its health", NULL, true, serve_health},
    [FB__PEER_REQUEST__OP_LIST] = {"a list", NULL, true, serve_list},
    [FB__PEER_REQUEST__OP_INDEX_CHECK] = {"a check of the index", NULL, true, index_serve_check},
};

/* The checks that are the same for all operations. True: it may be answered. Else it has been
 * refused. */
static bool serve_may_answer(const struct peer_operation *operation,
                             const struct serve_asked *asked) {
    struct asking *asking = asked->asking;
    const struct broker *broker = asking->broker;
    char sentence[SENTENCE_BYTES], trouble[TROUBLE_BYTES];
    if (operation->store && !asked->space) {
        snprintf(sentence, sizeof sentence, "store %.64s does not exist on node %s",
                 operation->store(asked->message), broker->config->node);
        serve_refuse(asking, asked->request_id, FB__STATUS__NOT_FOUND, sentence);
        return false;
    }
    if (operation->when_fenced)
        return true;
    if (twin_was_first(broker)) {
        serve_refuse(asking, asked->request_id, FB__STATUS__UNAVAILABLE,
                     broker_trouble(broker, "", trouble));
        return false;
    }
    if (!broker_serves(broker)) {
        serve_refuse(asking, asked->request_id, FB__STATUS__UNAVAILABLE, broker_fenced_why(broker));
        return false;
    }
    return true;
}

/* Called by peer/ for each request that comes in, except for pings. An operation that has no row is
 * of a newer version of the protocol. It is answered, so that the other side need not wait for its
 * deadline to learn that this node cannot do it. */
void serve_request(void *owner, void *user, uint32_t request_id, bool wants_reply,
                   const Fb__PeerRequest *request) {
    (void)owner;
    struct asking *asking = user;
    struct broker *broker = asking->broker;
    const size_t op = (size_t)request->op_case;
    /* A request of a peer may come in the middle of a turn, and deadlines are counted from now. */
    if (broker->options.clock_ns)
        broker->now_ns = broker->options.clock_ns(broker->options.owner);
    broker->request_count++;
    if (op >= sizeof operations / sizeof *operations || !operations[op].answer) {
        serve_refuse(asking, request_id, FB__STATUS__UNSUPPORTED,
                     "this node does not know that request");
        return;
    }
    const struct peer_operation *operation = &operations[op];
    const struct serve_asked asked = {
        .name = operation->name,
        .asking = asking,
        .request_id = request_id,
        .wants_reply = wants_reply,
        .space = operation->store ? space_find(broker, operation->store(request)) : NULL,
        .message = request};
    if (serve_may_answer(operation, &asked))
        operation->answer(&asked);
}
