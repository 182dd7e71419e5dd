/* SPDX-License-Identifier: Apache-2.0
 *
 * Ack and abort: end a sample, by its ref or by its id.
 *
 * Only the home of a sample may retire it. A ref names the home. With an id alone it is looked for:
 *
 *   a ref:  new --its home is this node--> retired here --------------------------> done
 *             \--its home is another-----> that node is asked --------------------> done
 *               \-its home is dead-------> its record goes, word of the end is kept -> done
 *   an id:  new --held here--> retired here ---------------------------------------> done
 *             \--not here--> the directory is asked
 *                   a record of another node --> as with a ref to that node
 *                   no record ---------------> every member is asked (it may have been lost)
 *                   it keeps no index --------> an ack goes to every peer; an abort is done
 *
 * When the home does not answer: an ack by ref is kept (exchange/outbox.c), sent again until it is
 * confirmed, counted in release_pending, and answered OK, for what was consumed stays consumed. An
 * ack by id is not kept but answered UNAVAILABLE: delivered late, it would end whatever has been
 * put under that id meanwhile. An abort is answered only when its home has confirmed it, and
 * UNAVAILABLE otherwise.
 */
#include <string.h>

#include "requests/kinds.h"

/* Of an ack or an abort. `located` tells what was looked up from what the client named: of an id
 * that was looked up, other generations may be held elsewhere, and have to end too
 * (publish_end_lost()). */
struct retire_item {
    struct item item;
    enum store_reason reason;
    bool located; /* home and generation are what the index says of the id */
    Fb__ItemResult result;
    struct publish_waiter ended; /* of what was at a home that is dead */
};

static struct retire_item *retire_of(const struct item *item) {
    return container_of(item, struct retire_item, item);
}

static bool retire_is_ack(const struct item *item) {
    return retire_of(item)->reason == STORE_ACKED;
}

/* True if nothing more is to be done: it was retired here, or an ack does not retire in this store.
 */
static bool retire_here(struct item *item) {
    struct call *call = item->call;
    if (retire_is_ack(item) && call->space->settings.policy == FB__POLICY__RETAIN)
        return true;
    struct store *store = call->space->store;
    struct store_answer answer;
    if (store_replay_find(store, item->op, &answer))
        return true;
    bool retired = false;
    store_retire(store, item->ref.sample_id, (uint32_t)strlen(item->ref.sample_id),
                 item->ref.generation, retire_of(item)->reason, call->broker->now_ns, &retired);
    answer = (struct store_answer){FB__STATUS__OK, retired};
    if (retired) /* else a repeat does nothing again: no need to push another's answer out */
        store_replay_record(store, item->op, &answer);
    return retired;
}

static void retire_on_ended(struct publish_waiter *waiter, Fb__Status status, uint64_t generation,
                            const char *sentence) {
    (void)generation;
    item_done(&container_of(waiter, struct retire_item, ended)->item, status,
              sentence ? "%s" : NULL, sentence);
}

/* What a dead incarnation held is gone; so goes its record. It may come back though, having only
 * been away, and then must hear of this. Asked for by its id, it is done when nobody holds anything
 * of it: a put that was never answered may have replaced what lives on elsewhere. */
static void retire_done_with_the_dead(struct item *item) {
    struct call *call = item->call;
    const struct directory_record lost = {.store = call->space->name,
                                          .sample_id = item->ref.sample_id,
                                          .home = item->ref.home,
                                          .generation = item->ref.generation,
                                          .incarnation = item->ref.incarnation};
    if (retire_is_ack(item) && call->space->settings.policy == FB__POLICY__RETAIN) {
        item_done(item, FB__STATUS__OK, NULL); /* an ack ends nothing in this store */
        return;
    }
    item_set_deadline(item, call->broker->now_ns + call->patience_ns);
    retire_of(item)->ended.ended = retire_on_ended;
    publish_end_lost(call->broker, call->space, &lost, retire_of(item)->reason,
                     retire_of(item)->located, call->session->account->parent,
                     &retire_of(item)->ended);
}

/* Called for each peer that was asked. With a ref there is one, with an ack by id there may be
 * many, of which all have to confirm. */
