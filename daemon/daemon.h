/* SPDX-License-Identifier: Apache-2.0
 *
 * The composition root: builds every module from the configuration, in order, and frees them in
 * reverse. Owns the event loop, the clock and the signals: SIGTERM and SIGINT drain, SIGHUP reads
 * config_path again, SIGUSR2 leaves for another broker.
 */
#ifndef FEATURED_DAEMON_H
#define FEATURED_DAEMON_H

#include <stddef.h>
#include <sys/types.h>

#include "config.h"

struct daemon;
struct keep;

struct daemon_options {
    const char *config_path; /* read again on SIGHUP; NULL: SIGHUP is like SIGTERM */
    struct keep *keep;       /* holds the memory while no broker runs; NULL: nothing is kept */
    pid_t end_with; /* our parent process, with whose end this one ends at once; 0: nobody's */
};

/* config: copied. auth_init() has been called and SIGPIPE is ignored. 0 with *out, listening; or
 * -errno with a sentence in why, and nothing left behind. */
int daemon_new(const struct config *config, const struct daemon_options *options,
               struct daemon **out, char *why, size_t why_bytes);
/* Serves until SIGTERM or SIGINT has been followed by a drain of at most drain_timeout (a second
 * signal ends the drain at once), or until SIGUSR2 while there is a keeper. 0, -errno, or
 * DAEMON_LEFT: the next broker goes on with all memory as it is, so this process must end at once,
 * without daemon_free(). */
#define DAEMON_LEFT 1
int daemon_run(struct daemon *daemon);
void daemon_free(struct daemon *daemon);

#endif
