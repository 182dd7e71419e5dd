/* SPDX-License-Identifier: Apache-2.0
 *
 * The handler uses functions that signal-safety(7) lists, and what it reads is written before the
 * flag that it looks at.
 *
 * How a command ends when a signal comes: a temporary file is removed, and the process ends by
 * that very signal, so that a shell sees it. A stretch of code that must not be cut in two
 * (ending_hold() to ending_release()) comes to its end first.
 */
#include "featurectl/ending.h"

#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

static const int ending_signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE};
#define SIGNAL_COUNT (sizeof ending_signals / sizeof ending_signals[0])

static struct {
    char path[PATH_MAX];
    atomic_bool has_path;
    atomic_int held, waiting; /* waiting: the signal that came while it was held, 0 = none */
    atomic_bool has_terminal;
    int terminal;
    struct termios before;
    char restore[256];
} ending;

/* At most once, whoever comes first: the handler, or atexit. */
static void ending_remove_now(void) {
    if (atomic_exchange(&ending.has_path, false))
        unlink(ending.path);
}

/* Both are among the functions that a handler may call. What cannot be written is not: the terminal
 * may be gone, which is why the signal came.
 */
static void ending_restore_terminal(void) {
    if (!atomic_exchange(&ending.has_terminal, false))
        return;
    ssize_t written = write(ending.terminal, ending.restore, strlen(ending.restore));
    (void)written;
    tcsetattr(ending.terminal, TCSANOW, &ending.before);
}

/* By the signal itself, whose default is to end the process. */
static void ending_die(int number) {
    sigset_t this_one;
    ending_remove_now();
    ending_restore_terminal();
    signal(number, SIG_DFL);
    sigemptyset(&this_one);
    sigaddset(&this_one, number);
    raise(number);
    pthread_sigmask(SIG_UNBLOCK, &this_one, NULL);
    _exit(128 + number); /* as the first process of a container is not ended by its own signals */
}

/* While the end is held, the first signal is only remembered. A second one ends the process at
 * once: whoever presses ^C twice does not want to wait. */
static void ending_on_signal(int number) {
    int none = 0;
    if (atomic_load(&ending.held) == 0 ||
        !atomic_compare_exchange_strong(&ending.waiting, &none, number))
        ending_die(number);
}

/* A signal that was ignored when the program began stays ignored, as nohup(1) wants it. SIGXFSZ is
 * ignored so that write() fails with EFBIG, for which there is a sentence. */
void ending_init(void) {
    struct sigaction action = {.sa_handler = ending_on_signal, .sa_flags = SA_RESTART}, before;
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < SIGNAL_COUNT; i++)
        sigaddset(&action.sa_mask, ending_signals[i]);
    for (size_t i = 0; i < SIGNAL_COUNT; i++)
        if (sigaction(ending_signals[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN)
            sigaction(ending_signals[i], &action, NULL);
    signal(SIGXFSZ, SIG_IGN);
    atexit(ending_remove_now);
}

/* One path at a time: a command writes one file. False: it is too long to be kept. */
bool ending_remove(const char *path) {
    if (strlen(path) >= sizeof ending.path)
        return false;
    strcpy(ending.path, path);
    atomic_store(&ending.has_path, true);
    return true;
}

/* The file has got its name, or is gone. */
void ending_forget(void) {
    atomic_store(&ending.has_path, false);
}

void ending_terminal(int fd, const struct termios *before, const char *restore) {
    atomic_store(&ending.has_terminal, false);
    if (!before || strlen(restore) >= sizeof ending.restore)
        return;
    ending.terminal = fd;
    ending.before = *before;
    strcpy(ending.restore, restore);
    atomic_store(&ending.has_terminal, true);
}

void ending_hold(void) {
    atomic_fetch_add(&ending.held, 1);
}

/* Holds may be nested; the last release acts on the signal that came meanwhile. */
void ending_release(void) {
    if (atomic_fetch_sub(&ending.held, 1) > 1)
        return;
    int number = atomic_load(&ending.waiting);
    if (number)
        ending_die(number);
}
