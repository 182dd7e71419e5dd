/* SPDX-License-Identifier: Apache-2.0
 *
 * Layout, from above: two lines about the node, the stores (a line each, and below it why its
 * memory is not free), the peers, the oldest leases, and in the last line the keys. The stores get
 * the room that is there; peers and leases get what is left, and at least a few lines if there is
 * room at all.
 *
 * A cell that is too long is cut, and ends with "~": nothing is ever drawn outside of the terminal.
 */
#include "featurectl/top_view.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "featurectl/fold.h"
#include "featurectl/units.h"

#define NAME_COLUMNS   16u
#define PEER_COLUMNS   12u
#define HISTORY_NARROW 10u
#define HISTORY_WIDE   30u
#define WIDE_COLUMNS   110u
#define LINE_BYTES     1024u

/* ---- cells ---- */

/* Bytes of the first `width` characters. */
static size_t top_view_cut(const char *text, size_t width) {
    size_t bytes = 0;
    for (size_t seen = 0; text[bytes]; bytes++) {
        bool begins = ((unsigned char)text[bytes] & 0xc0) != 0x80;
        if (begins && seen++ == width)
            break;
    }
    return bytes;
}

/* The one place where something reaches the screen: outside of it nothing is drawn, and what is
 * too long for the line is cut.
 */
static void top_view_put(const struct top_screen *screen, size_t row, size_t column,
                         enum top_look look, const char *text) {
    char cut[LINE_BYTES];
    if (row >= screen->rows || column >= screen->columns)
        return;
    size_t room = screen->columns - column;
    if (fold_width(text) > room) {
        snprintf(cut, sizeof cut, "%.*s~", (int)top_view_cut(text, room - 1), text);
        text = cut;
    }
    screen->put(screen->user, row, column, look, text);
}

