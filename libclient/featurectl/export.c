/* SPDX-License-Identifier: Apache-2.0
 *
 * `export`: every resident sample of a store becomes a safetensors file, and a line of a manifest.
 *
 * The steps:
 *   1. Each node of the cluster lists the samples that it holds.
 *   2. Samples that have a line in the manifest already are left out.
 *   3. Each other sample is got; its bytes are written to a temporary file; the file is renamed to
 *      its own name; a line is added to the manifest; the lease is released as returned, so that
 * the export consumes nothing.
 *
 * It may be interrupted anywhere and started again: a sample whose generation has a line, and whose
 * file has the size that follows from its ref, is not written again (export_dir.h). A sample that
 * has gone since it was listed is counted and is no failure, for the store lives on meanwhile. A
 * home that does not answer costs its own samples. When the disk takes no more, the export stops.
 */
#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "featurectl/each_store.h"
#include "featurectl/export_dir.h"
#include "featurectl/manifest.h"
#include "featurectl/members.h"
#include "featurectl/memory.h"
#include "featurectl/pages.h"
#include "featurectl/shown.h"
#include "featurectl/units.h"
#include "featurectl/view_file.h"

#define EXPORT_DEADLINE_MS 30000u

struct export_item {
    char *sample_id, *home;
    uint64_t generation, bytes;
};

struct export {
    struct context *context;
    const char *directory, *store_name;
    struct feature_store *store;
    struct manifest manifest;
    char *manifest_path;
    struct export_item *items;
    size_t item_count, item_room;
    struct targets before; /* lines of the manifest */
    void *known;           /* tree of pointers into before.list, by sample_id */
    struct progress progress;
    uint64_t written, written_bytes, there, gone;
    const char **failed; /* borrowed from items */
    size_t failed_count;
    char *silent_home; /* the last one that did not answer; borrowed from items */
    int first_failure;
    bool stopped; /* the directory takes no more */
};

/* ---- what there is to do ---- */

static void export_visit(void *user, const struct pages_query *query,
                         const Fb__SampleInfo *sample) {
    struct export *export = user;
    (void)query;
    if (sample->state != FB__SAMPLE_STATE__RESIDENT || sample->landing)
        return; /* a copy: its home lists the sample itself */
    if (export->item_count == export->item_room) {
        export->item_room = export->item_room ? export->item_room * 2 : 64;
        export->items = memory_grow(export->items, export->item_room, sizeof *export->items);
    }
    export->items[export->item_count++] =
        (struct export_item){.sample_id = memory_copy(sample->sample_id),
                             .home = memory_copy(sample->home),
                             .generation = sample->generation,
                             .bytes = sample->extent_bytes};
}

/* From each member its own; one that is silent is named, and the others' samples are exported. */
static int export_list(struct export *export, const Fb__StoreInfo *store) {
    struct context *context = export->context;
    struct pages_query query = {.store = store,
                                .prefix = options_text(&context->options, "prefix", "")};
    Fb__ClientReply *members;
    query.handle = feature_admin_handle(export->store);
    int status = members_fetch(context, &members), first_failure = status;
    if (status)
        return status;
    const Fb__NodesReply *nodes = members->nodes;
    size_t count = options_given(&context->options, "local") ? 1 : nodes->n_nodes;
    for (size_t i = 0; i < count; i++) {
        const char *silence = members_silence(nodes->nodes[i]);
        if (members_has_left(nodes->nodes[i]))
            continue;
        query.node = nodes->nodes[i]->node;
        status = silence ? context_refuse(context, FEATURE_E_UNAVAILABLE, store->store,
                                          "node %s is not exported: %s", query.node, silence)
                         : pages_list(context, &query, export_visit, export);
        first_failure = first_failure ? first_failure : status;
    }
    context_free_reply(members);
    export->failed = memory_grow(NULL, export->item_count, sizeof *export->failed);
    export->first_failure = first_failure;
    return FEATURE_OK;
}

/* For tsearch(3). Ids are unique in a store, and the directory is of one store. */
static int export_compare_targets(const void *a, const void *b) {
    const struct target *left = a, *right = b;
    return strcmp(left->sample_id, right->sample_id);
}

/* As FILE:LINE, which editors understand. */
static void export_say_line(void *user, size_t line, const char *why) {
    const struct export *export = user;
    char *object = memory_print("%s:%zu", export->manifest_path, line);
    context_warn(export->context, object, "%s", why);
    free(object);
}

/* The lines of an earlier run. A line that an interrupted write has torn is skipped, and its sample
 * written again.
 */
static int export_read_manifest(struct export *export) {
    char why[512];
    if (access(export->manifest_path, F_OK) != 0)
        return FEATURE_OK;
    int status = manifest_read(&export->before, export->manifest_path, NULL, export_say_line,
                               export, why, sizeof why);
    if (status && status != FEATURE_E_NOT_FOUND) /* no line yet */
        return context_refuse(export->context, status, export->manifest_path, "%s", why);
    for (size_t i = 0; i < export->before.count; i++)
        if (!tsearch(&export->before.list[i], &export->known, export_compare_targets))
            return context_refuse(export->context, FEATURE_E_INTERNAL, NULL, "out of memory");
    return FEATURE_OK;
}

