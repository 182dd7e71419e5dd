/* SPDX-License-Identifier: Apache-2.0
 *
 * How metrics are written: both forms, labels from hostile names, units, histograms.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "exchange/metrics_table.h"
#include "ops/metrics.h"

struct thing {
    uint64_t bytes, count, took_ns;
    bool up;
    uint32_t narrow;
    struct histogram waits;
};

#define THING(member)                                                                              \
    .offset = offsetof(struct thing, member), .bytes = sizeof(((struct thing *)NULL)->member)

static const struct metric rows[] = {
    {"thing_held_bytes", "Bytes.", METRIC_GAUGE, METRIC_BYTES, THING(bytes)},
    {"thing_calls", "Calls.", METRIC_COUNTER, .label = "kind", .label_value = "a", THING(count)},
    {"thing_calls", "Calls.", METRIC_COUNTER, .label = "kind", .label_value = "b", THING(narrow)},
    {"thing_took_seconds", "Took.", METRIC_GAUGE, METRIC_NS, THING(took_ns)},
    {"thing_up", "Up.", THING(up)},
};
static const struct metric waits[] = {
    {"thing_wait_seconds", "Waits.", METRIC_HISTOGRAM, METRIC_NS, THING(waits)},
};

static char *text_of(const struct metrics *metrics, bool open_metrics) {
    struct metrics_text text = {0};
    metrics_write(metrics, open_metrics, &text);
    cr_assert_not(text.no_memory);
    char *copy = strndup(text.data ? text.data : "", text.bytes);
    free(text.data);
    return copy;
}

static void add_two(struct metrics *metrics) {
    const struct thing one = {7, 3, 1500000000, true, 4, {{0}, 0}},
                       two = {UINT64_MAX, 0, 1, false, UINT32_MAX, {{0}, 0}};
    metrics_begin(metrics);
    metrics_add(metrics, METRICS_STORE, rows, sizeof rows / sizeof *rows, "store=\"x\"", &one);
    metrics_add(metrics, METRICS_STORE, rows, sizeof rows / sizeof *rows, "store=\"y\"", &two);
}

Test(metrics_text, families_are_written_in_one_piece_each) {
    struct metrics metrics = {0};
    for (int round = 0; round < 2; round++) { /* a snapshot's memory is used again */
        add_two(&metrics);
        char *text = text_of(&metrics, true);
        cr_expect_str_eq(text, "# HELP thing_held_bytes Bytes.\n"
                               "# TYPE thing_held_bytes gauge\n"
                               "# UNIT thing_held_bytes bytes\n"
                               "thing_held_bytes{store=\"x\"} 7\n"
                               "thing_held_bytes{store=\"y\"} 18446744073709551615\n"
                               "# HELP thing_calls Calls.\n"
                               "# TYPE thing_calls counter\n"
                               "thing_calls_total{store=\"x\",kind=\"a\"} 3\n"
                               "thing_calls_total{store=\"x\",kind=\"b\"} 4\n"
                               "thing_calls_total{store=\"y\",kind=\"a\"} 0\n"
                               "thing_calls_total{store=\"y\",kind=\"b\"} 4294967295\n"
                               "# HELP thing_took_seconds Took.\n"
                               "# TYPE thing_took_seconds gauge\n"
                               "# UNIT thing_took_seconds seconds\n"
                               "thing_took_seconds{store=\"x\"} 1.5\n"
                               "thing_took_seconds{store=\"y\"} 0.000000001\n"
                               "# HELP thing_up Up.\n"
                               "# TYPE thing_up gauge\n"
                               "thing_up{store=\"x\"} 1\n"
                               "thing_up{store=\"y\"} 0\n"
                               "# EOF\n");
        free(text);
    }
    metrics_deinit(&metrics);
}

Test(metrics_text, the_older_form_names_counters_with_total) {
    struct metrics metrics = {0};
    add_two(&metrics);
    char *text = text_of(&metrics, false);
    cr_expect(strstr(text, "# TYPE thing_calls_total counter\n"));
    cr_expect_null(strstr(text, "# UNIT"));
    cr_expect_null(strstr(text, "# EOF"));
    free(text);
    metrics_deinit(&metrics);
}

Test(metrics_text, nothing_of_a_name_breaks_a_line) {
    char labels[METRICS_LABELS_BYTES] = "";
    metrics_label(labels, "a", "quote \" backslash \\ newline \n tab \t \xc3\xa9");
    metrics_label(labels, "b", "");
    cr_expect_str_eq(labels, "a=\"quote \\\" backslash \\\\ newline \\n tab ? ??\",b=\"\"");
}

