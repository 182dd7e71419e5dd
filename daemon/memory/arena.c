/* SPDX-License-Identifier: Apache-2.0
 *
 * An arena is a memfd: memory with a descriptor, which is passed to clients and mapped by them.
 *
 * A memfd is created with mode 0777: whoever holds a read-only descriptor of it could open it anew
 * through /proc/self/fd, read-write, and truncate it, which would kill the daemon with SIGBUS.
 * Hence mode 0600 and the seals SHRINK and GROW; and SEAL, so that nobody adds F_SEAL_WRITE, under
 * which our own next mapping would fail. F_SEAL_FUTURE_WRITE is not used: a daemon that is handed
 * the descriptor again after a restart could not map it for writing.
 *
 * 4 KiB pages are mapped MAP_NORESERVE and appear on first touch. 2 MiB pages are reserved by mmap:
 * without the reservation a touch would end in SIGBUS once the kernel's pool is empty.
 */
#include "memory/arena.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE_BYTES      4096ull
#define HUGE_PAGE_BYTES (2ull << 20)
#define HUGE_PAGES_DIR  "/sys/kernel/mm/hugepages/hugepages-2048kB/"

#ifndef MFD_HUGE_2MB
#define MFD_HUGE_2MB (21u << 26)
#endif

static uint64_t arena_round_up(uint64_t bytes, uint64_t step) {
    return (bytes + step - 1) / step * step;
}

