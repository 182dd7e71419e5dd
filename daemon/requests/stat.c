/* SPDX-License-Identifier: Apache-2.0
 *
 * Stat: what is known of one generation, from its home or, for a bare id, from whichever node knows
 * most. No stat takes a lease or changes anything.
 *
 *   new -> told by this node, RESIDENT here --------------------------> done
 *      \-> this node and/or peers asked -> the best answer kept -> all have answered -> done
 *
 * An item keeps the best Fb__StatResult so far as the message that it is. Its answer points to
 * those messages: none of them is packed before the one answer is.
 *
 * Which answer is the best is a matter of rank (sample_rank()): RESIDENT at its home before SEALED,
 * then PLANNED, then what is over. A node that never saw the sample ranks last, so that its answer
 * counts only where nobody knows more.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/knowledge.h"
#include "requests/kinds.h"

/* Of a bare id several nodes may answer, in any order: a landing copy here, the sample itself at
 * its home, or the memory of one that is over. Only the best is kept. */
struct stat_item {
    struct item item;
    Fb__StatResult *best; /* malloc'ed; NULL: none yet */
    size_t best_bytes;    /* counted in call->spec_bytes */
    Fb__StatResult none;  /* for the answer, where there is none */
};

static struct stat_item *stat_of(const struct item *item) {
    return container_of(item, struct stat_item, item);
}

static Fb__SampleState stat_state(const Fb__StatResult *result) {
    return result && result->info ? result->info->state : FB__SAMPLE_STATE__NEVER_SEEN;
}

/* ---- what has been said so far ---- */

/* What replaces a result that does not fit, so that the item still has an answer. */
static Fb__StatResult *stat_too_much(void) {
    Fb__StatResult *result = malloc(sizeof *result);
    if (!result)
        return NULL;
    fb__stat_result__init(result);
    result->status = FB__STATUS__FULL;
    text_set(&result->error,
             "the specs of this batch do not fit one answer; ask for fewer at once");
    return result;
}

/* Takes over the result, and keeps it if it tells more than what is there. All that a call keeps
 * has to fit its one answer: what would not is replaced by a refusal. */
static void stat_offer(struct item *item, Fb__StatResult *result) {
    struct stat_item *stat = stat_of(item);
    struct call *call = item->call;
    if (!result) {
        item->no_memory = true;
        return;
    }
    if (stat->best && sample_rank(stat_state(result)) <= sample_rank(stat_state(stat->best))) {
        fb__stat_result__free_unpacked(result, NULL);
        return;
    }
    size_t bytes = fb__stat_result__get_packed_size(result);
    call->spec_bytes -= stat->best_bytes;
    if (stat->best)
        fb__stat_result__free_unpacked(stat->best, NULL);
    if (call->spec_bytes + bytes > SPEC_BYTES_PER_CALL) {
        fb__stat_result__free_unpacked(result, NULL);
        result = stat_too_much();
        item->no_memory |= !result;
        bytes = result ? fb__stat_result__get_packed_size(result) : 0;
    }
    stat->best = result;
    stat->best_bytes = bytes;
    call->spec_bytes += bytes;
}

/* ---- asking others ---- */

/* The last answer ends the item. Which of several failures is told does not matter much: it is the
 * last one. */
static void stat_on_answer(void *context, const Fb__PeerReply *reply, const uint8_t *payload,
                           size_t payload_bytes, const char *why) {
    (void)payload, (void)payload_bytes;
    struct ask *ask = context;
    struct peer *peer = ask->peer;
    struct item *item = ask_take(ask);
    if (!item)
        return;
    char wrong[SENTENCE_BYTES];
    bool told = reply && reply->result_case == FB__PEER_REPLY__RESULT_STAT && reply->stat;
    bool odd = told && !believe_stat(item, peer, reply->stat, wrong);
    if (told && reply->status == FB__STATUS__OK && !odd)
        stat_offer(item, peer_reply_take(reply, stat));
    if (item->ask_count)
        return;
    if (stat_of(item)->best && !item->no_memory)
        item_done(item, FB__STATUS__OK, NULL);
    else if (odd)
        item_done(item, FB__STATUS__INTERNAL, "sample %s of store %s: node %s: %s",
                  item->ref.sample_id, item->call->space->name, peer_node(peer), wrong);
    else
        item_done(item, reply ? reply->status : FB__STATUS__UNAVAILABLE,
                  "sample %s of store %s: node %s: %s", item->ref.sample_id,
                  item->call->space->name, peer_node(peer), reply ? reply->error : why);
}

