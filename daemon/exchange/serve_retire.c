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

static void retire_one(struct asking *asking, struct space *space, const Fb__RetireItem *item,
                       enum store_reason reason, struct store_op op) {
    struct broker *broker = asking->broker;
    struct store_answer answer;
    bool retired;
    if (nodes_is_earlier_us(broker, "", item->incarnation)) {
        const struct directory_record lost = {.store = space->name,
                                              .sample_id = item->sample_id,
                                              .home = broker->config->node,
                                              .generation = item->generation,
                                              .incarnation = item->incarnation};
        if (!layout_check_sample_id(item->sample_id))
            publish_end_lost(broker, space, &lost, reason, false, asking->account, NULL);
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

/* A put there has replaced what we put last; so it has what we put before that, which is still here
 * when our own put was not over. */
static void retire_earlier(struct broker *broker, struct space *space, const Fb__RetireItem *item) {
    struct store_info info;
    bool retired;
    if (!layout_check_sample_id(item->sample_id) &&
        item->incarnation == broker->options.incarnation &&
        store_stat(space->store, item->sample_id, (uint32_t)strlen(item->sample_id), 0, &info) &&
        info.state == STORE_RESIDENT && !info.landing && info.generation < item->generation)
        store_retire(space->store, item->sample_id, (uint32_t)strlen(item->sample_id),
                     info.generation, STORE_SUPERSEDED, broker->now_ns, &retired);
}

static void serve_retire_supersede(const struct serve_asked *asked, struct space *space,
                                   const Fb__RetireItem *item) {
    struct asking *asking = asked->asking;
    Fb__ItemsReply items = FB__ITEMS_REPLY__INIT;
    items.count = publish_was_done(asking->broker, space, item->generation);
    retire_one(asking, space, item, STORE_SUPERSEDED, (struct store_op){0});
    retire_earlier(asking->broker, space, item);
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
        retire_one(asking, space, item, (enum store_reason)retire->reason, op);
        all &= !publish_pursues(asking->broker, space, item->sample_id, item->generation);
    }
    if (all)
        serve_confirm(asked);
    else
        serve_refuse(asking, asked->request_id, FB__STATUS__UNAVAILABLE,
                     "its put has not yet seen the end of an older one elsewhere; ask again");
}

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
