/* SPDX-License-Identifier: Apache-2.0
 *
 * Files that are written whole, in place, through links, or not at all.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "featurectl/output_file.h"

#define NOBODY 65534u

static char directory[64], path[96];
static char why[256];

static void make_directory(void) {
    strcpy(directory, "/tmp/featured-ctl-XXXXXX");
    cr_assert_not_null(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/file", directory);
}

static void remove_directory(void) {
    char name[400];
    DIR *entries = opendir(directory);
    for (const struct dirent *entry; entries && (entry = readdir(entries)) != NULL;) {
        snprintf(name, sizeof name, "%s/%s", directory, entry->d_name);
        unlink(name);
    }
    closedir(entries);
    cr_expect_eq(rmdir(directory), 0, "%s", strerror(errno));
}

/* Entries of the directory, "." and ".." aside. */
static int entry_count(void) {
    int count = 0;
    DIR *entries = opendir(directory);
    while (readdir(entries))
        count++;
    closedir(entries);
    return count - 2;
}

static void put_text(const char *to, const char *text) {
    FILE *file = fopen(to, "w");
    cr_assert_not_null(file);
    fputs(text, file);
    fclose(file);
}

static void expect_text(const char *of, const char *text) {
    char got[64] = "";
    int fd = open(of, O_RDONLY);
    cr_assert_geq(fd, 0, "%s: %s", of, strerror(errno));
    cr_assert_geq(read(fd, got, sizeof got - 1), 0);
    close(fd);
    cr_expect_str_eq(got, text, "%s holds %s, not %s", of, got, text);
}

/* Opens, writes and commits; the first error. */
static int write_text(const char *to, const char *text) {
    struct output_file file;
    int error = output_file_open(to, &file, why, sizeof why);
    if (!error)
        error = output_file_write(&file, text, strlen(text), NULL, NULL, why, sizeof why);
    if (!error)
        error = output_file_commit(&file, why, sizeof why);
    output_file_abandon(&file);
    return error;
}

Test(output_file, appears_when_it_is_committed, .init = make_directory, .fini = remove_directory) {
    struct output_file file;
    struct stat about;
    mode_t mask = umask(027);
    cr_assert_eq(output_file_open(path, &file, why, sizeof why), 0, "%s", why);
    cr_assert_eq(output_file_write(&file, "new", 3, NULL, NULL, why, sizeof why), 0);
    cr_expect_neq(access(path, F_OK), 0);
    cr_assert_eq(output_file_commit(&file, why, sizeof why), 0, "%s", why);
    expect_text(path, "new");
    cr_assert_eq(stat(path, &about), 0);
    cr_expect_eq(about.st_mode & 07777, 0640, "mode %o", about.st_mode);
    cr_expect_eq(entry_count(), 1);
    umask(mask);
}

Test(output_file, that_is_abandoned_leaves_what_was_there, .init = make_directory,
     .fini = remove_directory) {
    struct output_file file;
    put_text(path, "old");
    cr_assert_eq(output_file_open(path, &file, why, sizeof why), 0, "%s", why);
    cr_assert_eq(output_file_write(&file, "new", 3, NULL, NULL, why, sizeof why), 0);
    output_file_abandon(&file);
    expect_text(path, "old");
    cr_expect_eq(entry_count(), 1);
}

Test(output_file, that_does_not_fit_leaves_what_was_there, .init = make_directory,
     .fini = remove_directory) {
    struct rlimit limit = {.rlim_cur = 4096, .rlim_max = RLIM_INFINITY};
    static char much[16384];
    memset(much, 'x', sizeof much - 1);
    put_text(path, "old");
    signal(SIGXFSZ, SIG_IGN);
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    cr_expect_eq(write_text(path, much), -EFBIG, "%s", why);
    cr_expect_not_null(strstr(why, "cannot be written"), "%s", why);
    expect_text(path, "old");
    cr_expect_eq(entry_count(), 1);
}

Test(output_file, keeps_mode_and_owner_of_what_it_replaces, .init = make_directory,
     .fini = remove_directory) {
    struct stat about;
    put_text(path, "old");
    cr_assert_eq(chmod(path, 0604), 0);
    if (geteuid() == 0)
        cr_assert_eq(chown(path, NOBODY, NOBODY), 0);
    cr_assert_eq(write_text(path, "new"), 0, "%s", why);
    cr_assert_eq(stat(path, &about), 0);
    cr_expect_eq(about.st_mode & 07777, 0604, "mode %o", about.st_mode);
    cr_expect_eq(about.st_uid, geteuid() == 0 ? NOBODY : geteuid());
    expect_text(path, "new");
}

Test(output_file, a_name_as_long_as_names_get_can_be_written, .init = make_directory,
     .fini = remove_directory) {
    char longest[sizeof directory + 257];
    int used = snprintf(longest, sizeof longest, "%s/", directory);
    memset(longest + used, 'n', 255);
    longest[used + 255] = '\0';
    cr_expect_eq(write_text(longest, "new"), 0, "%s", why);
    cr_expect_eq(entry_count(), 1);
}

/* ---- links ---- */

static void make_link(const char *to, char out[96]) {
    snprintf(out, 96, "%s/link", directory);
    cr_assert_eq(symlink(to, out), 0);
}

static void expect_link(const char *link) {
    struct stat about;
    cr_assert_eq(lstat(link, &about), 0);
    cr_expect(S_ISLNK(about.st_mode), "%s is no link any more", link);
}

