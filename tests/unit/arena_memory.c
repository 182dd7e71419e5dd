/* SPDX-License-Identifier: Apache-2.0
 *
 * What a client that holds an arena's descriptor can and cannot do with it.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "memory/arena.h"

#define MIB (1ull << 20)

static struct arena arena;

static void setup(void) {
    char why[256] = "x";
    cr_assert_eq(
        arena_init(&arena, "featured-test", 64 * MIB, ARENA_HUGEPAGES_OFF, why, sizeof why), 0,
        "%s", why);
    cr_assert_str_eq(why, "");
}

static void teardown(void) {
    arena_deinit(&arena);
    arena_deinit(&arena); /* harmless */
}

TestSuite(arena, .init = setup, .fini = teardown);

static uint64_t resident_bytes(void) {
    struct stat status;
    cr_assert_eq(fstat(arena.fd, &status), 0);
    return (uint64_t)status.st_blocks * 512;
}

Test(arena, is_sealed_against_resizing_and_further_seals) {
    int fds[] = {arena.fd, arena.fd_readonly};
    for (size_t i = 0; i < 2; i++) {
        cr_expect_eq(ftruncate(fds[i], 4096), -1);
        cr_expect_eq(ftruncate(fds[i], 128 * (off_t)MIB), -1);
        cr_expect_eq(fcntl(fds[i], F_ADD_SEALS, F_SEAL_WRITE), -1);
        cr_expect_eq(fcntl(fds[i], F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    }
    cr_expect_eq(fallocate(arena.fd, 0, 64 * (off_t)MIB, 4096), -1, "must not grow by fallocate");
    cr_expect_eq(lseek(arena.fd, 0, SEEK_END), 64 * (off_t)MIB);
}

Test(arena, read_only_descriptor_cannot_be_mapped_writable) {
    cr_expect_eq(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, arena.fd_readonly, 0),
                 MAP_FAILED);
    cr_expect_eq(errno, EACCES);
    char *view = mmap(NULL, 4096, PROT_READ, MAP_SHARED, arena.fd_readonly, 0);
    cr_assert_neq(view, MAP_FAILED);
    cr_expect_eq(mprotect(view, 4096, PROT_READ | PROT_WRITE), -1);
    cr_expect_eq(errno, EACCES);
    cr_expect_eq(write(arena.fd_readonly, "x", 1), -1);
    ((char *)arena.base)[100] = 'w';
    cr_expect_eq(view[100], 'w', "the two descriptors must be one memory");
    munmap(view, 4096);
}

Test(arena, mode_keeps_other_users_from_reopening_it) {
    struct stat status;
    cr_assert_eq(fstat(arena.fd_readonly, &status), 0);
    cr_expect_eq(status.st_mode & 07777, 0600);
    if (geteuid() != 0)
        cr_skip_test("becoming another user needs root");
    pid_t child = fork();
    if (child == 0) {
        char path[64];
        snprintf(path, sizeof path, "/proc/self/fd/%d", arena.fd_readonly);
        if (setgid(65534) < 0 || setuid(65534) < 0)
            _exit(2);
        int fd = open(path, O_RDWR);
        _exit(fd < 0 && errno == EACCES ? 0 : 1);
    }
    int result;
    cr_assert_eq(waitpid(child, &result, 0), child);
    cr_expect(WIFEXITED(result) && WEXITSTATUS(result) == 0, "another user opened it for writing");
}

Test(arena, descriptors_do_not_survive_exec) {
    cr_expect(fcntl(arena.fd, F_GETFD) & FD_CLOEXEC);
    cr_expect(fcntl(arena.fd_readonly, F_GETFD) & FD_CLOEXEC);
    cr_expect_eq(fcntl(arena.fd, F_GETFL) & O_ACCMODE, O_RDWR);
    cr_expect_eq(fcntl(arena.fd_readonly, F_GETFL) & O_ACCMODE, O_RDONLY);
}

Test(arena, is_sparse_until_touched) {
    cr_expect_eq(resident_bytes(), 0);
    ((char *)arena.base)[32 * MIB] = 1;
    cr_expect_eq(resident_bytes(), (uint64_t)sysconf(_SC_PAGESIZE));
}

Test(arena, prefault_makes_a_range_present_and_keeps_its_bytes) {
    char *bytes = arena.base;
    memset(bytes + 5000, 0x5a, 3000);
    cr_assert_eq(arena_prefault(&arena, 4096, 8 * MIB), 0);
    cr_expect_eq(resident_bytes(), 8 * MIB);
    for (size_t i = 0; i < 3000; i++)
        cr_assert_eq(bytes[5000 + i], 0x5a);
    cr_expect_eq(bytes[4999] | bytes[8000] | bytes[8 * MIB], 0);
    cr_expect_eq(arena_prefault(&arena, 64 * MIB - 1, 1), 0, "the last byte is inside");
    cr_expect_eq(arena_prefault(&arena, 0, 0), 0);
}

/* Another process counts up in memory that is being prefaulted: no step may be lost. */
Test(arena, prefault_is_safe_while_a_client_writes) {
    const size_t pages = 16 * MIB / 4096;
    pid_t child = fork();
    if (child == 0) {
        volatile uint64_t *word = arena.base;
        for (uint64_t round = 1; round <= 8; round++)
            for (size_t i = 0; i < pages; i++)
                word[i * 512] += round;
        _exit(0);
    }
    int result;
    do {
        cr_assert_eq(arena_prefault(&arena, 0, 16 * MIB), 0);
    } while (waitpid(child, &result, WNOHANG) == 0);
    cr_assert(WIFEXITED(result) && WEXITSTATUS(result) == 0);
    for (size_t i = 0; i < pages; i++)
        cr_assert_eq(((uint64_t *)arena.base)[i * 512], 36, "page %zu", i);
}

Test(arena, prefault_outside_the_arena_is_refused) {
    cr_expect_eq(arena_prefault(&arena, 64 * MIB, 1), -EINVAL);
    cr_expect_eq(arena_prefault(&arena, 1, 64 * MIB), -EINVAL);
    cr_expect_eq(arena_prefault(&arena, UINT64_MAX, 2), -EINVAL);
}

Test(arena_setup, deinit_closes_every_descriptor) {
    char why[256];
    struct arena own;
    int before = dup(0);
    close(before);
    cr_assert_eq(arena_init(&own, "featured-test", 4096, ARENA_HUGEPAGES_OFF, why, sizeof why), 0);
    cr_expect_eq(own.bytes, 4096);
    arena_deinit(&own);
    int after = dup(0);
    close(after);
    cr_expect_eq(after, before);
    cr_expect_eq(own.fd, -1);
    cr_expect_null(own.base);
}

Test(arena_setup, odd_sizes_are_refused) {
    char why[256];
    struct arena own;
    const uint64_t sizes[] = {0, 1, 4097, UINT64_MAX / 4096 * 4096};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        cr_expect_eq(arena_init(&own, "t", sizes[i], ARENA_HUGEPAGES_OFF, why, sizeof why),
                     -EINVAL);
        cr_expect_not_null(strstr(why, "allowed: "), "%s", why);
    }
}

