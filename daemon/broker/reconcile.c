/* SPDX-License-Identifier: Apache-2.0
 *
 * What this node holds against what the index says of it: after a time in which it was fenced, when
 * the index has gone back in time, and now and then. What others ended meanwhile, and kept word of
 * for us, is retired; what the index has lost is published again (held_check.c looks at each); the
 * rest goes on. That a record is missing ends nothing.
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
    bool first;
    size_t retired, checked, removed;
};

static void on_removed(void *context, enum directory_result result) {
    (void)context, (void)result;
}

/* A record of ours that names what we do not hold. */
static void remove_record(struct broker *broker, struct space *space,
                          const struct directory_record *record) {
    if (space)
        publish_clear(broker, space, record->sample_id, record->generation);
    else
        broker->directory->ops->retire(broker->directory, record, on_removed, NULL);
}

static void carry_out(void *context, enum directory_verdict verdict,
                      const struct directory_record *record) {
    struct tally *tally = context;
    struct broker *broker = tally->broker;
    struct space *space = space_find(broker, record->store);
    bool retired = false;
    switch (verdict) {
    case DIRECTORY_RETIRE_HELD:
        if (space && !BROKER_PLANTED(PLANTED_NOT_RECONCILED))
            store_retire(space->store, record->sample_id, (uint32_t)strlen(record->sample_id),
                         record->generation, STORE_SUPERSEDED, broker->now_ns, &retired);
        tally->retired += retired;
        break;
    case DIRECTORY_CHECK_HELD:
        if (space)
            (tally->first ? held_check_first : held_check_own)(broker, space, record->sample_id);
        tally->checked++;
        break;
    case DIRECTORY_RETIRE_RECORD:
        if (space && publish_is_of(broker, space, record->generation))
            break; /* its put goes on */
        remove_record(broker, space, record);
        tally->removed++;
        break;
    }
}

void reconcile(void *owner, const struct directory_records *records,
               const struct directory_records *ended, bool first) {
    struct broker *broker = owner;
    struct held held = {0};
    struct tally tally = {.broker = broker, .first = first};
    for (size_t i = 0; i < ended->count; i++)
        publish_has_ended(broker, &ended->records[i]);
    if (collect(broker, &held)) {
        const struct directory_records has = {held.records, held.count};
        directory_reconcile(&has, records, ended, carry_out, &tally);
    } else {
        log_error("node %s: out of memory: not reconciled with the index", broker->config->node);
    }
    if (tally.retired + tally.checked + tally.removed || first)
        log_info("node %s: reconciled %zu generations with %zu records: %zu retired, %zu whose "
                 "record is missing or another's, %zu records removed",
                 broker->config->node, held.count, records->count, tally.retired, tally.checked,
                 tally.removed);
    free(held.records);
    free(held.ids);
}
