/* SPDX-License-Identifier: Apache-2.0
 *
 * After a time in which this node was fenced: what it holds against what the index says. What was
 * superseded or removed meanwhile is retired, what the index has lost is published again, the rest
 * goes on.
 */
#include <stdlib.h>
#include <string.h>

#include "state.h"

struct held { /* what we hold, as records; ids kept in the store_info behind each */
    struct directory_record *records;
    char (*ids)[STORE_ID_BYTES_MAX + 1];
    size_t count, room;
};

static bool grow(struct held *held) {
    size_t room = held->room ? held->room * 2 : 1024;
    struct directory_record *records = realloc(held->records, room * sizeof *records);
    if (records)
        held->records = records;
    char(*ids)[STORE_ID_BYTES_MAX + 1] = realloc(held->ids, room * sizeof *ids);
    if (ids)
        held->ids = ids;
    held->room = records && ids ? room : held->room;
    return records && ids;
}

static bool add(struct held *held, const struct broker *broker, const struct space *space,
                const struct store_info *info) {
    if (held->count == held->room && !grow(held))
        return false;
    memcpy(held->ids[held->count], info->sample_id, sizeof held->ids[0]);
    held->records[held->count++] = (struct directory_record){
        .store = space->name,
        .home = broker->config->node,
        .generation = info->generation,
        .incarnation = broker->options.incarnation,
        .bytes = info->extent_bytes,
    };
    return true;
}

static bool collect(const struct broker *broker, struct held *held) {
    for (uint32_t i = 0; i < broker->space_end; i++) {
        const struct space *space = &broker->spaces[i];
        struct store_info info;
        uint64_t cursor = 0;
        if (!space->used || space->dropped)
            continue;
        while (store_list_next(space->store, &cursor, &info))
            if (info.state == STORE_RESIDENT && !info.landing && !add(held, broker, space, &info))
                return false;
    }
    for (size_t i = 0; i < held->count; i++)
        held->records[i].sample_id = held->ids[i];
    if (held->count)
        qsort(held->records, held->count, sizeof *held->records, directory_record_compare);
    return true;
}

struct tally {
    struct broker *broker;
    size_t retired, published, removed;
};

/* One generation whose record is to be written again. */
struct again {
    struct broker *broker;
    struct space *space;
    uint64_t generation, in_place_of;
    char sample_id[LAYOUT_ID_BYTES_MAX + 1];
};

static void publish_again(struct again *again);

static void on_published_again(void *context, enum directory_result result) {
    struct again *again = context;
    struct store_info info;
    bool retired;
    if (result == DIRECTORY_E_UNAVAILABLE && !again->broker->closing) {
        publish_again(again);
        return;
    }
    if (result == DIRECTORY_E_NOT_FOUND) /* another put has come first */
        store_retire(again->space->store, again->sample_id, (uint32_t)strlen(again->sample_id),
                     again->generation, STORE_SUPERSEDED, again->broker->now_ns, &retired);
    else if (result == DIRECTORY_OK &&
             !(store_stat(again->space->store, NULL, 0, again->generation, &info) &&
               info.state == STORE_RESIDENT)) /* retired meanwhile */
        publish_clear(again->broker, again->space, again->sample_id, again->generation, false, NULL,
                      NULL);
    again->space->uses--; /* fenced anew: it will be reconciled again */
    free(again);
}

static void publish_again(struct again *again) {
    struct broker *broker = again->broker;
    struct store_info info = {0};
    store_stat(again->space->store, NULL, 0, again->generation, &info);
    struct directory_record record = {again->space->name,          again->sample_id,
                                      broker->config->node,        again->generation,
                                      broker->options.incarnation, info.extent_bytes};
    broker->directory->ops->republish(broker->directory, &record, again->in_place_of,
                                      on_published_again, again);
}

static void begin_again(struct broker *broker, struct space *space,
                        const struct directory_record *record, uint64_t in_place_of) {
    struct again *again = space ? calloc(1, sizeof *again) : NULL;
    if (!again) {
        log_error("store %s: sample %s is not published again: out of memory", record->store,
                  record->sample_id);
        return;
    }
    again->broker = broker;
    again->space = space;
    again->generation = record->generation;
    again->in_place_of = in_place_of;
    strncpy(again->sample_id, record->sample_id, sizeof again->sample_id - 1);
    space->uses++;
    publish_again(again);
}

static void on_removed(void *context, enum directory_result result) {
    (void)context, (void)result;
}

static void carry_out(void *context, enum directory_verdict verdict,
                      const struct directory_record *record, uint64_t in_place_of) {
    struct tally *tally = context;
    struct broker *broker = tally->broker;
    struct directory *directory = broker->directory;
    struct space *space = space_find(broker, record->store);
    bool retired = false;
    switch (verdict) {
    case DIRECTORY_RETIRE_HELD:
        if (space && !BROKER_PLANTED(PLANTED_NOT_RECONCILED))
            store_retire(space->store, record->sample_id, (uint32_t)strlen(record->sample_id),
                         record->generation, STORE_SUPERSEDED, broker->now_ns, &retired);
        tally->retired += retired;
        break;
    case DIRECTORY_PUBLISH_HELD:
        begin_again(broker, space, record, in_place_of);
        tally->published++;
        break;
    case DIRECTORY_RETIRE_RECORD:
        if (space && publish_is_of(broker, space, record->generation))
            break; /* its put goes on */
        if (space)
            publish_clear(broker, space, record->sample_id, record->generation, false, NULL, NULL);
        else
            directory->ops->retire(directory, record, on_removed, NULL);
        tally->removed++;
        break;
    }
}

void reconcile(void *owner, const struct directory_record *records, size_t count, bool index_lost) {
    struct broker *broker = owner;
    struct held held = {0};
    struct tally tally = {.broker = broker};
    if (collect(broker, &held))
        directory_reconcile(held.records, held.count, records, count, index_lost, carry_out,
                            &tally);
    else
        log_error("node %s: out of memory: not reconciled with the index", broker->config->node);
    log_info("node %s: reconciled %zu generations with %zu records: %zu retired, %zu published "
             "again, %zu records removed",
             broker->config->node, held.count, count, tally.retired, tally.published,
             tally.removed);
    free(held.records);
    free(held.ids);
}
