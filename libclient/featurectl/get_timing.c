/* SPDX-License-Identifier: Apache-2.0
 *
 * Phases follow each other, so that their times add up to the whole. One that did not take place
 * (nothing comes from another node when the sample is here) has no end and takes no time.
 */
#include "featurectl/get_timing.h"

#include "featurectl/progress.h"

static const struct {
    const char *key, *title;
} phases[GET_PHASES] = {
    [GET_CONNECT] = {"connect_us", "connect to the broker"},
    [GET_OPEN] = {"open_us", "open the store"},
    [GET_ASK] = {"ask_us", "ask for the sample"},
    [GET_TRANSFER] = {"transfer_us", "bytes come from its home"},
    [GET_VERIFY] = {"verify_us", "verify what is left"},
    [GET_WRITE] = {"write_us", "write the file"},
    [GET_SYNC] = {"sync_us", "file is on disk"},
    [GET_RELEASE] = {"release_us", "release"},
};

/* May be called more than once: the last time counts, as for bytes that come step by step. */
void get_timing_end(struct get_timing *timing, enum get_phase phase) {
    timing->end_ns[phase] = progress_now_ns();
}

/* Of all that came before. */
static uint64_t get_timing_before_ns(const struct get_timing *timing, unsigned phase) {
    uint64_t latest_ns = timing->begun_ns;
    for (unsigned i = 0; i < phase; i++)
        latest_ns = timing->end_ns[i] > latest_ns ? timing->end_ns[i] : latest_ns;
    return latest_ns;
}

/* 0 for a phase that was not, or that ended within the one before it. */
static uint64_t get_timing_ns(const struct get_timing *timing, unsigned phase) {
    uint64_t before_ns = get_timing_before_ns(timing, phase), end_ns = timing->end_ns[phase];
    return end_ns > before_ns ? end_ns - before_ns : 0;
}

/* In microseconds: whole numbers, which no reader of JSON rounds. */
json_t *get_timing_json(const struct get_timing *timing) {
    json_t *json = json_object();
    for (unsigned i = 0; i < GET_PHASES; i++)
        json_object_set_new(json, phases[i].key,
                            timing->end_ns[i]
                                ? json_integer((json_int_t)(get_timing_ns(timing, i) / 1000))
                                : json_null());
    uint64_t total_ns = get_timing_before_ns(timing, GET_PHASES) - timing->begun_ns;
    json_object_set_new(json, "total_us", json_integer((json_int_t)(total_ns / 1000)));
    return json;
}

static void get_timing_row(struct table *table, const char *title, uint64_t ns, uint64_t total_ns) {
    char text[48];
    table_text(table, title);
    snprintf(text, sizeof text, "%.3f ms", (double)ns / 1e6);
    table_text(table, text);
    snprintf(text, sizeof text, "%.0f %%", total_ns ? 100.0 * (double)ns / (double)total_ns : 0);
    table_text(table, text);
    table_end_row(table);
}

/* Phases that did not take place are left out. */
void get_timing_print(const struct get_timing *timing, FILE *out) {
    static const struct table_column columns[] = {{"phase", "PHASE", TABLE_LEFT},
                                                  {"time", "TIME", TABLE_RIGHT},
                                                  {"share", "SHARE", TABLE_RIGHT}};
    uint64_t total_ns = get_timing_before_ns(timing, GET_PHASES) - timing->begun_ns;
    struct table table;
    table_init(&table, out, false, columns, sizeof columns / sizeof columns[0]);
    for (unsigned i = 0; i < GET_PHASES; i++)
        if (timing->end_ns[i])
            get_timing_row(&table, phases[i].title, get_timing_ns(timing, i), total_ns);
    get_timing_row(&table, "all", total_ns, total_ns);
    table_finish(&table, TABLE_ROWS);
}