/* Cut, and still closed: an escape is never cut in two. */
Test(metrics_text, a_label_that_is_too_long_stays_well_formed) {
    char labels[METRICS_LABELS_BYTES] = "", name[2 * METRICS_LABELS_BYTES];
    for (size_t shift = 0; shift < 2; shift++) {
        memset(name, '"', sizeof name - 1);
        name[sizeof name - 1] = '\0';
        *labels = '\0';
        metrics_label(labels, shift ? "ab" : "a", name);
        size_t bytes = strlen(labels);
        cr_assert_lt(bytes, sizeof labels);
        cr_expect_eq(labels[bytes - 1], '"');
        cr_expect_eq((bytes - 1 - (shift ? 4 : 3)) % 2, 0, "an escape was cut in two");
        char before[METRICS_LABELS_BYTES];
        strcpy(before, labels);
        metrics_label(labels, "c", "d"); /* no room: left out */
        cr_expect_str_eq(labels, before);
    }
}

Test(metrics_text, buckets_add_up) {
    struct metrics metrics = {0};
    struct thing thing = {0};
    histogram_add(&thing.waits, 0);
    histogram_add(&thing.waits, HISTOGRAM_FIRST_NS);     /* a bound belongs to its bucket */
    histogram_add(&thing.waits, HISTOGRAM_FIRST_NS + 1); /* the next one */
    histogram_add(&thing.waits, UINT64_MAX / 2);         /* above the last bound */
    histogram_add_span(&thing.waits, 100, 99);           /* counts as 0 */
    metrics_add(&metrics, METRICS_NODE, waits, 1, "", &thing);
    char *text = text_of(&metrics, true);
    cr_expect(strstr(text, "thing_wait_seconds_bucket{le=\"0.00001\"} 3\n"), "%s", text);
    cr_expect(strstr(text, "thing_wait_seconds_bucket{le=\"0.00004\"} 4\n"), "%s", text);
    cr_expect(strstr(text, "thing_wait_seconds_bucket{le=\"2684.35456\"} 4\n"), "%s", text);
    cr_expect(strstr(text, "thing_wait_seconds_bucket{le=\"+Inf\"} 5\n"), "%s", text);
    cr_expect(strstr(text, "thing_wait_seconds_count 5\n"), "%s", text);
    free(text);
    metrics_deinit(&metrics);
}

/* ---- featured's own tables ---- */

static void check_row(const struct metric *row, const struct metric *before) {
    const char *name = row->name;
    size_t bytes = strlen(name);
    cr_expect(strncmp(name, "featured_", 9) == 0, "%s", name);
    cr_expect_eq(strspn(name, "abcdefghijklmnopqrstuvwxyz_"), bytes, "%s", name);
    cr_expect(row->help && *row->help && row->help[strlen(row->help) - 1] == '.', "%s", name);
    cr_expect_null(strpbrk(row->help, "\\\n\""), "%s: its help would have to be escaped", name);
    cr_expect(bytes < 6 || strcmp(name + bytes - 6, "_total") != 0, "%s", name);
    if (row->unit == METRIC_BYTES)
        cr_expect(strcmp(name + bytes - 6, "_bytes") == 0, "%s", name);
    if (row->unit == METRIC_NS)
        cr_expect(strcmp(name + bytes - 8, "_seconds") == 0, "%s", name);
    if (before && strcmp(before->name, name) == 0) {
        cr_expect_eq(before->type, row->type, "%s", name);
        cr_expect(row->label && before->label && strcmp(row->label, before->label) == 0, "%s",
                  name);
    }
    if (row->status_name) /* health.c reads 8 bytes */
        cr_expect_eq(row->bytes, sizeof(uint64_t), "%s", name);
}

/* No family may come in two pieces, or in two scopes. */
static void check_is_one_family(const struct metric *all[], size_t count, size_t at) {
    for (size_t i = 0; i + 1 < at; i++)
        if (strcmp(all[i]->name, all[at]->name) == 0)
            cr_expect(strcmp(all[at - 1]->name, all[at]->name) == 0, "%s", all[at]->name);
    (void)count;
}

Test(metrics_text, the_tables_keep_the_conventions) {
    const struct metric *const tables[] = {metrics_of_build,     metrics_of_node, metrics_of_store,
                                           metrics_of_peer_info, metrics_of_peer, metrics_of_rail};
    const size_t counts[] = {metrics_of_build_count, metrics_of_node_count,
                             metrics_of_store_count, metrics_of_peer_info_count,
                             metrics_of_peer_count,  metrics_of_rail_count};
    const struct metric *all[512];
    size_t count = 0;
    for (size_t table = 0; table < sizeof tables / sizeof *tables; table++)
        for (size_t i = 0; i < counts[table]; i++) {
            check_row(&tables[table][i], i ? &tables[table][i - 1] : NULL);
            cr_assert_lt(count, sizeof all / sizeof *all);
            all[count++] = &tables[table][i];
        }
    for (size_t i = 0; i < count; i++)
        check_is_one_family(all, count, i);
}
