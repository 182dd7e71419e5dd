/* SPDX-License-Identifier: Apache-2.0
 *
 * The entries lie in one array without gaps: the last one takes the place of one that goes.
 */
#include "support/keep_fake.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "proto/container.h"

static struct keep_fake_entry *keep_fake_find(struct keep_fake *fake, const char *name) {
    for (size_t i = 0; i < fake->count; i++)
        if (!strcmp(fake->entries[i].name, name))
            return &fake->entries[i];
    return NULL;
}

static int keep_fake_take(struct keep *keep, const char *name) {
    struct keep_fake_entry *entry =
        keep_fake_find(container_of(keep, struct keep_fake, keep), name);
    if (!entry || !entry->handed)
        return -ENOENT;
    int fd = fcntl(entry->fd, F_DUPFD_CLOEXEC, 3);
    entry->handed = fd < 0;
    return fd < 0 ? -errno : fd;
}

static int keep_fake_put(struct keep *keep, const char *name, int fd) {
    struct keep_fake *fake = container_of(keep, struct keep_fake, keep);
    size_t bytes = strlen(name);
    if (bytes == 0 || bytes > KEEP_NAME_BYTES_MAX)
        return -EINVAL;
    if (fake->error)
        return fake->error;
    if (keep_fake_find(fake, name))
        return -EEXIST;
    if (fake->count >= fake->limit)
        return -ENOSPC;
    struct keep_fake_entry *entry = &fake->entries[fake->count];
    *entry = (struct keep_fake_entry){.fd = fcntl(fd, F_DUPFD_CLOEXEC, 3)};
    if (entry->fd < 0)
        return -errno;
    memcpy(entry->name, name, bytes + 1);
    fake->count++;
    return 0;
}

static void keep_fake_drop(struct keep *keep, const char *name) {
    struct keep_fake *fake = container_of(keep, struct keep_fake, keep);
    struct keep_fake_entry *entry = keep_fake_find(fake, name);
    if (!entry)
        return;
    close(entry->fd);
    *entry = fake->entries[--fake->count];
}

/* Downwards, as in keep_sd.c: the walk bears that entries go. */
static const char *keep_fake_next(struct keep *keep, size_t *cursor) {
    struct keep_fake *fake = container_of(keep, struct keep_fake, keep);
    size_t at = *cursor == 0 || *cursor - 1 > fake->count ? fake->count : *cursor - 1;
    while (at-- > 0)
        if (fake->entries[at].handed) {
            *cursor = at + 1;
            return fake->entries[at].name;
        }
    *cursor = 1;
    return NULL;
}

static bool keep_fake_flush(struct keep *keep) {
    (void)keep;
    return false;
}

void keep_fake_init(struct keep_fake *fake) {
    static const struct keep_ops ops = {
        .take = keep_fake_take,
        .put = keep_fake_put,
        .drop = keep_fake_drop,
        .next = keep_fake_next,
        .flush = keep_fake_flush,
    };
    *fake = (struct keep_fake){.keep = {&ops}, .limit = KEEP_FAKE_MAX};
}

void keep_fake_deinit(struct keep_fake *fake) {
    while (fake->count > 0)
        close(fake->entries[--fake->count].fd);
}

void keep_fake_restart(struct keep_fake *fake) {
    for (size_t i = 0; i < fake->count; i++)
        fake->entries[i].handed = true;
}

int keep_fake_fd(const struct keep_fake *fake, const char *name) {
    for (size_t i = 0; i < fake->count; i++)
        if (!strcmp(fake->entries[i].name, name))
            return fake->entries[i].fd;
    return -1;
}