/* Has an earlier run written this generation, and is the file still what it wrote? */
static bool export_is_there(const struct export *export, const struct export_item *item,
                            const char *path) {
    const struct target wanted = {.sample_id = item->sample_id};
    struct target *const *found = tfind(&wanted, &export->known, export_compare_targets);
    struct stat about;
    return found && (*found)->ref && feature_ref_generation((*found)->ref) == item->generation &&
           stat(path, &about) == 0 && (uint64_t)about.st_size == view_file_bytes((*found)->ref);
}

/* ---- one sample ---- */

static void export_fail(struct export *export, const struct export_item *item, int status) {
    export->failed[export->failed_count++] = item->sample_id;
    if (!export->first_failure)
        export->first_failure = status;
}

/* A signal between the name of the file and its line does no harm: without a line the file is
 * written again.
 */
static int export_write(struct export *export, const struct export_item *item, const char *name,
                        const char *path, const struct feature_view *view) {
    struct output_file file;
    char why[512];
    int error = output_file_open(path, &file, why, sizeof why);
    if (!error) {
        error = view_file_write(view, &file, &export->progress, why, sizeof why);
        if (!error)
            error = output_file_commit(&file, why, sizeof why);
        output_file_abandon(&file);
        if (!error)
            error = manifest_add(&export->manifest, feature_view_ref(view),
                                 json_pack("{s:s}", "file", name), why, sizeof why);
    }
    if (!error) {
        export->written++;
        export->written_bytes += feature_ref_bytes(feature_view_ref(view));
        return FEATURE_OK;
    }
    /* A dtype that the format lacks is this sample's trouble; all else is the directory's. */
    export->stopped = error != -EINVAL;
    context_refuse(export->context, CTL_E_LOCAL, path, "%s%s", why,
                   export->stopped ? "; export stops here, and goes on when it is started again"
                                   : "");
    export_fail(export, item, CTL_E_LOCAL);
    return CTL_E_LOCAL;
}

/* Gone is what nobody can get any more: consumed, aborted, or lost with its home. */
static bool export_is_gone(int status) {
    return status == FEATURE_E_NOT_FOUND || status == FEATURE_E_LOST;
}

/* By id, not by the generation that was listed: if it was put anew meanwhile, the newer one is
 * what the store holds now. A home that did not answer once is not waited for again.
 */
static void export_get(struct export *export, const struct export_item *item, const char *name,
                       const char *path) {
    struct context *context = export->context;
    struct feature_get_options get = {
        .size = sizeof get,
        .deadline_ms = options_deadline_ms(&context->options, "deadline", EXPORT_DEADLINE_MS)};
    struct feature_view *view;
    if (export->silent_home && strcmp(export->silent_home, item->home) == 0) {
        export_fail(export, item, FEATURE_E_UNAVAILABLE);
        return;
    }
    int status = feature_get(export->store, FEATURE_BY_ID(item->sample_id), &get, &view);
    if (status) {
        if (export_is_gone(status)) {
            export->gone++;
            return;
        }
        if (status == FEATURE_E_UNAVAILABLE || status == FEATURE_E_TIMEOUT)
            export->silent_home = item->home;
        context_fail(context, status, item->sample_id);
        export_fail(export, item, status);
        return;
    }
    export_write(export, item, name, path, view);
    feature_release(view, FEATURE_RELEASE_RETURNED);
}

/* The bar counts what has been dealt with, also what was there or is gone. */
static void export_item(struct export *export, const struct export_item *item) {
    uint64_t end_bytes = export->progress.done + item->bytes;
    char *name = export_file_name(item->sample_id);
    char *path = export_path(export->directory, name);
    if (export_is_there(export, item, path))
        export->there++;
    else
        export_get(export, item, name, path);
    progress_set(&export->progress, end_bytes, export->progress.total);
    free(path);
    free(name);
}

/* ---- the whole ---- */

static void export_print(struct export *export, uint64_t elapsed_ns) {
    static const struct table_column columns[] = {
        {"exported", "exported", TABLE_LEFT},           {"bytes", "bytes", TABLE_LEFT},
        {"already_there", "already there", TABLE_LEFT}, {"gone", "gone meanwhile", TABLE_LEFT},
        {"failed_samples", "failed", TABLE_LEFT},       {"not_tried", "not tried", TABLE_LEFT},
        {"elapsed_ms", "elapsed", TABLE_LEFT},          {"gb_per_s", "rate", TABLE_LEFT},
        {"manifest", "manifest", TABLE_LEFT},
    };
    char rate[UNITS_ROOM], failed[UNITS_ROOM];
    struct table table;
    json_t *ids = json_array();
    for (size_t i = 0; i < export->failed_count; i++)
        json_array_append_new(ids, shown_json(export->failed[i]));
    snprintf(failed, sizeof failed, "%zu", export->failed_count);
    CONTEXT_TABLE(export->context, &table, columns);
    table_count(&table, export->written);
    table_bytes(&table, export->written_bytes);
    table_count(&table, export->there);
    table_count(&table, export->gone);
    table_cell(&table, ids, failed);
    table_count(&table, export->item_count - export->written - export->there - export->gone -
                            export->failed_count);
    table_duration(&table, elapsed_ns / 1000000);
    table_cell(&table,
               json_real(elapsed_ns ? (double)export->written_bytes / (double)elapsed_ns : 0),
               units_rate(export->written_bytes, elapsed_ns, rate));
    table_text(&table, export->manifest_path);
    table_end_row(&table);
    table_finish(&table, TABLE_FIELDS);
}

