/* SPDX-License-Identifier: Apache-2.0
 *
 * Invariants: `at` < column_count between cells; cell_count is a multiple of shown_count between
 * rows. Cells are kept as people may see them (shown.h).
 */
#include "featurectl/table.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "featurectl/memory.h"
#include "featurectl/shown.h"
#include "featurectl/units.h"

/* Columns without a title come last: cells of people are kept without gaps, and their columns
 * counted from the front.
 */
void table_init(struct table *table, FILE *out, bool json, const struct table_column *columns,
                size_t column_count) {
    *table =
        (struct table){.out = out, .json = json, .columns = columns, .column_count = column_count};
    while (table->shown_count < column_count && columns[table->shown_count].title)
        table->shown_count++;
    for (size_t i = table->shown_count; i < column_count; i++)
        assert(!columns[i].title); /* a cell would be kept that has no column */
}

/* Room is doubled, so that a list of a million rows does not copy its cells a million times. */
static void table_keep_text(struct table *table, const char *text) {
    if (table->cell_count == table->cell_room) {
        table->cell_room = table->cell_room ? table->cell_room * 2 : 64;
        table->cells = memory_grow(table->cells, table->cell_room, sizeof *table->cells);
    }
    table->cells[table->cell_count++] = shown_text(text);
}

/* With --json each row is printed as soon as it is complete, so that a program may read a long list
 * as it comes; for people the cells are kept until the end, when the widths are known. */
void table_cell(struct table *table, json_t *json, const char *text) {
    assert(table->at < table->column_count);
    if (table->json) {
        if (!table->row)
            table->row = json_object();
        json_object_set_new(table->row, table->columns[table->at].key, json);
    } else {
        json_decref(json);
        if (table->columns[table->at].title)
            table_keep_text(table, text);
    }
    table->at++;
}

/* Nothing is "-" for people and null for programs: an empty cell would shift the columns for
 * awk.
 */
void table_text(struct table *table, const char *text) {
    bool empty = !text || !*text;
    table_cell(table, empty ? json_null() : shown_json(text), empty ? "-" : text);
}

void table_count(struct table *table, uint64_t count) {
    char text[UNITS_ROOM];
    snprintf(text, sizeof text, "%" PRIu64, count);
    table_cell(table, json_integer((json_int_t)count), text);
}

/* A string in JSON: readers that keep numbers as doubles would change a number of 64 bits. */
void table_id(struct table *table, uint64_t id) {
    char text[UNITS_ROOM];
    snprintf(text, sizeof text, "%" PRIu64, id);
    table_text(table, id ? text : NULL);
}

/* People read "3.2 GiB", programs the number of bytes. */
void table_bytes(struct table *table, uint64_t bytes) {
    char text[UNITS_ROOM];
    table_cell(table, json_integer((json_int_t)bytes), units_bytes(bytes, text));
}

/* People read "2 min 5 s", programs milliseconds. */
void table_duration(struct table *table, uint64_t ms) {
    char text[UNITS_ROOM];
    table_cell(table, json_integer((json_int_t)ms), units_duration(ms, text));
}

void table_flag(struct table *table, bool flag) {
    table_cell(table, json_boolean(flag), flag ? "yes" : "no");
}

/* A row that is not complete is a mistake in the command, and asserted. */
void table_end_row(struct table *table) {
    assert(table->at == table->column_count);
    table->at = 0;
    if (!table->json)
        return;
    json_dumpf(table->row, table->out, JSON_COMPACT);
    fputc('\n', table->out);
    json_decref(table->row);
    table->row = NULL;
}

/* Characters, not bytes: UTF-8 continuation bytes take no column. */
static size_t table_width_of(const char *text) {
    size_t width = 0;
    for (; *text; text++)
        width += ((unsigned char)*text & 0xc0) != 0x80;
    return width;
}

/* No blanks at the end of a line. */
static void table_print_padded(FILE *out, const char *text, size_t width, enum table_align align,
                               bool last) {
    size_t pad = width - table_width_of(text);
    if (align == TABLE_RIGHT)
        fprintf(out, "%*s%s", (int)pad, "", text);
    else
        fprintf(out, "%s%*s", text, last ? 0 : (int)pad, "");
    fputs(last ? "\n" : "  ", out);
}

/* The widest of the title and all cells of the column. */
static size_t table_column_width(const struct table *table, size_t column) {
    size_t width = table_width_of(table->columns[column].title);
    for (size_t i = column; i < table->cell_count; i += table->shown_count) {
        size_t cell = table_width_of(table->cells[i]);
        width = cell > width ? cell : width;
    }
    return width;
}

/* The last column is not padded: it often is a sentence. */
static void table_print_rows(const struct table *table) {
    size_t n = table->shown_count;
    size_t *width = memory_grow(NULL, n, sizeof *width);
    for (size_t c = 0; c < n; c++)
        width[c] = table_column_width(table, c);
    for (size_t c = 0; c < n; c++)
        table_print_padded(table->out, table->columns[c].title, width[c], table->columns[c].align,
                           c + 1 == n);
    for (size_t i = 0; i < table->cell_count; i++)
        table_print_padded(table->out, table->cells[i], width[i % n], table->columns[i % n].align,
                           i % n + 1 == n);
    free(width);
}

/* One field a line, its title before it: for a single object. */
static void table_print_fields(const struct table *table) {
    size_t width = 0;
    for (size_t c = 0; c < table->shown_count; c++) {
        size_t title = table_width_of(table->columns[c].title);
        width = title > width ? title : width;
    }
    for (size_t i = 0; i < table->cell_count; i++) {
        table_print_padded(table->out, table->columns[i % table->shown_count].title, width,
                           TABLE_LEFT, false);
        fprintf(table->out, "%s\n", table->cells[i]);
    }
}

/* Afterwards the table is empty and may be initialised anew. */
void table_finish(struct table *table, enum table_layout layout) {
    if (!table->json && layout == TABLE_ROWS)
        table_print_rows(table);
    else if (!table->json)
        table_print_fields(table);
    for (size_t i = 0; i < table->cell_count; i++)
        free(table->cells[i]);
    free(table->cells);
    json_decref(table->row);
    *table = (struct table){0};
}
