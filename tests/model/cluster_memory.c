/* SPDX-License-Identifier: Apache-2.0
 *
 * Arenas for simulated brokers: plain memory, handed from history to history. Making, touching and
 * unmapping a memfd for each broker of each history was a third of all the time. The linker puts
 * these in the place of daemon/memory's (--wrap).
 */
#include <stdlib.h>

#include "model/cluster_sim.h"

#define KEPT_MAX 64u

int __wrap_arena_init(struct arena *arena, const char *name, uint64_t bytes,
                      enum arena_hugepages hugepages, char *why, size_t why_bytes);
void __wrap_arena_deinit(struct arena *arena);

static struct {
    void *base;
    uint64_t bytes;
} kept[KEPT_MAX];
static unsigned kept_count;

static void *take(uint64_t bytes) {
    for (unsigned i = kept_count; i-- > 0;)
        if (kept[i].bytes == bytes) {
            void *base = kept[i].base;
            kept[i] = kept[--kept_count];
            return base;
        }
    return aligned_alloc(4096, bytes);
}

int __wrap_arena_init(struct arena *arena, const char *name, uint64_t bytes,
                      enum arena_hugepages hugepages, char *why, size_t why_bytes) {
    (void)name, (void)hugepages, (void)why, (void)why_bytes;
    *arena = (struct arena){.base = take(bytes), .bytes = bytes, .fd = -1, .fd_readonly = -1};
    return arena->base ? 0 : -1;
}

void __wrap_arena_deinit(struct arena *arena) {
    if (kept_count < KEPT_MAX) {
        kept[kept_count].base = arena->base;
        kept[kept_count++].bytes = arena->bytes;
    } else {
        free(arena->base);
    }
    arena->base = NULL;
}
