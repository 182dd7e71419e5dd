/* SPDX-License-Identifier: Apache-2.0
 *
 * One store's memory: a memfd, sized once, sealed SHRINK|GROW|SEAL, mode 0600, mapped shared. Owns
 * the fds and the mapping; knows nothing of samples. Sparse until touched: arena_prefault() touches
 * a range (blocking: run it on the pool in slices).
 */
#ifndef FEATURED_MEMORY_ARENA_H
#define FEATURED_MEMORY_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum arena_hugepages { ARENA_HUGEPAGES_OFF = 0, ARENA_HUGEPAGES_TRY, ARENA_HUGEPAGES_REQUIRE };

struct arena {
    void *base;
    uint64_t bytes;
    int fd;          /* read-write */
    int fd_readonly; /* an independent open file description, O_RDONLY */
    bool hugepages;  /* what was got */
};

/* name: for /proc/PID/maps. bytes: multiple of 4096 (rounded up to 2 MiB with hugepages). Returns 0
 * or -errno; on failure, and when hugepages were asked for and not had, `why` holds a sentence with
 * what to do (e.g. the sysctl line), else "". With TRY it falls back to 4 KiB pages (MADV_HUGEPAGE
 * asked for). */
int arena_init(struct arena *arena, const char *name, uint64_t bytes,
               enum arena_hugepages hugepages, char *why, size_t why_bytes);
/* Maps an arena that an earlier broker made: fd is its read-write descriptor, bytes its size. 0,
 * and fd is the arena's; or -errno with a sentence, and fd is the caller's. */
int arena_attach(struct arena *arena, int fd, uint64_t bytes, bool hugepages, char *why,
                 size_t why_bytes);
/* Gives memory from *done_bytes on back to the system, at most budget_bytes of it: unmapping a
 * large arena in one go takes seconds. True when there is no more to give. Nobody reads it any
 * more. */
bool arena_give_back(struct arena *arena, uint64_t *done_bytes, uint64_t budget_bytes);
void arena_deinit(struct arena *arena);

/* Makes [offset, offset + bytes) present and writable without changing a byte of it, safe while
 * clients write there (MADV_POPULATE_WRITE; falls back to posix_fallocate). 0, -ENOMEM, ... */
int arena_prefault(const struct arena *arena, uint64_t offset, uint64_t bytes);

#endif
