/* SPDX-License-Identifier: Apache-2.0
 *
 * Runs the measurements in a child process and cleans up behind it however it ends: the temporary
 * directory is removed, and every process below (brokers, limits) has died with its parent.
 */
#ifndef FEATURED_TESTS_BENCH_GUARD_H
#define FEATURED_TESTS_BENCH_GUARD_H

#include <stddef.h>

/* Makes a directory (its path is in `directory` when measure() runs), runs measure(context) in a
 * child and returns its result; 1 when it died or was stopped by SIGINT, SIGTERM or SIGHUP. */
int guard_run(char *directory, size_t directory_bytes, int (*measure)(void *context),
              void *context);

#endif
