/* SPDX-License-Identifier: Apache-2.0
 *
 * One broker per socket, and what is said when there can be none.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "local/socket_file.h"
#include "local/socket_lock.h"
#include "support/checks.h"
#include "support/process.h"

static char directory[] = "/tmp/featured-lock-XXXXXX", path[96], lock_path[112], why[512];

static void set_up(void) {
    cr_assert_not_null(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/featured.sock", directory);
    snprintf(lock_path, sizeof lock_path, "%s.lock", path);
}

static void tear_down(void) {
    unlink(path);
    rmdir(path);
    unlink(lock_path);
    rmdir(directory);
}

TestSuite(start_lock, .init = set_up, .fini = tear_down, .timeout = 60);

static int take(void) {
    return socket_lock_take(path, why, sizeof why);
}

Test(start_lock, is_held_by_one_process_that_the_other_names) {
    char pid[32];
    int fd = take();
    cr_assert_geq(fd, 0, "%s", why);
    cr_expect_eq(take(), -EADDRINUSE);
    snprintf(pid, sizeof pid, "pid %d,", (int)getpid());
    cr_expect_not_null(strstr(why, pid), "%s", why);
    cr_expect_not_null(strstr(why, "another daemon"), "%s", why);
    close(fd);
    fd = take();
    cr_expect_geq(fd, 0, "the file that stays locks nobody out: %s", why);
    close(fd);
}

Test(start_lock, is_private_and_not_inherited) {
    struct stat facts;
    int fd = take();
    cr_assert_geq(fd, 0, "%s", why);
    cr_assert_eq(stat(lock_path, &facts), 0);
    cr_expect_eq(facts.st_mode & 07777, 0600);
    cr_expect(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    close(fd);
}

Test(start_lock, follows_no_link) {
    char target[112];
    snprintf(target, sizeof target, "%s/target", directory);
    cr_assert_eq(symlink(target, lock_path), 0);
    cr_expect_eq(take(), -ELOOP);
    cr_expect_not_null(strstr(why, "symbolic link"), "%s", why);
    cr_expect_lt(access(target, F_OK), 0, "the link was followed");
}

Test(start_lock, says_what_is_wrong_with_the_directory) {
    char missing[128];
    snprintf(missing, sizeof missing, "%s/none/featured.sock", directory);
    cr_expect_eq(socket_lock_take(missing, why, sizeof why), -ENOENT);
    cr_expect_not_null(strstr(why, "/none does not exist"), "%s", why);
    cr_expect_not_null(strstr(why, "mkdir"), "%s", why);
    cr_expect_eq(socket_lock_take("/dev/null/featured.sock", why, sizeof why), -ENOTDIR);
    cr_expect_not_null(strstr(why, "/dev/null is not a directory"), "%s", why);
    cr_expect_lt(socket_lock_take("/proc/featured.sock", why, sizeof why), 0);
    cr_expect_not_null(strstr(why, "/proc"), "%s", why);
}

/* As another user: root may write everywhere. */
static int take_as_nobody(int channel, void *context) {
    (void)context;
    if (setgid(65534) < 0 || setuid(65534) < 0)
        return 1;
    int result = take();
    channel_send(channel, why, strlen(why) + 1);
    return result == -EACCES ? 0 : 2;
}

static const char *refused_as_nobody(void) {
    static char said[512];
    struct process helper;
    process_fork(&helper, take_as_nobody, NULL);
    channel_receive(helper.channel, said, sizeof said, 20000);
    process_join(&helper, 20000);
    return said;
}

Test(start_lock, says_who_may_not_write_where) {
    if (geteuid() != 0)
        cr_skip_test("needs root");
    cr_assert_eq(chmod(directory, 0755), 0);
    const char *said = refused_as_nobody();
    cr_expect_not_null(strstr(said, "uid 65534 may not make files in"), "%s", said);
    int fd = take();
    cr_assert_geq(fd, 0);
    close(fd);
    cr_assert_eq(chmod(directory, 0777), 0);
    said = refused_as_nobody();
    cr_expect_not_null(strstr(said, "belongs to another user"), "%s", said);
}

Test(start_lock, a_directory_in_the_sockets_place_is_named_and_kept) {
    struct socket_file file;
    cr_assert_eq(mkdir(path, 0700), 0);
    cr_expect_eq(socket_file_listen(&file, path, 0660, NULL, 8, why, sizeof why), -EISDIR);
    cr_expect_not_null(strstr(why, "is a directory"), "%s", why);
    cr_expect_not_null(strstr(why, "rmdir"), "%s", why);
    cr_expect_eq(access(path, F_OK), 0);
}
