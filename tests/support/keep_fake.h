/* SPDX-License-Identifier: Apache-2.0
 *
 * A keeper for tests, in their own process: it holds a duplicate of each descriptor under its name.
 * keep_fake_restart() is what a start after a crash is to a real one.
 */
#ifndef TESTS_SUPPORT_KEEP_FAKE_H
#define TESTS_SUPPORT_KEEP_FAKE_H

#include "memory/keep.h"

#define KEEP_FAKE_MAX 1024

struct keep_fake {
    struct keep keep; /* hand &fake.keep to the broker */
    struct keep_fake_entry {
        char name[KEEP_NAME_BYTES_MAX + 1];
        int fd;      /* the keeper's own */
        bool handed; /* in at the last start, and not taken since */
    } entries[KEEP_FAKE_MAX];
    size_t count;
    size_t limit; /* puts beyond it are refused; KEEP_FAKE_MAX at first */
    int error;    /* what the next puts return; 0: nothing unusual */
};

void keep_fake_init(struct keep_fake *fake);
/* Closes all that it holds. */
void keep_fake_deinit(struct keep_fake *fake);
/* The broker is gone, and a new one starts: all that is held can be taken. */
void keep_fake_restart(struct keep_fake *fake);
/* What it holds under that name, or -1; stays its own. */
int keep_fake_fd(const struct keep_fake *fake, const char *name);

#endif
