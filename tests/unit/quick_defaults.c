/* SPDX-License-Identifier: Apache-2.0
 *
 * `featured --quick`: where its socket lies, and how much memory it takes of what is free.
 */
#include "quick.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MiB (1ull << 20)
#define GiB (1ull << 30)

static char directory[] = "/tmp/featured-unit-XXXXXX";
static char inside[64];

static void set_up(void) {
    cr_assert_not_null(mkdtemp(directory));
    snprintf(inside, sizeof inside, "%s/featured", directory);
}

static void tear_down(void) {
    rmdir(inside);
    rmdir(directory);
}

TestSuite(quick, .init = set_up, .fini = tear_down);

static const char *choose(const char *asked) {
    static char path[108];
    char why[512] = "";
    cr_assert_eq(quick_socket_path(asked, path, why, sizeof why), 0, "%s", why);
    return path;
}

static void refuse(const char *asked, int error, const char *word) {
    char path[108], why[1024] = "";
    cr_expect_eq(quick_socket_path(asked, path, why, sizeof why), error);
    cr_expect_not_null(strstr(why, word), "no \"%s\" in: %s", word, why);
    cr_expect_not_null(strstr(why, "--quick=PATH"), "no remedy in: %s", why);
}

Test(quick, socket_lies_in_the_runtime_directory_of_the_user) {
    char wanted[108];
    struct stat facts;
    setenv("XDG_RUNTIME_DIR", directory, 1);
    snprintf(wanted, sizeof wanted, "%s/featured.sock", inside);
    cr_expect_str_eq(choose(NULL), wanted);
    cr_expect_str_eq(choose(NULL), wanted, "a second time");
    cr_assert_eq(stat(inside, &facts), 0);
    cr_expect_eq(facts.st_mode & 07777, 0700u);
}

Test(quick, socket_lies_in_tmp_where_the_runtime_directory_is_not_the_users_own) {
    char wanted[108];
    snprintf(wanted, sizeof wanted, "/tmp/featured-%u/featured.sock", geteuid());
    setenv("XDG_RUNTIME_DIR", directory, 1);
    cr_assert_eq(chmod(directory, 0777), 0);
    cr_expect_str_eq(choose(NULL), wanted);
    setenv("XDG_RUNTIME_DIR", "relative", 1);
    cr_expect_str_eq(choose(NULL), wanted);
    unsetenv("XDG_RUNTIME_DIR");
    cr_expect_str_eq(choose(NULL), wanted);
    *strrchr(wanted, '/') = '\0';
    rmdir(wanted); /* stays if a broker has run there */
}

Test(quick, directory_that_others_may_write_to_is_refused) {
    setenv("XDG_RUNTIME_DIR", directory, 1);
    cr_assert_eq(mkdir(inside, 0700), 0);
    cr_assert_eq(chmod(inside, 0770), 0);
    refuse(NULL, -EPERM, inside);
    cr_assert_eq(rmdir(inside), 0);
    cr_assert_eq(symlink(directory, inside), 0);
    refuse(NULL, -EPERM, inside);
    unlink(inside);
}

Test(quick, path_that_is_given_is_taken_and_nothing_is_made) {
    char here[4096], wanted[4200];
    struct stat facts;
    cr_expect_str_eq(choose("/nowhere/a.sock"), "/nowhere/a.sock");
    cr_expect_lt(stat("/nowhere", &facts), 0);
    cr_assert_eq(chdir(directory), 0);
    cr_assert_not_null(getcwd(here, sizeof here));
    snprintf(wanted, sizeof wanted, "%s/a.sock", here);
    cr_expect_str_eq(choose("a.sock"), wanted);
}

Test(quick, path_that_no_socket_can_have_is_refused) {
    char path[109];
    memset(path, 'a', sizeof path - 1);
    path[0] = '/';
    path[108] = '\0';
    refuse(path, -ENAMETOOLONG, "longer than 107 bytes");
    path[107] = '\0';
    cr_expect_str_eq(choose(path), path);
}

static struct config with_available(uint64_t bytes) {
    struct config config;
    config_defaults(&config);
    quick_set_defaults(&config, "/x/y.sock", bytes);
    return config;
}

Test(quick, memory_is_a_part_of_what_is_free) {
    struct config config = with_available(8 * GiB);
    cr_expect_eq(config.store_defaults.max_resident_bytes, 2 * GiB);
    cr_expect_eq(config.max_resident_bytes, 4 * GiB);
    cr_expect_eq(config.store_defaults.landing_bytes, 0u);
    cr_expect_not(config.prefault);
    config = with_available(1024 * GiB);
    cr_expect_eq(config.store_defaults.max_resident_bytes, 8 * GiB, "at most so much");
    config = with_available(0);
    cr_expect_eq(config.store_defaults.max_resident_bytes, 16 * MiB, "at least so much");
    cr_expect_eq(config.max_resident_bytes, 16 * MiB);
    cr_expect_gt(quick_available_bytes(), 16 * MiB, "of this machine");
}

Test(quick, socket_is_of_this_user_alone) {
    struct config config = with_available(GiB);
    cr_expect_str_eq(config.socket_path, "/x/y.sock");
    cr_expect_eq(config.socket_mode, 0600u);
}
