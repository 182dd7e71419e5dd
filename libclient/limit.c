/* SPDX-License-Identifier: Apache-2.0
 *
 * Sentences for what this process lacks. Each looks for the limit that was met and names it with
 * its number, so that the reader knows what to raise: "out of memory" alone has sent people to buy
 * memory when `ulimit -v` was the cause.
 *
 * None of this ends a connection. The calls here are made when descriptors or memory are short, so
 * they must do with little: one descriptor for a moment, buffers on the stack.
 */
#include "limit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include "error.h"
#include "fork.h"

#define MIB (1024.0 * 1024.0)

/* ---- descriptors ---- */

/* With a full table every number below the limit is taken, so the limit is also how many are
 * open. */
static int limit_fail_table_full(const char *what) {
    struct rlimit limit = {0};
    getrlimit(RLIMIT_NOFILE, &limit);
    return fc_fail(FEATURE_E_FULL,
                   "%s: this process has no free descriptor: open files %llu of %llu "
                   "(RLIMIT_NOFILE); raise ulimit -n, or close some",
                   what, (unsigned long long)limit.rlim_cur, (unsigned long long)limit.rlim_cur);
}

/* error 0: the kernel has dropped a descriptor that came with a packet (MSG_CTRUNC) and does not
 * say why. Opening one of our own shows whether the table is full; if that works, it was full a
 * moment ago, or a security module has refused it. */
int fc_fail_descriptor(const char *what, int error) {
    if (!error) {
        fc_fork_lock();
        int spare = eventfd(0, EFD_CLOEXEC);
        error = spare < 0 ? errno : 0;
        if (spare >= 0)
            close(spare);
        fc_fork_unlock();
    }
    if (error == ENFILE)
        return fc_fail(FEATURE_E_FULL,
                       "%s: this machine has no free file: the limit is in "
                       "/proc/sys/fs/file-max",
                       what);
    if (error == EMFILE || error == EINVAL)
        return limit_fail_table_full(what);
    return fc_fail(FEATURE_E_FULL,
                   "%s: the descriptor that the broker sent did not arrive: this process had no "
                   "free one just now (RLIMIT_NOFILE, ulimit -n), or a security module refused it",
                   what);
}

/* ---- memory ---- */

/* The first number of /proc/self/statm is what RLIMIT_AS is compared with, in pages. */
static uint64_t limit_mapped_bytes(void) {
    char text[64] = "";
    fc_fork_lock();
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    ssize_t bytes = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    fc_fork_unlock();
    return bytes > 0 ? strtoull(text, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
}

/* " address space 900.0 of 1024.0 MiB (RLIMIT_AS): raise ulimit -v"; false without such a limit. */
static bool limit_address_space(char *out, size_t room) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_AS, &limit) || limit.rlim_cur == RLIM_INFINITY)
        return false;
    uint64_t mapped_bytes = limit_mapped_bytes();
    if (mapped_bytes)
        snprintf(out, room, "address space %.1f of %.1f MiB (RLIMIT_AS): raise ulimit -v",
                 (double)mapped_bytes / MIB, (double)limit.rlim_cur / MIB);
    else
        snprintf(out, room, "address space is limited to %.1f MiB (RLIMIT_AS): raise ulimit -v",
                 (double)limit.rlim_cur / MIB);
    return true;
}

/* What mmap(2) means: EAGAIN is memory that must be locked and may not; ENOMEM is the address
 * space, the number of mappings, or both, and only the first can be told from RLIMIT_AS. */
int fc_fail_map(const char *what, uint64_t bytes, int error) {
    char limit[160];
    struct rlimit locked = {.rlim_cur = RLIM_INFINITY};
    double mib = (double)bytes / MIB;
    if (error == EAGAIN) {
        getrlimit(RLIMIT_MEMLOCK, &locked);
        return fc_fail(FEATURE_E_FULL,
                       "%s: %.1f MiB cannot be mapped: this process locks its memory, and may lock "
                       "%.1f MiB (RLIMIT_MEMLOCK): raise ulimit -l",
                       what, mib, (double)locked.rlim_cur / MIB);
    }
    if (error != ENOMEM)
        return fc_fail(FEATURE_E_INTERNAL, "%s: %.1f MiB cannot be mapped: %s", what, mib,
                       strerror(error));
    if (limit_address_space(limit, sizeof limit))
        return fc_fail(FEATURE_E_FULL, "%s: %.1f MiB cannot be mapped: %s", what, mib, limit);
    return fc_fail(FEATURE_E_FULL,
                   "%s: %.1f MiB cannot be mapped: this process has as many mappings as "
                   "vm.max_map_count allows, or no address space is left",
                   what, mib);
}

int fc_fail_memory(const char *what) {
    char limit[160];
    if (limit_address_space(limit, sizeof limit))
        return fc_fail(FEATURE_E_FULL, "%s: this process is out of memory: %s", what, limit);
    return fc_fail(FEATURE_E_FULL, "%s: this process is out of memory", what);
}

/* A sentence like others, but compared by its address: functions that say what is wrong with a
 * message return it when the message may well be right, and fc_fail_wrong() makes FULL of it
 * instead of INVALID. */
const char *const fc_wrong_memory = "there is no memory for it";

int fc_fail_wrong(int error, const char *what, const char *wrong) {
    return wrong == fc_wrong_memory ? fc_fail_memory(what) : fc_fail(error, "%s: %s", what, wrong);
}

/* protobuf-c returns NULL for a malformed message and for no memory alike. The difference matters:
 * the first breaks the connection, the second fails one call. So the allocator notes when it had
 * nothing to give. */
static void *limit_alloc_noting(void *context, size_t bytes) {
    bool *short_of_memory = context;
    void *room = malloc(bytes);
    *short_of_memory |= !room;
    return room;
}

static void limit_free_noting(void *context, void *room) {
    (void)context;
    free(room);
}

ProtobufCAllocator fc_noting_allocator(bool *short_of_memory) {
    return (ProtobufCAllocator){limit_alloc_noting, limit_free_noting, short_of_memory};
}
