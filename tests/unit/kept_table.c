/* SPDX-License-Identifier: Apache-2.0
 *
 * The node's memory: what is committed is there after the broker is gone, what is not is free, and
 * memory that cannot be attached is refused and left as it was.
 */
#include "memory/kept_table.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define CAPACITY 130u

struct record {
    uint64_t number;
    char text[20];
};

static const struct kept_table_spec specs[] = {
    {.id = 7, .version = 1, .record_bytes = sizeof(struct record), .capacity = CAPACITY},
    {.id = 9, .version = 3, .record_bytes = 1, .capacity = KEPT_RECORD_MAX},
};
static char why[512];
static int kept = -1; /* the keeper's descriptor */

static struct kept_memory *make(void) {
    struct kept_memory *memory;
    cr_assert_eq(kept_memory_new(true, 42, 1000, specs, 2, &memory, why, sizeof why), 0, "%s", why);
    kept = fcntl(kept_memory_fd(memory), F_DUPFD_CLOEXEC, 3);
    cr_assert_geq(kept, 0);
    return memory;
}

static int attach(const struct kept_table_spec *wanted, uint32_t count, struct kept_memory **out) {
    int fd = fcntl(kept, F_DUPFD_CLOEXEC, 3);
    int result = kept_memory_attach(fd, wanted, count, out, why, sizeof why);
    if (result < 0)
        close(fd);
    return result;
}

static struct kept_memory *attach_again(void) {
    struct kept_memory *memory;
    cr_assert_eq(attach(specs, 2, &memory), 0, "%s", why);
    return memory;
}

static uint32_t add(struct kept_table *table, uint64_t number) {
    uint32_t index;
    struct record *record = kept_take(table, &index);
    cr_assert_not_null(record);
    record->number = number;
    kept_commit(table, index, number + 1);
    return index;
}

Test(kept_table, finds_what_was_committed_and_nothing_else) {
    struct kept_memory *memory = make();
    struct kept_table *table = kept_table(memory, 7);
    uint32_t index, freed, taken;
    for (uint64_t i = 0; i < 70; i++)
        cr_expect_eq(add(table, i), i);
    freed = 33;
    kept_free(table, freed);
    cr_assert_not_null(kept_take(table, &taken));
    cr_expect_eq(taken, freed, "the lowest free one");
    cr_assert_not_null(kept_take(table, &taken));
    cr_expect_eq(taken, 70);
    cr_expect_eq(kept_table_used(table), 71);
    kept_memory_free(memory);

    memory = attach_again();
    table = kept_table(memory, 7);
    cr_expect_eq(kept_memory_incarnation(memory), 42);
    cr_expect_eq(kept_memory_since_ns(memory), 1000);
    cr_expect_eq(kept_memory_restarts(memory), 1);
    cr_expect_eq(kept_table_used(table), 69);
    uint32_t cursor = 0, seen = 0;
    while (kept_walk(table, &cursor, &index)) {
        const struct record *record = kept_record(table, index);
        cr_expect_eq(record->number, index);
        cr_expect_eq(kept_word(table, index), index + 1);
        cr_expect_neq(index, freed);
        seen++;
    }
    cr_expect_eq(seen, 69);
    cr_assert_not_null(kept_take(table, &index));
    cr_expect_eq(index, freed, "what was taken and never committed is free");
    kept_memory_free(memory);
    close(kept);
}

Test(kept_table, gives_out_every_record_once_and_then_none) {
    struct kept_memory *memory = make();
    struct kept_table *table = kept_table(memory, 7);
    uint32_t index;
    for (uint32_t i = 0; i < CAPACITY; i++)
        cr_expect_eq(add(table, i), i);
    cr_expect_null(kept_take(table, &index));
    kept_free(table, CAPACITY - 1);
    cr_expect_eq(add(table, 5), CAPACITY - 1);
    cr_expect_null(kept_table(memory, 8));
    kept_memory_free(memory);
    close(kept);
}

Test(kept_table, hands_out_records_of_zeros) {
    struct kept_memory *memory = make();
    struct kept_table *table = kept_table(memory, 7);
    const struct record zeros = {0};
    uint32_t index = add(table, 77);
    kept_free(table, index);
    cr_expect_arr_eq(kept_take(table, &index), &zeros, sizeof zeros);
    kept_memory_free(memory);
    close(kept);
}

