/* SPDX-License-Identifier: Apache-2.0
 *
 * The terminal of `top`, by ncurses, whose headers take many common names for themselves: only
 * top_terminal.c includes them.
 */
#ifndef FEATURED_CTL_TOP_TERMINAL_H
#define FEATURED_CTL_TOP_TERMINAL_H

#include "featurectl/top_view.h"

enum top_key {
    TOP_KEY_NONE = -1, /* none came in time; letters are themselves */
    TOP_KEY_UP = 0x10000,
    TOP_KEY_DOWN,
    TOP_KEY_PAGE_UP,
    TOP_KEY_PAGE_DOWN,
    TOP_KEY_HOME,
    TOP_KEY_RESIZED,
};

/* Takes the terminal of standard output. A signal that ends the process puts it back (ending.h).
 * False: $TERM is no terminal that ncurses knows. */
bool top_terminal_begin(void);
void top_terminal_end(void);

/* Can it show block characters? */
bool top_terminal_is_utf8(void);
/* Empties the screen that is drawn next, and tells its size and how to draw on it. */
struct top_screen top_terminal_screen(void);
/* What was drawn is seen. */
void top_terminal_show(void);
/* The next key, or TOP_KEY_NONE after so many milliseconds. */
int top_terminal_key(int wait_ms);

#endif
