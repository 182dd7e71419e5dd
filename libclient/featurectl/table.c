/* SPDX-License-Identifier: Apache-2.0
 *
 * Invariants: `at` < column_count between cells; cell_count is a multiple of shown_count between
 * rows. Cells are kept as people may see them (shown.h).
 */
#include "featurectl/table.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "featurectl/fold.h"
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

/* A string in JSON: readers that keep numbers as doubles (jq, JavaScript) would change a number of
 * 64 bits. The digits are those of the log and of a ref's URI.
 */
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

/* ---- what people see ---- */

void table_note(struct table *table, const char *format, ...) {
    va_list arguments;
    char *text = NULL;
    if (table->json)
        return;
    va_start(arguments, format);
    int length = vasprintf(&text, format, arguments);
    va_end(arguments);
    if (length < 0)
        return; /* a note less */
    table->notes = memory_grow(table->notes, table->note_count + 1, sizeof *table->notes);
    table->notes[table->note_count++] = shown_text(text);
    free(text);
}

/* Says the cell nothing? "-" never does; what a count or a flag is most of the time does not where
 * the column is only shown if there is any.
 */
static bool table_cell_is_empty(const char *text, unsigned style) {
    static const char *const nothing[] = {"no", "never", "0", "0 B", "0 ms"};
    if (strcmp(text, "-") == 0)
        return true;
    for (size_t i = 0; (style & TABLE_IF_ANY) && i < sizeof nothing / sizeof *nothing; i++)
        if (strcmp(text, nothing[i]) == 0)
            return true;
    return false;
}

/* The first column names the row and is always there. Without rows there is nothing to judge by:
 * the titles that are usual are shown.
 */
static bool table_column_is_shown(const struct table *table, size_t column) {
    unsigned style = table->columns[column].style;
    if (table->wide || column == 0)
        return true;
    if (style & TABLE_WIDE)
        return false;
    for (size_t i = column; i < table->cell_count; i += table->shown_count)
        if (!table_cell_is_empty(table->cells[i], style))
            return true;
    return table->cell_count == 0 && !(style & TABLE_IF_ANY);
}

/* The widest of the title and all cells of the column. */
static size_t table_column_width(const struct table *table, size_t column) {
    size_t width = fold_width(table->columns[column].title);
    for (size_t i = column; i < table->cell_count; i += table->shown_count) {
        size_t cell = fold_width(table->cells[i]);
        width = cell > width ? cell : width;
    }
    return width;
}

/* Which columns are printed, in order, and how wide. */
struct table_plan {
    size_t *columns, *width;
    size_t count, terminal_columns;
};

/* No blanks at the end of a line. The last column often is a sentence: it is not padded, and folded
 * where it would leave the terminal.
 */
static void table_print_row(const struct table *table, const struct table_plan *plan,
                            const char *const *cells) {
    size_t at = 0;
    for (size_t i = 0; i < plan->count; i++) {
        const char *text = cells[plan->columns[i]];
        size_t pad = plan->width[i] - fold_width(text);
        bool right = table->columns[plan->columns[i]].style & TABLE_RIGHT;
        fprintf(table->out, "%*s", right ? (int)pad : 0, "");
        if (i + 1 == plan->count)
            fold_print(table->out, text, at + (right ? pad : 0), at,
                       at + fold_width(text) > plan->terminal_columns ? plan->terminal_columns : 0);
        else
            fprintf(table->out, "%s%*s  ", text, right ? 0 : (int)pad, "");
        at += plan->width[i] + 2;
    }
}

/* The widths are those of the columns that are shown; hidden ones take no room. */
static void table_print_rows(const struct table *table) {
    size_t n = table->shown_count;
    const char **titles = memory_grow(NULL, n, sizeof *titles);
    struct table_plan plan = {.columns = memory_grow(NULL, n, sizeof *plan.columns),
                              .width = memory_grow(NULL, n, sizeof *plan.width),
                              .terminal_columns = fold_columns(table->out)};
    for (size_t c = 0; c < n; c++) {
        titles[c] = table->columns[c].title;
        if (!table_column_is_shown(table, c))
            continue;
        plan.width[plan.count] = table_column_width(table, c);
        plan.columns[plan.count++] = c;
    }
    table_print_row(table, &plan, titles);
    for (size_t i = 0; i < table->cell_count; i += n)
        table_print_row(table, &plan, (const char *const *)&table->cells[i]);
    free(plan.width);
    free(plan.columns);
    free(titles);
}

/* One field a line, its title before it: for a single object. All of them, also the empty ones. */
static void table_print_fields(const struct table *table) {
    size_t width = 0, columns = fold_columns(table->out);
    for (size_t c = 0; c < table->shown_count; c++) {
        size_t title = fold_width(table->columns[c].title);
        width = title > width ? title : width;
    }
    for (size_t i = 0; i < table->cell_count; i++) {
        const char *title = table->columns[i % table->shown_count].title;
        bool fits = width + 2 + fold_width(table->cells[i]) <= columns;
        fprintf(table->out, "%s%*s  ", title, (int)(width - fold_width(title)), "");
        fold_print(table->out, table->cells[i], width + 2, width + 2, fits ? 0 : columns);
    }
}

/* Afterwards the table is empty and may be initialised anew. */
void table_finish(struct table *table, enum table_layout layout) {
    if (!table->json && layout == TABLE_ROWS)
        table_print_rows(table);
    else if (!table->json)
        table_print_fields(table);
    if (table->note_count)
        fputc('\n', table->out);
    for (size_t i = 0; i < table->note_count; i++) {
        fold_print(table->out, table->notes[i], 0, 2, fold_columns(table->out));
        free(table->notes[i]);
    }
    for (size_t i = 0; i < table->cell_count; i++)
        free(table->cells[i]);
    free(table->notes);
    free(table->cells);
    json_decref(table->row);
    *table = (struct table){0};
}
