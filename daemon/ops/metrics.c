/* SPDX-License-Identifier: Apache-2.0
 *
 * Snapshots of numbers, and how they are written. The form is that of
 * https://github.com/prometheus/OpenMetrics, version 1.0, and of Prometheus' text format 0.0.4,
 * which differ in three ways: OpenMetrics names the family of a counter without "_total", tells
 * units, and ends with a line of its own.
 *
 * All lines of a family must follow each other, so that the text is written family by family and,
 * within one, subject by subject. Numbers are written by hand and not with printf: a node with 256
 * stores has some 20,000 lines, and seconds are exact that way.
 */
#include "ops/metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/histogram.h"

#define NS_PER_S        1000000000ull
#define NS_PER_MS       1000000ull
#define FRACTION_DIGITS 9u
#define HISTOGRAM_WORDS (sizeof(struct histogram) / sizeof(uint64_t))

/* ---- the snapshot ---- */

/* The memory of the last snapshot is used again: the next one is about as large. */
void metrics_begin(struct metrics *metrics) {
    metrics->no_memory = false;
    for (size_t i = 0; i < METRICS_SCOPES; i++)
        metrics->scopes[i].count = 0;
}

/* A backslash, a quotation mark and a newline have escapes in both forms. Other control characters
 * and bytes that are not ASCII are replaced: names of rails and messages of devices need not be
 * UTF-8. A value that does not fit is cut. */
void metrics_label(char labels[METRICS_LABELS_BYTES], const char *name, const char *value) {
    size_t at = strlen(labels);
    int begun = snprintf(labels + at, METRICS_LABELS_BYTES - at, "%s%s=\"", at ? "," : "", name);
    if (begun < 0 || at + (size_t)begun + 2 >= METRICS_LABELS_BYTES) {
        labels[at] = '\0';
        return;
    }
    at += (size_t)begun;
    for (; *value && at + 4 < METRICS_LABELS_BYTES; value++) {
        unsigned char c = (unsigned char)*value;
        if (c == '\\' || c == '"' || c == '\n') {
            labels[at++] = '\\';
            c = c == '\n' ? 'n' : c;
        } else if (c < ' ' || c > '~') {
            c = '?';
        }
        labels[at++] = (char)c;
    }
    labels[at++] = '"';
    labels[at] = '\0';
}

/* Numbers of all kinds are kept as 8-byte words, so that a subject's are one array. */
static size_t metrics_row_words(const struct metric *row) {
    return row->type == METRIC_HISTOGRAM ? HISTOGRAM_WORDS : 1;
}

/* The two arrays grow together. If only the first can grow, it stays larger than it need be, and
 * the next attempt asks for the same again. */
static bool metrics_make_room(struct metrics_scope *scope) {
    if (scope->count < scope->room)
        return true;
    size_t room = scope->room ? 2 * scope->room : 16;
    uint64_t *values = realloc(scope->values, room * scope->words * sizeof *values);
    if (values)
        scope->values = values;
    struct metrics_subject *subjects = realloc(scope->subjects, room * sizeof *subjects);
    if (subjects)
        scope->subjects = subjects;
    if (!values || !subjects)
        return false;
    scope->room = room;
    return true;
}

/* The number may lie at any address that its own type allows: it is copied, not cast. */
static uint64_t metrics_read(const void *at, size_t bytes) {
    uint32_t narrow;
    uint64_t wide;
    switch (bytes) {
    case sizeof(bool):
        return *(const uint8_t *)at;
    case sizeof narrow:
        memcpy(&narrow, at, sizeof narrow);
        return narrow;
    default:
        memcpy(&wide, at, sizeof wide);
        return wide;
    }
}

/* The first subject says which rows its scope has. A subject that does not fit is left out, and the
 * whole snapshot must not be shown then: counters that are missing would look like a restart. */
