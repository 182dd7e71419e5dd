/* SPDX-License-Identifier: Apache-2.0
 *
 * `get`: a sample becomes a safetensors file. The lease is held while the file is written from the
 * mapping, and ends as consumed only when asked to and the file is complete.
 *
 * output file opened -> store opened -> sample leased -> file written and renamed -> released
 *
 * A file is complete or not there: it is written under another name and renamed at the end
 * (output_file.c). A lease that is not released, because this program was killed, ends as
 * returned.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "featurectl/get_timing.h"
#include "featurectl/memory.h"
#include "featurectl/progress.h"
#include "featurectl/select.h"
#include "featurectl/units.h"
#include "featurectl/view_file.h"

#define GET_DEADLINE_MS 30000u

struct reading {
    struct progress progress;
    struct get_timing *timing;
};

/* Called by the library while bytes come from another node. Reads on one node show nothing: no
 * byte moves.
 */
static void get_show_read(void *context, uint64_t bytes_done, uint64_t bytes_total) {
    struct reading *reading = context;
    progress_set(&reading->progress, bytes_done, bytes_total);
    if (!reading->timing->end_ns[GET_ASK])
        get_timing_end(reading->timing, GET_ASK);
    get_timing_end(reading->timing, GET_TRANSFER);
}

static int get_write_view(struct context *context, const struct feature_view *view,
                          const char *path, struct output_file *file, struct get_timing *timing) {
    char why[512];
    struct progress progress;
    progress_begin(&progress, context->err, "write", PROGRESS_BYTES,
                   feature_ref_bytes(feature_view_ref(view)));
    int error = view_file_write(view, file, &progress, why, sizeof why);
    get_timing_end(timing, GET_WRITE);
    if (!error)
        error = output_file_commit(file, why, sizeof why);
    get_timing_end(timing, GET_SYNC);
    progress_end(&progress);
    return error ? context_refuse(context, CTL_E_LOCAL, path, "%s", why) : FEATURE_OK;
}

/* The time is that of the get alone; writing the file depends on the disk and says nothing about
 * the broker.
 */
static void get_print_got(struct context *context, const struct feature_ref *ref, const char *path,
                          uint64_t elapsed_ns, const struct get_timing *timing) {
    static const struct table_column columns[] = {
        {"sample_id", "sample", TABLE_LEFT},   {"generation", "generation", TABLE_LEFT},
        {"home", "home", TABLE_LEFT},          {"bytes", "bytes", TABLE_LEFT},
        {"elapsed_ms", "read in", TABLE_LEFT}, {"gb_per_s", "rate", TABLE_LEFT},
        {"file", "file", TABLE_LEFT},          {"timing", NULL, TABLE_LEFT},
    };
    char rate[UNITS_ROOM];
    uint64_t bytes = feature_ref_bytes(ref);
    const bool timed = options_given(&context->options, "timing");
    struct table table;
    /* The last key is there only when it was asked for. */
    table_init(&table, context->out, context->json, columns,
               sizeof columns / sizeof columns[0] - !timed);
    table_text(&table, feature_ref_sample_id(ref));
    table_id(&table, feature_ref_generation(ref));
    table_text(&table, feature_ref_home(ref));
    table_bytes(&table, bytes);
    table_duration(&table, elapsed_ns / 1000000);
    table_cell(&table, json_real(elapsed_ns ? (double)bytes / (double)elapsed_ns : 0),
               units_rate(bytes, elapsed_ns, rate));
    table_text(&table, path);
    if (timed)
        table_cell(&table, get_timing_json(timing), NULL);
    table_end_row(&table);
    table_finish(&table, TABLE_FIELDS);
    if (timed && !context->json) {
        fputc('\n', context->out);
        get_timing_print(timing, context->out);
    }
}

/* Waits for a sample that is not put yet (--wait), and gives up when nothing moves for
 * --deadline.
 */
