/* SPDX-License-Identifier: Apache-2.0
 *
 * The file of the listening socket: made safely, given to its group, removed only if it is still
 * ours.
 *
 * A path is stale when something is a socket there and connect() to it is refused: the kernel knows
 * whether anybody listens. Two daemons that start at the same time are kept apart by the lock
 * (socket_lock.c), not here. umask() is the process's: call this before other threads make files.
 */
#include "local/socket_file.h"

#include <errno.h>
#include <grp.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define PRIVATE_UMASK         0177
#define NO_GROUP              ((gid_t)-1)
#define GROUP_ENTRY_BYTES_MAX 65536 /* a group with thousands of members */

/* SOCK_SEQPACKET keeps the boundaries of packets, and like a stream tells when the other end is
 * gone. */
static int socket_file_seqpacket_socket(void) {
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    return fd;
}

/* getgrnam_r() wants room for the whole entry with all of its members. */
static int socket_file_find_group(const char *name, gid_t *out, char *why, size_t why_bytes) {
    *out = NO_GROUP;
    if (!name || name[0] == '\0')
        return 0;
    char members[GROUP_ENTRY_BYTES_MAX];
    struct group entry, *found;
    int error = getgrnam_r(name, &entry, members, sizeof members, &found);
    if (!found) {
        snprintf(why, why_bytes, "[local] socket_group = %s: %s", name,
                 error ? strerror(error) : "there is no such group");
        return error ? -error : -EINVAL;
    }
    *out = entry.gr_gid;
    return 0;
}

/* 0 when nothing lives at the path (a stale socket has been removed). Anything that is not a socket
 * is left alone: it is a mistake in the configuration, and may be somebody's data. */
static int socket_file_clear_path(const struct sockaddr_un *address, char *why, size_t why_bytes) {
    struct stat status;
    if (lstat(address->sun_path, &status) < 0)
        return 0; /* absent; anything else bind() will report */
    if (S_ISDIR(status.st_mode)) {
        snprintf(why, why_bytes,
                 "%s: is a directory (docker makes one when it is to mount a socket that is not "
                 "there yet); remove it (rmdir), have containers mount the directory that it is "
                 "in, or set [local] socket",
                 address->sun_path);
        return -EISDIR;
    }
    if (!S_ISSOCK(status.st_mode)) {
        snprintf(why, why_bytes, "%s: exists and is not a socket; remove it or set [local] socket",
                 address->sun_path);
        return -EEXIST;
    }
    int fd = socket_file_seqpacket_socket();
    if (fd < 0) {
        snprintf(why, why_bytes, "%s: socket: %s", address->sun_path, strerror(-fd));
        return fd;
    }
    bool stale =
        connect(fd, (const struct sockaddr *)address, sizeof *address) < 0 && errno == ECONNREFUSED;
    close(fd);
    if (!stale) {
        snprintf(why, why_bytes,
                 "%s: another daemon is listening there; stop it or set [local] socket",
                 address->sun_path);
        return -EADDRINUSE;
    }
    if (unlink(address->sun_path) == 0 || errno == ENOENT)
        return 0;
    int error = errno;
    snprintf(why, why_bytes, "%s: a stale socket cannot be removed: %s", address->sun_path,
             strerror(error));
    return -error;
}

/* bind() makes the file with the mode that umask leaves: 0600, until chmod() opens it to clients.
 */
static int socket_file_bind_privately(int fd, const struct sockaddr_un *address) {
    mode_t before = umask(PRIVATE_UMASK);
    int error = bind(fd, (const struct sockaddr *)address, sizeof *address) < 0 ? -errno : 0;
    umask(before);
    return error;
}

/* Sets group and mode, remembers the inode, listens. Returns the step that failed, errno says why.
 */
static const char *socket_file_open_to_clients(struct socket_file *file, int fd, uint32_t mode,
                                               gid_t group, int backlog) {
    struct stat status;
    if (lstat(file->path, &status) < 0)
        return "stat";
    file->device = status.st_dev;
    file->inode = status.st_ino;
    if (group != NO_GROUP && lchown(file->path, (uid_t)-1, group) < 0)
        return "chown to socket_group";
    if (chmod(file->path, mode) < 0)
        return "chmod";
    if (listen(fd, backlog) < 0)
        return "listen";
    return NULL;
}

/* Group first, for it can be wrong without anything having been touched. If a step fails after
 * bind() the file is removed again. */
int socket_file_listen(struct socket_file *file, const char *path, uint32_t mode, const char *group,
                       int backlog, char *why, size_t why_bytes) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t path_bytes = strlen(path);
    if (path_bytes == 0 || path_bytes >= sizeof address.sun_path) {
        snprintf(why, why_bytes, "socket path of %zu bytes: 1 to %zu are allowed", path_bytes,
                 sizeof address.sun_path - 1);
        return -ENAMETOOLONG;
    }
    memcpy(address.sun_path, path, path_bytes + 1);
    *file = (struct socket_file){0};
    memcpy(file->path, path, path_bytes + 1);

    gid_t gid;
    int error = socket_file_find_group(group, &gid, why, why_bytes);
    if (!error)
        error = socket_file_clear_path(&address, why, why_bytes);
    if (error)
        return error;
    int fd = socket_file_seqpacket_socket();
    error = fd < 0 ? fd : socket_file_bind_privately(fd, &address);
    if (error < 0) {
        snprintf(why, why_bytes, "%s: bind: %s", path, strerror(-error));
        if (fd >= 0)
            close(fd);
        return error;
    }
    const char *failed = socket_file_open_to_clients(file, fd, mode, gid, backlog);
    if (!failed)
        return fd;
    error = -errno;
    snprintf(why, why_bytes, "%s: %s: %s", path, failed, strerror(-error));
    close(fd);
    socket_file_remove(file);
    return error;
}

/* Device and inode tell whether it is the file that we made: a daemon that was started after us may
 * have made its own at the same path. */
void socket_file_remove(const struct socket_file *file) {
    struct stat status;
    if (lstat(file->path, &status) == 0 && status.st_dev == file->device &&
        status.st_ino == file->inode)
        unlink(file->path);
}
