/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>

#include "featurectl/exit_code.h"
#include "featurectl/progress.h"
#include "featurectl/units.h"

Test(ctl_units, bytes_read_well) {
    char text[UNITS_ROOM];
    cr_expect_str_eq(units_bytes(0, text), "0 B");
    cr_expect_str_eq(units_bytes(1023, text), "1023 B");
    cr_expect_str_eq(units_bytes(1536, text), "1.5 KiB");
    cr_expect_str_eq(units_bytes(300ull << 20, text), "300.0 MiB");
    cr_expect_str_eq(units_bytes(5ull << 30, text), "5.0 GiB");
    cr_expect_str_eq(units_bytes(UINT64_MAX, text), "16777216.0 TiB");
}

Test(ctl_units, durations_read_well) {
    char text[UNITS_ROOM];
    cr_expect_str_eq(units_duration(999, text), "999 ms");
    cr_expect_str_eq(units_duration(59999, text), "59 s");
    cr_expect_str_eq(units_duration(200000, text), "3 min 20 s");
    cr_expect_str_eq(units_duration(2ull * 3600 * 1000 + 5 * 60000, text), "2 h 5 min");
    cr_expect_str_eq(units_duration(52ull * 3600 * 1000, text), "2 d 4 h");
}

Test(ctl_units, rates_are_decimal_and_need_no_time) {
    char text[UNITS_ROOM];
    cr_expect_str_eq(units_rate(2310000000u, 1000000000u, text), "2.31 GB/s");
    cr_expect_str_eq(units_rate(5000000, 1000000000u, text), "5.0 MB/s");
    cr_expect_str_eq(units_rate(5000000, 0, text), "0.0 MB/s");
}

Test(ctl_units, sizes_parse_in_binary_units) {
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {{"0", 0},           {"4096", 4096},     {"64KiB", 65536},     {"64k", 65536},
                {"3 MiB", 3 << 20}, {"2G", 2ull << 30}, {"1TiB", 1ull << 40}, {"17B", 17}};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        uint64_t bytes = 1;
        cr_expect(units_parse_bytes(good[i].text, &bytes), "%s", good[i].text);
        cr_expect_eq(bytes, good[i].bytes, "%s", good[i].text);
    }
}

Test(ctl_units, what_is_no_size_is_refused_and_changes_nothing) {
    static const char *const bad[] = {
        "", "GiB", "-1", "4GB", "1.5GiB", "4GiBx", "18446744073709551616", "16777216TiB", " 4"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        uint64_t bytes = 7;
        cr_expect_not(units_parse_bytes(bad[i], &bytes), "%s", bad[i]);
        cr_expect_eq(bytes, 7);
    }
}

Test(ctl_units, times_need_a_unit_unless_zero) {
    uint64_t ms = 9;
    cr_expect(units_parse_duration_ms("0", &ms) && ms == 0);
    cr_expect(units_parse_duration_ms("500ms", &ms) && ms == 500);
    cr_expect(units_parse_duration_ms("10min", &ms) && ms == 600000);
    cr_expect(units_parse_duration_ms("1d", &ms) && ms == 86400000);
    cr_expect_not(units_parse_duration_ms("10", &ms));
    cr_expect_not(units_parse_duration_ms("10 weeks", &ms));
    cr_expect_eq(ms, 86400000);
}

Test(ctl_units, exit_codes_follow_the_status_numbers) {
    cr_expect_eq(exit_code(FEATURE_OK), 0);
    cr_expect_eq(exit_code(CTL_E_LOCAL), 1);
    cr_expect_eq(exit_code(FEATURE_E_INVALID), 11);
    cr_expect_eq(exit_code(FEATURE_E_NOT_FOUND), 13);
    cr_expect_eq(exit_code(FEATURE_E_INTERNAL), 21);
}

Test(ctl_progress, a_bar_shows_share_sizes_and_rate) {
    struct progress progress = {
        .label = "ingest", .done = 512ull << 20, .total = 1ull << 30, .begun_ns = 1};
    char line[256];
    progress_render(&progress, 1 + 500000000u, line, sizeof line);
    cr_expect_str_eq(
        line, "ingest [###############...............]  50 %  512.0 MiB of 1.0 GiB  1.07 GB/s");
}

Test(ctl_progress, a_bar_never_runs_over_its_end) {
    struct progress progress = {
        .label = "drain", .unit = PROGRESS_RELEASES, .done = 12, .total = 10};
    char line[256];
    progress_render(&progress, 1, line, sizeof line);
    cr_expect_str_eq(line, "drain [##############################] 100 %  12 of 10 releases");
    char small[8];
    progress_render(&progress, 1, small, sizeof small);
    cr_expect_str_eq(small, "drain [");
}

Test(ctl_progress, nothing_is_drawn_where_no_terminal_is) {
    FILE *file = tmpfile();
    cr_assert_not_null(file);
    struct progress progress;
    progress_begin(&progress, file, "get", PROGRESS_BYTES, 10);
    progress_set(&progress, 10, 10);
    progress_end(&progress);
    fseek(file, 0, SEEK_END);
    cr_expect_eq(ftell(file), 0);
    fclose(file);
}