static int get_view(struct context *context, struct feature_store *store,
                    const struct target *target, struct get_timing *timing,
                    struct feature_view **out) {
    struct reading reading = {.timing = timing};
    struct feature_get_options get = {
        .size = sizeof get,
        .deadline_ms = options_deadline_ms(&context->options, "deadline", GET_DEADLINE_MS),
        .wait_ms = options_deadline_ms(&context->options, "wait", 0),
        .progress = get_show_read,
        .progress_context = &reading,
    };
    progress_begin(&reading.progress, context->err, "get", PROGRESS_BYTES, 0);
    const struct feature_key key = refs_key(target);
    int status = feature_get(store, &key, &get, out);
    get_timing_end(timing, timing->end_ns[GET_TRANSFER] ? GET_VERIFY : GET_ASK);
    progress_end(&reading.progress);
    return status ? context_fail(context, status, target->text) : FEATURE_OK;
}

/* Consumed only when asked to and when the file is written: otherwise a full disk would cost the
 * sample.
 */
static int get_into(struct context *context, const struct target *target, const char *path,
                    struct output_file *file) {
    struct feature_store *store;
    struct feature_view *view;
    struct get_timing timing = {.begun_ns = context->begun_ns};
    timing.end_ns[GET_CONNECT] = context->connected_ns;
    int status = context_open(context, target->store, true, &store);
    if (status)
        return status;
    get_timing_end(&timing, GET_OPEN);
    uint64_t begun_ns = progress_now_ns();
    status = get_view(context, store, target, &timing, &view);
    if (status)
        return status;
    uint64_t read_ns = progress_now_ns() - begun_ns;
    status = get_write_view(context, view, path, file, &timing);
    struct feature_ref *ref = feature_ref_dup(feature_view_ref(view));
    bool consumed = !status && options_given(&context->options, "consume");
    int released = view_file_release(context->feature, view, consumed);
    if (released)
        context_fail(context, released, target->text);
    get_timing_end(&timing, GET_RELEASE);
    if (!status && ref)
        get_print_got(context, ref, path, read_ns, &timing);
    feature_ref_free(ref);
    return status ? status : released;
}

/* The file is opened first: what cannot be written need not be read. */
static int get_target(struct context *context, const struct target *target) {
    const char *path = options_text(&context->options, "output", NULL);
    struct output_file file;
    char why[512];
    if (output_file_open(path, &file, why, sizeof why) != 0)
        return context_refuse(context, CTL_E_LOCAL, path, "%s", why);
    if (output_file_in_place(&file))
        context_make_way(context, file.fd);
    int status = isatty(file.fd) ? context_refuse(context, CTL_E_LOCAL, path,
                                                  "is a terminal, which cannot show tensors")
                                 : get_into(context, target, path, &file);
    output_file_abandon(&file);
    return status;
}

/* Exactly one sample: a safetensors file holds one. */
static int get_run_get(struct context *context) {
    struct targets targets;
    int status = select_target(context, &targets);
    if (status)
        return status;
    status = get_target(context, &targets.list[0]);
    refs_free(&targets);
    return status;
}

static const struct option_spec options[] = {
    {.name = "output",
     .letter = 'o',
     .kind = OPTION_TEXT,
     .required = true,
     .argument = "FILE",
     .help = "safetensors file to write, complete or not at all; - = standard output"},
    {.name = "timing", .help = "say where the time went, phase by phase"},
    {.name = "consume",
     .help = "count as a reader that has consumed the sample (default: returned)"},
    {.name = "wait",
     .kind = OPTION_DURATION,
     .argument = "TIME",
     .help = "wait that long for a sample that has not been put yet (default 0)"},
    {.name = "deadline",
     .kind = OPTION_DURATION,
     .argument = "TIME",
     .help = "give up after that long without progress (default 30s)"},
    OPTION_MANIFEST,
    OPTION_ID,
    OPTION_SECRET_FILE,
    {0},
};

const struct command command_get = {
    .name = "get",
    .arguments = "[REF]",
    .summary = "write a sample to a safetensors file",
    .details =
        "REF is a URI (feature://STORE/SAMPLE?generation=...), a ref in base64, or STORE/SAMPLE "
        "for\n"
        "whatever generation is current; or it is taken from a manifest: --manifest FILE --id ID.\n"
        "When a get fails, featurectl explain REF says why.",
    .options = options,
    .arguments_max = 1,
    .run = get_run_get,
};
