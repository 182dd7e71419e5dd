/* SPDX-License-Identifier: Apache-2.0
 *
 * `abort`, `ack`, `gc`, `drain`: making samples go, and waiting until they have.
 *
 * abort and ack take refs, ids or a manifest (select.c). They are sent in runs of one store
 * each, as few messages as possible. A sample that is not there is a success.
 *
 * drain asks the broker again and again for half a second at a time. The broker itself would
 * wait for as long as it is told, but then a person would see nothing move.
 */
#include <stdlib.h>
#include <string.h>

#include "featurectl/memory.h"
#include "featurectl/progress.h"
#include "featurectl/select.h"

#define DRAIN_DEADLINE_MS 30000u
#define DRAIN_SLICE_MS    500u

/* One field: how many were aborted, acked or freed. */
static void retire_print_count(struct context *context, const char *key, uint64_t count) {
    const struct table_column columns[] = {{key, key, TABLE_LEFT}};
    struct table table;
    CONTEXT_TABLE(context, &table, columns);
    table_count(&table, count);
    table_end_row(&table);
    table_finish(&table, TABLE_FIELDS);
}

/* ---- abort, ack ---- */

/* What abort and ack differ in. A reader may ack what it has read; aborting is a writer's right. */
struct retire {
    int (*call)(struct feature_store *store, const struct feature_key *keys, size_t count,
                int *statuses_out);
    bool read_only;
    const char *done; /* names the count of what was done */
};

/* Length of the run of targets, from `at` on, that lie in one store. */
static size_t retire_run_length(const struct targets *targets, size_t at) {
    size_t end = at + 1;
    while (end < targets->count && strcmp(targets->list[end].store, targets->list[at].store) == 0)
        end++;
    return end - at;
}

/* Adds to *done how many were done. Tells of the first that was not. */
static int retire_run(struct context *context, const struct retire *retire,
                      const struct target *targets, size_t count, uint64_t *done) {
    struct feature_store *store;
    int status = context_open(context, targets[0].store, retire->read_only, &store);
    if (status)
        return status;
    struct feature_key *keys = memory_grow(NULL, count, sizeof *keys);
    for (size_t i = 0; i < count; i++)
        keys[i] = refs_key(&targets[i]);
    int *statuses = memory_grow(NULL, count, sizeof *statuses);
    status = retire->call(store, keys, count, statuses);
    size_t first_failed = 0;
    for (size_t i = count; i-- > 0;)
        if (statuses[i])
            first_failed = i;
        else
            ++*done;
    free(statuses);
    free(keys);
    return status ? context_fail(context, status, targets[first_failed].text) : FEATURE_OK;
}

/* Every run is tried, also after one has failed. What was done is printed in any case, because a
 * part of a manifest may have been retired. `damage` is set when lines of the manifest could not
 * be read.
 */
static int retire_all(struct context *context, const struct retire *retire) {
    struct targets targets;
    int first_failure = select_targets(context, &targets);
    uint64_t done = 0;
    for (size_t at = 0, count; at < targets.count; at += count) {
        count = retire_run_length(&targets, at);
        int status = retire_run(context, retire, &targets.list[at], count, &done);
        first_failure = first_failure ? first_failure : status;
    }
    if (done)
        retire_print_count(context, retire->done, done);
    first_failure = first_failure ? first_failure : targets.damage;
    refs_free(&targets);
    return first_failure;
}

/* The store is opened for writing: this takes a sample away from all readers. */
static int retire_run_abort(struct context *context) {
    static const struct retire retire = {feature_abort, false, "aborted"};
    return retire_all(context, &retire);
}

/* Read-only is enough: to consume is a right of whoever may read. */
static int retire_run_ack(struct context *context) {
    static const struct retire retire = {feature_ack, true, "acked"};
    return retire_all(context, &retire);
}

static const struct option_spec retire_options[] = {
    OPTION_MANIFEST, OPTION_ID, OPTION_SECRET_FILE, {0}};

const struct command command_abort = {
    .name = "abort",
    .arguments = "[REF...]",
    .summary = "retire samples now; readers that hold them keep their bytes",
    .options = retire_options,
    .arguments_max = COMMAND_ARGUMENTS_ANY,
    .run = retire_run_abort,
};

const struct command command_ack = {
    .name = "ack",
    .arguments = "[REF...]",
    .summary = "acknowledge samples of an on-ack store, which frees them",
    .options = retire_options,
    .arguments_max = COMMAND_ARGUMENTS_ANY,
    .run = retire_run_ack,
};

/* ---- gc ---- */

/* Opens the store for writing: freeing other people's samples takes the store's secret. */
static int retire_run_gc(struct context *context) {
    const char *name = options_text(&context->options, "store", NULL);
    struct feature_store *store;
    uint64_t freed;
    int status = context_open(context, name, false, &store);
    if (status)
        return status;
    status = feature_gc(store, options_number(&context->options, "max-hold", 0), &freed);
    if (status)
        return context_fail(context, status, name);
    retire_print_count(context, "freed", freed);
    return FEATURE_OK;
}

static const struct option_spec gc_options[] = {
    OPTION_STORE(true, "store to look through"),
    {.name = "max-hold",
     .kind = OPTION_DURATION,
     .argument = "TIME",
     .help = "free unleased samples older than that (default: the store's own setting)"},
    OPTION_SECRET_FILE,
    {0},
};

const struct command command_gc = {
    .name = "gc",
    .arguments = "",
    .summary = "free unleased samples that are older than the store's max-hold",
    .options = gc_options,
    .run = retire_run_gc,
};

/* ---- drain ---- */

/* One slice after another, so that a person sees it move. */
static int retire_drain_in_slices(struct context *context, struct progress *progress) {
    uint32_t left_ms = options_deadline_ms(&context->options, "deadline", DRAIN_DEADLINE_MS);
    uint64_t most = 0;
    for (;;) {
        uint32_t slice_ms = left_ms < DRAIN_SLICE_MS ? left_ms : DRAIN_SLICE_MS;
        struct feature_health health = {.size = sizeof health};
        int status = feature_drain(context->feature, slice_ms);
        left_ms -= slice_ms;
        if (status != FEATURE_E_TIMEOUT || !left_ms)
            return status;
        if (feature_health(context->feature, &health) != FEATURE_OK)
            continue;
        most = health.release_pending > most ? health.release_pending : most;
        progress_set(progress, most - health.release_pending, most);
    }
}

/* Only the deadline, a broken connection or a refusal end the waiting early; then the broker
 * says what is left.
 */
static int retire_run_drain(struct context *context) {
    struct progress progress;
    progress_begin(&progress, context->err, "drain", PROGRESS_RELEASES, 0);
    int status = retire_drain_in_slices(context, &progress);
    progress_end(&progress);
    if (status)
        return context_fail(context, status, NULL);
    retire_print_count(context, "release_pending", 0);
    return FEATURE_OK;
}

static const struct option_spec drain_options[] = {
    {.name = "deadline",
     .kind = OPTION_DURATION,
     .argument = "TIME",
     .help = "give up after that long and say what is left (default 30s)"},
    {0},
};

const struct command command_drain = {
    .name = "drain",
    .arguments = "",
    .summary = "wait until every release and retire has reached its home",
    .options = drain_options,
    .run = retire_run_drain,
};