void metrics_add(struct metrics *metrics, enum metrics_scope_number number,
                 const struct metric *rows, size_t row_count, const char *labels, const void *of) {
    struct metrics_scope *scope = &metrics->scopes[number];
    if (!scope->words) {
        scope->rows = rows;
        scope->row_count = row_count;
        for (size_t i = 0; i < row_count; i++)
            scope->words += metrics_row_words(&rows[i]);
    }
    if (!metrics_make_room(scope)) {
        metrics->no_memory = true;
        return;
    }
    /* One subject after the other, each with its rows in the order of the table. */
    uint64_t *value = scope->values + scope->count * scope->words;
    for (size_t i = 0; i < row_count; i++) {
        const unsigned char *at = (const unsigned char *)of + rows[i].offset;
        if (rows[i].type == METRIC_HISTOGRAM)
            memcpy(value, at, sizeof(struct histogram));
        else
            *value = metrics_read(at, rows[i].bytes);
        value += metrics_row_words(&rows[i]);
    }
    snprintf(scope->subjects[scope->count++].labels, METRICS_LABELS_BYTES, "%s", labels);
}

void metrics_deinit(struct metrics *metrics) {
    for (size_t i = 0; i < METRICS_SCOPES; i++) {
        free(metrics->scopes[i].values);
        free(metrics->scopes[i].subjects);
    }
    *metrics = (struct metrics){0};
}

/* ---- text ---- */

/* After a failure nothing is added any more: the text is of no use, and its owner is told. */
static void metrics_put(struct metrics_text *out, const char *data, size_t bytes) {
    if (out->bytes + bytes > out->room && !out->no_memory) {
        size_t room = out->room ? out->room : 65536;
        while (out->bytes + bytes > room)
            room *= 2;
        char *grown = realloc(out->data, room);
        out->no_memory = !grown;
        if (grown) {
            out->data = grown;
            out->room = room;
        }
    }
    if (out->no_memory)
        return;
    memcpy(out->data + out->bytes, data, bytes);
    out->bytes += bytes;
}

/* Of a text that ends with a zero byte, which is not added. */
static void metrics_put_text(struct metrics_text *out, const char *text) {
    metrics_put(out, text, strlen(text));
}

/* At least `digits` digits, with zeros in front. */
static void metrics_put_number(struct metrics_text *out, uint64_t number, size_t digits) {
    char buffer[24], *at = buffer + sizeof buffer;
    for (; number || digits || at == buffer + sizeof buffer; number /= 10, digits -= digits > 0)
        *--at = (char)('0' + number % 10);
    metrics_put(out, at, (size_t)(buffer + sizeof buffer - at));
}

/* Nanoseconds as seconds: 1500000000 is 1.5. Zeros at the end are left out. */
static void metrics_put_seconds(struct metrics_text *out, uint64_t ns) {
    uint64_t fraction = ns % NS_PER_S;
    size_t digits = FRACTION_DIGITS;
    metrics_put_number(out, ns / NS_PER_S, 1);
    if (!fraction)
        return;
    for (; fraction % 10 == 0; fraction /= 10)
        digits--;
    metrics_put(out, ".", 1);
    metrics_put_number(out, fraction, digits);
}

/* Ends the line. */
static void metrics_put_value(struct metrics_text *out, enum metric_unit unit, uint64_t value) {
    if (unit == METRIC_NS)
        metrics_put_seconds(out, value);
    else if (unit == METRIC_MS)
        metrics_put_seconds(out, value * NS_PER_MS);
    else
        metrics_put_number(out, value, 1);
    metrics_put(out, "\n", 1);
}

/* NAME SUFFIX {labels of the subject, label of the row and a blank; what follows is the value. le:
 * the bound of a bucket, NULL: it is none; UINT64_MAX: the last. */
static void metrics_put_series(struct metrics_text *out, const struct metric *row,
                               const char *labels, const char *suffix, const uint64_t *le_ns) {
    const char *comma = "";
    metrics_put_text(out, row->name);
    metrics_put_text(out, suffix);
    if (*labels || row->label || le_ns)
        metrics_put(out, "{", 1);
    if (*labels) {
        metrics_put_text(out, labels);
        comma = ",";
    }
    if (row->label) {
        metrics_put_text(out, comma);
        metrics_put_text(out, row->label);
        metrics_put_text(out, "=\"");
        metrics_put_text(out, row->label_value);
        metrics_put(out, "\"", 1);
        comma = ",";
    }
    if (le_ns) {
        metrics_put_text(out, comma);
        metrics_put_text(out, "le=\"");
        if (*le_ns == UINT64_MAX)
            metrics_put_text(out, "+Inf");
        else
            metrics_put_seconds(out, *le_ns);
        metrics_put(out, "\"", 1);
    }
    metrics_put_text(out, *labels || row->label || le_ns ? "} " : " ");
}

