/* SPDX-License-Identifier: Apache-2.0
 *
 * `put`: safetensors files become samples.
 *
 * Each file is a put of its own. After one that fails the others are tried; what was put is
 * printed at once, so that nothing that exists goes unnamed.
 */
#include "featurectl/put_file.h"
#include "featurectl/refs.h"

struct putting {
    struct context *context;
    const char *path;
    struct progress *progress;
};

/* People get the URI alone, so that $(featurectl put ...) is a ref. */
static int put_print_ref(void *user, const struct feature_ref *ref) {
    const struct putting *putting = user;
    FILE *out = putting->context->out;
    json_t *line = refs_to_json(ref);
    if (!line)
        return context_fail(putting->context, FEATURE_E_INTERNAL, putting->path);
    progress_end(putting->progress);
    if (putting->context->json)
        json_dumpf(line, out, JSON_COMPACT);
    else
        fputs(json_string_value(json_object_get(line, "uri")), out);
    fputc('\n', out);
    fflush(out);
    json_decref(line);
    return FEATURE_OK;
}

/* The bar ends before the ref is printed, and once more at the end, which does nothing. */
static int put_one(struct context *context, struct feature_store *store, const char *path) {
    struct progress progress;
    struct putting putting = {context, path, &progress};
    struct put_around around = {.keep = put_print_ref, .user = &putting};
    progress_begin(&progress, context->err, "put", PROGRESS_BYTES, put_file_bytes(path));
    int status = put_file(context, store, path, options_text(&context->options, "id", NULL),
                          options_deadline_ms(&context->options, "deadline", PUT_DEADLINE_MS),
                          &progress, &around);
    progress_end(&progress);
    return status;
}

/* The store is opened once for all files. */
static int put_run_put(struct context *context) {
    const struct options *options = &context->options;
    struct feature_store *store;
    if (options_given(options, "id") && options->argument_count > 1)
        return context_refuse(context, CTL_E_USAGE, NULL,
                              "--id names one sample, but %zu files are given",
                              options->argument_count);
    int first_failure = context_open(context, options_text(options, "store", NULL), false, &store);
    if (first_failure)
        return first_failure;
    for (size_t i = 0; i < options->argument_count; i++) {
        int status = put_one(context, store, options->arguments[i]);
        if (status && !first_failure)
            first_failure = status;
    }
    return first_failure;
}

static const struct option_spec put_options[] = {
    OPTION_STORE(true, "store to put into"),
    {.name = "id",
     .kind = OPTION_TEXT,
     .argument = "ID",
     .help = "sample id (default: the file's name without .safetensors)"},
    OPTION_PUT_DEADLINE,
    OPTION_SECRET_FILE,
    {0},
};

const struct command command_put = {
    .name = "put",
    .arguments = "FILE...",
    .summary = "put safetensors files, one sample each; prints their refs",
    .details = "The file's tensors become the sample's tensors, its __metadata__ the sample's "
               "metadata (as\n"
               "JSON text). A sample of the same id is superseded. How many readers a sample waits "
               "for is a\n"
               "setting of its store (featurectl store create --readers).",
    .options = put_options,
    .arguments_min = 1,
    .arguments_max = COMMAND_ARGUMENTS_ANY,
    .run = put_run_put,
};
