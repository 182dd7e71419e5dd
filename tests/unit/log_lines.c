/* SPDX-License-Identifier: Apache-2.0
 *
 * What reaches stderr. Each test runs in a process of its own, so that stderr can be a pipe.
 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <regex.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ops/log.h"

static int reader, saved_stderr;

static void setup(void) {
    int ends[2];
    cr_assert_eq(pipe2(ends, O_NONBLOCK), 0);
    reader = ends[0];
    saved_stderr = dup(STDERR_FILENO);
    dup2(ends[1], STDERR_FILENO);
    close(ends[1]);
    unsetenv("JOURNAL_STREAM");
}

static void teardown(void) {
    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);
    close(reader);
}

TestSuite(log, .init = setup, .fini = teardown);

static const char *written(void) {
    static char text[8192];
    ssize_t got = read(reader, text, sizeof text - 1);
    text[got > 0 ? got : 0] = '\0';
    return text;
}

static bool matches(const char *text, const char *pattern) {
    regex_t regex;
    cr_assert_eq(regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB), 0);
    bool found = regexec(&regex, text, 0, NULL, 0) == 0;
    regfree(&regex);
    return found;
}

static void pretend_stderr_is_the_journal(void) {
    struct stat status;
    char stream[64];
    fstat(STDERR_FILENO, &status);
    snprintf(stream, sizeof stream, "%ju:%ju", (uintmax_t)status.st_dev, (uintmax_t)status.st_ino);
    setenv("JOURNAL_STREAM", stream, 1);
}

Test(log, a_line_has_time_level_and_text) {
    log_info("session %d: put refused", 12);
    const char *text = written();
    cr_expect(
        matches(text,
                "^20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-9:]{8}\\.[0-9]{3}Z info    session 12: put "
                "refused\n$"),
        "%s", text);
}

Test(log, the_journal_gets_sd_daemon_prefixes) {
    pretend_stderr_is_the_journal();
    log_set_level(LOG_LEVEL_DEBUG);
    log_error("a");
    log_warning("b");
    log_info("c");
    log_debug("d");
    cr_expect_str_eq(written(), "<3>a\n<4>b\n<6>c\n<7>d\n");
}

Test(log, a_journal_that_is_not_our_stderr_is_ignored) {
    setenv("JOURNAL_STREAM", "1:1", 1);
    log_info("x");
    cr_expect(matches(written(), "Z info    x\n$"));
}

Test(log, levels_above_the_chosen_one_are_silent) {
    log_debug("hidden by default");
    log_set_level(LOG_LEVEL_WARNING);
    log_info("hidden");
    cr_expect_str_eq(written(), "");
    log_warning("shown");
    cr_expect(matches(written(), "warning shown\n$"));
}

Test(log, nobody_can_forge_a_line) {
    pretend_stderr_is_the_journal();
    log_info("client %s", "evil\n<3>disk on fire\x1b[2J\x7f");
    cr_expect_str_eq(written(), "<6>client evil\\x0a<3>disk on fire\\x1b[2J\\x7f\n");
}

Test(log, names_in_other_alphabets_stay_and_what_is_no_text_is_escaped) {
    pretend_stderr_is_the_journal();
    log_info("%s", "Größe 特徴 🙂");
    log_info("%s", "a\xffz \xc3( \xed\xa0\x80 \\x0a");
    log_info(
        "%s",
        "\xc2\x9b 31m \xe2\x80\xae evil \xe2\x80\xa8 two"); /* CSI, RLO, a separator of lines */
    cr_expect_str_eq(written(), "<6>Größe 特徴 🙂\n"
                                "<6>a\\xffz \\xc3( \\xed\\xa0\\x80 \\x0a\n"
                                "<6>\\xc2\\x9b 31m \\xe2\\x80\\xae evil \\xe2\\x80\\xa8 two\n");
}

Test(log, a_long_name_is_cut_at_the_end_of_a_character) {
    char text[5000];
    for (size_t i = 0; i + 2 < sizeof text; i += 2)
        memcpy(text + i, "\xc3\xa9", 3);
    pretend_stderr_is_the_journal();
    log_info("%s", text);
    const char *line = written();
    size_t length = strlen(line);
    cr_expect_leq(length, 2048);
    cr_expect_str_eq(line + length - 6, "\xc3\xa9...\n");
    cr_expect_null(strstr(line, "\\x"), "a character was cut in two");
}

static size_t count_lines(const char *text) {
    size_t count = 0;
    for (; *text; text++)
        count += *text == '\n';
    return count;
}

/* uid 1000 can make as many as it likes; another uid's are shown all the same. */
Test(log, limited_lines_of_one_source_leave_others_theirs) {
    pretend_stderr_is_the_journal();
    for (uint64_t source = 1000; source < 1002; source++)
        for (int i = 0; i < 5000; i++)
            log_limited(LOG_LEVEL_WARNING, source, "%s %d: closed", "session", (int)source);
    const char *text = written();
    cr_expect_eq(count_lines(text), 20, "%s", text);
    cr_expect_not_null(strstr(text, "session 1001: closed"), "%s", text);
}

Test(log, limits_hold_for_every_kind_and_not_for_debug) {
    static char text[65536];
    size_t used = 0;
    log_set_level(LOG_LEVEL_DEBUG);
    pretend_stderr_is_the_journal();
    for (int i = 0; i < 1000; i++) {
        log_info("x %d", i);
        if (i < 20)
            log_debug("d %d", i);
        ssize_t got = read(reader, text + used, sizeof text - 1 - used);
        used += got > 0 ? (size_t)got : 0;
    }
    text[used] = '\0';
    cr_expect_eq(count_lines(text), 300 + 20);
}

Test(log, a_long_line_is_cut_and_says_so) {
    char text[5000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    log_error("%s", text);
    const char *line = written();
    size_t length = strlen(line);
    cr_expect_leq(length, 2048);
    cr_expect_gt(length, 2000);
    cr_expect_str_eq(line + length - 4, "...\n");
}

Test(log, level_words_are_read_exactly) {
    enum log_level level = LOG_LEVEL_ERROR;
    cr_expect(log_parse_level("debug", &level) && level == LOG_LEVEL_DEBUG);
    cr_expect(log_parse_level("warning", &level) && level == LOG_LEVEL_WARNING);
    cr_expect_not(log_parse_level("warn", &level));
    cr_expect_not(log_parse_level("", &level));
    cr_expect_eq(level, LOG_LEVEL_WARNING);
}

Test(log, bytes_read_well) {
    char out[16];
    cr_expect_str_eq(log_bytes(0, out), "0 B");
    cr_expect_str_eq(log_bytes(17, out), "17 B");
    cr_expect_str_eq(log_bytes(1023, out), "1023 B");
    cr_expect_str_eq(log_bytes(65536, out), "64 KiB");
    cr_expect_str_eq(log_bytes(1536, out), "1.5 KiB");
    cr_expect_str_eq(log_bytes((3ull << 30) + (205ull << 20), out), "3.2 GiB");
    cr_expect_str_eq(log_bytes(UINT64_MAX, out), "16.0 EiB");
}