/* The size first: a sealed memfd has the size that it has. */
static int arena_seal(int fd, uint64_t bytes) {
    if (ftruncate(fd, (off_t)bytes) < 0 || fchmod(fd, 0600) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
        return -errno;
    return 0;
}

/* Opened anew, not duplicated: a duplicate would share our open file, and with it the right to
 * write. */
static int arena_open_readonly(int fd) {
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int fd_readonly = open(path, O_RDONLY | O_CLOEXEC);
    if (fd_readonly < 0)
        return -errno;
    return fd_readonly;
}

static int arena_map(struct arena *arena, bool hugepages) {
    int flags = MAP_SHARED | (hugepages ? 0 : MAP_NORESERVE);
    void *base = mmap(NULL, arena->bytes, PROT_READ | PROT_WRITE, flags, arena->fd, 0);
    if (base == MAP_FAILED)
        return -errno;
    arena->base = base;
    /* A core dump of the daemon is for its index, not for gigabytes of features. */
    if (madvise(base, arena->bytes, MADV_DONTDUMP) < 0)
        return -errno;
    return 0;
}

/* One attempt, with pages of one size. Whatever fails, arena_deinit() takes down what there is. */
static int arena_create(struct arena *arena, const char *name, uint64_t bytes, bool hugepages) {
    unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING | (hugepages ? MFD_HUGETLB | MFD_HUGE_2MB : 0);
    *arena = (struct arena){.fd = -1, .fd_readonly = -1, .hugepages = hugepages};
    arena->bytes = arena_round_up(bytes, hugepages ? HUGE_PAGE_BYTES : PAGE_BYTES);
    arena->fd = memfd_create(name, flags);
    if (arena->fd < 0)
        return -errno;
    int result = arena_seal(arena->fd, arena->bytes);
    if (result == 0)
        result = arena_map(arena, hugepages);
    if (result == 0) {
        arena->fd_readonly = arena_open_readonly(arena->fd);
        result = arena->fd_readonly < 0 ? arena->fd_readonly : 0;
    }
    if (result < 0)
        arena_deinit(arena);
    return result;
}

/* A number from the kernel's pool of 2 MiB pages; false if the kernel has none such. */
static bool arena_read_pool(const char *what, uint64_t *out) {
    char path[128];
    snprintf(path, sizeof path, HUGE_PAGES_DIR "%s", what);
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    bool good = fscanf(file, "%" SCNu64, out) == 1;
    fclose(file);
    return good;
}

/* The kernel says ENOMEM, whatever it is that it lacks. Its counters say more: how many pages there
 * are, and how many the admin has to add. */
static void arena_explain_hugepages(const char *name, uint64_t bytes, int error, char *why,
                                    size_t why_bytes) {
    uint64_t total, available, reserved,
        needed = arena_round_up(bytes, HUGE_PAGE_BYTES) / HUGE_PAGE_BYTES;
    if (!arena_read_pool("nr_hugepages", &total) ||
        !arena_read_pool("free_hugepages", &available) ||
        !arena_read_pool("resv_hugepages", &reserved)) {
        snprintf(
            why, why_bytes,
            "arena %s: this kernel has no 2 MiB pages (%s); set hugepages = off, or boot one with "
            "CONFIG_HUGETLBFS",
            name, strerror(error));
        return;
    }
    available -= reserved < available ? reserved : available;
    snprintf(why, why_bytes,
             "arena %s: no 2 MiB pages (%s): %" PRIu64 " needed, %" PRIu64 " of %" PRIu64
             " free; do: sysctl -w vm.nr_hugepages=%" PRIu64,
             name, strerror(error), needed, available, total,
             total + (needed > available ? needed - available : 0));
}

/* "try" falls back to small pages and asks for transparent huge ones; `why` then holds the reason,
 * which the caller logs. "require" fails. */
int arena_init(struct arena *arena, const char *name, uint64_t bytes,
               enum arena_hugepages hugepages, char *why, size_t why_bytes) {
    snprintf(why, why_bytes, "%s", "");
    *arena = (struct arena){.fd = -1, .fd_readonly = -1};
    if (bytes == 0 || bytes % PAGE_BYTES || bytes > INT64_MAX - HUGE_PAGE_BYTES) {
        snprintf(why, why_bytes, "arena %s: %" PRIu64 " bytes; allowed: a multiple of 4096 above 0",
                 name, bytes);
        return -EINVAL;
    }
    if (hugepages != ARENA_HUGEPAGES_OFF) {
        int result = arena_create(arena, name, bytes, true);
        if (result == 0)
            return 0;
        arena_explain_hugepages(name, bytes, -result, why, why_bytes);
        if (hugepages == ARENA_HUGEPAGES_REQUIRE)
            return result;
    }
    int result = arena_create(arena, name, bytes, false);
    if (result < 0) {
        snprintf(why, why_bytes, "arena %s: %" PRIu64 " MiB could not be set up: %s%s", name,
                 bytes >> 20, strerror(-result), result == -ENOENT ? "; is /proc mounted?" : "");
        return result;
    }
    if (hugepages == ARENA_HUGEPAGES_TRY)
        (void)madvise(arena->base, arena->bytes,
                      MADV_HUGEPAGE); /* a hint; kernels without it refuse */
    return 0;
}

int arena_attach(struct arena *arena, int fd, uint64_t bytes, bool hugepages, char *why,
                 size_t why_bytes) {
    struct stat file;
    *arena = (struct arena){.fd = -1, .fd_readonly = -1, .bytes = bytes, .hugepages = hugepages};
    if (fstat(fd, &file) < 0 || (uint64_t)file.st_size != bytes) {
        snprintf(why, why_bytes, "its arena is not the file of %" PRIu64 " bytes that it was",
                 bytes);
        return -EBADMSG;
    }
    arena->fd = fd;
    int result = arena_map(arena, hugepages);
    if (result == 0) {
        arena->fd_readonly = arena_open_readonly(fd);
        result = arena->fd_readonly < 0 ? arena->fd_readonly : 0;
    }
    if (result == 0)
        return 0;
    snprintf(why, why_bytes, "its arena cannot be mapped: %s", strerror(-result));
    arena->fd = -1; /* the caller's */
    arena_deinit(arena);
    return result;
}

/* Punches the pages out of the file, in parts: freeing 100 GB in one call would hold up the loop
 * for seconds. True: done, or the kernel will not. */
bool arena_give_back(struct arena *arena, uint64_t *done_bytes, uint64_t budget_bytes) {
    uint64_t left = arena->bytes - *done_bytes, part = left < budget_bytes ? left : budget_bytes;
    if (!part || fallocate(arena->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                           (off_t)*done_bytes, (off_t)part) < 0)
        return true;
    *done_bytes += part;
    return *done_bytes == arena->bytes;
}

void arena_deinit(struct arena *arena) {
    if (arena->base)
        munmap(arena->base, arena->bytes);
    if (arena->fd >= 0)
        close(arena->fd);
    if (arena->fd_readonly >= 0)
        close(arena->fd_readonly);
    *arena = (struct arena){.fd = -1, .fd_readonly = -1};
}

/* MADV_POPULATE_WRITE (Linux 5.14) makes the pages without touching what is in them;
 * posix_fallocate() is what older kernels have for it. */
int arena_prefault(const struct arena *arena, uint64_t offset, uint64_t bytes) {
    if (offset > arena->bytes || bytes > arena->bytes - offset)
        return -EINVAL;
    if (bytes == 0)
        return 0;
    uint64_t begin = offset / PAGE_BYTES * PAGE_BYTES,
             end = arena_round_up(offset + bytes, PAGE_BYTES);
    if (madvise((char *)arena->base + begin, end - begin, MADV_POPULATE_WRITE) == 0)
        return 0;
    if (errno != EINVAL) /* EINVAL: a kernel before 5.14 */
        return -errno;
    return -posix_fallocate(arena->fd, (off_t)begin, (off_t)(end - begin));
}
