/* SPDX-License-Identifier: Apache-2.0
 *
 * Touches arenas in the background, in slices on libuv's pool, because the first touch of fresh
 * memory is many times slower than a copy. One slice at a time; knows arenas, nothing of stores.
 */
#ifndef FEATURED_PREFAULT_H
#define FEATURED_PREFAULT_H

#include <stdbool.h>
#include <uv.h>

#include "memory/arena.h"

struct prefault;

typedef void (*prefault_progress_fn)(void *owner, const struct arena *arena, uint64_t bytes_done);

int prefault_new(uv_loop_t *loop, prefault_progress_fn progress, void *owner,
                 struct prefault **out);
void prefault_add(struct prefault *prefault, const char *name, const struct arena *arena);
/* Nobody touches that arena from this return on; waits for a slice under way (tens of ms). */
void prefault_remove(struct prefault *prefault, const struct arena *arena);
/* All arenas must have been removed. The loop must run once more before it is closed. */
void prefault_free(struct prefault *prefault);

#endif
