/* SPDX-License-Identifier: Apache-2.0
 *
 * The protocol is one datagram for each message, sent to the Unix socket that NOTIFY_SOCKET names:
 *
 *   FDSTORE=1 FDNAME=name FDPOLL=0, with the descriptor beside it: hold this
 *   FDSTOREREMOVE=1 FDNAME=name: close everything of that name
 *
 * At the next start the descriptors lie from number 3 on, LISTEN_FDS says how many, LISTEN_FDNAMES
 * has their names with ':' between, and LISTEN_PID says for which process all this is meant.
 *
 * What is not in the manual pages, read in the source of systemd 252:
 * - FDPOLL=0 is needed: systemd closes a descriptor by itself once it polls as hung up, which a
 *   pidfd does when its process ends.
 * - A descriptor beyond FileDescriptorStoreMax is closed without a word, so we count. systemd tells
 *   the limit in $FDSTORE from version 254 on; our unit sets the variable for older ones.
 *   Without the variable we take it that nobody keeps anything.
 * - All names together go into one variable of the environment. exec() fails when one is longer
 *   than 128 KiB, so that the bytes of the names are limited as well.
 * - FDSTOREREMOVE removes all of a name: a name is never used twice at a time.
 *
 * The manager may be slow, and it must not be able to stop the broker: every datagram is sent with
 * MSG_DONTWAIT. One that is in the queue of its socket is as good as held: the kernel keeps the
 * descriptor in it open, and systemd reads this queue before it looks at who has died.
 *
 * States of an entry: HELD --drop()--> DROPPING --the message is sent--> removed from the table.
 */
#include "keep_sd.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "proto/container.h"

#define KEEP_SD_FIRST_FD 3
/* MAX_ARG_STRLEN of Linux, less the variable's own name, and some for names of others. */
#define KEEP_SD_NAMES_BYTES_MAX (131072u - 1024u)
#define KEEP_SD_LIMIT_MAX       (1u << 20)

struct keep_sd_entry {
    char name[KEEP_NAME_BYTES_MAX + 1];
    int fd; /* handed in and not taken; else -1 */
    bool dropping;
};

struct keep_sd {
    struct keep keep;
    struct sockaddr_un address;
    socklen_t address_bytes;
    int socket;
    size_t limit, count, dropping_count, names_bytes;
    struct keep_sd_entry *entries; /* count of them, in no order */
};

/* ---- messages ---- */

static bool keep_sd_is_name(const char *name) {
    size_t bytes = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-");
    return bytes > 0 && bytes <= KEEP_NAME_BYTES_MAX && name[bytes] == '\0';
}

/* A connected socket: whether the queue at the other end is full can be asked of it. */
static int keep_sd_connect(struct keep_sd *sd) {
    if (sd->socket >= 0)
        close(sd->socket);
    sd->socket = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (sd->socket < 0 ||
        connect(sd->socket, (const struct sockaddr *)&sd->address, sd->address_bytes) < 0)
        return -errno;
    return 0;
}

