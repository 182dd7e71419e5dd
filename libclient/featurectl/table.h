/* SPDX-License-Identifier: Apache-2.0
 *
 * What a command found, for people (aligned columns, or one field a line) or for programs (one JSON
 * object a line). A command fills cells in column order and need not know which it is.
 *
 * People see 3.2 GiB, programs 3435973836: a column's key carries the unit (`extent_bytes`,
 * `age_ms`). 64-bit numbers beyond what JSON readers keep exact (generation, incarnation) are
 * strings. Everywhere else, in logs too, these two are the same decimal digits.
 *
 * A table of rows is to fit 100 columns: it shows what matters, --wide shows the rest, and a column
 * in which no row has anything is left out. On a terminal the last column is folded.
 */
#ifndef FEATURED_CTL_TABLE_H
#define FEATURED_CTL_TABLE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* How people see a column: TABLE_LEFT or TABLE_RIGHT, and when. Programs get all of them. */
enum table_style {
    TABLE_LEFT = 0,
    TABLE_RIGHT = 1,
    TABLE_IF_ANY = 2, /* where some row has more than "no", "never" or 0 there */
    TABLE_WIDE = 4,   /* with --wide alone */
};
enum table_layout { TABLE_ROWS = 0, TABLE_FIELDS };

struct table_column {
    const char *key;   /* JSON */
    const char *title; /* people; NULL = JSON only, and then one of the last columns */
    unsigned style;    /* enum table_style, or-ed */
};

struct table {
    FILE *out;
    bool json;
    bool wide; /* every column, also the empty ones, so that awk finds them in their places */
    const struct table_column *columns;
    size_t column_count, shown_count; /* shown: those with a title */
    char **cells;                     /* people: all rows, in order */
    size_t cell_count, cell_room;
    char **notes; /* people: sentences below the rows */
    size_t note_count;
    json_t *row; /* programs: the row being filled */
    size_t at;   /* next column of the row being filled */
};

/* columns: borrowed. */
void table_init(struct table *table, FILE *out, bool json, const struct table_column *columns,
                size_t column_count);
/* One cell each. */
void table_text(struct table *table, const char *text); /* NULL or "" = "-" and null */
void table_count(struct table *table, uint64_t count);
void table_id(struct table *table, uint64_t id); /* 0 = "-" and null */
void table_bytes(struct table *table, uint64_t bytes);
void table_duration(struct table *table, uint64_t ms);
void table_flag(struct table *table, bool flag);
/* What people and programs see differs: json is taken over, text copied. */
void table_cell(struct table *table, json_t *json, const char *text);
/* Every column has been filled. JSON is written now, people's rows by table_finish(). */
void table_end_row(struct table *table);
/* A sentence below the rows, for people alone: what would be too long for a column. */
void table_note(struct table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Prints what is kept and frees it. TABLE_FIELDS is for a single row. */
void table_finish(struct table *table, enum table_layout layout);

#endif
