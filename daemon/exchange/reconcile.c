/* SPDX-License-Identifier: Apache-2.0
 *
 * What this node holds against what the index says of it: after a time in which it was fenced, when
 * the index has gone back in time, and now and then. What others ended meanwhile, and kept word of
 * for us, is retired; what the index has lost is published again (held_check.c looks at each); the
 * rest goes on. That a record is missing ends nothing.
 *
 *   the ends kept for us -> the records that name us -> what we hold -> done
 *
 * Some of it in each turn of the loop. What changes in between is judged as it is when its turn
 * comes: a record of what is held or being put by then stays, and what has been put since the
 * index was read is looked up there, and found.
 */
#include <stdlib.h>
#include <string.h>

#include "exchange/exchange.h"

#define STEPS_A_TURN 4096u

static void reconcile_on_removed(void *context, enum directory_result result) {
    (void)context, (void)result;
}

/* An end is of one generation, and of what this node has put before of the sample: the numbers that
 * one node gives out only grow. */
static void reconcile_take_ended(struct broker *broker, const struct directory_record *ended) {
    struct space *space = space_find(broker, ended->store);
    struct store_info info;
    bool retired = false;
    publish_has_ended(broker, ended);
    if (!space || !held_find(space, ended->sample_id, &info) ||
        info.generation > ended->generation || BROKER_PLANTED(PLANTED_NOT_RECONCILED))
        return;
    store_retire(space->store, info.sample_id, (uint32_t)strlen(info.sample_id), info.generation,
                 STORE_SUPERSEDED, broker->now_ns, &retired);
    broker->exchange->reconciling.retired += retired;
}

static void reconcile_take_record(struct broker *broker, const struct directory_record *record) {
    struct reconciling *reconciling = &broker->exchange->reconciling;
    struct space *space = space_find(broker, record->store);
    struct store_info info;
    if (space && held_find(space, record->sample_id, &info)) {
        if (info.generation == record->generation)
            generation_set_add(&reconciling->named, record->generation);
        return; /* if not: looked at as one that no record names */
    }
    if (space && publish_is_of(broker, space, record->generation))
        return; /* its put goes on */
    if (space)
        publish_clear(broker, space, record->sample_id, record->generation);
    else
        broker->directory->ops->retire(broker->directory, record, reconcile_on_removed, NULL);
    reconciling->removed++;
}

/* False: there is no more. */
static bool reconcile_take_held(struct broker *broker, bool first) {
    struct reconciling *reconciling = &broker->exchange->reconciling;
    struct store_info info;
    if (reconciling->space >= broker->space_end)
        return false;
    const struct space *space = &broker->spaces[reconciling->space];
    if (!space->used || space->dropped ||
        !store_list_next(space->store, &reconciling->cursor, &info)) {
        reconciling->space++;
        reconciling->cursor = 0;
        return true;
    }
    if (info.state != STORE_RESIDENT || info.landing)
        return true;
    reconciling->held++;
    if (generation_set_has(&reconciling->named, info.generation))
        return true;
    held_check_due(broker, space, info.generation, first);
    reconciling->checked++;
    return true;
}

static void reconcile_tell(const struct broker *broker, size_t record_count, bool first) {
    const struct reconciling *reconciling = &broker->exchange->reconciling;
    if (reconciling->retired + reconciling->checked + reconciling->removed || first)
        log_info("node %s: reconciled %zu generations with %zu records: %zu retired, %zu whose "
                 "record is missing or another's, %zu records removed",
                 broker->config->node, reconciling->held, record_count, reconciling->retired,
                 reconciling->checked, reconciling->removed);
}

void reconcile_free(struct broker *broker) {
    generation_set_deinit(&broker->exchange->reconciling.named);
}

static bool reconcile_begin(struct broker *broker, size_t record_count) {
    reconcile_free(broker);
    broker->exchange->reconciling = (struct reconciling){0};
    if (generation_set_init(&broker->exchange->reconciling.named, record_count))
        return true;
    log_error("node %s: out of memory: not reconciled with the index", broker->config->node);
    return false;
}

bool reconcile(void *owner, const struct directory_records *records,
               const struct directory_records *ended, bool first, bool begins) {
    struct broker *broker = owner;
    struct reconciling *reconciling = &broker->exchange->reconciling;
    if (begins && first)
        held_checks_drop_due(broker); /* they are found anew */
    else if (begins && broker->exchange->held_walk.due_count)
        return true; /* what the last has found is still being looked at */
    if (begins && !reconcile_begin(broker, records->count))
        return true;
    for (uint32_t i = 0; i < STEPS_A_TURN; i++) {
        size_t at = reconciling->at;
        if (at < ended->count) {
            reconcile_take_ended(broker, &ended->records[at]);
            reconciling->at++;
        } else if (at - ended->count < records->count) {
            reconcile_take_record(broker, &records->records[at - ended->count]);
            reconciling->at++;
        } else if (!reconcile_take_held(broker, first)) {
            reconcile_tell(broker, records->count, first);
            reconcile_free(broker);
            return true;
        }
    }
    broker->turn_work += STEPS_A_TURN; /* the directory is asked again only in the next turn */
    return false;
}
