/* SPDX-License-Identifier: Apache-2.0
 *
 * Secret files: only the owner's, neither too short nor too long.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config.h"

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
    char out[4096], why[256];
    create("0123456789abcdef", 16, 0640);
    cr_assert_eq(read_back(out, sizeof out, why), -EACCES);
    cr_expect_not_null(strstr(why, "mode 0640"), "%s", why);
    cr_expect_not_null(strstr(why, "chmod 600"), "%s", why);
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