/* The count of a bucket includes those of all buckets below it. */
static void metrics_put_histogram(struct metrics_text *out, const struct metric *row,
                                  const char *labels, const uint64_t *value) {
    uint64_t sum = 0, bound_ns = HISTOGRAM_FIRST_NS;
    for (size_t i = 0; i <= HISTOGRAM_BUCKETS; i++, bound_ns *= HISTOGRAM_FACTOR) {
        uint64_t le_ns = i < HISTOGRAM_BUCKETS ? bound_ns : UINT64_MAX;
        sum += value[offsetof(struct histogram, counts) / sizeof *value + i];
        metrics_put_series(out, row, labels, "_bucket", &le_ns);
        metrics_put_value(out, METRIC_PLAIN, sum);
    }
    metrics_put_series(out, row, labels, "_sum", NULL);
    metrics_put_value(out, METRIC_NS, value[offsetof(struct histogram, sum_ns) / sizeof *value]);
    metrics_put_series(out, row, labels, "_count", NULL);
    metrics_put_value(out, METRIC_PLAIN, sum);
}

/* "# WORD NAME TEXT", before the first line of a family. */
static void metrics_put_about(struct metrics_text *out, const char *word, const struct metric *row,
                              bool open_metrics, const char *text) {
    metrics_put_text(out, word);
    metrics_put_text(out, row->name);
    if (!open_metrics && row->type == METRIC_COUNTER)
        metrics_put_text(out, "_total");
    metrics_put(out, " ", 1);
    metrics_put_text(out, text);
    metrics_put(out, "\n", 1);
}

/* Numbers without a unit, such as how many leases there are, get no line for it. */
static void metrics_put_family_head(struct metrics_text *out, const struct metric *row,
                                    bool open_metrics) {
    static const char *const types[] = {"gauge", "counter", "histogram"};
    metrics_put_about(out, "# HELP ", row, open_metrics, row->help);
    metrics_put_about(out, "# TYPE ", row, open_metrics, types[row->type]);
    if (open_metrics && row->unit != METRIC_PLAIN)
        metrics_put_about(out, "# UNIT ", row, open_metrics,
                          row->unit == METRIC_BYTES ? "bytes" : "seconds");
}

/* One family of a scope: rows [first, end), whose values begin at that word of each subject's. */
static void metrics_put_family(struct metrics_text *out, const struct metrics_scope *scope,
                               size_t first, size_t end, size_t word) {
    /* Lines of one subject stay together, so that a person who reads the text finds them. */
    for (size_t subject = 0; subject < scope->count; subject++) {
        const char *labels = scope->subjects[subject].labels;
        const uint64_t *value = scope->values + subject * scope->words + word;
        for (size_t i = first; i < end; i++) {
            const struct metric *row = &scope->rows[i];
            if (row->type == METRIC_HISTOGRAM) {
                metrics_put_histogram(out, row, labels, value);
            } else {
                metrics_put_series(out, row, labels, row->type == METRIC_COUNTER ? "_total" : "",
                                   NULL);
                metrics_put_value(out, row->unit, *value);
            }
            value += metrics_row_words(row);
        }
    }
}

/* Rows of one name are one family, and stand next to each other in their table. */
void metrics_write(const struct metrics *metrics, bool open_metrics, struct metrics_text *out) {
    for (size_t i = 0; i < METRICS_SCOPES; i++) {
        const struct metrics_scope *scope = &metrics->scopes[i];
        size_t word = 0, end;
        if (!scope->count) /* a family without a line is left out */
            continue;
        /* [first, end) are the rows of one family; `word` is where its numbers begin in those of
         * each subject, and `words` how many they are. */
        for (size_t first = 0; first < scope->row_count; first = end) {
            size_t words = 0;
            for (end = first;
                 end < scope->row_count && !strcmp(scope->rows[end].name, scope->rows[first].name);
                 end++)
                words += metrics_row_words(&scope->rows[end]);
            metrics_put_family_head(out, &scope->rows[first], open_metrics);
            metrics_put_family(out, scope, first, end, word);
            word += words;
        }
    }
    if (open_metrics)
        metrics_put_text(out, "# EOF\n");
}
