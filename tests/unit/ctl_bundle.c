/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "featurectl/bundle_scrub.h"

static void expect_text(const struct scrub *scrub, const char *text, const char *expected) {
    size_t bytes;
    char *clean = scrub_text(scrub, text, strlen(text), &bytes);
    cr_expect_str_eq(clean, expected, "%s", clean);
    cr_expect_eq(bytes, strlen(expected));
    free(clean);
}

Test(ctl_bundle, a_secret_is_removed_wherever_it_stands) {
    struct scrub scrub = {0};
    scrub_learn(&scrub, "sesame-open\n", 12);
    expect_text(&scrub, "sesame-open", "(removed)");
    expect_text(&scrub, "sesame-opensesame-open, sesame-ope", "(removed)(removed), sesame-ope");
    expect_text(&scrub, "", "");
    scrub_deinit(&scrub);
}

Test(ctl_bundle, of_several_lines_each_is_a_secret) {
    struct scrub scrub = {0};
    const char *key = "-----BEGIN KEY-----\nMIIEvQIBADAN\nBgkqhkiG9w0B\n-----END KEY-----\n";
    scrub_learn(&scrub, key, strlen(key));
    expect_text(&scrub, "MIIEvQIBADAN BgkqhkiG9w0B -----BEGIN KEY-----",
                "(removed) (removed) -----BEGIN KEY-----");
    scrub_deinit(&scrub);
}

Test(ctl_bundle, what_is_put_in_its_place_is_not_looked_at_again) {
    struct scrub scrub = {0};
    scrub_learn(&scrub, "(removed)", 9);
    scrub_learn(&scrub, "short", 5); /* too short to be one of ours */
    expect_text(&scrub, "a (removed) b short", "a (removed) b short");
    scrub_deinit(&scrub);
}

Test(ctl_bundle, bytes_that_are_no_text_are_found_as_logs_show_them) {
    struct scrub scrub = {0};
    scrub_learn(&scrub, "\x01\xff\x02\xfe\x03\xfd\x04\xfc\x05", 9);
    expect_text(&scrub, "it is \\x01\\xff\\x02\\xfe\\x03\\xfd\\x04\\xfc\\x05!", "it is (removed)!");
    scrub_deinit(&scrub);
}

Test(ctl_bundle, a_configuration_keeps_what_is_known_to_be_harmless) {
    char *clean =
        scrub_config("[node] # the first\nname = a\n\n; old\npassword = x\n"
                     "secret_file = /etc/x\nendpoints = http://u:p@h:1/a@b\nwhat is this\n");
    cr_expect_str_eq(clean, "[node]\nname = a\npassword = (removed)\nsecret_file = /etc/x\n"
                            "endpoints = http://(removed)@h:1/a@b\n(removed)\n");
    free(clean);
}
