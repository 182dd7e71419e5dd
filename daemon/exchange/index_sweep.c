/* SPDX-License-Identifier: Apache-2.0
 *
 * Records of homes that are dead are kept for lost_keep, so that a get says LOST and not NOT_FOUND,
 * and so that a home that was only cut off finds them when it comes back; then they are removed.
 *
 *   IDLE --due--> page --(records of homes long dead)--> removal --> next page ... --> IDLE
 *
 * This is the shell around cluster/dead_homes.c, which says whose records may go. The member with
 * the first name does it, four times in every lost_keep: any number may at once, for removals are
 * guarded (directory.h: a record is removed only where it is still the one that was read). A look
 * that cannot be brought to its end is begun again sooner.
 */
#include <stdlib.h>
#include <string.h>

#include "exchange/nodes.h"

#define LOOKS_PER_KEEP       4u
#define LOOK_INTERVAL_NS_MAX (15ull * 60 * 1000 * NS_PER_MS)
#define RETRY_NS             (5ull * 1000 * NS_PER_MS)

struct sweep {
    struct broker *broker;
    struct deadline due;    /* the next look; set unless one is under way or none is wanted */
    bool under_way, failed; /* failed: the last look was not brought to its end */
    uint64_t ended_ns;      /* the last look; at first: when this node began */
    uint64_t removed;       /* in this look */
    char next[1024];        /* where the next page begins */
    struct dead_homes homes;
};

static void index_sweep_on_due(struct deadline *due, uint64_t now_ns);

struct sweep *sweep_new(struct broker *broker) {
    struct sweep *sweep = calloc(1, sizeof *sweep);
    if (!sweep)
        return NULL;
    sweep->broker = broker;
    dead_homes_init(&sweep->homes);
    deadline_init(&sweep->due, index_sweep_on_due);
    deadlines_set(&broker->deadlines, &sweep->due, 0);
    return sweep;
}

void sweep_free(struct broker *broker) {
    if (!broker->exchange->sweep)
        return;
    dead_homes_forget(&broker->exchange->sweep->homes);
    deadlines_clear(&broker->deadlines, &broker->exchange->sweep->due);
    free(broker->exchange->sweep);
}

static uint64_t index_sweep_keep_ns(const struct broker *broker) {
    return broker->config->lost_keep_ms * NS_PER_MS;
}

static uint64_t index_sweep_interval_ns(const struct broker *broker) {
    uint64_t interval = index_sweep_keep_ns(broker) / LOOKS_PER_KEEP;
    return interval < LOOK_INTERVAL_NS_MAX ? interval : LOOK_INTERVAL_NS_MAX;
}

static bool index_sweep_is_wanted(const struct broker *broker) {
    return broker->directory->ops->audit && broker->config->lost_keep_ms;
}

static bool index_sweep_is_ours(const struct broker *broker) {
    return broker_serves(broker) && nodes_are_led_by_us(broker);
}

/* By the configuration of this moment, which may have been read again. */
static uint64_t index_sweep_next_look_ns(const struct sweep *sweep) {
    uint64_t interval = index_sweep_interval_ns(sweep->broker);
    return sweep->ended_ns + (sweep->failed && interval > RETRY_NS ? RETRY_NS : interval);
}

/* To be called when a look has ended, or the configuration has changed. */
static void index_sweep_schedule(struct sweep *sweep) {
    bool idle = sweep->under_way || !index_sweep_is_wanted(sweep->broker);
    deadlines_set_or_clear(&sweep->broker->deadlines, &sweep->due,
                           idle ? UINT64_MAX : index_sweep_next_look_ns(sweep));
}

void sweep_reconfigured(struct broker *broker) {
    index_sweep_schedule(broker->exchange->sweep);
}

static void index_sweep_end_look(struct sweep *sweep, bool failed) {
    sweep->under_way = false;
    sweep->failed = failed;
    sweep->ended_ns = sweep->broker->now_ns;
    index_sweep_schedule(sweep);
}

/* ---- one page ---- */

/* index_sweep_on_swept() and index_sweep_go_on() lead back to it. */
static void index_sweep_ask_page(struct sweep *sweep);

/* The page has been dealt with: the next one, or the end of the look. */
static void index_sweep_go_on(struct sweep *sweep) {
    if (*sweep->next) {
        index_sweep_ask_page(sweep);
        return;
    }
    dead_homes_end_look(&sweep->homes);
    if (sweep->removed)
        log_info("index: %llu records removed: their homes have been dead for %llu s",
                 (unsigned long long)sweep->removed,
                 (unsigned long long)(sweep->broker->config->lost_keep_ms / 1000));
    index_sweep_end_look(sweep, false);
}

static void index_sweep_on_swept(void *context, enum directory_result result, size_t removed) {
    struct sweep *sweep = context;
    sweep->removed += removed;
    if (result == DIRECTORY_OK)
        index_sweep_go_on(sweep);
    else
        index_sweep_end_look(sweep, true);
}

/* The node may have been fenced while the page was on its way, or a member with an earlier name may
 * have come: then this look ends, and nothing is removed. */
static void index_sweep_on_page(void *context, enum directory_result result,
                                const struct directory_listed *listed, size_t count,
                                size_t unreadable, const char *next) {
    (void)unreadable;
    struct sweep *sweep = context;
    struct broker *broker = sweep->broker;
    struct directory_record lost[DIRECTORY_PAGE_RECORDS];
    size_t lost_count = 0;
    if (result != DIRECTORY_OK || !index_sweep_is_ours(broker)) {
        index_sweep_end_look(sweep, true);
        return;
    }
    strncpy(sweep->next, next, sizeof sweep->next - 1);
    for (size_t i = 0; i < count; i++) {
        const struct directory_record *record = &listed[i].record;
        if (!listed[i].home_is_member &&
            dead_homes_come_upon(&sweep->homes, record->home, record->incarnation, broker->now_ns,
                                 index_sweep_keep_ns(broker)))
            lost[lost_count++] = *record;
    }
    if (!lost_count)
        index_sweep_go_on(sweep);
    else
        broker->directory->ops->audit->sweep(broker->directory, lost, lost_count,
                                             index_sweep_on_swept, sweep);
}

static void index_sweep_ask_page(struct sweep *sweep) {
    struct directory *directory = sweep->broker->directory;
    directory->ops->audit->list(directory, NULL, sweep->next, index_sweep_on_page, sweep);
}

/* ---- the part as a whole ---- */

static void index_sweep_on_due(struct deadline *due, uint64_t now_ns) {
    struct sweep *sweep = container_of(due, struct sweep, due);
    struct broker *broker = sweep->broker;
    (void)now_ns;           /* broker->now_ns */
    if (!sweep->ended_ns) { /* a node that starts knows nobody yet: the first look comes later */
        index_sweep_end_look(sweep, false);
        return;
    }
    if (!index_sweep_is_ours(broker)) {
        dead_homes_forget(&sweep->homes);
        index_sweep_end_look(sweep, false);
        return;
    }
    sweep->under_way = true;
    dead_homes_begin_look(&sweep->homes);
    sweep->removed = 0;
    sweep->next[0] = '\0';
    index_sweep_ask_page(sweep);
}