static void stat_ask_peer(struct item *item, struct peer *peer) {
    struct call *call = item->call;
    Fb__RetireItem asked;
    Fb__PeerStat stat = FB__PEER_STAT__INIT;
    Fb__PeerRequest request = FB__PEER_REQUEST__INIT;
    ref_to_item(&item->ref, &asked);
    stat.store = call->space->name;
    stat.item = &asked;
    request.op_case = FB__PEER_REQUEST__OP_STAT;
    request.stat = &stat;
    if (!ask_send(ask_new(item, peer), &request, stat_on_answer))
        item_set_deadline(item, call->broker->now_ns + call->patience_ns);
}

/* A peer that cannot be asked is left out: the others may know the sample. */
static void stat_ask_everyone(struct item *item) {
    struct peers *peers = item->call->broker->peers;
    for (struct peer *peer = peers_next(peers, NULL); peer; peer = peers_next(peers, peer))
        stat_ask_peer(item, peer);
}

/* ---- the request ---- */

/* A ref that names another node is asked there and nowhere else: the home alone knows its state. A
 * bare id that is resident here is not looked for elsewhere. */
static void stat_one(struct item *item, const Fb__RetireItem *asked) {
    struct broker *broker = item->call->broker;
    if (!item_name(item, asked->sample_id, asked->generation, asked->home, asked->incarnation))
        return;
    struct peer *home = peers_find(broker->peers, item->ref.home);
    if (ref_is_at(&item->ref, broker->config->node)) {
        stat_offer(item, stat_here(broker, item->call->space, &item->ref,
                                   broker_serves(broker) ? NULL : broker_fenced_why(broker)));
        if (!item->ref.generation && stat_state(stat_of(item)->best) != FB__SAMPLE_STATE__RESIDENT)
            stat_ask_everyone(item);
    } else if (home) {
        stat_ask_peer(item, home);
    }
    if (item->ask_count)
        return;
    if (stat_of(item)->best && !item->no_memory)
        item_done(item, FB__STATUS__OK, NULL);
    else
        item_done(item, FB__STATUS__UNAVAILABLE,
                  "sample %s of store %s is at node %s, which is no peer of node %s or cannot be "
                  "asked now",
                  item->ref.sample_id, item->call->space->name, item->ref.home,
                  broker->config->node);
}

/* A stat needs no right to write, and works on stores that were dropped and that the session still
 * has open. */
static void stat_begin(struct request *request) {
    const Fb__Stat *asked = request->message->stat;
    if (asked->n_items > FRAME_BATCH_ITEMS_MAX) {
        request->breach = "a batch of more than 256 items";
        return;
    }
    struct space *space = request_space(request, asked->handle, "");
    struct call *call = space ? call_new(request, space, asked->n_items) : NULL;
    if (!call)
        return;
    call->patience_ns = asked->deadline_ms ? asked->deadline_ms * NS_PER_MS : ROUND_TRIP_LIMIT_NS;
    for (size_t i = 0; i < asked->n_items; i++)
        stat_one(call_item(call, i), asked->items[i]);
    call_begun(call);
}

/* The same form for an item that nobody could answer: its status and sentence. */
static Fb__StatResult *stat_result(const struct item *item) {
    struct stat_item *stat = stat_of(item);
    if (stat->best && item->status == FB__STATUS__OK)
        return stat->best;
    fb__stat_result__init(&stat->none);
    stat->none.status = item->status;
    stat->none.error = item_error(item);
    return &stat->none;
}

static void stat_answer(const struct call *call) {
    Fb__StatResult *results[FRAME_BATCH_ITEMS_MAX];
    for (uint32_t i = 0; i < call->count; i++)
        results[i] = stat_result(call_item(call, i));
    Fb__StatReply stat = FB__STAT_REPLY__INIT;
    stat.n_items = call->count;
    stat.items = results;
    Fb__ClientReply reply = FB__CLIENT_REPLY__INIT;
    reply.result_case = FB__CLIENT_REPLY__RESULT_STAT;
    reply.stat = &stat;
    call_send(call, &reply);
}

static void stat_free_item(struct item *item) {
    if (stat_of(item)->best)
        fb__stat_result__free_unpacked(stat_of(item)->best, NULL);
}

const struct request_kind stat_kind = {
    .begin = stat_begin,
    .item_bytes = sizeof(struct stat_item),
    .answer = stat_answer,
    .free_item = stat_free_item,
};
