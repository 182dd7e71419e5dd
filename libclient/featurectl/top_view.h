/* SPDX-License-Identifier: Apache-2.0
 *
 * What `top` shows, laid out for a terminal of any size. Pure: it draws through a function, so that
 * a test can look at the screen.
 */
#ifndef FEATURED_CTL_TOP_VIEW_H
#define FEATURED_CTL_TOP_VIEW_H

#include "featurectl/top_data.h"

enum top_look { TOP_PLAIN, TOP_BOLD, TOP_DIM, TOP_BAR, TOP_ALARM };

struct top_view {
    enum top_sort sort;
    bool reverse;
    bool utf8;           /* may sparklines use block characters? */
    size_t first;        /* store at the top of the list */
    uint64_t every_ms;   /* interval */
    const char *trouble; /* why there are no newer answers; NULL = there are */
};

struct top_screen {
    size_t rows, columns;
    /* text: UTF-8, of at most `columns - column` characters. */
    void (*put)(void *user, size_t row, size_t column, enum top_look look, const char *text);
    void *user;
};

void top_view_draw(const struct top_data *data, const struct top_view *view,
                   const struct top_screen *screen);

/* The newest points of a series in so many characters; `most` is a full one, 0 = the largest of
 * them. out: room for 4 * width + 1. */
void top_sparkline(const struct top_series *series, double most, size_t width, bool utf8,
                   char *out);

#endif
