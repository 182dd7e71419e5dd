/* SPDX-License-Identifier: Apache-2.0
 *
 * The keeper behind $NOTIFY_SOCKET, against a manager that the test plays: what it is told, and
 * what is made of the descriptors that it hands in.
 */
#include "keep_sd.h"
#include "support/checks.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/keep_fake.h"

static int manager = -1;
static char why[512], address[64];

/* Abstract, so that nothing has to be removed; the number of the process makes it the test's own.
 */
static void open_manager(void) {
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    snprintf(address, sizeof address, "@featured-test-keep-%d", (int)getpid());
    memcpy(at.sun_path + 1, address + 1, strlen(address) - 1);
    manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    socklen_t bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(address));
    cr_assert_eq(bind(manager, (struct sockaddr *)&at, bytes), 0);
}

static void set_environment(const char *limit) {
    setenv("NOTIFY_SOCKET", address, 1);
    setenv("FDSTORE", limit, 1);
}

static void set_up(void) {
    open_manager();
    set_environment("16");
}

static void tear_down(void) {
    close(manager);
}

TestSuite(keep_sd, .init = set_up, .fini = tear_down, .timeout = 60);

static struct keep *make(void) {
    struct keep *keep;
    cr_assert_eq(keep_sd_new(&keep, why, sizeof why), 0, "%s", why);
    cr_assert_not_null(keep);
    return keep;
}

/* The next datagram, and the descriptor in it or -1. False: none is there. */
static bool hear(char text[256], int *fd) {
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr aligned;
    } control;
    struct iovec part = {.iov_base = text, .iov_len = 255};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    ssize_t got = recvmsg(manager, &message, MSG_CMSG_CLOEXEC);
    *fd = -1;
    if (got < 0)
        return false;
    text[got] = '\0';
    if (CMSG_FIRSTHDR(&message))
        memcpy(fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof *fd);
    return true;
}

static void expect_heard(const char *expected, bool with_fd) {
    char text[256] = "";
    int fd;
    cr_assert(hear(text, &fd), "nothing was said, wanted %s", expected);
    cr_expect_str_eq(text, expected);
    cr_expect_eq(fd >= 0, with_fd);
    if (fd >= 0)
        close(fd);
}

static void expect_silence(void) {
    char text[256];
    int fd;
    cr_expect_not(hear(text, &fd), "heard %s", text);
}

static int memory_of(const char *text) {
    int fd = memfd_create("test", MFD_CLOEXEC);
    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    return fd;
}

static void expect_holds(int fd, const char *text) {
    char got[32] = "";
    cr_assert_geq(fd, 0);
    cr_expect_geq(pread(fd, got, sizeof got - 1, 0), 0);
    cr_expect_str_eq(got, text);
}

Test(keep_sd, hands_over_and_takes_back) {
    struct keep *keep = make();
    int fd = memory_of("arena"), heard;
    char text[256];
    struct stat mine, theirs;
    cr_expect_eq(keep_put(keep, "a.3", fd), 0);
    cr_assert(hear(text, &heard));
    cr_expect_str_eq(text, "FDSTORE=1\nFDNAME=a.3\nFDPOLL=0");
    cr_assert_eq(fstat(fd, &mine) | fstat(heard, &theirs), 0);
    cr_expect_eq(mine.st_ino, theirs.st_ino);
    close(heard);
    cr_expect_eq(keep_put(keep, "a.3", fd), -EEXIST);
    keep_drop(keep, "nobody's");
    expect_silence();
    keep_drop(keep, "a.3");
    expect_heard("FDSTOREREMOVE=1\nFDNAME=a.3", false);
    cr_expect_eq(keep_put(keep, "a.3", fd), 0, "the name is free again");
    expect_heard("FDSTORE=1\nFDNAME=a.3\nFDPOLL=0", true);
    close(fd);
    keep_sd_free(keep);
    expect_silence();
}

Test(keep_sd, knows_which_names_are_good) {
    struct keep *keep = make();
    int fd = memory_of("x");
    cr_expect_eq(keep_put(keep, "", fd), -EINVAL);
    cr_expect_eq(keep_put(keep, "a:b", fd), -EINVAL);
    cr_expect_eq(keep_put(keep, "a\nFDSTOREREMOVE=1", fd), -EINVAL);
    cr_expect_eq(keep_put(keep, "12345678901234567890123456789012", fd), -EINVAL);
    expect_silence();
    cr_expect_eq(keep_put(keep, "1234567890123456789012345678901", fd), 0);
    close(fd);
    keep_sd_free(keep);
}