static int keep_sd_send_once(struct keep_sd *sd, const char *text, int fd) {
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr aligned;
    } control = {{0}};
    struct iovec part = {.iov_base = (void *)(uintptr_t)text, .iov_len = strlen(text)};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (fd >= 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof control.bytes;
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(header), &fd, sizeof fd);
    }
    return sendmsg(sd->socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* A manager that was started anew has a new socket at the same address: connect again, once. Too
 * many descriptors on their way (ETOOMANYREFS) pass as the manager reads, like a full queue. */
static int keep_sd_send(struct keep_sd *sd, const char *text, int fd) {
    int result = keep_sd_send_once(sd, text, fd);
    if (result == -ECONNREFUSED || result == -ENOTCONN || result == -ECONNRESET ||
        result == -EPIPE) {
        result = keep_sd_connect(sd);
        if (result == 0)
            result = keep_sd_send_once(sd, text, fd);
    }
    return result == -ENOBUFS || result == -ETOOMANYREFS || result == -EINTR ? -EAGAIN : result;
}

/* ---- the table ---- */

static struct keep_sd_entry *keep_sd_find(struct keep_sd *sd, const char *name) {
    for (size_t i = 0; i < sd->count; i++)
        if (!strcmp(sd->entries[i].name, name))
            return &sd->entries[i];
    return NULL;
}

static void keep_sd_add(struct keep_sd *sd, const char *name, int fd) {
    struct keep_sd_entry *entry = &sd->entries[sd->count++];
    *entry = (struct keep_sd_entry){.fd = fd};
    snprintf(entry->name, sizeof entry->name, "%s", name);
    sd->names_bytes += strlen(name) + 1;
}

/* The last one fills the gap, so that a walk downwards sees all others. */
static void keep_sd_remove(struct keep_sd *sd, struct keep_sd_entry *entry) {
    if (entry->fd >= 0)
        close(entry->fd);
    sd->names_bytes -= strlen(entry->name) + 1;
    *entry = sd->entries[--sd->count];
}

/* ---- the functions of a keeper ---- */

static int keep_sd_take(struct keep *keep, const char *name) {
    struct keep_sd_entry *entry = keep_sd_find(container_of(keep, struct keep_sd, keep), name);
    if (!entry || entry->fd < 0 || entry->dropping)
        return -ENOENT;
    int fd = entry->fd;
    entry->fd = -1;
    return fd;
}

static bool keep_sd_send_drop(struct keep_sd *sd, struct keep_sd_entry *entry) {
    char text[64 + KEEP_NAME_BYTES_MAX];
    snprintf(text, sizeof text, "FDSTOREREMOVE=1\nFDNAME=%s", entry->name);
    if (keep_sd_send(sd, text, -1) < 0)
        return false;
    sd->dropping_count--;
    keep_sd_remove(sd, entry);
    return true;
}

static bool keep_sd_flush(struct keep *keep) {
    struct keep_sd *sd = container_of(keep, struct keep_sd, keep);
    for (size_t i = sd->count; i-- > 0 && sd->dropping_count > 0;)
        if (sd->entries[i].dropping && !keep_sd_send_drop(sd, &sd->entries[i]))
            break;
    return sd->dropping_count > 0;
}

/* The descriptor that was handed in is closed at once: memory that nobody wants must not wait for a
 * slow manager. */
static void keep_sd_drop(struct keep *keep, const char *name) {
    struct keep_sd *sd = container_of(keep, struct keep_sd, keep);
    struct keep_sd_entry *entry = keep_sd_find(sd, name);
    if (!entry || entry->dropping)
        return;
    if (entry->fd >= 0)
        close(entry->fd);
    entry->fd = -1;
    entry->dropping = true;
    sd->dropping_count++;
    keep_sd_send_drop(sd, entry);
}

static int keep_sd_put(struct keep *keep, const char *name, int fd) {
    struct keep_sd *sd = container_of(keep, struct keep_sd, keep);
    char text[64 + KEEP_NAME_BYTES_MAX];
    if (!keep_sd_is_name(name))
        return -EINVAL;
    /* A removal that is sent after this would remove the new one. */
    if (sd->dropping_count > 0 && keep_sd_flush(keep))
        return -EAGAIN;
    if (keep_sd_find(sd, name))
        return -EEXIST;
    if (sd->count >= sd->limit || sd->names_bytes + strlen(name) + 1 > KEEP_SD_NAMES_BYTES_MAX)
        return -ENOSPC;
    snprintf(text, sizeof text, "FDSTORE=1\nFDNAME=%s\nFDPOLL=0", name);
    int result = keep_sd_send(sd, text, fd);
    if (result == 0)
        keep_sd_add(sd, name, -1);
    return result;
}

/* Downwards, for then taking or dropping the one that was just seen leaves the others where they
 * are or moves one that has been seen. *cursor: one more than the number of those seen. */
static const char *keep_sd_next(struct keep *keep, size_t *cursor) {
    struct keep_sd *sd = container_of(keep, struct keep_sd, keep);
    size_t at = *cursor == 0 || *cursor - 1 > sd->count ? sd->count : *cursor - 1;
    while (at-- > 0)
        if (sd->entries[at].fd >= 0 && !sd->entries[at].dropping) {
            *cursor = at + 1;
            return sd->entries[at].name;
        }
    *cursor = 1;
    return NULL;
}

/* ---- what the environment says ---- */

static bool keep_sd_read_number(const char *text, unsigned long most, size_t *out) {
    char *end;
    if (!text || *text < '0' || *text > '9')
        return false;
    errno = 0;
    unsigned long number = strtoul(text, &end, 10);
    if (errno != 0 || *end != '\0' || number > most)
        return false;
    *out = number;
    return true;
}

/* "@name" means an abstract socket, whose address begins with a zero byte. */
static bool keep_sd_read_address(struct keep_sd *sd, const char *text) {
    size_t bytes = strlen(text);
    if ((text[0] != '/' && text[0] != '@') || bytes < 2 || bytes >= sizeof sd->address.sun_path)
        return false;
    sd->address.sun_family = AF_UNIX;
    memcpy(sd->address.sun_path, text, bytes);
    if (text[0] == '@')
        sd->address.sun_path[0] = '\0';
    sd->address_bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + bytes);
    return true;
}

/* Descriptors whose name is not one of ours (sockets of systemd's, for example) are closed: we
 * cannot have put them, and a descriptor that nobody knows of is a leak. Of two with the same name
 * the first counts. */
