/* SPDX-License-Identifier: Apache-2.0
 *
 * What a command found, for people (aligned columns, or one field a line) or for programs (one JSON
 * object a line). A command fills cells in column order and need not know which it is.
 *
 * People see 3.2 GiB, programs 3435973836: a column's key carries the unit (`extent_bytes`,
 * `age_ms`). 64-bit numbers beyond what JSON readers keep exact (generation, incarnation) are
 * strings.
 */
#ifndef FEATURED_CTL_TABLE_H
#define FEATURED_CTL_TABLE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum table_align { TABLE_LEFT = 0, TABLE_RIGHT };
enum table_layout { TABLE_ROWS = 0, TABLE_FIELDS };

struct table_column {
    const char *key;   /* JSON */
    const char *title; /* people; NULL = JSON only, and then one of the last columns */
    enum table_align align;
};

struct table {
    FILE *out;
    bool json;
    const struct table_column *columns;
    size_t column_count, shown_count; /* shown: those with a title */
    char **cells;                     /* people: all rows, in order */
    size_t cell_count, cell_room;
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
/* Prints what is kept and frees it. TABLE_FIELDS is for a single row. */
void table_finish(struct table *table, enum table_layout layout);

#endif
