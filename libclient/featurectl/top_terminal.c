/* SPDX-License-Identifier: Apache-2.0
 *
 * begin -> for each picture: screen, put..., show; keys in between -> end
 *
 * ncurses leaves signals alone that have a handler already, and all that end this process have
 * (ending.c): a handler cannot call endwin(3), so it is given what endwin would write. SIGWINCH and
 * SIGTSTP are handled by ncurses itself.
 */
#include "featurectl/top_terminal.h"

#include <langinfo.h>
#include <locale.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

/* Behind the others: it defines words such as "columns" as macros. */
#include <curses.h>
#include <term.h>
#undef columns
#undef lines

#include "featurectl/ending.h"

/* Attributes off, the cursor visible, back to the screen of before. */
static void top_terminal_arm(const struct termios *before) {
    static char *const names[] = {"sgr0", "cnorm", "rmcup"};
    char restore[256] = "";
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *text = tigetstr(names[i]);
        if (text && text != (const char *)-1 && strlen(restore) + strlen(text) < sizeof restore)
            strcat(restore, text);
    }
    ending_terminal(STDOUT_FILENO, before, restore);
}

/* The state of the terminal is taken before ncurses changes it. setupterm() is asked first,
 * because initscr() ends the process when it does not know the terminal.
 */
bool top_terminal_begin(void) {
    struct termios before;
    int error;
    setlocale(LC_CTYPE, "");
    if (tcgetattr(STDOUT_FILENO, &before) != 0 || setupterm(NULL, STDOUT_FILENO, &error) != OK)
        return false;
    top_terminal_arm(&before);
    initscr();
    cbreak();
    noecho();
    keypad(stdscr, TRUE);
    curs_set(0);
    return true;
}

void top_terminal_end(void) {
    endwin();
    ending_terminal(-1, NULL, NULL);
}

bool top_terminal_is_utf8(void) {
    return strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
}

/* Attributes and no colours: they are there on every terminal, and read well on any background. */
static void top_terminal_put(void *user, size_t row, size_t column, enum top_look look,
                             const char *text) {
    static const attr_t attributes[] = {[TOP_PLAIN] = A_NORMAL,
                                        [TOP_BOLD] = A_BOLD,
                                        [TOP_DIM] = A_DIM,
                                        [TOP_BAR] = A_REVERSE,
                                        [TOP_ALARM] = A_BOLD | A_UNDERLINE};
    (void)user;
    attrset(attributes[look]);
    mvaddstr((int)row, (int)column, text);
}

struct top_screen top_terminal_screen(void) {
    int height, width;
    getmaxyx(stdscr, height, width);
    erase();
    return (struct top_screen){
        .rows = (size_t)height, .columns = (size_t)width, .put = top_terminal_put};
}

void top_terminal_show(void) {
    refresh();
}

/* getch() also draws what refresh() has not yet drawn, and turns a new size into KEY_RESIZE. */
int top_terminal_key(int wait_ms) {
    timeout(wait_ms);
    int key = getch();
    switch (key) {
    case ERR:
        return TOP_KEY_NONE;
    case KEY_UP:
        return TOP_KEY_UP;
    case KEY_DOWN:
        return TOP_KEY_DOWN;
    case KEY_PPAGE:
        return TOP_KEY_PAGE_UP;
    case KEY_NPAGE:
        return TOP_KEY_PAGE_DOWN;
    case KEY_HOME:
        return TOP_KEY_HOME;
    case KEY_RESIZE:
        return TOP_KEY_RESIZED;
    default:
        return key;
    }
}