static void retire_on_retired(void *context, const Fb__PeerReply *reply, const uint8_t *payload,
                              size_t payload_bytes, const char *why) {
    (void)payload, (void)payload_bytes;
    struct ask *ask = context;
    struct peer *peer = ask->peer;
    struct item *item = ask_take(ask);
    if (!item)
        return;
    bool confirmed = reply && reply->status == FB__STATUS__OK;
    /* Unreachable: it follows later. An id cannot wait: by then it may name a later put. */
    if (!reply && retire_is_ack(item) && item->ref.generation) {
        if (!outbox_ack(item->call->broker, peer, item))
            return;
        confirmed = true;
    }
    if (confirmed && item->ask_count)
        return; /* the other peers' answers are still out */
    bool has_restarted =
        reply && item->ref.incarnation && peer_incarnation(peer) != item->ref.incarnation;
    if (has_restarted || nodes_is_dead(item->call->broker, item->ref.home, item->ref.incarnation))
        retire_done_with_the_dead(item);
    else if (confirmed)
        item_done(item, FB__STATUS__OK, NULL);
    else if (reply)
        item_done(item, reply->status, "%s", reply->error);
    else
        item_done(item, FB__STATUS__UNAVAILABLE,
                  "sample %s of store %s: node %s cannot be reached to retire it: %s",
                  item->ref.sample_id, item->call->space->name, peer_node(peer), why);
}

/* The operation id goes along: a home that has carried it out before, and whose answer was lost,
 * does not do it again. */
static bool retire_ask_peer(struct item *item, struct peer *peer) {
    struct call *call = item->call;
    Fb__RetireItem asked = FB__RETIRE_ITEM__INIT, *items[1] = {&asked};
    asked.sample_id = item->ref.sample_id;
    asked.generation = item->ref.generation;
    asked.incarnation = item->ref.incarnation;
    Fb__PeerRetire retire = FB__PEER_RETIRE__INIT;
    retire.store = call->space->name;
    retire.reason = (Fb__Reason)retire_of(item)->reason;
    retire.n_items = 1;
    retire.items = items;
    retire.client_id = item->op.client_id;
    retire.op_id = item->op.op_id;
    Fb__PeerRequest request = FB__PEER_REQUEST__INIT;
    request.op_case = FB__PEER_REQUEST__OP_RETIRE;
    request.retire = &retire;
    if (ask_send(ask_new(item, peer), &request, retire_on_retired) < 0)
        return false;
    item_set_deadline(item, call->broker->now_ns + call->patience_ns);
    return true;
}

/* The home alone may retire a sample. One that is dead has nothing left to retire, and what it may
 * come back with is ended by word in the index. */
static void retire_at_home(struct item *item) {
    struct broker *broker = item->call->broker;
    struct peer *peer = peers_find(broker->peers, item->ref.home);
    if (nodes_is_dead(broker, item->ref.home, item->ref.incarnation))
        retire_done_with_the_dead(item);
    else if (!peer || !retire_ask_peer(item, peer))
        item_done(item, FB__STATUS__UNAVAILABLE,
                  "sample %s of store %s is at node %s, which is no peer of node %s or cannot be "
                  "asked now",
                  item->ref.sample_id, item->call->space->name, item->ref.home,
                  broker->config->node);
}

/* Retires it here and answers, unless it is an id of which nothing was found. What an older put
 * replaced may live on elsewhere for as long as that put is pursuing it. */
static bool retire_and_answer(struct item *item) {
    struct call *call = item->call;
    bool all = retire_here(item) || item->ref.generation;
    bool pursues =
        publish_pursues(call->broker, call->space, item->ref.sample_id, item->ref.generation);
    if (pursues)
        item_done(item, FB__STATUS__UNAVAILABLE,
                  "sample %s of store %s: its put here has not yet seen the end of an older one "
                  "elsewhere; ask again",
                  item->ref.sample_id, call->space->name);
    else if (all)
        item_done(item, FB__STATUS__OK, NULL);
    return pursues || all;
}

/* ---- an id without a record ---- */

/* What is found is then retired by its generation: an id that arrives late could end a later put.
 */
