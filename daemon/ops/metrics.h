/* SPDX-License-Identifier: Apache-2.0
 *
 * Metrics as text for Prometheus and its like, in two forms: OpenMetrics 1.0 and the older text
 * format 0.0.4. This file knows how metrics are written, and nothing of what they mean: the tables
 * of featured's own are in exchange/metrics_table.c.
 *
 * A scope is a kind of thing that is measured, for example a store. Its table has a row for each
 * number that is told of such a thing, and its subjects are the things themselves. To take a
 * snapshot one adds each subject with a pointer to a struct of its numbers; the rows say where in
 * that struct their numbers lie. What is added is copied, so that one thread can add and another
 * write the text, one after the other.
 *
 * Example: a table with rows for "featured_store_puts" and "featured_store_resident_bytes", and
 * subjects with the labels store="run0" and store="run1", are written as four lines of numbers.
 */
#ifndef FEATURED_OPS_METRICS_H
#define FEATURED_OPS_METRICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum metric_type { METRIC_GAUGE = 0, METRIC_COUNTER, METRIC_HISTOGRAM };
/* The unit in which the number lies in the struct; it is written in the base unit. */
enum metric_unit {
    METRIC_PLAIN = 0, /* written as it is */
    METRIC_BYTES,
    METRIC_NS, /* written in seconds */
    METRIC_MS, /* the same */
};

struct metric {
    /* Of the family: with its unit, without "_total". Rows of one family follow each other and
     * differ by the value of their label. */
    const char *name;
    const char *help;
    enum metric_type type;
    enum metric_unit unit;
    const char *label, *label_value; /* of this row; NULL: the subject's labels are enough */
    size_t offset, bytes;            /* of the number: 1, 4 or 8 bytes, or a struct histogram */
    /* For featurectl status; NULL: the row is not shown there. The name is for programs, ends with
     * its unit and is never changed. */
    const char *status_name, *status_label;
};

/* The scopes of featured. What they are is the business of their tables. */
enum metrics_scope_number {
    METRICS_BUILD = 0,
    METRICS_PROCESS,
    METRICS_NODE,
    METRICS_STORE,
    METRICS_PEER_INFO,
    METRICS_PEER,
    METRICS_RAIL,
    METRICS_SCOPES
};

#define METRICS_LABELS_BYTES 512u

struct metrics_subject {
    char labels[METRICS_LABELS_BYTES]; /* as they are written between the braces */
};

struct metrics_scope {
    const struct metric *rows;
    size_t row_count, words; /* words: that one subject takes */
    uint64_t *values;
    struct metrics_subject *subjects;
    size_t count, room; /* subjects */
};

/* A snapshot. Starts as {0}; its memory is kept from one to the next. */
struct metrics {
    struct metrics_scope scopes[METRICS_SCOPES];
    bool no_memory; /* something could not be added */
};

/* Forgets the subjects that were added. */
void metrics_begin(struct metrics *metrics);
/* Adds one more label to such a text ("" to begin). Any text is a good value: what could break the
 * line is escaped or replaced. */
void metrics_label(char labels[METRICS_LABELS_BYTES], const char *name, const char *value);
/* rows: the same at each call for a scope, and kept by reference. of: the struct of the numbers. */
void metrics_add(struct metrics *metrics, enum metrics_scope_number scope,
                 const struct metric *rows, size_t row_count, const char *labels, const void *of);
void metrics_deinit(struct metrics *metrics);

/* Text that grows. */
struct metrics_text {
    char *data; /* malloc'ed; the owner's, who frees it */
    size_t bytes, room;
    bool no_memory; /* the text is not whole and must not be used */
};
/* The whole snapshot, the last line of OpenMetrics included. */
void metrics_write(const struct metrics *metrics, bool open_metrics, struct metrics_text *out);

#endif
