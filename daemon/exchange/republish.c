/* SPDX-License-Identifier: Apache-2.0
 *
 * Writes the record of a generation that this node holds, where a check (held_check.c) has found it
 * missing, or in place of one that is not true.
 *
 *   asked --done, and still held--> over           --done, but retired meanwhile--> removed again
 *         --the index cannot be reached--> asked again
 *         --this node is fenced--> over: all that it holds is compared before it serves again
 *         --another record stands--> checked anew
 *
 * The record is written only where nothing has changed since the check: the directory compares the
 * generation that the record names (in_place_of). The decisions are cluster/check.c's
 * (republish_written()).
 */
#include <stdlib.h>
#include <string.h>

#include "exchange/held_check.h"
#include "exchange/nodes.h"

/* One record that is being written again. It lives until the index has answered. */
struct again {
    struct broker *broker;
    struct space *space;
    uint64_t generation, in_place_of;
    bool first; /* counted in exchange->fencing */
    char sample_id[LAYOUT_ID_BYTES_MAX + 1];
};

static void republish_ask(struct again *again);

static void republish_on_removed(void *context, enum directory_result result) {
    (void)context, (void)result; /* the directory retries and counts in pending() by itself */
}

/* It may be retired while its record is being written; then the record is to be removed again. */
static bool republish_is_held(const struct again *again) {
    struct store_info info;
    return store_stat(again->space->store, NULL, 0, again->generation, &info) &&
           info.state == STORE_RESIDENT;
}

static struct directory_record republish_record(const struct again *again) {
    const struct broker *broker = again->broker;
    struct store_info info = {0};
    store_stat(again->space->store, NULL, 0, again->generation, &info);
    return (struct directory_record){.store = again->space->name,
                                     .sample_id = again->sample_id,
                                     .home = broker->config->node,
                                     .generation = again->generation,
                                     .incarnation = broker->options.incarnation,
                                     .bytes = info.place.bytes};
}

/* What follows is the table of republish_written(): again, removed, checked anew, or over. */
static void republish_on_written(void *context, enum directory_result result) {
    struct again *again = context;
    struct broker *broker = again->broker;
    const struct directory_record record = republish_record(again);
    switch (republish_written(nodes_answer(result), republish_is_held(again),
                              broker->exchange->closing)) {
    case REPUBLISH_WRITE:
        republish_ask(again);
        return;
    case REPUBLISH_FREE:
        broker->directory->ops->retire(broker->directory, &record, republish_on_removed, NULL);
        break;
    case REPUBLISH_CHECK_AGAIN:
        if (again->first)
            held_check_first(broker, again->space, again->sample_id);
        else
            held_check_own(broker, again->space, again->sample_id);
        break;
    case REPUBLISH_OVER:
        break;
    }
    fencing_let_go(&broker->exchange->fencing, again->first);
    broker->exchange->held_walk.republishing--;
    held_due_wake(broker);
    again->space->uses--;
    free(again);
}

static void republish_ask(struct again *again) {
    struct broker *broker = again->broker;
    struct directory_record record = republish_record(again);
    broker->directory->ops->republish(broker->directory, &record, again->in_place_of,
                                      republish_on_written, again);
}

void republish(struct broker *broker, struct space *space, const char *sample_id,
               uint64_t generation, uint64_t in_place_of, bool first) {
    struct again *again = calloc(1, sizeof *again);
    if (!again) {
        log_error("store %s: sample %s is not published again: out of memory", space->name,
                  sample_id);
        return;
    }
    *again = (struct again){.broker = broker,
                            .space = space,
                            .generation = generation,
                            .in_place_of = in_place_of,
                            .first = first};
    fencing_hold(&broker->exchange->fencing, first);
    broker->exchange->held_walk.republishing++;
    /* From now on the record of a generation that is superseded is removed as well: usually the
     * later put has replaced it, but one that was written again may have come after that. */
    broker->exchange->has_republished = true;
    strncpy(again->sample_id, sample_id, sizeof again->sample_id - 1);
    space->uses++;
    republish_ask(again);
}