/* As much as the machine has: its pool of 2 MiB pages can never give that. */
static uint64_t memory_bytes(void) {
    return (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE) / 4096 * 4096;
}

Test(arena_setup, hugepages_required_and_missing_are_refused_with_a_remedy) {
    char why[256] = "";
    struct arena own;
    cr_assert_lt(arena_init(&own, "t", memory_bytes(), ARENA_HUGEPAGES_REQUIRE, why, sizeof why),
                 0);
    cr_expect(strstr(why, "sysctl -w vm.nr_hugepages=") || strstr(why, "hugepages = off"), "%s",
              why);
    cr_expect_eq(own.fd, -1);
    cr_expect_null(own.base);
}

Test(arena_setup, hugepages_tried_and_missing_fall_back_to_small_pages) {
    char why[256] = "";
    struct arena own;
    cr_assert_eq(arena_init(&own, "t", memory_bytes(), ARENA_HUGEPAGES_TRY, why, sizeof why), 0,
                 "%s", why);
    cr_expect(strstr(why, "sysctl -w vm.nr_hugepages=") || strstr(why, "hugepages = off"), "%s",
              why);
    cr_expect_not(own.hugepages);
    cr_expect_eq(own.bytes, memory_bytes());
    ((char *)own.base)[own.bytes - 1] = 1;
    cr_expect_eq(arena_prefault(&own, 0, 4096), 0);
    arena_deinit(&own);
}
