/* SPDX-License-Identifier: Apache-2.0
 *
 * Descriptors lie without gaps from HELD_FIRST_FD on: the last one is moved into the place of one
 * that goes. So a broker can be started at any moment, and nothing has to be sorted for it.
 *
 * A message is a handful of lines NAME=VALUE. Those that are not known are passed over, as in
 * systemd. The table is bounded by its limit and by what exec() takes as the names of all; a
 * message beyond that is refused, and the broker, which counts too, does not send such a one.
 */
#include "held.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int held_init(struct held *held, size_t limit) {
    *held = (struct held){.limit = limit, .names = calloc(limit + 1, sizeof *held->names)};
    return held->names ? 0 : -ENOMEM;
}

void held_deinit(struct held *held) {
    for (size_t i = 0; i < held->count; i++)
        close(HELD_FIRST_FD + (int)i);
    free(held->names);
    *held = (struct held){0};
}

/* dup3() closes whatever has that number now: something that our parent has left open. */
static bool held_place(int fd, size_t at) {
    int number = HELD_FIRST_FD + (int)at;
    if (fd == number)
        return fcntl(fd, F_SETFD, FD_CLOEXEC) == 0;
    bool placed = dup3(fd, number, O_CLOEXEC) == number;
    close(fd);
    return placed;
}

static enum held_message held_store(struct held *held, const char *name, int fd) {
    size_t bytes = strlen(name);
    if (fd < 0 || bytes == 0 || bytes > KEEP_NAME_BYTES_MAX || strchr(name, ':') ||
        held->count >= held->limit || held->names_bytes + bytes + 1 > HELD_NAMES_BYTES_MAX) {
        if (fd >= 0)
            close(fd);
        return HELD_REFUSED;
    }
    if (!held_place(fd, held->count))
        return HELD_REFUSED;
    memcpy(held->names[held->count++], name, bytes + 1);
    held->names_bytes += bytes + 1;
    return HELD_STORED;
}

static void held_remove_at(struct held *held, size_t at) {
    size_t last = --held->count;
    held->names_bytes -= strlen(held->names[at]) + 1;
    if (at == last) {
        close(HELD_FIRST_FD + (int)at);
        return;
    }
    memcpy(held->names[at], held->names[last], sizeof held->names[at]);
    dup3(HELD_FIRST_FD + (int)last, HELD_FIRST_FD + (int)at, O_CLOEXEC);
    close(HELD_FIRST_FD + (int)last);
}

/* All of that name, as systemd does. */
static enum held_message held_remove(struct held *held, const char *name, int fd) {
    if (fd >= 0)
        close(fd);
    for (size_t i = held->count; i-- > 0;)
        if (!strcmp(held->names[i], name))
            held_remove_at(held, i);
    return HELD_REMOVED;
}

/* The value of "NAME=" in the text, until the end of its line; false: there is no such line. */
static bool held_value(const char *text, const char *name, char *out, size_t out_bytes) {
    size_t name_bytes = strlen(name);
    for (const char *line = text; *line;) {
        size_t bytes = strcspn(line, "\n");
        if (bytes >= name_bytes && !strncmp(line, name, name_bytes)) {
            snprintf(out, out_bytes, "%.*s", (int)(bytes - name_bytes), line + name_bytes);
            return true;
        }
        line += bytes + (line[bytes] == '\n');
    }
    return false;
}

bool held_says(const char *text, const char *line) {
    char rest[2];
    return held_value(text, line, rest, sizeof rest) && rest[0] == '\0';
}

enum held_message held_hear(struct held *held, char *text, size_t bytes, int fd) {
    char name[KEEP_NAME_BYTES_MAX + 2] = ""; /* one too long shows as such */
    text[bytes] = '\0';
    held_value(text, "FDNAME=", name, sizeof name);
    if (held_says(text, "FDSTORE=1"))
        return held_store(held, name, fd);
    if (held_says(text, "FDSTOREREMOVE=1"))
        return held_remove(held, name, fd);
    if (fd >= 0)
        close(fd);
    return HELD_OTHER;
}

void held_names(const struct held *held, char *out) {
    size_t used = 0;
    for (size_t i = 0; i < held->count; i++) {
        size_t bytes = strlen(held->names[i]);
        if (i > 0)
            out[used++] = ':';
        memcpy(out + used, held->names[i], bytes);
        used += bytes;
    }
    out[used] = '\0';
}
