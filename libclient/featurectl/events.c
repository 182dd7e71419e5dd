/* SPDX-License-Identifier: Apache-2.0
 *
 * `events`: state changes as they happen, one line each, until interrupted.
 *
 * A line for people begins with the time of this machine's zone. With --json each event is one
 * object with the time in nanoseconds since 1970. Events that were missed, because this program
 * was slower than the samples, are told as a number with the next one.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <time.h>

#include "featurectl/context.h"
#include "featurectl/progress.h"
#include "featurectl/shown.h"
#include "featurectl/units.h"
#include "featurectl/words.h"

#define NS_PER_MS UINT64_C(1000000)

struct stream {
    struct context *context;
    uint64_t left;     /* events still wanted; 0 = no end */
    uint64_t until_ns; /* 0 = no end */
};

/* Local time with milliseconds: events come close together. */
static void events_format_time(uint64_t unix_ns, char out[UNITS_ROOM]) {
    time_t seconds = (time_t)(unix_ns / 1000000000u);
    struct tm local;
    char day[UNITS_ROOM / 2 + 8];
    localtime_r(&seconds, &local);
    strftime(day, sizeof day, "%Y-%m-%d %H:%M:%S", &local);
    snprintf(out, UNITS_ROOM, "%s.%03u", day, (unsigned)(unix_ns / 1000000u % 1000u));
}

/* Not a table: widths would have to be known in advance, and a live stream has no end. */
static void events_print_event(FILE *out, const Fb__Event *event) {
    char when[UNITS_ROOM], state[WORDS_ROOM], reason[WORDS_ROOM], bytes[UNITS_ROOM];
    events_format_time(event->time_unix_ns, when);
    words_enum(&fb__sample_state__descriptor, (int)event->state, state);
    words_reason(event->reason, reason);
    if (event->missed)
        fprintf(out, "%s  %" PRIu64 " events missed\n", when, event->missed);
    char *store = shown_text(event->store), *sample_id = shown_text(event->sample_id);
    fprintf(out, "%s  %-9s  %s/%s", when, state, store, sample_id);
    free(store);
    free(sample_id);
    if (event->generation)
        fprintf(out, "  generation %" PRIu64, event->generation);
    fprintf(out, "  %s%s%s%s\n", units_bytes(event->extent_bytes, bytes), *reason ? "  " : "",
            reason, event->landing ? "  (copy)" : "");
}

/* A table of one row for each event, so that names and units of fields are made as in all other
 * commands.
 */
static void events_print_event_json(FILE *out, const Fb__Event *event) {
    static const struct table_column columns[] = {
        {"sequence", "", TABLE_LEFT},   {"time_unix_ns", "", TABLE_LEFT},
        {"store", "", TABLE_LEFT},      {"sample_id", "", TABLE_LEFT},
        {"generation", "", TABLE_LEFT}, {"state", "", TABLE_LEFT},
        {"reason", "", TABLE_LEFT},     {"extent_bytes", "", TABLE_LEFT},
        {"landing", "", TABLE_LEFT},    {"missed", "", TABLE_LEFT},
    };
    char word[WORDS_ROOM];
    struct table table;
    table_init(&table, out, true, columns, sizeof columns / sizeof columns[0]);
    table_count(&table, event->sequence);
    table_count(&table, event->time_unix_ns);
    table_text(&table, event->store);
    table_text(&table, event->sample_id);
    table_id(&table, event->generation);
    table_text(&table, words_enum(&fb__sample_state__descriptor, (int)event->state, word));
    table_text(&table, words_reason(event->reason, word));
    table_bytes(&table, event->extent_bytes);
    table_flag(&table, event->landing);
    table_count(&table, event->missed);
    table_end_row(&table);
    table_finish(&table, TABLE_ROWS);
}

/* Flushed after each event: it may be the last for hours. A reader that has gone (head -1) ends
 * the stream.
 */
static bool events_visit(void *opaque, const Fb__Event *event) {
    struct stream *stream = opaque;
    if (stream->context->json)
        events_print_event_json(stream->context->out, event);
    else
        events_print_event(stream->context->out, event);
    bool written = fflush(stream->context->out) == 0;
    bool late = stream->until_ns && progress_now_ns() >= stream->until_ns;
    return written && !late && --stream->left != 0;
}

/* Runs until --count events have come, the reader goes away, or it is interrupted. */
static int events_run_events(struct context *context) {
    const struct options *options = &context->options;
    /* Without --count the counter wraps below zero and never comes to it. */
    struct stream stream = {.context = context, .left = options_number(options, "count", 0)};
    const char *store = options_text(options, "store", NULL);
    uint32_t for_ms = options_deadline_ms(options, "for", 0);
    if (for_ms)
        stream.until_ns = progress_now_ns() + for_ms * NS_PER_MS;
    int status = feature_admin_events(context->feature, store, for_ms, events_visit, &stream);
    if (for_ms && status == FEATURE_E_TIMEOUT)
        return FEATURE_OK; /* it is as long as was asked for */
    return status ? context_fail(context, status, store) : FEATURE_OK;
}

static const struct option_spec options[] = {
    OPTION_STORE(false, "only this store (default: all)"),
    {.name = "count",
     .letter = 'n',
     .kind = OPTION_COUNT,
     .argument = "N",
     .help = "end after N events (default: when interrupted)"},
    {.name = "for",
     .kind = OPTION_DURATION,
     .argument = "TIME",
     .help = "end after that long, or when nothing has happened for so long"},
    {0},
};

const struct command command_events = {
    .name = "events",
    .arguments = "",
    .summary = "live stream of state changes",
    .options = options,
    .run = events_run_events,
};
