/* SPDX-License-Identifier: Apache-2.0
 *
 * Retiring what is at home here for another broker: an ack, an abort, or a later put of the same
 * sample there.
 */
#include <stdlib.h>
#include <string.h>

#include "exchange/held_check.h"
#include "exchange/nodes.h"
#include "exchange/publish.h"
#include "exchange/serve.h"

/* What the ref names was held by an earlier incarnation of this node, and went with its memory. But
 * the record may still stand in the index, and that incarnation may in truth live on, cut off from
 * everybody. So the end is recorded for it, too. */
static void serve_retire_of_earlier_us(struct asking *asking, struct space *space,
                                       const Fb__RetireItem *item, enum store_reason reason) {
    const struct directory_record lost = {.store = space->name,
                                          .sample_id = item->sample_id,
                                          .home = asking->broker->config->node,
                                          .generation = item->generation,
                                          .incarnation = item->incarnation};
    if (!layout_check_sample_id(item->sample_id))
        publish_end_lost(asking->broker, space, &lost, reason, false, asking->account, NULL);
}

/* Retires one generation here, once for each operation: an ack is sent again when its first answer
 * was lost, and one by id (generation 0) would end what has been put in between. In a store of
 * policy `retain` an ack ends nothing. op {0}: it is not repeated. */
static void serve_retire_one(struct asking *asking, struct space *space, const Fb__RetireItem *item,
                             enum store_reason reason, struct store_op op) {
    struct broker *broker = asking->broker;
    struct store_answer answer;
    bool retired;
    if (nodes_is_earlier_us(broker, "", item->incarnation)) {
        serve_retire_of_earlier_us(asking, space, item, reason);
        return;
    }
    if ((reason == STORE_ACKED && space->settings.policy == FB__POLICY__RETAIN) ||
        store_replay_find(space->store, op, &answer))
        return;
    store_retire(space->store, item->sample_id, (uint32_t)strlen(item->sample_id), item->generation,
                 reason, broker->now_ns, &retired);
    answer = (struct store_answer){FB__STATUS__OK, retired};
    store_replay_record(space->store, op, &answer);
}

/* A put of the asking node has replaced the generation that this node put last. So it has replaced
 * what this node put before that as well, which is still here when our last put is not over. For
 * example: 7 is resident here, our put of 8 is on its way, and node b's put 9 has replaced the
 * record of 8: both 8 and 7 are to go. */
static void serve_retire_earlier(struct broker *broker, struct space *space,
                                 const Fb__RetireItem *item) {
    struct store_info info;
    bool retired;
    if (!layout_check_sample_id(item->sample_id) &&
        item->incarnation == broker->options.incarnation &&
        store_stat(space->store, item->sample_id, (uint32_t)strlen(item->sample_id), 0, &info) &&
        info.state == STORE_RESIDENT && !info.landing && info.generation < item->generation)
        store_retire(space->store, item->sample_id, (uint32_t)strlen(item->sample_id),
                     info.generation, STORE_SUPERSEDED, broker->now_ns, &retired);
}

/* The count in the answer says whether our put had been answered before (1) or not (0). If it had
 * not, the asking node knows that what our put had replaced may still be read elsewhere, and asks
 * all other nodes. So the count is taken before anything is retired. */
static void serve_retire_supersede(const struct serve_asked *asked, struct space *space,
                                   const Fb__RetireItem *item) {
    struct asking *asking = asked->asking;
    Fb__ItemsReply items = FB__ITEMS_REPLY__INIT;
    items.count = publish_was_done(asking->broker, space, item->generation);
    serve_retire_one(asking, space, item, STORE_SUPERSEDED, (struct store_op){0});
    serve_retire_earlier(asking->broker, space, item);
    Fb__PeerReply reply = FB__PEER_REPLY__INIT;
    reply.result_case = FB__PEER_REPLY__RESULT_ITEMS;
    reply.items = &items;
    asker_reply(asking->asker, asked->request_id, &reply, NULL, 0);
}

/* Acks and aborts. The asking broker may tell its client that the sample is gone only when no older
 * generation is left elsewhere: until then it is refused, and asks again. */
static void serve_retire_all(const struct serve_asked *asked, struct space *space) {
    struct asking *asking = asked->asking;
    const Fb__PeerRetire *retire = asked->message->retire;
    bool all = true;
    for (size_t i = 0; i < retire->n_items; i++) {
        const Fb__RetireItem *item = retire->items[i];
        struct store_op op = {retire->client_id, retire->op_id ? retire->op_id + i : 0};
        serve_retire_one(asking, space, item, (enum store_reason)retire->reason, op);
        all &= !publish_pursues(asking->broker, space, item->sample_id, item->generation);
    }
    if (all)
        serve_confirm(asked);
    else
        serve_refuse(asking, asked->request_id, FB__STATUS__UNAVAILABLE,
                     "its put has not yet seen the end of an older one elsewhere; ask again");
}

/* Other reasons are the home's own: whether a sample is consumed, or has stood for too long, is
 * decided by the store that holds it. */
static bool serve_retire_permitted(Fb__Reason reason) {
    return reason == FB__REASON__ACKED || reason == FB__REASON__ABORTED ||
           reason == FB__REASON__SUPERSEDED;
}

void serve_retire(const struct serve_asked *asked) {
    const Fb__PeerRetire *retire = asked->message->retire;
    struct asking *asking = asked->asking;
    struct space *space = space_find(asking->broker, retire->store);
    const bool of_one = retire->reason == FB__REASON__SUPERSEDED && retire->n_items == 1;
    struct charge_refusal full;
    if (!serve_retire_permitted(retire->reason)) {
        const bool known = retire->reason <= FB__REASON__RESERVE_ENDED;
        serve_refuse(asking, asked->request_id,
                     known ? FB__STATUS__INVALID : FB__STATUS__UNSUPPORTED,
                     "a peer may not retire for that reason");
    } else if (!space) {
        serve_confirm(asked); /* what is not here has ended here */
    } else if (!account_has_room(asking->account, CHARGE_WAITS, retire->n_items, &full)) {
        serve_refuse_full(asking, asked->request_id, &full);
    } else if (of_one && !retire->items[0]->generation) {
        held_check_serve(asked, space, retire->items[0]->sample_id);
    } else if (of_one) {
        serve_retire_supersede(asked, space, retire->items[0]);
    } else {
        serve_retire_all(asked, space);
    }
}
