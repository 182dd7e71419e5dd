/* SPDX-License-Identifier: Apache-2.0
 *
 * One daemon per socket path: PATH.lock is locked with flock() for as long as the daemon runs. The
 * kernel lets go of it however the process ends, so that there is no stale lock. The holder's pid
 * is in the file for people to read: it is the lock that counts.
 *
 * The file is not removed at the end. Whoever opened it while it was there could lock a file
 * without a name, and a third one would make and lock a new one.
 */
#include "local/socket_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATH_BYTES 256

/* The directory of the socket as it is named in sentences. */
static void lock_directory(const char *path, char out[PATH_BYTES]) {
    const char *slash = strrchr(path, '/');
    int length = slash == path ? 1 : slash ? (int)(slash - path) : 0;
    snprintf(out, PATH_BYTES, "%.*s", length ? length : 1, length ? path : ".");
}

/* Why PATH.lock cannot be made. The user's next step is in the sentence: these are the first
 * mistakes that are made when a broker is set up. */
static void lock_explain(const char *path, int error, char *why, size_t why_bytes) {
    char directory[PATH_BYTES];
    struct stat facts;
    lock_directory(path, directory);
    bool has_directory = stat(directory, &facts) == 0;
    if (error == ENOENT && !has_directory)
        snprintf(why, why_bytes,
                 "%s: the directory %s does not exist; make it, writable for uid %u (mkdir -p; "
                 "RuntimeDirectory= in the unit), or set [local] socket",
                 path, directory, geteuid());
    else if (error == ENOTDIR || (has_directory && !S_ISDIR(facts.st_mode)))
        snprintf(why, why_bytes, "%s: %s is not a directory; set [local] socket", path, directory);
    else if (error == ELOOP)
        snprintf(why, why_bytes, "%s.lock: is a symbolic link, which is not followed; remove it",
                 path);
    else if (error == EISDIR)
        snprintf(why, why_bytes, "%s.lock: is a directory; remove it", path);
    else if (error == EROFS)
        snprintf(why, why_bytes,
                 "%s: %s is on a file system that is mounted read-only; set [local] socket to a "
                 "path on another, or mount a writable volume there",
                 path, directory);
    else if (error == EACCES && access(directory, W_OK | X_OK) < 0)
        snprintf(
            why, why_bytes,
            "%s: uid %u may not make files in %s (owner %u, mode %04o); let it, or set [local] "
            "socket",
            path, geteuid(), directory, has_directory ? facts.st_uid : 0,
            has_directory ? (unsigned)(facts.st_mode & 07777) : 0);
    else if (error == EACCES || error == EPERM)
        snprintf(why, why_bytes,
                 "%s.lock: belongs to another user, under whom a broker has run here; end that "
                 "one, if it runs, and remove the file",
                 path);
    else
        snprintf(why, why_bytes, "%s.lock: cannot be made: %s", path, strerror(error));
}

/* The pid may be missing for a moment: the other one has the lock and has not written it yet. */
static void lock_name_holder(const char *path, int fd, char *why, size_t why_bytes) {
    char text[24] = "";
    ssize_t bytes = pread(fd, text, sizeof text - 1, 0);
    long pid = bytes > 0 ? strtol(text, NULL, 10) : 0;
    char holder[48] = "";
    if (pid > 0)
        snprintf(holder, sizeof holder, ", pid %ld,", pid);
    snprintf(why, why_bytes,
             "%s: another daemon%s serves this socket or is about to; stop it or set [local] "
             "socket",
             path, holder);
}

/* O_NOFOLLOW and O_NONBLOCK: in a directory that others may write to, the name may be a link to a
 * file of ours, or a pipe on which open() would wait. */
int socket_lock_take(const char *path, char *why, size_t why_bytes) {
    char name[PATH_BYTES], pid[24];
    snprintf(name, sizeof name, "%s.lock", path);
    int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    if (fd < 0) {
        int error = errno;
        lock_explain(path, error, why, why_bytes);
        return -error;
    }
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        int error = errno;
        if (error == EWOULDBLOCK)
            lock_name_holder(path, fd, why, why_bytes);
        else
            snprintf(why, why_bytes, "%s: cannot be locked: %s", name, strerror(error));
        close(fd);
        return error == EWOULDBLOCK ? -EADDRINUSE : -error;
    }
    int length = snprintf(pid, sizeof pid, "%d\n", (int)getpid());
    bool named = ftruncate(fd, 0) == 0 && pwrite(fd, pid, (size_t)length, 0) == length;
    (void)named; /* on a full disk the sentence of another names no pid */
    return fd;
}