static void top_view_print(const struct top_screen *screen, size_t row, size_t column,
                           enum top_look look, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
/* The same with a format. */
static void top_view_print(const struct top_screen *screen, size_t row, size_t column,
                           enum top_look look, const char *format, ...) {
    char line[LINE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    top_view_put(screen, row, column, look, line);
}

/* A line that is made of cells from left to right. */
struct top_line {
    const struct top_screen *screen;
    size_t row, column;
    enum top_look look;
};

/* Width in columns, as printf has it: a negative one is left-aligned. A blank stands behind each
 * cell.
 */
static void top_cell(struct top_line *line, int width, const char *text) {
    size_t room = (size_t)abs(width), shown = fold_width(text);
    char cell[LINE_BYTES];
    if (shown > room)
        snprintf(cell, sizeof cell, "%.*s~", (int)top_view_cut(text, room - 1), text);
    else
        snprintf(cell, sizeof cell, "%*s%s", width > 0 ? (int)(room - shown) : 0, "", text);
    top_view_put(line->screen, line->row, line->column, line->look, cell);
    line->column += room + 1;
}

/* Counts, bytes and rates are right-aligned: then their digits stand below each other. */
static void top_cell_count(struct top_line *line, int width, uint64_t count) {
    char text[UNITS_ROOM];
    snprintf(text, sizeof text, "%llu", (unsigned long long)count);
    top_cell(line, width, text);
}

static void top_cell_bytes(struct top_line *line, int width, uint64_t bytes) {
    char text[UNITS_ROOM];
    top_cell(line, width, units_bytes(bytes, text));
}

/* "120", "3.5": a rate needs no more digits than tell it from another. */
static char *top_view_rate(double per_s, char out[UNITS_ROOM]) {
    snprintf(out, UNITS_ROOM, per_s < 9.95 && per_s > 0 ? "%.1f" : "%.0f", per_s);
    return out;
}

static void top_cell_rate(struct top_line *line, int width, double per_s) {
    char text[UNITS_ROOM];
    top_cell(line, width, top_view_rate(per_s, text));
}

/* A point above 0 has at least the lowest block, so that "hardly any" can be told from "none".
 * Where the series is shorter than the width, it stands at the right: now is always in the same
 * place.
 */
void top_sparkline(const struct top_series *series, double most, size_t width, bool utf8,
                   char *out) {
    static const char *const blocks[] = {" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    static const char *const ascii[] = {" ", ".", ":", "-", "=", "+", "*", "%", "#"};
    const char *const *levels = utf8 ? blocks : ascii;
    size_t shown = series->count < width ? series->count : width;
    double full = most;
    for (size_t i = series->count - shown; most <= 0 && i < series->count; i++)
        full = series->points[i] > full ? series->points[i] : full;
    size_t used = (size_t)sprintf(out, "%*s", (int)(width - shown), "");
    for (size_t i = series->count - shown; i < series->count; i++) {
        double share = full > 0 ? series->points[i] / full : 0;
        size_t level = share <= 0 ? 0 : share >= 1 ? 8 : 1 + (size_t)(share * 7.99);
        used += (size_t)sprintf(out + used, "%s", levels[level > 8 ? 8 : level]);
    }
}

static void top_cell_series(struct top_line *line, const struct top_series *series, double most,
                            size_t width, bool utf8) {
    char text[4 * TOP_POINTS + 1];
    top_sparkline(series, most, width, utf8, text);
    top_cell(line, -(int)width, text);
}

/* ---- parts ---- */

static size_t top_view_node(const struct top_data *data, const struct top_view *view,
                            const struct top_screen *screen) {
    char up[UNITS_ROOM], used[UNITS_ROOM], limit[UNITS_ROOM], puts[UNITS_ROOM], gets[UNITS_ROOM],
        in[UNITS_ROOM], text[3][4 * TOP_POINTS + 1];
    bool fine = !view->trouble && strcmp(data->state, "ready") == 0;
    top_view_print(screen, 0, 0, fine ? TOP_BOLD : TOP_ALARM, "%s  %s  up %s  %s of %s resident",
                   data->node, view->trouble ? view->trouble : data->state,
                   units_duration(data->uptime_ms, up), units_bytes(data->resident_bytes, used),
                   units_bytes(data->limit_bytes, limit));
    top_view_print(screen, 1, 0, TOP_PLAIN, "%llu sessions  %llu leases  %llu pending",
                   (unsigned long long)data->sessions, (unsigned long long)data->leases,
                   (unsigned long long)data->release_pending);
    size_t width = screen->columns >= WIDE_COLUMNS ? 20 : 8;
    top_sparkline(&data->puts, 0, width, view->utf8, text[0]);
    top_sparkline(&data->gets, 0, width, view->utf8, text[1]);
    top_sparkline(&data->in, 0, width, view->utf8, text[2]);
    top_view_print(screen, 2, 0, TOP_PLAIN, "puts/s %s %s   gets/s %s %s   read/s %s %s", text[0],
                   top_view_rate(data->puts_per_s, puts), text[1],
                   top_view_rate(data->gets_per_s, gets), text[2],
                   units_bytes((uint64_t)data->in_per_s, in));
    return 4;
}

/* Over the whole width: a bar, or a line that hides what stood there. */
static void top_view_fill(const struct top_screen *screen, size_t row, enum top_look look,
                          const char *format, ...) __attribute__((format(printf, 4, 5)));
static void top_view_fill(const struct top_screen *screen, size_t row, enum top_look look,
                          const char *format, ...) {
    char line[LINE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    int used = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (used >= 0 && (size_t)used < screen->columns && screen->columns < sizeof line)
        snprintf(line + used, sizeof line - (size_t)used, "%*s", (int)screen->columns - used, "");
    top_view_put(screen, row, 0, look, line);
}

/* A store in which puts wait is drawn to be noticed: somebody's training run stands still. */
static void top_view_store(const struct top_store *store, const struct top_view *view,
                           const struct top_screen *screen, size_t row, size_t history) {
    double full = top_store_full(store);
    char percent[UNITS_ROOM];
    struct top_line line = {screen, row, 0, store->waiting ? TOP_ALARM : TOP_PLAIN};
    snprintf(percent, sizeof percent, "%.0f%%", full * 100);
    top_cell(&line, -(int)NAME_COLUMNS, store->name);
    top_cell_bytes(&line, 10, store->used_bytes);
    top_cell_bytes(&line, 10, store->limit_bytes);
    top_cell(&line, 4, percent);
    top_cell_series(&line, &store->used, 1, history, view->utf8);
    top_cell_rate(&line, 6, store->puts_per_s);
    top_cell_rate(&line, 6, store->gets_per_s);
    top_cell_count(&line, 6, store->leases);
    top_cell_count(&line, 4, store->waiting);
}

/* Lines that peers and leases take for themselves, with a title and a blank line each. */
static size_t top_view_reserve(size_t count, size_t most) {
    size_t lines = count < most ? count : most;
    return lines ? lines + 2 : 0;
}

/* Returns the first free row. */
static size_t top_view_stores(const struct top_data *data, const struct top_view *view,
                              const struct top_screen *screen, size_t row, size_t end) {
    size_t history = screen->columns >= WIDE_COLUMNS ? HISTORY_WIDE : HISTORY_NARROW;
    top_view_fill(screen, row++, TOP_BAR, "%-*s %10s %10s %4s %-*s %6s %6s %6s %4s",
                  (int)NAME_COLUMNS, "STORE", "USED", "LIMIT", "FULL", (int)history, "HISTORY",
                  "PUT/s", "GET/s", "LEASES", "WAIT");
    size_t i = view->first;
    for (; i < data->store_count && row < end; i++) {
        const struct top_store *store = &data->stores[i];
        top_view_store(store, view, screen, row++, history);
        if (*store->why && row < end)
            top_view_print(screen, row++, 2, TOP_DIM, "%s", store->why);
    }
    if (i < data->store_count && row > 0)
        top_view_fill(screen, row - 1, TOP_DIM, "... and %llu more (arrow keys)",
                      (unsigned long long)(data->store_count - i));
    return row;
}

/* Where there is no room for a title and one line, peers are left out as a whole. */
static size_t top_view_peers(const struct top_data *data, const struct top_view *view,
                             const struct top_screen *screen, size_t row, size_t end) {
    size_t history = screen->columns >= WIDE_COLUMNS ? HISTORY_WIDE : HISTORY_NARROW;
    if (!data->peer_count || row + 2 > end)
        return row;
    top_view_fill(screen, row++, TOP_BAR, "%-*s %-10s %-4s %8s %9s %-*s %9s %6s %4s",
                  (int)PEER_COLUMNS, "PEER", "STATE", "VIA", "HEARD", "READ/s", (int)history,
                  "HISTORY", "SENT/s", "ACTIVE", "PEND");
    for (size_t i = 0; i < data->peer_count && row < end; i++) {
        const struct top_peer *peer = &data->peers[i];
        char heard[UNITS_ROOM] = "-";
        bool up = strcmp(peer->state, "up") == 0;
        struct top_line line = {screen, row++, 0, up ? TOP_PLAIN : TOP_ALARM};
        if (peer->heard)
            units_duration(peer->heard_ms_ago, heard);
        top_cell(&line, -(int)PEER_COLUMNS, peer->node);
        top_cell(&line, -10, peer->state);
        top_cell(&line, -4, peer->via);
        top_cell(&line, 8, heard);
        top_cell_bytes(&line, 9, (uint64_t)peer->in_per_s);
        top_cell_series(&line, &peer->in, 0, history, view->utf8);
        top_cell_bytes(&line, 9, (uint64_t)peer->out_per_s);
        top_cell_count(&line, 6, peer->reads_in_flight);
        top_cell_count(&line, 4, peer->release_pending);
    }
    return row + 1;
}

/* Holders are sentences, and may be cut by the edge of the screen; the columns before them say
 * which sample it is.
 */
static void top_view_leases(const struct top_data *data, const struct top_screen *screen,
                            size_t row, size_t end) {
    if (row + 2 > end || (!data->oldest_count && !data->leases_denied))
        return;
    top_view_fill(screen, row++, TOP_BAR, "%-*s %-24s %11s %s", (int)NAME_COLUMNS, "OLDEST LEASES",
                  "SAMPLE", "AGE", "HOLDER");
    if (data->leases_denied)
        top_view_put(screen, row, 0, TOP_DIM, "who reads what is for admins to see");
    for (size_t i = 0; i < data->oldest_count && row < end; i++) {
        const struct top_lease *lease = &data->oldest[i];
        char age[UNITS_ROOM];
        struct top_line line = {screen, row++, 0, TOP_PLAIN};
        top_cell(&line, -(int)NAME_COLUMNS, lease->store);
        top_cell(&line, -24, lease->sample_id);
        top_cell(&line, 11, units_duration(lease->age_ms, age));
        top_view_put(screen, line.row, line.column, TOP_PLAIN, lease->holder);
    }
}

/* The last line. Each sort begins with the letter of its key; the present one stands out. */
static void top_view_keys(const struct top_view *view, const struct top_screen *screen) {
    static const char *const sorts[TOP_SORTS] = {"Full", "Name",   "Used",   "Puts",
                                                 "Gets", "Leases", "Waiting"};
    char every[UNITS_ROOM];
    size_t row = screen->rows - 1, column = 0;
    top_view_put(screen, row, column, TOP_DIM, "sort:");
    column += 6;
    for (size_t i = 0; i < TOP_SORTS; i++) {
        top_view_put(screen, row, column, i == view->sort ? TOP_BOLD : TOP_DIM, sorts[i]);
        column += strlen(sorts[i]) + 1;
    }
    top_view_print(screen, row, column, TOP_DIM, " R%s  +/- %s  Q quit",
                   view->reverse ? "eversed" : "everse", units_duration(view->every_ms, every));
}

/* Peers and leases get up to four lines each at the bottom while the stores would take them all;
 * what the stores leave is theirs too.
 */
void top_view_draw(const struct top_data *data, const struct top_view *view,
                   const struct top_screen *screen) {
    if (screen->rows < 2)
        return;
    if (!data->taken_ns) {
        top_view_put(screen, 0, 0, TOP_ALARM, view->trouble ? view->trouble : "asking the broker");
        top_view_keys(view, screen);
        return;
    }
    size_t row = top_view_node(data, view, screen), end = screen->rows - 1;
    size_t below = top_view_reserve(data->peer_count, 4) +
                   top_view_reserve(data->leases_denied ? 1 : data->oldest_count, 4);
    size_t stores_end = end > row + 4 + below ? end - below : end;
    row = top_view_stores(data, view, screen, row, stores_end) + 1;
    row = top_view_peers(data, view, screen, row, end);
    top_view_leases(data, screen, row, end);
    top_view_keys(view, screen);
}
