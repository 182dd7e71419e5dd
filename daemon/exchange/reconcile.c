/* SPDX-License-Identifier: Apache-2.0
 *
 * The index has been read as a whole, and is compared with what this node holds: the shell around
 * cluster/reconcile.c, which says when this happens and what is decided. This
 * file asks the store what is held of a sample, and carries out what has been decided.
 *
 * It takes STEPS_A_TURN steps in each turn of the loop, so that clients are answered in between
 * even when a million samples are compared.
 */
#include <string.h>

#include "exchange/held_check.h"
#include "exchange/publish.h"

/* Each step is one look into the store, well under a microsecond. */
#define STEPS_A_TURN 4096u

static void reconcile_on_removed(void *context, enum directory_result result) {
    (void)context, (void)result; /* the directory retries and counts in pending() by itself */
}

/* The resident generation of the sample, whose home is this node; 0 = none. */
static uint64_t reconcile_held_of(const struct space *space, const char *sample_id) {
    struct store_info info;
    return space && held_find(space, sample_id, &info) ? info.generation : 0;
}

static void reconcile_take_ended(struct broker *broker, const struct directory_record *ended) {
    const struct space *space = space_find(broker, ended->store);
    const uint64_t held = reconcile_held_of(space, ended->sample_id);
    bool retired = false;
    /* A put that is on its way has ended as well, if it is not a later one. */
    publish_has_ended(broker, ended);
    if (!reconcile_ends(held, ended->generation))
        return;
    store_retire(space->store, ended->sample_id, (uint32_t)strlen(ended->sample_id), held,
                 STORE_SUPERSEDED, broker->now_ns, &retired);
    broker->exchange->reconciling.retired += retired;
}

static void reconcile_take_record(struct broker *broker, const struct directory_record *record) {
    struct space *space = space_find(broker, record->store);
    const bool put_under_way = space && publish_is_of(broker, space, record->generation);
    if (reconcile_record(&broker->exchange->reconciling,
                         reconcile_held_of(space, record->sample_id), record->generation,
                         put_under_way) == RECONCILE_LEAVE)
        return;
    if (space)
        publish_clear(broker, space, record->sample_id, record->generation);
    else
        broker->directory->ops->retire(broker->directory, record, reconcile_on_removed, NULL);
}

/* False: there is no more. */
static bool reconcile_take_held(struct broker *broker, bool first) {
    struct reconcile_walk *walk = &broker->exchange->reconcile_walk;
    struct store_info info;
    if (walk->space >= broker->space_end)
        return false;
    const struct space *space = &broker->spaces[walk->space];
    if (!space->used || space->dropped || !store_list_next(space->store, &walk->cursor, &info)) {
        walk->space++;
        walk->cursor = 0;
        return true;
    }
    if (info.state == STORE_RESIDENT && !info.landing &&
        reconcile_held(&broker->exchange->reconciling, info.generation))
        held_due_one(broker, space, info.generation, first);
    return true;
}

static void reconcile_tell(const struct broker *broker, bool first) {
    const struct reconciling *reconciling = &broker->exchange->reconciling;
    if (reconciling->retired + reconciling->checked + reconciling->removed || first)
        log_info("node %s: reconciled %zu generations with %zu records: %zu retired, %zu whose "
                 "record is missing or another's, %zu records removed",
                 broker->config->node, reconciling->held, reconciling->records,
                 reconciling->retired, reconciling->checked, reconciling->removed);
}

void reconcile_free(struct broker *broker) {
    reconcile_end(&broker->exchange->reconciling);
}

/* False: there is nothing to go on with. */
static bool reconcile_start(struct broker *broker, const struct directory_records *records,
                            const struct directory_records *ended, bool first) {
    if (first)
        held_due_drop(broker); /* they are found anew */
    else if (broker->exchange->held_walk.due_count)
        return false; /* what the last reading has found is still being looked at */
    broker->exchange->reconcile_walk = (struct reconcile_walk){0};
    if (reconcile_begin(&broker->exchange->reconciling, ended->count, records->count))
        return true;
    log_error("node %s: out of memory: not reconciled with the index", broker->config->node);
    return false;
}

bool reconcile(void *owner, const struct directory_records *records,
               const struct directory_records *ended, bool first, bool begins) {
    struct broker *broker = owner;
    struct reconciling *reconciling = &broker->exchange->reconciling;
    if (begins && !reconcile_start(broker, records, ended, first))
        return true;
    for (uint32_t i = 0; i < STEPS_A_TURN; i++) {
        switch (reconcile_phase(reconciling)) {
        case RECONCILE_ENDS:
            reconcile_take_ended(broker, &ended->records[reconcile_next(reconciling)]);
            break;
        case RECONCILE_RECORDS:
            reconcile_take_record(broker, &records->records[reconcile_next(reconciling)]);
            break;
        case RECONCILE_HELD:
            if (reconcile_take_held(broker, first))
                break;
            reconcile_tell(broker, first);
            reconcile_free(broker);
            return true;
        }
    }
    broker->turn_work += STEPS_A_TURN; /* the directory is asked again only in the next turn */
    return false;
}
