/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "featurectl/secret.h"

/* Writes `count` times `byte`, then `tail`, reads it back as a secret and removes the file. */
static ssize_t read_back(size_t count, const char *tail, mode_t mode, char why[512]) {
    static uint8_t secret[SECRET_BYTES_MAX];
    char path[] = "/tmp/featured-ctl-XXXXXX";
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    FILE *file = fdopen(fd, "w");
    for (size_t i = 0; i < count; i++)
        fputc('s', file);
    fputs(tail, file);
    fclose(file);
    cr_assert_eq(chmod(path, mode), 0);
    ssize_t bytes = secret_read(path, secret, why, 512);
    unlink(path);
    return bytes;
}

Test(ctl_secret, a_trailing_newline_is_no_part_of_it) {
    char why[512] = "";
    cr_expect_eq(read_back(16, "\n", 0600, why), 16, "%s", why);
    cr_expect_eq(read_back(32, "", 0400, why), 32, "%s", why);
    cr_expect_eq(read_back(4096, "", 0600, why), 4096, "%s", why);
}

Test(ctl_secret, files_that_others_can_read_are_refused) {
    char why[512] = "";
    cr_expect_eq(read_back(32, "\n", 0644, why), -EACCES);
    cr_expect_not_null(strstr(why, "chmod 600"));
    cr_expect_eq(read_back(32, "\n", 0604, why), -EACCES);
}

Test(ctl_secret, too_short_too_long_and_no_file_are_refused) {
    char why[512] = "";
    cr_expect_eq(read_back(15, "\n", 0600, why), -EINVAL);
    cr_expect_eq(read_back(4097, "", 0600, why), -EINVAL);
    uint8_t secret[SECRET_BYTES_MAX];
    cr_expect_eq(secret_read("/tmp", secret, why, sizeof why), -EACCES);
    cr_expect_eq(secret_read("/nonexistent", secret, why, sizeof why), -ENOENT);
}