/* The table is printed in any case: after a failure it says how far it came. */
static int export_items(struct export *export) {
    char why[256];
    uint64_t total_bytes = 0;
    for (size_t i = 0; i < export->item_count; i++)
        total_bytes += export->items[i].bytes;
    progress_begin(&export->progress, export->context->err, "export", PROGRESS_BYTES, total_bytes);
    for (size_t i = 0; i < export->item_count && !export->stopped; i++)
        export_item(export, &export->items[i]);
    progress_end(&export->progress);
    uint64_t elapsed_ns = progress_now_ns() - export->progress.begun_ns;
    int status = export->first_failure;
    if (manifest_close(&export->manifest, why, sizeof why) != 0) {
        context_refuse(export->context, CTL_E_LOCAL, export->manifest_path, "%s", why);
        status = status ? status : CTL_E_LOCAL;
    }
    export_print(export, elapsed_ns);
    return status;
}

/* The store as this broker has it, with its settings. */
static int export_find_store(struct export *export, Fb__ClientReply **reply_out,
                             const Fb__StoreInfo **store_out) {
    int status = each_store_fetch(export->context, reply_out);
    if (status)
        return status;
    const Fb__StoresReply *stores = (*reply_out)->stores;
    for (size_t i = 0; i < stores->n_stores; i++)
        if (strcmp(stores->stores[i]->store, export->store_name) == 0) {
            *store_out = stores->stores[i];
            return context_open(export->context, export->store_name, true, &export->store);
        }
    return context_refuse(export->context, FEATURE_E_NOT_FOUND, export->store_name,
                          "there is no such store on this node");
}

/* In this order nothing is begun that a later step would refuse: the store, the directory, what it
 * has, what there is, then the work.
 */
static int export_into(struct export *export, const Fb__StoreInfo *store) {
    char why[512];
    int status = FEATURE_OK;
    if (export_settings_write(export->directory, store, why, sizeof why) != 0)
        return context_refuse(export->context, CTL_E_LOCAL, export->directory, "%s", why);
    status = export_read_manifest(export);
    if (!status)
        status = export_list(export, store);
    if (status)
        return status;
    if (manifest_open(export->manifest_path, &export->manifest, why, sizeof why) != 0)
        return context_refuse(export->context, CTL_E_LOCAL, export->manifest_path, "%s", why);
    return export_items(export);
}

static void export_forget(void *target) {
    (void)target; /* the tree only points to what the list owns */
}

/* Whatever fails on the way, all that was taken is given back here. */
static int export_run_export(struct context *context) {
    const struct options *options = &context->options;
    struct export export = {.context = context,
                            .store_name = options->arguments[0],
                            .directory = options->arguments[1]};
    Fb__ClientReply *reply = NULL;
    const Fb__StoreInfo *store = NULL;
    char why[512];
    int lock;
    int status = export_find_store(&export, &reply, &store);
    if (!status && export_begin(export.directory, &lock, why, sizeof why) != 0)
        status = context_refuse(context, CTL_E_LOCAL, export.directory, "%s", why);
    if (!status) {
        export.manifest_path = export_path(export.directory, EXPORT_MANIFEST);
        status = export_into(&export, store);
        close(lock);
    }
    context_free_reply(reply);
    tdestroy(export.known, export_forget);
    refs_free(&export.before);
    for (size_t i = 0; i < export.item_count; i++) {
        free(export.items[i].sample_id);
        free(export.items[i].home);
    }
    free(export.items);
    free(export.failed);
    free(export.manifest_path);
    return status;
}

static const struct option_spec options[] = {
    {.name = "local", .letter = 'l', .help = "only samples whose home is this node"},
    {.name = "prefix",
     .kind = OPTION_TEXT,
     .argument = "TEXT",
     .help = "only ids that begin with TEXT"},
    {.name = "deadline",
     .kind = OPTION_DURATION,
     .argument = "TIME",
     .help = "give a sample up after that long without progress (default 30s)"},
    OPTION_SECRET_FILE,
    {0},
};

const struct command command_export = {
    .name = "export",
    .arguments = "STORE DIR",
    .summary = "write every resident sample of a store as safetensors files",
    .details = "Nothing is consumed. What was interrupted goes on when it is started again: files "
               "that are "
               "complete are not written again. featurectl ingest DIR puts all of it back.",
    .options = options,
    .arguments_min = 2,
    .arguments_max = 2,
    .run = export_run_export,
};
