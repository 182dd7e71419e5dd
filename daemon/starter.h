/* SPDX-License-Identifier: Apache-2.0
 *
 * --end-with: the process that has started this broker, and with whose end this one ends.
 */
#ifndef FEATURED_STARTER_H
#define FEATURED_STARTER_H

#include <stddef.h>
#include <sys/types.h>
#include <uv.h>

#include "local/death.h"

/* pid: 0 = nobody; then nothing is watched. gone(owner) is called once, from the loop. 0, or -errno
 * with a sentence. */
int starter_watch(pid_t pid, uv_loop_t *loop, struct death_watch *watch, void (*gone)(void *owner),
                  void *owner, char *why, size_t why_bytes);

#endif