Test(output_file, a_link_stays_and_its_target_is_written, .init = make_directory,
     .fini = remove_directory) {
    char link[96];
    put_text(path, "old");
    make_link("file", link);
    cr_assert_eq(write_text(link, "new"), 0, "%s", why);
    expect_link(link);
    expect_text(path, "new");
    cr_expect_eq(entry_count(), 2);
    unlink(path);
    cr_assert_eq(write_text(link, "dangling"), 0, "%s", why);
    expect_link(link);
    expect_text(path, "dangling");
}

Test(output_file, a_link_to_a_device_stays_and_so_does_the_device, .init = make_directory,
     .fini = remove_directory) {
    char link[96];
    struct stat about;
    make_link("/dev/null", link);
    cr_assert_eq(write_text(link, "new"), 0, "%s", why);
    expect_link(link);
    cr_assert_eq(stat(link, &about), 0);
    cr_expect(S_ISCHR(about.st_mode));
}

Test(output_file, links_in_a_circle_are_an_error, .init = make_directory,
     .fini = remove_directory) {
    char link[96];
    make_link("link", link);
    cr_expect_eq(write_text(link, "new"), -ELOOP, "%s", why);
}

Test(output_file, another_users_link_in_a_shared_directory_is_not_followed, .init = make_directory,
     .fini = remove_directory) {
    char link[96];
    if (geteuid() != 0) {
        cr_skip_test("only root can make a link of another user");
        return;
    }
    put_text(path, "old");
    make_link("file", link);
    cr_assert_eq(chmod(directory, 01777), 0);
    cr_assert_eq(lchown(link, NOBODY, NOBODY), 0);
    cr_expect_eq(write_text(link, "new"), -EACCES, "%s", why);
    expect_text(path, "old");
}

/* ---- descriptors ---- */

Test(output_file, a_descriptor_is_written_where_it_stands, .init = make_directory,
     .fini = remove_directory) {
    char by_number[32], link[96];
    struct stat before, after;
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    cr_assert_eq(write(fd, "head ", 5), 5);
    cr_assert_eq(fstat(fd, &before), 0);
    snprintf(by_number, sizeof by_number, "/dev/fd/%d", fd);
    cr_assert_eq(write_text(by_number, "one "), 0, "%s", why);
    snprintf(by_number, sizeof by_number, "/proc/self/fd/%d", fd);
    make_link(by_number, link);
    cr_assert_eq(write_text(link, "two"), 0, "%s", why);
    expect_text(path, "head one two");
    cr_assert_eq(stat(path, &after), 0);
    cr_expect_eq(before.st_ino, after.st_ino);
    expect_link(link);
    close(fd);
}

Test(output_file, a_descriptor_for_reading_is_refused, .init = make_directory,
     .fini = remove_directory) {
    char by_number[32];
    put_text(path, "old");
    int fd = open(path, O_RDONLY);
    snprintf(by_number, sizeof by_number, "/dev/fd/%d", fd);
    cr_expect_eq(write_text(by_number, "new"), -EBADF, "%s", why);
    expect_text(path, "old");
    close(fd);
}

Test(output_file, a_full_device_is_an_error) {
    struct stat about;
    cr_expect_eq(write_text("/dev/full", "new"), -ENOSPC, "%s", why);
    cr_assert_eq(stat("/dev/full", &about), 0);
    cr_expect(S_ISCHR(about.st_mode));
}

/* ---- what cannot be written ---- */

Test(output_file, what_is_no_file_is_refused, .init = make_directory, .fini = remove_directory) {
    char below[128];
    cr_expect_eq(write_text("", "new"), -ENOENT);
    cr_expect_eq(write_text(directory, "new"), -EISDIR, "%s", why);
    snprintf(below, sizeof below, "%s/none/file", directory);
    cr_expect_eq(write_text(below, "new"), -ENOENT, "%s", why);
    snprintf(below, sizeof below, "%s/none/", directory);
    cr_expect_eq(write_text(below, "new"), -EISDIR, "%s", why);
    put_text(path, "old");
    snprintf(below, sizeof below, "%s/below", path);
    cr_expect_eq(write_text(below, "new"), -ENOTDIR, "%s", why);
    cr_expect_eq(entry_count(), 1);
}

/* A user without rights of root's; the tests may run as root. */
static void become_nobody(void) {
    if (geteuid() == 0)
        cr_assert_eq(seteuid(NOBODY), 0, "%s", strerror(errno));
}

static void become_again(void) {
    if (getuid() == 0)
        cr_assert_eq(seteuid(0), 0, "%s", strerror(errno));
}

Test(output_file, a_file_that_is_write_protected_is_not_replaced, .init = make_directory,
     .fini = remove_directory) {
    put_text(path, "old");
    cr_assert_eq(chmod(path, 0444), 0);
    cr_assert_eq(chmod(directory, 0777), 0);
    become_nobody();
    cr_expect_eq(write_text(path, "new"), -EACCES, "%s", why);
    become_again();
    expect_text(path, "old");
}

Test(output_file, where_no_file_can_be_made_the_old_one_is_written_into, .init = make_directory,
     .fini = remove_directory) {
    struct output_file file;
    put_text(path, "old and longer");
    cr_assert_eq(chmod(path, 0666), 0);
    cr_assert_eq(chmod(directory, 0555), 0);
    become_nobody();
    int error = output_file_open(path, &file, why, sizeof why);
    output_file_abandon(&file);
    int written = write_text(path, "new");
    become_again();
    cr_assert_eq(chmod(directory, 0755), 0);
    cr_expect_eq(error, 0, "%s", why);
    cr_expect_eq(written, 0, "%s", why);
    expect_text(path, "new");
}