static void keep_sd_take_in(struct keep_sd *sd, size_t count, const char *names) {
    for (size_t i = 0; i < count; i++) {
        char name[KEEP_NAME_BYTES_MAX + 2] = "";
        size_t bytes = strcspn(names, ":");
        int fd = KEEP_SD_FIRST_FD + (int)i;
        snprintf(name, sizeof name, "%.*s", (int)bytes, names);
        names += bytes + (names[bytes] == ':');
        if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
            continue;
        if (keep_sd_is_name(name) && !keep_sd_find(sd, name))
            keep_sd_add(sd, name, fd);
        else
            close(fd);
    }
}

/* How many descriptors lie ready for us. They are for the process that LISTEN_PID names, which may
 * be our parent. */
static int keep_sd_read_handed(size_t *count, char *why, size_t why_bytes) {
    const char *pid_text = getenv("LISTEN_PID"), *count_text = getenv("LISTEN_FDS");
    size_t pid;
    *count = 0;
    if (!pid_text || !count_text || !keep_sd_read_number(pid_text, INT32_MAX, &pid) ||
        (pid_t)pid != getpid())
        return 0;
    if (keep_sd_read_number(count_text, KEEP_SD_LIMIT_MAX, count))
        return 0;
    snprintf(why, why_bytes, "LISTEN_FDS=%s in the environment is not a number of descriptors",
             count_text);
    return -EINVAL;
}

static const struct keep_ops keep_sd_ops = {
    .take = keep_sd_take,
    .put = keep_sd_put,
    .drop = keep_sd_drop,
    .next = keep_sd_next,
    .flush = keep_sd_flush,
};

static int keep_sd_fill(struct keep_sd *sd, const char *notify_socket, size_t handed, char *why,
                        size_t why_bytes) {
    const char *names = getenv("LISTEN_FDNAMES");
    size_t room = sd->limit > handed ? sd->limit : handed;
    if (!keep_sd_read_address(sd, notify_socket)) {
        snprintf(why, why_bytes,
                 "NOTIFY_SOCKET=%s in the environment: only a path and an abstract Unix socket are "
                 "known",
                 notify_socket);
        return -EINVAL;
    }
    sd->entries = calloc(room + 1, sizeof *sd->entries);
    if (!sd->entries) {
        snprintf(why, why_bytes, "no memory to remember %zu descriptors; lower FDSTORE", room);
        return -ENOMEM;
    }
    keep_sd_take_in(sd, handed, names ? names : "");
    int result = keep_sd_connect(sd);
    if (result < 0)
        snprintf(why, why_bytes, "NOTIFY_SOCKET=%s: %s", notify_socket, strerror(-result));
    return result;
}

int keep_sd_new(struct keep **out, char *why, size_t why_bytes) {
    const char *notify_socket = getenv("NOTIFY_SOCKET"), *limit_text = getenv("FDSTORE");
    size_t limit = 0, handed;
    *out = NULL;
    int result = keep_sd_read_handed(&handed, why, why_bytes);
    if (result < 0)
        return result;
    if (limit_text && !keep_sd_read_number(limit_text, KEEP_SD_LIMIT_MAX, &limit)) {
        snprintf(why, why_bytes, "FDSTORE=%s in the environment is not a number of descriptors",
                 limit_text);
        return -EINVAL;
    }
    if (handed > 0 && (!notify_socket || limit == 0)) {
        snprintf(why, why_bytes,
                 "%zu descriptors were handed in, but the environment has no %s: nothing can be "
                 "kept any further; set FDSTORE to what FileDescriptorStoreMax= of the unit says",
                 handed, notify_socket ? "FDSTORE" : "NOTIFY_SOCKET");
        return -EINVAL;
    }
    if (!notify_socket || limit == 0)
        return 0;
    struct keep_sd *sd = calloc(1, sizeof *sd);
    if (!sd)
        return -ENOMEM;
    sd->keep.ops = &keep_sd_ops;
    sd->socket = -1;
    sd->limit = limit;
    result = keep_sd_fill(sd, notify_socket, handed, why, why_bytes);
    if (result < 0) {
        keep_sd_free(&sd->keep);
        return result;
    }
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
    *out = &sd->keep;
    return 0;
}

void keep_sd_free(struct keep *keep) {
    if (!keep)
        return;
    struct keep_sd *sd = container_of(keep, struct keep_sd, keep);
    for (size_t i = 0; i < sd->count; i++)
        if (sd->entries[i].fd >= 0)
            close(sd->entries[i].fd);
    if (sd->socket >= 0)
        close(sd->socket);
    free(sd->entries);
    free(sd);
}
