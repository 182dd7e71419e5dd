/* SPDX-License-Identifier: Apache-2.0
 *
 * `ingest`: a directory of safetensors files becomes samples and lines of a manifest. Every sample
 * that was put has its line; a file that fails is remembered and the next one tried.
 *
 * For each file: the manifest is looked at -> the sample is put -> its line is written ->
 * counted
 *
 * A directory that `export` wrote is put back as it was: ids, order of the tensors and metadata
 * come from its manifest, the bytes must have the checksums that stand there, and each new line
 * also names the ref of before.
 *
 * So that the two cannot come apart, a sample whose line cannot be written is taken back, and a
 * line is only written for a sample that can be read. When the manifest takes no more (a full
 * disk), the rest is not tried.
 */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "featurectl/export_dir.h"
#include "featurectl/manifest.h"
#include "featurectl/memory.h"
#include "featurectl/put_file.h"
#include "featurectl/restore.h"
#include "featurectl/shown.h"
#include "featurectl/units.h"

struct ingest {
    struct context *context;
    const char *store_name;
    struct feature_store *store;
    struct manifest manifest;
    const char *manifest_path;
    struct progress progress;
    uint64_t sample_count, sample_bytes;
    char **paths;                   /* all files, in order; owned */
    struct targets was;             /* of an export: what each of them was; else none */
    const struct feature_ref *this; /* what the one being put was; NULL = no export */
    size_t path_count;
    char **failed; /* borrowed from paths */
    size_t failed_count;
    int first_failure;
    bool stopped; /* the manifest takes no more */
};

/* For scandir(3). Hidden files are left out: editors and copies under way have such names. */
static int ingest_is_safetensors(const struct dirent *entry) {
    size_t length = strlen(entry->d_name), suffix = strlen(".safetensors");
    return entry->d_name[0] != '.' && length > suffix &&
           strcmp(entry->d_name + length - suffix, ".safetensors") == 0;
}

/* The manifest is the trouble, not this file: nothing more can be ingested, and the sentence
 * says so.
 */
static int ingest_refuse_line(struct ingest *ingest, const char *what, const char *sample_id,
                              const char *why) {
    ingest->stopped = true;
    return context_refuse(ingest->context, CTL_E_LOCAL, ingest->manifest_path,
                          "%s; sample %s %s, and what was left to do is not done", why, sample_id,
                          what);
}

/* Before the put: would the line be accepted? A file system that is full is found out before
 * bytes are moved.
 */
static int ingest_expect_line(void *user, const struct feature_sample *sample) {
    struct ingest *ingest = user;
    char why[256];
    size_t more_bytes = ingest->this ? restore_more_bytes(ingest->this) : 0;
    int error =
        manifest_expect(&ingest->manifest, ingest->store_name, sample, more_bytes, why, sizeof why);
    return error ? ingest_refuse_line(ingest, "was not put", sample->sample_id, why) : FEATURE_OK;
}

/* A sample whose line cannot be written is taken back: nobody would know of it. */
static int ingest_write_line(void *user, const struct feature_ref *ref) {
    struct ingest *ingest = user;
    char why[256];
    json_t *more = ingest->this ? restore_more(ingest->this) : NULL;
    if (manifest_add(&ingest->manifest, ref, more, why, sizeof why) == 0) {
        ingest->sample_count++;
        ingest->sample_bytes += feature_ref_bytes(ref);
        return FEATURE_OK;
    }
    int status = feature_abort(ingest->store, FEATURE_BY_REF(ref), 1, NULL);
    if (status)
        context_fail(ingest->context, status, feature_ref_sample_id(ref));
    return ingest_refuse_line(ingest, status ? "stays without a line" : "was taken back",
                              feature_ref_sample_id(ref), why);
}