Test(kept_table, takes_memory_for_what_is_used_alone) {
    struct kept_memory *memory = make();
    struct stat facts;
    uint32_t index;
    cr_assert_not_null(kept_take(kept_table(memory, 9), &index));
    kept_memory_free(memory);
    memory = attach_again();
    cr_assert_eq(fstat(kept, &facts), 0);
    cr_expect_gt(facts.st_size, (off_t)KEPT_RECORD_MAX * 16);
    cr_expect_leq(facts.st_blocks * 512, 4 * 4096, "%ld blocks", (long)facts.st_blocks);
    kept_memory_free(memory);
    close(kept);
}

Test(kept_table, of_an_older_version_gets_the_tables_it_lacks) {
    struct kept_memory *memory;
    cr_assert_eq(kept_memory_new(true, 42, 1000, specs, 1, &memory, why, sizeof why), 0, "%s", why);
    kept = fcntl(kept_memory_fd(memory), F_DUPFD_CLOEXEC, 3);
    add(kept_table(memory, 7), 11);
    kept_memory_free(memory);
    memory = attach_again();
    cr_expect_eq(kept_word(kept_table(memory, 7), 0), 12);
    cr_expect_eq(kept_table_capacity(kept_table(memory, 9)), KEPT_RECORD_MAX);
    kept_memory_free(memory);
    kept_memory_free(attach_again());
    close(kept);
}

Test(kept_table, stays_with_the_one_that_has_it, .timeout = 60) {
    struct kept_memory *memory = make(), *second;
    cr_expect_eq(attach(specs, 2, &second), -EBUSY);
    cr_expect_not_null(strstr(why, "another featured"), "%s", why);
    pid_t child = fork();
    if (child == 0)
        _exit(attach(specs, 2, &second) == -EBUSY ? 0 : 1);
    int status = 0;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    kept_memory_free(memory);
    kept_memory_free(attach_again());
    close(kept);
}

Test(kept_table, that_nobody_keeps_needs_no_descriptor) {
    struct kept_memory *memory;
    cr_assert_eq(kept_memory_new(false, 42, 1000, specs, 2, &memory, why, sizeof why), 0, "%s",
                 why);
    cr_expect_eq(kept_memory_fd(memory), -1);
    cr_expect_eq(add(kept_table(memory, 7), 3), 0);
    kept_memory_free(memory);
}

/* ---- what cannot be attached ---- */

static void patch(off_t at, uint64_t value, size_t bytes) {
    cr_assert_eq(pwrite(kept, &value, bytes, at), (ssize_t)bytes);
}

/* Attaching is refused with these words, and changes no byte. */
static void expect_refused(int result, const char *words, const struct kept_table_spec *wanted,
                           uint32_t count) {
    struct kept_memory *memory;
    unsigned char before[8192], after[8192];
    ssize_t bytes = pread(kept, before, sizeof before, 0);
    cr_expect_eq(attach(wanted, count, &memory), result, "%s", why);
    cr_expect_not_null(strstr(why, words), "%s", why);
    cr_expect_not_null(strstr(why, "left as it is"), "%s", why);
    cr_expect_eq(pread(kept, after, sizeof after, 0), bytes);
    cr_expect_arr_eq(before, after, (size_t)bytes);
}

Test(kept_table, refuses_what_it_does_not_know) {
    struct kept_table_spec other[] = {specs[0], specs[1]};
    struct kept_memory *memory = make();
    add(kept_table(memory, 7), 1);
    kept_memory_free(memory);
    other[1].version = 4;
    expect_refused(-EPROTO, "table 9 has version 3", other, 2);
    other[1] = specs[1];
    other[0].record_bytes += 8;
    expect_refused(-EPROTO, "table 7", other, 2);
    expect_refused(-EPROTO, "this one knows none such", specs, 1);
    patch(8, 2, 4);
    expect_refused(-EPROTO, "it has format 2", specs, 2);
    patch(0, 0, 8);
    expect_refused(-EBADMSG, "magic", specs, 2);
    close(kept);
}

Test(kept_table, refuses_a_file_that_is_too_short) {
    struct kept_memory *memory = make();
    kept_memory_free(memory);
    unsigned char header[4096];
    cr_assert_eq(pread(kept, header, sizeof header, 0), (ssize_t)sizeof header);
    close(kept);
    kept = memfd_create("cut", MFD_CLOEXEC);
    cr_assert_eq(pwrite(kept, header, sizeof header, 0), (ssize_t)sizeof header);
    expect_refused(-EBADMSG, "table 7 does not lie where it should", specs, 2);
    cr_assert_eq(ftruncate(kept, 4095), 0);
    expect_refused(-EBADMSG, "shorter than its header", specs, 2);
    close(kept);
}
