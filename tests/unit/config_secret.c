/* SPDX-License-Identifier: Apache-2.0
 *
 * Secret files: only the owner's, neither too short nor too long.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config.h"
#include "host/secret_file.h"

static char path[64];

static void create(const void *text, size_t bytes, mode_t mode) {
    strcpy(path, "/tmp/featured-secret-XXXXXX");
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, text, bytes), (ssize_t)bytes);
    cr_assert_eq(fchmod(fd, mode), 0);
    close(fd);
}

static void remove_file(void) {
    unlink(path);
}

static int read_back(char *out, size_t out_bytes, char why[256]) {
    why[0] = '\0';
    return config_read_secret(path, out, out_bytes, why, 256);
}

TestSuite(config_secret, .fini = remove_file);

Test(config_secret, one_newline_at_the_end_is_no_part_of_it) {
    char out[4096], why[256];
    create("0123456789abcdef\n", 17, 0600);
    cr_assert_eq(read_back(out, sizeof out, why), 16, "%s", why);
    cr_expect_arr_eq(out, "0123456789abcdef", 16);
}

Test(config_secret, bytes_are_kept_as_they_are) {
    char out[4096], why[256], secret[20] = "a\0b\n\r \xff 0123456789\n\n";
    create(secret, 20, 0400);
    cr_assert_eq(read_back(out, sizeof out, why), 19, "%s", why);
    cr_expect_arr_eq(out, secret, 19);
}

Test(config_secret, others_may_not_read_it) {
    char out[4096], why[512];
    create("0123456789abcdef", 16, 0644);
    cr_assert_eq(config_read_secret(path, out, sizeof out, why, sizeof why), -EACCES);
    cr_expect_not_null(strstr(why, "mode 0644"), "%s", why);
    cr_expect_not_null(strstr(why, "chmod 600"), "%s", why);
}

static bool is_private(uid_t owner, gid_t group, mode_t mode, char why[512]) {
    struct stat facts = {.st_uid = owner, .st_gid = group, .st_mode = S_IFREG | mode};
    why[0] = '\0';
    return secret_file_is_private(&facts, why, 512);
}

/* As Kubernetes makes it for runAsNonRoot and fsGroup: root's, 0440, the group is ours. */
Test(config_secret, trust_in_a_file_that_only_root_we_and_our_group_read) {
    uid_t us = geteuid(), other = us + 4242;
    gid_t ours = getegid(), none = 0x7ffffff0;
    char why[512];
    cr_expect(is_private(us, ours, 0600, why));
    cr_expect(is_private(us, none, 0400, why));
    cr_expect(is_private(0, none, 0400, why));
    cr_expect(is_private(0, ours, 0440, why), "%s", why);
    cr_expect(is_private(us, ours, 0640, why), "%s", why);
    cr_expect_not(is_private(0, none, 0440, why));
    cr_expect_not_null(strstr(why, "a group that is none of ours"), "%s", why);
    cr_expect_not(is_private(0, ours, 0460, why));
    cr_expect_not_null(strstr(why, "its group can change it"), "%s", why);
    cr_expect_not(is_private(0, ours, 0444, why));
    cr_expect_not_null(strstr(why, "everybody"), "%s", why);
    cr_expect_not(is_private(0, ours, 0402, why));
    cr_expect_not(is_private(other, ours, 0400, why));
    cr_expect_not_null(strstr(why, "another user owns it"), "%s", why);
    cr_expect_not_null(strstr(why, "mode 0400"), "%s", why);
    cr_expect_not_null(strstr(why, "allowed: owner"), "%s", why);
}

Test(config_secret, trust_reaches_through_symbolic_links) {
    char out[4096], why[256], link[80];
    create("0123456789abcdef", 16, 0400);
    snprintf(link, sizeof link, "%s.link", path);
    cr_assert_eq(symlink(path, link), 0);
    int bytes = config_read_secret(link, out, sizeof out, why, sizeof why);
    unlink(link);
    cr_expect_eq(bytes, 16, "%s", why);
}

Test(config_secret, sixteen_bytes_are_the_least) {
    char out[4096], why[256];
    create("0123456789abcde\n", 16, 0600);
    cr_assert_eq(read_back(out, sizeof out, why), -EINVAL);
    cr_expect_not_null(strstr(why, "15 bytes; allowed: 16 to 4096"), "%s", why);
}

Test(config_secret, at_most_4096_bytes_and_what_the_caller_has_room_for) {
    char out[5000], why[256], text[4098];
    memset(text, 's', sizeof text);
    text[4096] = '\n';
    create(text, 4097, 0600);
    cr_expect_eq(read_back(out, sizeof out, why), 4096, "%s", why);
    cr_expect_eq(read_back(out, 100, why), -EINVAL);
    remove_file();
    text[4096] = 's';
    create(text, 4098, 0600);
    cr_expect_eq(read_back(out, sizeof out, why), -EINVAL);
    cr_expect_not_null(strstr(why, "more than 4096"), "%s", why);
}

Test(config_secret, what_is_not_a_file_is_refused) {
    char out[64], why[256];
    cr_expect_eq(config_read_secret("/nonexistent/secret", out, sizeof out, why, sizeof why),
                 -ENOENT);
    cr_expect_eq(config_read_secret("/dev/zero", out, sizeof out, why, sizeof why), -EACCES);
    cr_expect_not_null(strstr(why, "not a regular file"), "%s", why);
}
