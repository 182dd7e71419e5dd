/* SPDX-License-Identifier: Apache-2.0
 *
 * `ingest`: a directory of safetensors files becomes samples and a manifest. A line is in the
 * manifest if and only if its sample can be read; a file that fails is remembered and the next one
 * tried.
 */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "memory.h"
#include "put_file.h"
#include "refs.h"
#include "units.h"

struct ingest {
    struct context *context;
    struct feature_store *store;
    FILE *manifest;
    const char *manifest_path;
    struct progress progress;
    uint64_t sample_count, sample_bytes;
    char **failed; /* paths; owned */
    size_t failed_count;
    int first_failure;
};

static int is_safetensors(const struct dirent *entry) {
    size_t length = strlen(entry->d_name), suffix = strlen(".safetensors");
    return entry->d_name[0] != '.' && length > suffix &&
           strcmp(entry->d_name + length - suffix, ".safetensors") == 0;
}

static int write_line(struct ingest *ingest, const struct feature_ref *ref, const char *path) {
    json_t *line = refs_to_json(ref);
    if (!line)
        return context_fail(ingest->context, FEATURE_E_INTERNAL, path);
    bool good = json_dumpf(line, ingest->manifest, JSON_COMPACT) == 0 &&
                fputc('\n', ingest->manifest) != EOF && fflush(ingest->manifest) == 0;
    json_decref(line);
    if (good)
        return FEATURE_OK;
    return context_refuse(ingest->context, CTL_E_LOCAL, ingest->manifest_path,
                          "cannot be written: %s", strerror(errno));
}

static void ingest_file(struct ingest *ingest, const char *path, uint64_t bytes) {
    struct feature_ref *ref = NULL;
    uint64_t end_bytes = ingest->progress.done + bytes;
    const struct options *options = &ingest->context->options;
    int status = put_file(ingest->context, ingest->store, path, NULL,
                          options_deadline_ms(options, "deadline", PUT_DEADLINE_MS),
                          &ingest->progress, &ref);
    if (!status) {
        ingest->sample_count++;
        ingest->sample_bytes += feature_ref_bytes(ref);
        status = write_line(ingest, ref, path);
        feature_ref_free(ref);
    }
    /* A failed file has been dealt with too; headers count as bytes. */
    progress_set(&ingest->progress, end_bytes, ingest->progress.total);
    if (!status)
        return;
    ingest->failed = memory_grow(ingest->failed, ingest->failed_count + 1, sizeof *ingest->failed);
    ingest->failed[ingest->failed_count++] = memory_copy(path);
    if (!ingest->first_failure)
        ingest->first_failure = status;
}

static void print_ingested(struct ingest *ingest, uint64_t elapsed_ns) {
    static const struct table_column columns[] = {
        {"samples", "samples", TABLE_LEFT},    {"bytes", "bytes", TABLE_LEFT},
        {"elapsed_ms", "elapsed", TABLE_LEFT}, {"gb_per_s", "rate", TABLE_LEFT},
        {"manifest", "manifest", TABLE_LEFT},  {"failed_files", "failed", TABLE_LEFT},
    };
    char rate[UNITS_ROOM], failed[UNITS_ROOM];
    struct table table;
    json_t *paths = json_array();
    for (size_t i = 0; i < ingest->failed_count; i++)
        json_array_append_new(paths, json_string(ingest->failed[i]));
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
    if (!ingest->context->json)
        for (size_t i = 0; i < ingest->failed_count; i++)
            fprintf(ingest->context->out, "not ingested: %s\n", ingest->failed[i]);
}

static int ingest_directory(struct ingest *ingest, const char *directory) {
    struct dirent **entries;
    int count = scandir(directory, &entries, is_safetensors, alphasort);
    if (count < 0)
        return context_refuse(ingest->context, CTL_E_LOCAL, directory, "cannot be listed: %s",
                              strerror(errno));
    char **paths = memory_grow(NULL, (size_t)count, sizeof *paths);
    uint64_t total_bytes = 0;
    for (int i = 0; i < count; i++) {
        paths[i] = memory_print("%s/%s", directory, entries[i]->d_name);
        total_bytes += put_file_bytes(paths[i]);
        free(entries[i]);
    }
    free(entries);
    progress_begin(&ingest->progress, ingest->context->err, "ingest", PROGRESS_BYTES, total_bytes);
    for (int i = 0; i < count; i++) {
        ingest_file(ingest, paths[i], put_file_bytes(paths[i]));
        free(paths[i]);
    }
    free(paths);
    progress_end(&ingest->progress);
    print_ingested(ingest, progress_now_ns() - ingest->progress.begun_ns);
    if (count == 0)
        return context_refuse(ingest->context, FEATURE_E_INVALID, directory,
                              "holds no *.safetensors file");
    return ingest->first_failure;
}

static int run_ingest(struct context *context) {
    const struct options *options = &context->options;
    struct ingest ingest = {.context = context,
                            .manifest_path = options_text(options, "manifest", NULL)};
    int status = context_open(context, options_text(options, "store", NULL), false, &ingest.store);
    if (status)
        return status;
    ingest.manifest = fopen(ingest.manifest_path, "we");
    if (!ingest.manifest)
        return context_refuse(context, CTL_E_LOCAL, ingest.manifest_path, "cannot be written: %s",
                              strerror(errno));
    status = ingest_directory(&ingest, options->arguments[0]);
    fclose(ingest.manifest);
    for (size_t i = 0; i < ingest.failed_count; i++)
        free(ingest.failed[i]);
    free(ingest.failed);
    return status;
}

static const struct option_spec ingest_options[] = {
    OPTION_STORE(true, "store to put into"),
    {.name = "manifest",
     .letter = 'm',
     .kind = OPTION_TEXT,
     .required = true,
     .argument = "FILE",
     .help = "where to write the refs, one JSON object a line"},
    OPTION_PUT_DEADLINE,
    OPTION_SECRET_FILE,
    {0},
};

const struct command command_ingest = {
    .name = "ingest",
    .arguments = "DIR",
    .summary = "put every *.safetensors file of a directory and write a manifest of refs",
    .details =
        "Sample ids are the files' names without .safetensors. A file that cannot be put does not "
        "stop\n"
        "the others: it is listed at the end and the exit code is that of the first failure. The\n"
        "manifest is written anew; each line is there as soon as its sample can be read.",
    .options = ingest_options,
    .arguments_min = 1,
    .arguments_max = 1,
    .run = run_ingest,
};