Test(keep_sd, refuses_more_than_the_manager_holds) {
    set_environment("2");
    struct keep *keep = make();
    int fd = memory_of("x");
    cr_expect_eq(keep_put(keep, "one", fd), 0);
    cr_expect_eq(keep_put(keep, "two", fd), 0);
    cr_expect_eq(keep_put(keep, "three", fd), -ENOSPC);
    keep_drop(keep, "one");
    cr_expect_eq(keep_put(keep, "three", fd), 0);
    close(fd);
    keep_sd_free(keep);
}

/* What fits into the queue of a socket is the kernel's business; that a put never waits for room in
 * it, and that nothing is lost or said out of order, is ours. */
Test(keep_sd, never_waits_for_a_manager_that_is_busy) {
    set_environment("100000");
    struct keep *keep = make();
    int fd = memory_of("x"), result = 0, heard;
    char name[32], text[256];
    unsigned put = 0, heard_count = 0;
    for (; result == 0 && put < 90000; put++) {
        snprintf(name, sizeof name, "n.%u", put);
        result = keep_put(keep, name, fd);
    }
    cr_assert_eq(result, -EAGAIN, "%d after %u", result, put);
    put--;
    keep_drop(keep, "n.0");
    cr_expect(keep_flush(keep), "it could not be said yet");
    cr_expect_eq(keep_put(keep, "n.0", fd), -EAGAIN, "its removal has not been said");
    for (; hear(text, &heard); heard_count++)
        close(heard);
    cr_expect_eq(heard_count, put);
    cr_expect_eq(keep_put(keep, "n.0", fd), 0);
    expect_heard("FDSTOREREMOVE=1\nFDNAME=n.0", false);
    expect_heard("FDSTORE=1\nFDNAME=n.0\nFDPOLL=0", true);
    cr_expect_not(keep_flush(keep));
    close(fd);
    keep_sd_free(keep);
}

Test(keep_sd, finds_a_manager_that_was_started_anew) {
    struct keep *keep = make();
    int fd = memory_of("x");
    close(manager);
    cr_expect_eq(keep_put(keep, "one", fd), -ECONNREFUSED);
    open_manager();
    cr_expect_eq(keep_put(keep, "one", fd), 0);
    expect_heard("FDSTORE=1\nFDNAME=one\nFDPOLL=0", true);
    close(fd);
    keep_sd_free(keep);
}

/* ---- what was handed in ---- */

/* Only a process of its own has its descriptors from 3 on free for this. */
static void in_child(const char *names, const char *contents[], int count,
                     void (*body)(struct keep *keep)) {
    pid_t child = fork();
    if (child == 0) {
        char number[16];
        for (int i = 0; i < count; i++) {
            int fd = memory_of(contents[i]), high = fcntl(fd, F_DUPFD, 100);
            dup2(high, 3 + i);
            close(high);
            if (fd >= 3 + count)
                close(fd);
        }
        snprintf(number, sizeof number, "%d", (int)getpid());
        setenv("LISTEN_PID", number, 1);
        snprintf(number, sizeof number, "%d", count);
        setenv("LISTEN_FDS", number, 1);
        setenv("LISTEN_FDNAMES", names, 1);
        struct keep *keep = make();
        cr_expect_null(getenv("LISTEN_FDS"));
        body(keep);
        keep_sd_free(keep);
        _exit(0);
    }
    int status = 0;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %d", status);
}

/* A check in a child process. */
#define IN_CHILD(condition) CHECK(condition, "in the child")

/* The number may have gone to a socket since. */
static bool holds_memory(int fd) {
    char byte;
    return pread(fd, &byte, 1, 0) == 1;
}

static void take_all(struct keep *keep) {
    size_t cursor = 0;
    IN_CHILD(keep_take(keep, "a.1") == -ENOENT);
    int fd = keep_take(keep, "i.0");
    IN_CHILD(fcntl(fd, F_GETFD) == FD_CLOEXEC);
    expect_holds(fd, "index");
    IN_CHILD(keep_take(keep, "i.0") == -ENOENT);
    IN_CHILD(keep_put(keep, "i.0", fd) == -EEXIST); /* it is still held */
    IN_CHILD(!holds_memory(4));                     /* a name that is not ours: closed */
    const char *left = keep_next(keep, &cursor);
    IN_CHILD(left && !strcmp(left, "node"));
    keep_drop(keep, left);
    left = keep_next(keep, &cursor);
    IN_CHILD(left && !strcmp(left, "a.0"));
    expect_holds(keep_take(keep, left), "arena");
    IN_CHILD(!keep_next(keep, &cursor));
    IN_CHILD(keep_put(keep, "node", fd) == 0);
}