/* After the manifest has failed, the remaining files count as failed without being tried. */
static void ingest_file(struct ingest *ingest, size_t at) {
    char *path = ingest->paths[at];
    const struct target *was = ingest->was.count ? &ingest->was.list[at] : NULL;
    ingest->this = was ? was->ref : NULL;
    struct put_around around = {.begin = ingest_expect_line,
                                .keep = ingest_write_line,
                                .user = ingest,
                                .was = ingest->this};
    uint64_t end_bytes = ingest->progress.done + put_file_bytes(path);
    const struct options *options = &ingest->context->options;
    int status = ingest->stopped
                     ? ingest->first_failure
                     : put_file(ingest->context, ingest->store, path, was ? was->sample_id : NULL,
                                options_deadline_ms(options, "deadline", PUT_DEADLINE_MS),
                                &ingest->progress, &around);
    /* A failed file has been dealt with too; headers count as bytes. */
    progress_set(&ingest->progress, end_bytes, ingest->progress.total);
    if (!status)
        return;
    ingest->failed[ingest->failed_count++] = path;
    if (!ingest->first_failure)
        ingest->first_failure = status;
}

/* Files that failed are counted in the table and then listed by name. In JSON the names are a
 * list in the same object.
 */
static void ingest_print_ingested(struct ingest *ingest, uint64_t elapsed_ns) {
    static const struct table_column columns[] = {
        {"samples", "samples", TABLE_LEFT},    {"bytes", "bytes", TABLE_LEFT},
        {"elapsed_ms", "elapsed", TABLE_LEFT}, {"gb_per_s", "rate", TABLE_LEFT},
        {"manifest", "manifest", TABLE_LEFT},  {"failed_files", "failed", TABLE_LEFT},
    };
    char rate[UNITS_ROOM], failed[UNITS_ROOM];
    struct table table;
    json_t *paths = json_array();
    for (size_t i = 0; i < ingest->failed_count; i++)
        json_array_append_new(paths, shown_json(ingest->failed[i]));
    snprintf(failed, sizeof failed, "%zu", ingest->failed_count);
    CONTEXT_TABLE(ingest->context, &table, columns);
    table_count(&table, ingest->sample_count);
    table_bytes(&table, ingest->sample_bytes);
    table_duration(&table, elapsed_ns / 1000000);
    table_cell(&table,
               json_real(elapsed_ns ? (double)ingest->sample_bytes / (double)elapsed_ns : 0),
               units_rate(ingest->sample_bytes, elapsed_ns, rate));
    table_text(&table, ingest->manifest_path);
    table_cell(&table, paths, failed);
    table_end_row(&table);
    table_finish(&table, TABLE_FIELDS);
    for (size_t i = 0; !ingest->context->json && i < ingest->failed_count; i++) {
        char *shown = shown_text(ingest->failed[i]);
        fprintf(ingest->context->out, "not ingested: %s\n", shown);
        free(shown);
    }
}

/* Of an export those that its manifest names, under the names that their ids give. */
static void ingest_list_exported(struct ingest *ingest, const char *directory) {
    ingest->path_count = ingest->was.count;
    ingest->paths = memory_grow(NULL, ingest->path_count, sizeof *ingest->paths);
    ingest->failed = memory_grow(NULL, ingest->path_count, sizeof *ingest->failed);
    for (size_t i = 0; i < ingest->path_count; i++) {
        char *name = export_file_name(ingest->was.list[i].sample_id);
        ingest->paths[i] = export_path(directory, name);
        free(name);
    }
}

/* The files come first: with a directory that is mistyped nothing else is touched. */
static int ingest_list_files(struct ingest *ingest, const char *directory) {
    struct dirent **entries;
    int count = scandir(directory, &entries, ingest_is_safetensors, alphasort);
    if (count < 0)
        return context_refuse(ingest->context, CTL_E_LOCAL, directory, "cannot be listed: %s",
                              strerror(errno));
    ingest->paths = memory_grow(NULL, (size_t)count, sizeof *ingest->paths);
    ingest->failed = memory_grow(NULL, (size_t)count, sizeof *ingest->failed);
    for (int i = 0; i < count; i++) {
        ingest->paths[ingest->path_count++] = memory_print("%s/%s", directory, entries[i]->d_name);
        free(entries[i]);
    }
    free(entries);
    if (count > 0)
        return FEATURE_OK;
    return context_refuse(ingest->context, FEATURE_E_INVALID, directory,
                          "holds no *.safetensors file");
}

