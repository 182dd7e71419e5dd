/* SPDX-License-Identifier: Apache-2.0
 *
 * The text of one value: units, ranges, names, addresses.
 */
#include "config_value.h"

#include <criterion/criterion.h>
#include <string.h>

#include "config.h"

static bool take(const struct config_rule *rule, const char *text, void *field) {
    char why[256] = "";
    bool good = config_value_parse(rule, text, field, why, sizeof why);
    cr_expect(good || strstr(why, "; allowed: "), "%s: says not what is allowed: %s", text, why);
    return good;
}

Test(config_value, sizes_take_binary_units_only) {
    const struct config_rule rule = {.kind = CONFIG_BYTES, .field_bytes = 8, .max = UINT64_MAX};
    uint64_t value = 7;
    cr_expect(take(&rule, "4096", &value) && value == 4096);
    cr_expect(take(&rule, "64KiB", &value) && value == 65536);
    cr_expect(take(&rule, "3 GiB", &value) && value == 3ull << 30);
    cr_expect(take(&rule, "2TiB", &value) && value == 2ull << 40);
    cr_expect(take(&rule, "18446744073709551615", &value) && value == UINT64_MAX);
    value = 7;
    const char *bad[] = {
        "64KB",        "64K",   "1.5GiB", "-1", "+1", "0x10", "", "MiB", "18446744073709551616",
        "16777216TiB", "4 096", "1e3"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_expect_not(take(&rule, bad[i], &value), "%s was taken", bad[i]);
    cr_expect_eq(value, 7, "a refused value must leave the field alone");
}

Test(config_value, durations_need_a_unit) {
    const struct config_rule rule = {.kind = CONFIG_DURATION, .field_bytes = 4, .max = 3600000};
    uint32_t value = 7;
    cr_expect(take(&rule, "250ms", &value) && value == 250);
    cr_expect(take(&rule, "5s", &value) && value == 5000);
    cr_expect(take(&rule, "2 min", &value) && value == 120000);
    cr_expect(take(&rule, "1h", &value) && value == 3600000);
    cr_expect(take(&rule, "0", &value) && value == 0);
    const char *bad[] = {"5", "5m", "5 seconds", "2h", "-5s", "s", ""};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_expect_not(take(&rule, bad[i], &value), "%s was taken", bad[i]);
}

Test(config_value, ranges_include_both_ends) {
    const struct config_rule rule = {.kind = CONFIG_INTEGER, .field_bytes = 4, .min = 1, .max = 10};
    uint32_t value;
    cr_expect(take(&rule, "1", &value) && value == 1);
    cr_expect(take(&rule, "10", &value) && value == 10);
    cr_expect_not(take(&rule, "0", &value));
    cr_expect_not(take(&rule, "11", &value));
    cr_expect_not(take(&rule, "4294967297", &value));
}

Test(config_value, a_multiple_is_a_multiple) {
    const struct config_rule rule = {
        .kind = CONFIG_BYTES, .field_bytes = 8, .min = 0, .max = 1 << 20, .multiple = 4096};
    uint64_t value;
    cr_expect(take(&rule, "8192", &value));
    cr_expect_not(take(&rule, "8193", &value));
}

Test(config_value, truth_has_three_words_each) {
    const struct config_rule rule = {.kind = CONFIG_BOOL, .field_bytes = sizeof(bool)};
    bool value = false;
    cr_expect(take(&rule, "on", &value) && value);
    cr_expect(take(&rule, "No", &value) && !value);
    cr_expect(take(&rule, "TRUE", &value) && value);
    cr_expect_not(take(&rule, "1", &value));
    cr_expect_not(take(&rule, "", &value));
}

Test(config_value, paths_are_absolute_and_fit) {
    char field[8] = "zzzzzzz";
    const struct config_rule rule = {.kind = CONFIG_PATH, .field_bytes = sizeof field};
    const struct config_rule optional = {
        .kind = CONFIG_PATH, .field_bytes = sizeof field, .empty = true};
    cr_expect(take(&rule, "/a/bcde", field) && strcmp(field, "/a/bcde") == 0);
    cr_expect_not(take(&rule, "/a/bcdef", field));
    cr_expect_not(take(&rule, "a", field));
    cr_expect_not(take(&rule, "", field));
    cr_expect(take(&optional, "", field) && strcmp(field, "") == 0);
}

Test(config_value, ids_are_numbers_or_names_that_exist) {
    struct config_ids list = {.count = 0};
    const struct config_rule uids = {.kind = CONFIG_UIDS, .field_bytes = sizeof list};
    const struct config_rule gids = {.kind = CONFIG_GIDS, .field_bytes = sizeof list};
    cr_expect(take(&uids, "root,7 , 12", &list) && list.count == 3);
    cr_expect_eq(list.ids[0], 0);
    cr_expect_eq(list.ids[2], 12);
    cr_expect(take(&gids, "root", &list) && list.count == 1 && list.ids[0] == 0);
    cr_expect_not(take(&uids, "no-such-user-here", &list));
    cr_expect_not(take(&gids, "no-such-group-here", &list));
    cr_expect_not(take(&uids, "4294967295", &list), "(uid_t)-1 is nobody");
    cr_expect(take(&uids, "", &list) && list.count == 0);
}

Test(config_value, a_list_of_ids_has_an_end) {
    struct config_ids list = {.count = 0};
    const struct config_rule uids = {.kind = CONFIG_UIDS, .field_bytes = sizeof list};
    char text[2 * CONFIG_IDS_MAX + 3] = "";
    for (size_t i = 0; i < CONFIG_IDS_MAX; i++)
        memcpy(text + 2 * i, "1,", 3);
    cr_expect(take(&uids, text, &list) && list.count == CONFIG_IDS_MAX);
    memcpy(text + (size_t)2 * CONFIG_IDS_MAX, "1", 2);
    cr_expect_not(take(&uids, text, &list));
}

Test(config_value, addresses_have_a_host_and_a_port) {
    char field[256];
    const struct config_rule rule = {
        .kind = CONFIG_ADDRESS, .field_bytes = sizeof field, .min = 1, .max = 65535};
    const char *good[] = {"node-1.example:7400", "10.0.0.1:1", "[fe80::1%eth0]:65535",
                          "[::1]:7400"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        cr_expect(take(&rule, good[i], field) && strcmp(field, good[i]) == 0, "%s", good[i]);
    const char *bad[] = {"",         "host",  ":7400", "host:",   "host:0", "host:65536",
                         "::1:7400", "[::1]", "a b:1", "host:+1", "[]:1"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_expect_not(take(&rule, bad[i], field), "%s was taken", bad[i]);
}