Test(keep_sd, takes_what_was_handed_in) {
    const char *contents[] = {"arena", "socket", "index", "node"};
    in_child("a.0:web socket:i.0:node", contents, 4, take_all);
    expect_heard("FDSTOREREMOVE=1\nFDNAME=node", false);
    expect_heard("FDSTORE=1\nFDNAME=node\nFDPOLL=0", true);
    expect_silence();
}

static void take_first(struct keep *keep) {
    expect_holds(keep_take(keep, "a.0"), "first");
    IN_CHILD(keep_take(keep, "a.0") == -ENOENT);
    IN_CHILD(!holds_memory(4));
}

Test(keep_sd, takes_the_first_of_two_of_one_name) {
    const char *contents[] = {"first", "second"};
    in_child("a.0:a.0", contents, 2, take_first);
}

/* ---- the environment ---- */

Test(keep_sd, is_nobody_without_a_manager_that_keeps) {
    struct keep *keep;
    unsetenv("FDSTORE");
    cr_expect_eq(keep_sd_new(&keep, why, sizeof why), 0);
    cr_expect_null(keep);
    set_environment("0");
    cr_expect_eq(keep_sd_new(&keep, why, sizeof why), 0);
    cr_expect_null(keep);
    set_environment("5");
    unsetenv("NOTIFY_SOCKET");
    cr_expect_eq(keep_sd_new(&keep, why, sizeof why), 0);
    cr_expect_null(keep);
    cr_expect_eq(keep_put(NULL, "a.0", 0), 0);
    cr_expect_eq(keep_take(NULL, "a.0"), -ENOENT);
    keep_sd_free(NULL);
}

Test(keep_sd, leaves_what_is_meant_for_another_process) {
    struct keep *keep;
    setenv("LISTEN_PID", "1", 1);
    setenv("LISTEN_FDS", "3", 1);
    keep = make();
    size_t cursor = 0;
    cr_expect_null(keep_next(keep, &cursor));
    keep_sd_free(keep);
}

static void expect_refused(const char *words) {
    struct keep *keep;
    cr_expect_eq(keep_sd_new(&keep, why, sizeof why), -EINVAL);
    cr_expect_not_null(strstr(why, words), "%s", why);
}

Test(keep_sd, says_what_makes_no_sense) {
    char pid[16];
    set_environment("many");
    expect_refused("FDSTORE=many");
    set_environment("5");
    setenv("NOTIFY_SOCKET", "vsock:2:1234", 1);
    expect_refused("NOTIFY_SOCKET=vsock:2:1234");
    set_environment("5");
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    setenv("LISTEN_PID", pid, 1);
    setenv("LISTEN_FDS", "-1", 1);
    expect_refused("LISTEN_FDS=-1");
    setenv("LISTEN_FDS", "2", 1);
    unsetenv("FDSTORE");
    expect_refused("2 descriptors were handed in, but the environment has no FDSTORE");
}

/* The keeper of other tests does what the real ones do. */
Test(keep_sd, has_a_fake_that_behaves_the_same) {
    static struct keep_fake fake;
    keep_fake_init(&fake);
    int fd = memory_of("arena");
    cr_expect_eq(keep_put(&fake.keep, "a.0", fd), 0);
    cr_expect_eq(keep_put(&fake.keep, "a.0", fd), -EEXIST);
    cr_expect_eq(keep_take(&fake.keep, "a.0"), -ENOENT, "only what was handed in");
    close(fd);
    keep_fake_restart(&fake);
    fd = keep_take(&fake.keep, "a.0");
    expect_holds(fd, "arena");
    cr_expect_eq(keep_take(&fake.keep, "a.0"), -ENOENT);
    keep_drop(&fake.keep, "a.0");
    cr_expect_eq(keep_put(&fake.keep, "a.0", fd), 0);
    close(fd);
    keep_fake_deinit(&fake);
}
