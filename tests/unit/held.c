/* SPDX-License-Identifier: Apache-2.0
 *
 * What `featured --supervise` holds. Descriptors from 3 on belong to the table, so that each test
 * works in a process of its own, where nothing else has them.
 */
#include "held.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/checks.h"

/* A check in a child process. */
#define EXPECT(condition) CHECK(condition, "in the child")

static char names[HELD_NAMES_BYTES_MAX + 1];
static struct held held;

static void in_child(void (*body)(void)) {
    pid_t child = fork();
    if (child == 0) {
        for (int fd = 3; fd < 1000; fd++)
            close(fd);
        body();
        held_deinit(&held);
        EXPECT(fcntl(3, F_GETFD) < 0 && fcntl(4, F_GETFD) < 0);
        _exit(0);
    }
    int status = 0;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %d", status);
}

static enum held_message hear(const char *said, int fd) {
    char text[HELD_MESSAGE_MAX + 1];
    memcpy(text, said, strlen(said));
    return held_hear(&held, text, strlen(said), fd);
}

/* A descriptor whose file holds that one letter, somewhere above those of the table. */
static int memory_of(char letter) {
    int fd = memfd_create("test", MFD_CLOEXEC);
    EXPECT(fd >= 0 && write(fd, &letter, 1) == 1);
    int high = fcntl(fd, F_DUPFD_CLOEXEC, 500);
    close(fd);
    return high;
}

static enum held_message store(const char *name, char letter) {
    char said[128];
    snprintf(said, sizeof said, "FDSTORE=1\nFDNAME=%s\nFDPOLL=0", name);
    return hear(said, memory_of(letter));
}

/* The names, and the letter of each descriptor, in the order in which they lie. */
static bool holds(const char *expected_names, const char *letters) {
    held_names(&held, names);
    if (strcmp(names, expected_names) != 0 || held.count != strlen(letters))
        return false;
    for (size_t i = 0; i < held.count; i++) {
        char letter = 0;
        if (pread(HELD_FIRST_FD + (int)i, &letter, 1, 0) != 1 || letter != letters[i] ||
            fcntl(HELD_FIRST_FD + (int)i, F_GETFD) != FD_CLOEXEC)
            return false;
    }
    return fcntl(HELD_FIRST_FD + (int)held.count, F_GETFD) < 0;
}

static void stores_and_removes(void) {
    EXPECT(held_init(&held, 4) == 0);
    EXPECT(holds("", ""));
    EXPECT(store("node", 'n') == HELD_STORED && store("a.0", 'a') == HELD_STORED);
    EXPECT(store("i.0", 'i') == HELD_STORED);
    EXPECT(holds("node:a.0:i.0", "nai"));
    EXPECT(hear("FDNAME=node\nFDSTOREREMOVE=1", -1) == HELD_REMOVED);
    EXPECT(holds("i.0:a.0", "ia"));
    EXPECT(hear("FDSTOREREMOVE=1\nFDNAME=unknown", -1) == HELD_REMOVED);
    EXPECT(hear("FDSTOREREMOVE=1\nFDNAME=a.0\n", -1) == HELD_REMOVED);
    EXPECT(holds("i.0", "i"));
    EXPECT(store("i.0", 'j') == HELD_STORED && holds("i.0:i.0", "ij"));
    EXPECT(hear("FDSTOREREMOVE=1\nFDNAME=i.0", -1) == HELD_REMOVED && holds("", ""));
}

Test(held, stores_and_removes, .timeout = 60) {
    in_child(stores_and_removes);
}

static void refuses_what_makes_no_sense(void) {
    int fd;
    EXPECT(held_init(&held, 2) == 0);
    EXPECT(hear("FDSTORE=1\nFDNAME=a", -1) == HELD_REFUSED);
    EXPECT(hear("FDSTORE=1", fd = memory_of('x')) == HELD_REFUSED);
    EXPECT(fcntl(fd, F_GETFD) < 0);
    EXPECT(store("a:b", 'x') == HELD_REFUSED);
    EXPECT(store("12345678901234567890123456789012", 'x') == HELD_REFUSED);
    EXPECT(hear("READY=1", fd = memory_of('x')) == HELD_OTHER);
    EXPECT(fcntl(fd, F_GETFD) < 0);
    EXPECT(hear("", -1) == HELD_OTHER && hear("\n\n=\n", -1) == HELD_OTHER);
    EXPECT(hear("XFDSTORE=1\nFDSTORE=12\nFDNAME=a", memory_of('x')) == HELD_OTHER);
    EXPECT(store("a", 'a') == HELD_STORED && store("b", 'b') == HELD_STORED);
    EXPECT(store("c", 'c') == HELD_REFUSED);
    EXPECT(holds("a:b", "ab"));
}

Test(held, refuses_what_makes_no_sense, .timeout = 60) {
    in_child(refuses_what_makes_no_sense);
}

/* One number, one descriptor: what a parent has left open there makes place. */
static void takes_the_place_of_what_was_left_open(void) {
    EXPECT(dup2(1, 3) == 3 && dup2(1, 4) == 4);
    EXPECT(held_init(&held, 2) == 0);
    EXPECT(store("a", 'a') == HELD_STORED && store("b", 'b') == HELD_STORED);
    EXPECT(holds("a:b", "ab"));
}

Test(held, takes_the_place_of_what_was_left_open, .timeout = 60) {
    in_child(takes_the_place_of_what_was_left_open);
}

Test(held, understands_lines) {
    cr_expect(held_says("READY=1", "READY=1"));
    cr_expect(held_says("STATUS=x\nREADY=1\nMAINPID=3", "READY=1"));
    cr_expect_not(held_says("READY=11", "READY=1"));
    cr_expect_not(held_says("NOTREADY=1", "READY=1"));
    cr_expect_not(held_says("", "READY=1"));
}
