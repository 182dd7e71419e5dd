/* SPDX-License-Identifier: Apache-2.0
 *
 * The memory of simulated brokers.
 *
 * Where no broker of a history is killed with its memory, arenas are plain memory, handed from
 * history to history: making, touching and unmapping a memfd for each broker of each history was a
 * third of all the time.
 *
 * Where brokers are killed, all that outlives them is in memfds, as in a real one, and a keeper of
 * the test holds these (support/keep_fake.h). A broker in this process cannot be killed: it has to
 * be taken apart, which ends leases, frees records, and so on. So its memory is *frozen* first.
 * Each of its shared mappings is replaced, at the same place, by a private one of the same file:
 * what the old broker writes from then on is seen by itself alone, and the file stays as it was at
 * the moment of the kill. For that this file notes every shared mapping.
 *
 * The linker puts the functions here in the place of the real ones (--wrap).
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "model/cluster_world.h"

#define POOL_MAX     64u
#define MAPPINGS_MAX 64u

int __real_arena_init(struct arena *arena, const char *name, uint64_t bytes,
                      enum arena_hugepages hugepages, char *why, size_t why_bytes);
void __real_arena_deinit(struct arena *arena);
void *__real_mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset);
int __real_munmap(void *at, size_t bytes);
int __wrap_arena_init(struct arena *arena, const char *name, uint64_t bytes,
                      enum arena_hugepages hugepages, char *why, size_t why_bytes);
void __wrap_arena_deinit(struct arena *arena);
void *__wrap_mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset);
int __wrap_munmap(void *at, size_t bytes);

static bool in_files; /* the brokers of this history are killed with their memory */

void memory_begin(bool keeps) {
    in_files = keeps;
}

/* ---- plain arenas ---- */

static struct {
    void *base;
    uint64_t bytes;
} pool[POOL_MAX];
static unsigned pool_count;

static void *take(uint64_t bytes) {
    for (unsigned i = pool_count; i-- > 0;)
        if (pool[i].bytes == bytes) {
            void *base = pool[i].base;
            pool[i] = pool[--pool_count];
            return base;
        }
    return aligned_alloc(4096, bytes);
}

int __wrap_arena_init(struct arena *arena, const char *name, uint64_t bytes,
                      enum arena_hugepages hugepages, char *why, size_t why_bytes) {
    if (in_files)
        return __real_arena_init(arena, name, bytes, hugepages, why, why_bytes);
    *arena = (struct arena){.base = take(bytes), .bytes = bytes, .fd = -1, .fd_readonly = -1};
    return arena->base ? 0 : -1;
}

void __wrap_arena_deinit(struct arena *arena) {
    if (arena->fd >= 0) {
        __real_arena_deinit(arena);
        return;
    }
    if (pool_count < POOL_MAX) {
        pool[pool_count].base = arena->base;
        pool[pool_count++].bytes = arena->bytes;
    } else {
        free(arena->base);
    }
    arena->base = NULL;
}

/* ---- shared mappings ---- */

static struct mapping {
    void *at;
    size_t bytes;
    off_t offset;
    ino_t file;
} mappings[MAPPINGS_MAX];
static unsigned mapping_count;

void *__wrap_mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset) {
    void *base = __real_mmap(at, bytes, protection, flags, fd, offset);
    struct stat file;
    if (base == MAP_FAILED || !(flags & MAP_SHARED) || fd < 0 || !in_files || fstat(fd, &file))
        return base;
    cr_assert_lt(mapping_count, MAPPINGS_MAX);
    mappings[mapping_count++] = (struct mapping){base, bytes, offset, file.st_ino};
    return base;
}

int __wrap_munmap(void *at, size_t bytes) {
    for (unsigned i = 0; i < mapping_count; i++)
        if (mappings[i].at == at) {
            mappings[i] = mappings[--mapping_count];
            break;
        }
    return __real_munmap(at, bytes);
}

void memory_freeze(int fd) {
    struct stat file;
    cr_assert_eq(fstat(fd, &file), 0);
    for (unsigned i = 0; i < mapping_count; i++)
        if (mappings[i].file == file.st_ino)
            cr_assert_eq(__real_mmap(mappings[i].at, mappings[i].bytes, PROT_READ | PROT_WRITE,
                                     MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd,
                                     mappings[i].offset),
                         mappings[i].at);
}