static void retire_on_stat(void *context, const Fb__PeerReply *reply, const uint8_t *payload,
                           size_t payload_bytes, const char *why) {
    (void)payload, (void)payload_bytes;
    struct ask *ask = context;
    struct peer *peer = ask->peer;
    struct item *item = ask_take(ask);
    if (!item)
        return;
    const Fb__StatResult *stat =
        reply && reply->result_case == FB__PEER_REPLY__RESULT_STAT ? reply->stat : NULL;
    bool held = stat && stat->info && stat->info->state == FB__SAMPLE_STATE__RESIDENT;
    if (held) {
        strncpy(item->ref.home, peer_node(peer), sizeof item->ref.home - 1);
        item->ref.generation = stat->info->generation;
        item->ref.incarnation = stat->incarnation;
        item_found(item);
        retire_at_home(item);
    } else if ((!reply && !nodes_is_dead(item->call->broker, peer_node(peer), 0)) ||
               (stat && stat->status == FB__STATUS__UNAVAILABLE)) {
        item_done(item, FB__STATUS__UNAVAILABLE,
                  "sample %s of store %s: the index has no record of it, and node %s cannot say "
                  "whether it has it: %s",
                  item->ref.sample_id, item->call->space->name, peer_node(peer),
                  reply ? stat->error : why);
    } else if (!item->ask_count) {
        item_done(item, FB__STATUS__OK, NULL); /* absent is success */
    }
}

/* False: it cannot be asked. */
static bool retire_look_at(struct item *item, struct peer *peer) {
    struct call *call = item->call;
    Fb__RetireItem asked = FB__RETIRE_ITEM__INIT;
    Fb__PeerStat stat = FB__PEER_STAT__INIT;
    Fb__PeerRequest request = FB__PEER_REQUEST__INIT;
    asked.sample_id = item->ref.sample_id;
    stat.store = call->space->name;
    stat.item = &asked;
    request.op_case = FB__PEER_REQUEST__OP_STAT;
    request.stat = &stat;
    return ask_send(ask_new(item, peer), &request, retire_on_stat) == 0;
}

/* Its record may be lost. An etcd that was emptied has no record of what is still held: absence of
 * a record proves nothing, so every member is asked. If one of them cannot say, the answer is
 * UNAVAILABLE, not OK. */
static void retire_look_everywhere(struct item *item) {
    struct broker *broker = item->call->broker;
    item_set_deadline(item, broker->now_ns + item->call->patience_ns);
    for (struct peer *peer = peers_next(broker->peers, NULL); peer;
         peer = peers_next(broker->peers, peer))
        if (!nodes_is_dead(broker, peer_node(peer), 0) && !retire_look_at(item, peer)) {
            item_done(item, FB__STATUS__UNAVAILABLE,
                      "sample %s of store %s: the index has no record of it, and node %s cannot be "
                      "asked whether it has it",
                      item->ref.sample_id, item->call->space->name, peer_node(peer));
            return;
        }
    if (!item->ask_count)
        item_done(item, FB__STATUS__OK, NULL); /* absent is success */
}

/* Where there is no index, an ack by id goes to every peer, for each retires what it has. Otherwise
 * the record says whose sample it is. */
static void retire_on_located(void *context, enum directory_result result,
                              const struct directory_record *record, bool ask_peers) {
    struct item *item = ask_take(context);
    if (!item)
        return;
    struct broker *broker = item->call->broker;
    if (ask_peers && retire_is_ack(item)) {
        for (struct peer *peer = peers_next(broker->peers, NULL); peer;
             peer = peers_next(broker->peers, peer))
            retire_ask_peer(item, peer);
        if (!item->ask_count)
            item_done(item, FB__STATUS__OK, NULL);
    } else if (!ask_peers && result == DIRECTORY_E_NOT_FOUND) {
        retire_look_everywhere(item);
    } else if (record && (nodes_have_lost(broker, result, record) ||
                          strcmp(record->home, broker->config->node))) {
        strcpy(item->ref.home, record->home);
        item->ref.generation = record->generation;
        item->ref.incarnation = record->incarnation;
        retire_of(item)->located = true;
        if (nodes_have_lost(broker, result, record))
            retire_done_with_the_dead(item); /* so goes the record */
        else
            retire_at_home(item);
    } else if (record) { /* put here while we were looking */
        item->ref.generation = record->generation;
        retire_and_answer(item);
    } else if (result == DIRECTORY_E_UNAVAILABLE) {
        char trouble[TROUBLE_BYTES];
        item_done(item, FB__STATUS__UNAVAILABLE,
                  "sample %s of store %s: the directory cannot be reached to find it: %s",
                  item->ref.sample_id, item->call->space->name,
                  broker_trouble(broker, "it has not answered in time", trouble));
    } else {
        item_done(item, FB__STATUS__OK, NULL); /* absent is success */
    }
}

