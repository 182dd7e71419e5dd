/* SPDX-License-Identifier: Apache-2.0
 *
 * Retiring what is at home here for another broker: an ack, an abort, or a later put of the same
 * sample there.
 */
#include <stdlib.h>
#include <string.h>

#include "state.h"

static void retire_one(struct broker *broker, struct space *space, const Fb__RetireItem *item,
                       enum store_reason reason, struct store_op op) {
    struct store_answer answer;
    bool retired;
    if (serve_wrong_incarnation(broker, "", item->incarnation)) {
        if (!layout_check_sample_id(item->sample_id))
            publish_clear(broker, space, item->sample_id, item->generation, NULL);
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

/* Another node has put this sample but does not know what it replaced: whatever we hold of it that
 * the index does not name is retired, then the asker is told. One that is SEALED is on its way to
 * the index: that it is not there yet proves nothing, and who replaces it will name it. */
struct index_check {
    TAILQ_ENTRY(index_check) link;
    struct broker *broker;
    struct asking *asking; /* NULL once its connection is gone */
    struct space *space;
    uint32_t request_id;
    uint64_t generation; /* what we held when asked */
    char sample_id[LAYOUT_ID_BYTES_MAX + 1];
};

static void on_checked(void *context, enum directory_result result,
                       const struct directory_record *record, bool ask_peers) {
    (void)ask_peers;
    struct index_check *check = context;
    struct broker *broker = check->broker;
    bool known =
        result == DIRECTORY_OK || result == DIRECTORY_E_NOT_FOUND || result == DIRECTORY_E_LOST;
    bool named = result == DIRECTORY_OK && record->generation == check->generation;
    bool retired;
    if (known && !named)
        store_retire(check->space->store, check->sample_id, (uint32_t)strlen(check->sample_id),
                     check->generation, STORE_SUPERSEDED, broker->now_ns, &retired);
    if (check->asking)
        serve_refuse(check->asking, check->request_id,
                     known ? FB__STATUS__OK : FB__STATUS__UNAVAILABLE,
                     known ? "" : "the directory cannot be reached");
    TAILQ_REMOVE(&broker->checks, check, link);
    check->space->uses--;
    free(check);
}

/* asking NULL: on our own behalf. False: out of memory. */
static bool begin_check(struct broker *broker, struct asking *asking, uint32_t request_id,
                        struct space *space, const struct store_info *held) {
    struct index_check *check = calloc(1, sizeof *check);
    if (!check)
        return false;
    *check = (struct index_check){.broker = broker,
                                  .asking = asking,
                                  .space = space,
                                  .request_id = request_id,
                                  .generation = held->generation};
    strcpy(check->sample_id, held->sample_id);
    space->uses++;
    TAILQ_INSERT_TAIL(&broker->checks, check, link);
    broker->directory->ops->locate(broker->directory, space->name, check->sample_id, on_checked,
                                   check);
    return true;
}

static bool holds(const struct space *space, const char *sample_id, struct store_info *info) {
    return !layout_check_sample_id(sample_id) &&
           store_stat(space->store, sample_id, (uint32_t)strlen(sample_id), 0, info) &&
           !info->landing && info->state == STORE_RESIDENT;
}

/* False: nothing to check, the answer is yes. */
static bool check_index(struct asking *asking, uint32_t request_id, struct space *space,
                        const char *sample_id) {
    struct store_info info;
    if (publish_is_on_the_way(asking->broker, space, sample_id)) {
        serve_refuse(asking, request_id, FB__STATUS__UNAVAILABLE,
                     "a put of it is on its way to the index");
        return true;
    }
    if (!holds(space, sample_id, &info))
        return false;
    if (!begin_check(asking->broker, asking, request_id, space, &info))
        serve_refuse(asking, request_id, FB__STATUS__UNAVAILABLE, "the home is out of memory");
    return true;
}

void serve_check_own(struct broker *broker, struct space *space, const char *sample_id) {
    struct store_info info;
    if (!publish_is_on_the_way(broker, space, sample_id) && holds(space, sample_id, &info))
        begin_check(broker, NULL, 0, space, &info);
}

void serve_forget_checks(struct broker *broker, const struct asking *asking) {
    struct index_check *check;
    TAILQ_FOREACH (check, &broker->checks, link)
        if (check->asking == asking)
            check->asking = NULL;
}

static void supersede(struct asking *asking, uint32_t request_id, struct space *space,
                      const Fb__RetireItem *item) {
    Fb__ItemsReply items = FB__ITEMS_REPLY__INIT;
    items.count = publish_was_done(asking->broker, space, item->generation);
    retire_one(asking->broker, space, item, STORE_SUPERSEDED, (struct store_op){0});
    Fb__PeerReply reply = FB__PEER_REPLY__INIT;
    reply.result_case = FB__PEER_REPLY__RESULT_ITEMS;
    reply.items = &items;
    asker_reply(asking->asker, request_id, &reply, NULL, 0);
}

static bool permitted(Fb__Reason reason) {
    return reason == FB__REASON__ACKED || reason == FB__REASON__ABORTED ||
           reason == FB__REASON__SUPERSEDED;
}

bool serve_retire(struct asking *asking, uint32_t request_id, const Fb__PeerRetire *asked) {
    if (!permitted(asked->reason)) {
        serve_refuse(asking, request_id, FB__STATUS__INVALID,
                     "a peer may not retire for that reason");
        return true;
    }
    struct space *space = space_find(asking->broker, asked->store);
    if (!space)
        return false; /* absent is success */
    if (asked->reason == FB__REASON__SUPERSEDED && asked->n_items == 1 &&
        !asked->items[0]->generation)
        return check_index(asking, request_id, space, asked->items[0]->sample_id);
    if (asked->reason == FB__REASON__SUPERSEDED && asked->n_items == 1) {
        supersede(asking, request_id, space, asked->items[0]);
        return true;
    }
    bool all = true;
    for (size_t i = 0; i < asked->n_items; i++) {
        struct store_op op = {asked->client_id, asked->op_id ? asked->op_id + i : 0};
        retire_one(asking->broker, space, asked->items[i], (enum store_reason)asked->reason, op);
        all &= !publish_pursues(asking->broker, space, asked->items[i]->sample_id,
                                asked->items[i]->generation);
    }
    if (!all)
        serve_refuse(asking, request_id, FB__STATUS__UNAVAILABLE,
                     "its put has not yet seen the end of an older one elsewhere; ask again");
    return !all;
}
