/* SPDX-License-Identifier: Apache-2.0
 *
 * Nobody who logs waits for whoever reads: pipes that nobody reads, disks that are full. Each test
 * runs in a process of its own.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ops/log.h"
#include "support/checks.h"

#define FLOOD 20000

static int reader = -1, saved_stderr;

/* stderr becomes a pipe, blocking as a shell's. */
static void set_up_pipe(void) {
    int ends[2];
    cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
    reader = ends[0];
    saved_stderr = dup(STDERR_FILENO);
    dup2(ends[1], STDERR_FILENO);
    close(ends[1]);
    unsetenv("JOURNAL_STREAM");
    signal(SIGPIPE, SIG_IGN);
    int error = log_start();
    cr_assert_eq(error, 0, "%s", strerror(-error));
    log_set_level(LOG_LEVEL_DEBUG); /* not limited: a flood */
}

static void restore_stderr(void) {
    dup2(saved_stderr, STDERR_FILENO);
}

TestSuite(log_writer, .init = set_up_pipe, .fini = restore_stderr, .timeout = 60);

static void flood(void) {
    for (int i = 0; i < FLOOD; i++)
        log_debug("line %d of a flood that nobody reads", i);
}

/* Reads to the line that holds `last`; lines, and the number of dropped ones that was told. */
static size_t read_until(const char *last, unsigned long *dropped_out) {
    FILE *file = fdopen(reader, "r");
    char line[4096];
    size_t lines = 0;
    *dropped_out = 0;
    while (fgets(line, sizeof line, file)) {
        char *told = strstr(line, "log: ");
        lines++;
        if (told && strstr(line, "lines were dropped"))
            *dropped_out += strtoul(told + 5, NULL, 10);
        if (strstr(line, last))
            break;
    }
    fclose(file);
    return lines;
}

/* It would hang here on a writer that waits. */
Test(log_writer, nobody_waits_for_a_reader_that_does_not_read) {
    uint64_t begin_ms = check_now_ms();
    flood();
    log_stop(100);
    CHECK(check_now_ms() - begin_ms < 30000, "%llu ms",
          (unsigned long long)(check_now_ms() - begin_ms));
    CHECK(log_dropped() > FLOOD / 2, "%llu", (unsigned long long)log_dropped());
}

Test(log_writer, every_line_dropped_is_told_of_when_writing_works_again) {
    unsigned long told = 0;
    flood();
    uint64_t dropped = log_dropped();
    CHECK(dropped > 0, "nothing was dropped");
    size_t lines = read_until("lines were dropped", &told);
    cr_expect_eq(told, dropped);
    cr_expect_eq(lines - 1 + dropped, FLOOD, "%zu lines, %llu dropped", lines,
                 (unsigned long long)dropped);
}

Test(log_writer, lines_come_in_their_order_around_those_that_were_dropped) {
    unsigned long told = 0;
    char line[4096];
    flood();
    uint64_t dropped = log_dropped();
    FILE *file = fdopen(dup(reader), "r");
    int next = 0, number;
    while (fgets(line, sizeof line, file)) {
        const char *at = strstr(line, "line ");
        if (!at || sscanf(at, "line %d of a flood", &number) != 1)
            break;
        cr_assert_eq(number, next++);
    }
    cr_expect_not_null(strstr(line, "lines were dropped"), "%s", line);
    cr_expect_eq((uint64_t)next + dropped, FLOOD);
    log_info("all is well");
    CHECK(fgets(line, sizeof line, file) && strstr(line, "all is well"), "%s", line);
    fclose(file);
    (void)told;
}

Test(log_writer, a_stderr_that_somebody_made_nonblocking_loses_nothing) {
    unsigned long told = 0;
    fcntl(STDERR_FILENO, F_SETFL, O_NONBLOCK);
    for (int i = 0; i < 1000; i++) /* less than the ring, more than the pipe */
        log_debug("%-150d", i);
    log_debug("the last one");
    cr_expect_eq(read_until("the last one", &told), 1001);
    cr_expect_eq(told, 0);
}

Test(log_writer, a_reader_that_is_gone_costs_the_lines_and_no_more) {
    close(reader);
    for (int i = 0; i < 10; i++)
        log_error("nobody hears %d", i);
    log_stop(1000);
    cr_expect_eq(log_dropped(), 10);
}

Test(log_writer, a_full_disk_is_told_of_when_there_is_room_again) {
    char line[4096], path[] = "/tmp/featured-log-XXXXXX";
    int full = open("/dev/full", O_WRONLY | O_CLOEXEC), file = mkstemp(path);
    cr_assert(full >= 0 && file >= 0);
    dup2(full, STDERR_FILENO);
    log_error("lost 1");
    log_error("lost 2");
    WAIT_UNTIL(log_dropped() == 2, 20000);
    dup2(file, STDERR_FILENO);
    log_error("kept");
    log_stop(20000);
    ssize_t bytes = pread(file, line, sizeof line - 1, 0);
    line[bytes > 0 ? bytes : 0] = '\0';
    unlink(path);
    const char *told = strstr(line, "2 lines were dropped"), *kept = strstr(line, "kept");
    cr_expect(told && kept && told < kept, "%s", line);
    cr_expect_null(strstr(line, "lost"), "%s", line);
    cr_expect_eq(log_dropped(), 2);
}
