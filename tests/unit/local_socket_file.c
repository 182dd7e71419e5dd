/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "local/socket_file.h"

static char directory[64], path[96], why[256];

static void set_up(void) {
    snprintf(directory, sizeof directory, "/tmp/featured-socket-XXXXXX");
    cr_assert_not_null(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/featured.sock", directory);
}

static void tear_down(void) {
    unlink(path);
    rmdir(directory);
}

TestSuite(local_socket_file, .init = set_up, .fini = tear_down);

static int listen_at(struct socket_file *file) {
    return socket_file_listen(file, path, 0660, NULL, 8, why, sizeof why);
}

static bool exists(void) {
    struct stat status;
    return lstat(path, &status) == 0;
}

Test(local_socket_file, gets_the_mode_that_was_asked_for) {
    struct socket_file file;
    umask(0);
    int fd = listen_at(&file);
    cr_assert_geq(fd, 0, "%s", why);
    struct stat status;
    cr_assert_eq(lstat(path, &status), 0);
    cr_expect_eq(status.st_mode & 07777, 0660);
    cr_expect_eq(umask(0), 0, "the caller's umask is put back");
    socket_file_remove(&file);
    cr_expect_not(exists());
    close(fd);
}

Test(local_socket_file, a_stale_socket_is_replaced) {
    struct socket_file file;
    int fd = listen_at(&file);
    cr_assert_geq(fd, 0, "%s", why);
    close(fd);
    cr_assert(exists());
    fd = listen_at(&file);
    cr_expect_geq(fd, 0, "%s", why);
    socket_file_remove(&file);
    close(fd);
}

Test(local_socket_file, a_live_daemon_is_left_alone) {
    struct socket_file file, second;
    int fd = listen_at(&file);
    cr_assert_geq(fd, 0, "%s", why);
    cr_expect_eq(listen_at(&second), -EADDRINUSE);
    cr_expect_not_null(strstr(why, path), "%s", why);
    cr_expect_not_null(strstr(why, "another daemon"), "%s", why);
    cr_expect(exists());
    socket_file_remove(&file);
    close(fd);
}

Test(local_socket_file, a_file_that_is_no_socket_is_left_alone) {
    close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    struct socket_file file;
    cr_expect_eq(listen_at(&file), -EEXIST);
    cr_expect_not_null(strstr(why, "not a socket"), "%s", why);
    cr_expect(exists());
}

Test(local_socket_file, another_daemons_socket_is_not_removed) {
    struct socket_file file, successor;
    int fd = listen_at(&file);
    cr_assert_geq(fd, 0, "%s", why);
    cr_assert_eq(unlink(path), 0);
    int successor_fd = listen_at(&successor);
    cr_assert_geq(successor_fd, 0, "%s", why);
    socket_file_remove(&file);
    cr_expect(exists());
    socket_file_remove(&successor);
    close(fd);
    close(successor_fd);
}

Test(local_socket_file, a_path_that_is_too_long_is_refused_with_the_limit) {
    char long_path[200];
    memset(long_path, 'x', sizeof long_path - 1);
    long_path[sizeof long_path - 1] = '\0';
    struct socket_file file;
    cr_expect_eq(socket_file_listen(&file, long_path, 0660, NULL, 8, why, sizeof why),
                 -ENAMETOOLONG);
    cr_expect_not_null(strstr(why, "107"), "%s", why);
}

Test(local_socket_file, an_unknown_group_is_refused_by_name) {
    struct socket_file file;
    cr_expect_eq(socket_file_listen(&file, path, 0660, "no-such-group", 8, why, sizeof why),
                 -EINVAL);
    cr_expect_not_null(strstr(why, "no-such-group"), "%s", why);
    cr_expect_not(exists());
}

Test(local_socket_file, a_missing_directory_is_named) {
    struct socket_file file;
    cr_expect_eq(
        socket_file_listen(&file, "/nonexistent/featured.sock", 0660, NULL, 8, why, sizeof why),
        -ENOENT);
    cr_expect_not_null(strstr(why, "/nonexistent/featured.sock"), "%s", why);
}