/* A ref of an earlier incarnation of this node is of a sample whose bytes are gone; but another
 * node may have a newer one under the id, so only the generation that is named is ended. */
static void retire_one(struct item *item, const Fb__RetireItem *asked) {
    struct broker *broker = item->call->broker;
    if (!item_name(item, asked->sample_id, asked->generation, asked->home, asked->incarnation))
        return;
    bool here = !*asked->home || !strcmp(asked->home, broker->config->node);
    if (!here) {
        retire_at_home(item);
        return;
    }
    if (asked->incarnation && asked->incarnation != broker->options.incarnation) {
        strcpy(item->ref.home, broker->config->node);
        retire_done_with_the_dead(item);
        return;
    }
    if (!asked->generation && !broker_serves(broker)) { /* what we hold may have been superseded */
        item_done(item, FB__STATUS__UNAVAILABLE,
                  "sample %s of store %s: node %s cannot tell who holds it: %s",
                  item->ref.sample_id, item->call->space->name, broker->config->node,
                  broker_fenced_why(broker));
        return;
    }
    if (retire_and_answer(item))
        return;
    struct ask *ask = ask_new(item, NULL);
    if (!ask) {
        item_done(item, FB__STATUS__UNAVAILABLE, "the broker is out of memory");
        return;
    }
    item_set_deadline(item, broker->now_ns + item->call->patience_ns);
    broker->directory->ops->locate(broker->directory, item->call->space->name, item->ref.sample_id,
                                   retire_on_located, ask);
}

/* An ack may come from a reader: to consume is a reader's right. An abort takes a sample away from
 * all readers, and needs the right to write. */
static void retire_begin(struct request *request, const Fb__Retire *asked, enum store_reason reason,
                         const char *read_only_refusal) {
    struct call *call = call_open(request, asked->handle, asked->n_items, read_only_refusal);
    if (!call)
        return;
    call->patience_ns = asked->deadline_ms ? asked->deadline_ms * NS_PER_MS : ROUND_TRIP_LIMIT_NS;
    for (size_t i = 0; i < asked->n_items; i++) {
        struct item *item = call_item(call, i);
        if (asked->op_id)
            item->op = (struct store_op){request->session->client_id, asked->op_id + i};
        retire_of(item)->reason = reason;
        retire_one(item, asked->items[i]);
    }
    call_begun(call);
}

static void retire_ack(struct request *request) {
    retire_begin(request, request->message->ack, STORE_ACKED, NULL);
}

static void retire_abort(struct request *request) {
    retire_begin(request, request->message->abort, STORE_ABORTED,
                 "this session opened the store read-only: it may ack, not abort");
}

/* An ack of a generation that its home has not confirmed in time is kept for that home. */
static void retire_expire(struct item *item) {
    const struct ask *ask = LIST_FIRST(&item->asks);
    if (!retire_is_ack(item) || !item->ref.generation || !ask || !ask->peer)
        item_expire_unanswered(item);
    else if (outbox_ack(item->call->broker, ask->peer, item))
        item_done(item, FB__STATUS__OK, NULL);
}

static void retire_leave(struct item *item) {
    publish_leave(&retire_of(item)->ended);
}

/* One status for each item. A sample that was not there is a success. */
static void retire_answer(const struct call *call) {
    Fb__ItemResult *results[FRAME_BATCH_ITEMS_MAX];
    for (uint32_t i = 0; i < call->count; i++) {
        const struct item *item = call_item(call, i);
        Fb__ItemResult *result = results[i] = &retire_of(item)->result;
        fb__item_result__init(result);
        result->status = item->status;
        result->error = item_error(item);
    }
    Fb__ItemsReply items = FB__ITEMS_REPLY__INIT;
    items.n_items = call->count;
    items.items = results;
    Fb__ClientReply reply = FB__CLIENT_REPLY__INIT;
    reply.result_case = FB__CLIENT_REPLY__RESULT_ITEMS;
    reply.items = &items;
    call_send(call, &reply);
}

#define RETIRE_KIND(function)                                                                      \
    {                                                                                              \
        .begin = (function), .item_bytes = sizeof(struct retire_item), .answer = retire_answer,    \
        .expire = retire_expire, .leave = retire_leave                                             \
    }

const struct request_kind ack_kind = RETIRE_KIND(retire_ack);
const struct request_kind abort_kind = RETIRE_KIND(retire_abort);