/* With "-" the lines go to standard output. The summary would then be mixed up with them, so
 * that it makes way (context_make_way()) to standard error.
 */
static int ingest_open_manifest(struct ingest *ingest) {
    char why[256];
    if (manifest_open(ingest->manifest_path, &ingest->manifest, why, sizeof why) != 0)
        return context_refuse(ingest->context, CTL_E_LOCAL, ingest->manifest_path, "%s", why);
    if (!ingest->manifest.regular)
        context_make_way(ingest->context, ingest->manifest.fd);
    return FEATURE_OK;
}

/* The sizes are added up first, for the bar. A file that grows meanwhile only makes the bar end
 * early.
 */
static int ingest_files(struct ingest *ingest) {
    char why[256];
    uint64_t total_bytes = 0;
    for (size_t i = 0; i < ingest->path_count; i++)
        total_bytes += put_file_bytes(ingest->paths[i]);
    progress_begin(&ingest->progress, ingest->context->err, "ingest", PROGRESS_BYTES, total_bytes);
    for (size_t i = 0; i < ingest->path_count; i++)
        ingest_file(ingest, i);
    progress_end(&ingest->progress);
    uint64_t elapsed_ns = progress_now_ns() - ingest->progress.begun_ns;
    int status = ingest->first_failure;
    if (manifest_close(&ingest->manifest, why, sizeof why) != 0) {
        context_refuse(ingest->context, CTL_E_LOCAL, ingest->manifest_path, "%s", why);
        status = status ? status : CTL_E_LOCAL;
    }
    ingest_print_ingested(ingest, elapsed_ns);
    return status;
}

/* In this order nothing is begun that a later step would refuse: files, store, manifest, then
 * the work.
 */
static int ingest_run_ingest(struct context *context) {
    const struct options *options = &context->options;
    struct ingest ingest = {.context = context,
                            .store_name = options_text(options, "store", NULL),
                            .manifest_path = options_text(options, "manifest", NULL)};
    const char *directory = options->arguments[0];
    int status = restore_begin(context, directory, ingest.store_name, &ingest.was);
    if (!status && ingest.was.count)
        ingest_list_exported(&ingest, directory);
    else if (!status)
        status = ingest_list_files(&ingest, directory);
    if (!status)
        status = context_open(context, ingest.store_name, false, &ingest.store);
    if (!status)
        status = ingest_open_manifest(&ingest);
    if (!status)
        status = ingest_files(&ingest);
    for (size_t i = 0; i < ingest.path_count; i++)
        free(ingest.paths[i]);
    free(ingest.paths);
    free(ingest.failed);
    refs_free(&ingest.was);
    return status;
}

static const struct option_spec ingest_options[] = {
    OPTION_STORE(true, "store to put into"),
    {.name = "manifest",
     .letter = 'm',
     .kind = OPTION_TEXT,
     .required = true,
     .argument = "FILE",
     .help = "add the refs there, one JSON object a line; - = standard output"},
    OPTION_PUT_DEADLINE,
    OPTION_SECRET_FILE,
    {0},
};

const struct command command_ingest = {
    .name = "ingest",
    .arguments = "DIR",
    .summary = "put the *.safetensors files of a directory, write a manifest",
    .details =
        "Sample ids are the files' names without .safetensors. A file that cannot be put does not "
        "stop\n"
        "the others: it is listed at the end and the exit code is that of the first failure. "
        "Lines\n"
        "are added to what the manifest holds already (of several of one sample the last counts), "
        "each\n"
        "as soon as its sample can be read. A sample whose line cannot be written is taken back, "
        "and\n"
        "ingest stops there. Of a directory that featurectl export wrote, everything is put back "
        "as "
        "it was.",
    .options = ingest_options,
    .arguments_min = 1,
    .arguments_max = 1,
    .run = ingest_run_ingest,
};
