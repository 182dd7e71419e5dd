/* SPDX-License-Identifier: Apache-2.0
 *
 * How featurectl ends before its time: on SIGINT, SIGTERM, SIGHUP, SIGQUIT and SIGPIPE the
 * temporary file is removed and the process ends by that signal, so that its parent sees why; on
 * exit() the file is removed too. What the process held at the broker goes with its connection:
 * leases end as returned, reservations are cancelled.
 *
 * Signals have no context argument: the state is the process's, and so is this module's.
 */
#ifndef FEATURED_CTL_ENDING_H
#define FEATURED_CTL_ENDING_H

#include <stdbool.h>

/* Once, before anything else. A signal that the parent had us ignore (nohup) stays ignored. A file
 * that grows beyond RLIMIT_FSIZE is an error of write(2) (EFBIG) and no signal. */
void ending_init(void);

/* `path` is to be removed if the process ends now; copied. Call it before the file is made. One at
 * a time; false when the path is too long to be kept. */
bool ending_remove(const char *path);
/* It has got its name, or has been removed. */
void ending_forget(void);

/* The terminal that `fd` leads to is as it is now, and is to be put back so if the process ends by
 * a signal; `restore` is written to it first (at most 255 bytes). NULL: it has been put back. */
struct termios;
void ending_terminal(int fd, const struct termios *before, const char *restore);

/* Between the two a signal waits: for two steps that belong together. A second one does not. They
 * nest. */
void ending_hold(void);
void ending_release(void);

#endif
