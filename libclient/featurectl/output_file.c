/* SPDX-License-Identifier: Apache-2.0
 *
 * open: where does the path lead -> in place, or a temporary file beside it
 * commit: fsync, close, rename, fsync of the directory
 *
 * Where a path leads decides how it is written. A regular file, or none yet: under another name
 * beside it, and renamed at the end, so that the file is there whole or not at all. A device, a
 * FIFO or /dev/fd/N: in place, byte after byte. A link is followed by this program, not by the
 * kernel, because the temporary file belongs beside what the link names.
 *
 * Owned: `fd`, and with a temporary file both names. A signal removes the temporary file
 * (ending.c).
 */
#include "featurectl/output_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <linux/magic.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "featurectl/ending.h"
#include "featurectl/memory.h"

#define WRITE_STEP_BYTES (8u << 20)
#define LINKS_MAX        40u  /* as the kernel's own limit, path_resolution(7) */
#define NAME_KEPT_BYTES  200u /* of 255: room for what makes the temporary's name its own */

static int output_say(int error, const char *doing, char *why, size_t why_bytes) {
    snprintf(why, why_bytes, "%s: %s", doing, strerror(-error));
    return error;
}

/* Directory of a path, by dirname(3), which changes its argument. Freed with free(). */
static char *output_file_directory_of(const char *path) {
    char *copy = memory_copy(path);
    char *directory = memory_copy(dirname(copy));
    free(copy);
    return directory;
}

/* ---- descriptors ---- */

/* A copy, so that it can be closed like a file that was opened here; above 2, so that it does
 * not become a standard stream. One that is open for reading only is refused now and not at the
 * first write.
 */
static int output_file_copy_descriptor(int fd) {
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || (flags & O_ACCMODE) == O_RDONLY)
        return -EBADF;
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    return copy < 0 ? -errno : copy;
}

/* Links in /proc/PID/fd lead to open files, not to names. */
static bool output_file_is_in_proc(const char *path) {
    struct statfs about;
    char *directory = output_file_directory_of(path);
    bool in_proc = statfs(directory, &about) == 0 && about.f_type == PROC_SUPER_MAGIC;
    free(directory);
    return in_proc;
}

/* /dev/stdout and /dev/fd/N lead there. Such a path means a descriptor that is open already, with
 * its offset and its O_APPEND; opening the path again would lose both. */
static bool output_file_is_in_own_fds(const char *path) {
    char ours[PATH_MAX], real[PATH_MAX];
    char *directory = output_file_directory_of(path);
    bool same =
        realpath("/proc/self/fd", ours) && realpath(directory, real) && strcmp(ours, real) == 0;
    free(directory);
    return same;
}

/* ---- where a path leads ---- */

/* 0, or -EACCES for a link that whoever may write to the directory could have put there. */
static int output_file_check_link(const char *path, const struct stat *link) {
    struct stat about;
    char *directory = output_file_directory_of(path);
    bool open_to_all =
        stat(directory, &about) == 0 && (about.st_mode & S_ISVTX) && (about.st_mode & S_IWOTH);
    free(directory);
    return open_to_all && link->st_uid != geteuid() && link->st_uid != about.st_uid ? -EACCES : 0;
}

/* What the link at `path` says, from where it stands. 0 or -errno; freed with free(). */
static int output_file_read_link(const char *path, char **out) {
    char text[PATH_MAX];
    ssize_t bytes = readlink(path, text, sizeof text - 1);
    if (bytes < 0)
        return -errno;
    text[bytes] = '\0';
    char *directory = output_file_directory_of(path);
    *out = text[0] == '/' ? memory_copy(text) : memory_print("%s/%s", directory, text);
    free(directory);
    return 0;
}

/* The path behind all links; one in /proc/PID/fd is not followed. 0 or -errno; freed with free().
 */
static int output_file_resolve(const char *path, char **out) {
    struct stat about;
    char *at = memory_copy(path), *next = NULL;
    for (unsigned i = 0;
         lstat(at, &about) == 0 && S_ISLNK(about.st_mode) && !output_file_is_in_proc(at); i++) {
        int error = i == LINKS_MAX ? -ELOOP : output_file_check_link(at, &about);
        if (!error)
            error = output_file_read_link(at, &next);
        free(at);
        if (error)
            return error;
        at = next;
    }
    *out = at;
    return 0;
}

/* -ENOENT means that the path is no descriptor of this process: it is opened as a file then. */
int output_descriptor(const char *path) {
    char *at, *end;
    if (strcmp(path, "-") == 0)
        return output_file_copy_descriptor(STDOUT_FILENO);
    if (output_file_resolve(path, &at))
        return -ENOENT;
    const char *slash = strrchr(at, '/');
    const char *digits = slash ? slash + 1 : at;
    long fd = strtol(digits, &end, 10);
    bool is_number = *digits >= '0' && *digits <= '9' && *end == '\0' && fd <= INT_MAX;
    int copy =
        is_number && output_file_is_in_own_fds(at) ? output_file_copy_descriptor((int)fd) : -ENOENT;
    free(at);
    return copy;
}

/* ---- opening ---- */

/* As what it replaces, if anything: nobody who could not read that can read this. */
static void output_file_take_after(int fd, const struct stat *before) {
    mode_t mode = before->st_mode & 07777;
    if (fchown(fd, before->st_uid, before->st_gid) != 0) {
        mode &= 0777;
        if (fchown(fd, (uid_t)-1, before->st_gid) != 0)
            mode &= ~(mode_t)070;
    }
    fchmod(fd, mode); /* a file system without modes has nothing to keep */
}

/* Beside the target, because rename(2) does not work across file systems; hidden by its dot, and
 * random, so that two commands that write the same file do not meet. */
static char *output_file_name_beside(const char *target) {
    uint64_t number = 0;
    char *copy = memory_copy(target), *directory = output_file_directory_of(target);
    if (getrandom(&number, sizeof number, 0) != sizeof number)
        number = (uint64_t)getpid();
    char *beside = memory_print("%s/.%.*s.%016" PRIx64 ".part", directory, (int)NAME_KEPT_BYTES,
                                basename(copy), number);
    free(directory);
    free(copy);
    return beside;
}

/* before: what is there now, NULL = nothing. 0 or -errno. */
static int output_file_open_beside(const char *target, const struct stat *before,
                                   struct output_file *out) {
    out->beside = output_file_name_beside(target);
    out->target = memory_copy(target);
    if (!ending_remove(out->beside))
        return -ENAMETOOLONG;
    out->fd = open(out->beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, before ? 0600 : 0666);
    if (out->fd < 0)
        return -errno;
    if (before)
        output_file_take_after(out->fd, before);
    return 0;
}

/* Nothing is emptied yet: until there is something to write the old contents stay (`truncate`).
 * O_NOCTTY, because a terminal that is written to must not become ours.
 */
static int output_file_open_in_place(const char *path, bool truncate, struct output_file *out) {
    out->fd = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
    out->truncate = truncate;
    return out->fd < 0 ? -errno : 0;
}

/* After the rename, or when the temporary file is gone: a signal has nothing to remove any more. */
static void output_file_forget_beside(struct output_file *out) {
    ending_forget();
    free(out->beside);
    free(out->target);
    out->beside = out->target = NULL;
}

/* A directory in which nothing can be created may still hold a file that can be written: then in
 * place. A failure then leaves a damaged file, which the caller says. */
static int output_file_open_regular(const char *path, const struct stat *before,
                                    struct output_file *out) {
    if (before && faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) != 0)
        return -errno;
    int error = output_file_open_beside(path, before, out);
    if (!error)
        return 0;
    output_file_forget_beside(out);
    return before && (error == -EACCES || error == -EPERM)
               ? output_file_open_in_place(path, true, out)
               : error;
}

/* A device, a FIFO or a path in /proc is written as it is: replacing it by a file would be a
 * surprise. */
static int output_file_open_path(const char *path, struct output_file *out) {
    struct stat about;
    size_t length = strlen(path);
    if (length == 0)
        return -ENOENT;
    if (stat(path, &about) != 0)
        return errno != ENOENT           ? -errno
               : path[length - 1] == '/' ? -EISDIR
                                         : output_file_open_regular(path, NULL, out);
    if (S_ISDIR(about.st_mode))
        return -EISDIR;
    if (!S_ISREG(about.st_mode) || output_file_is_in_proc(path))
        return output_file_open_in_place(path, false, out);
    return output_file_open_regular(path, &about, out);
}

/* First the descriptors that are open already, then the path behind all links. */
int output_file_open(const char *path, struct output_file *out, char *why, size_t why_bytes) {
    *out = (struct output_file){.fd = -1};
    char *target;
    int error = output_descriptor(path);
    if (error >= 0) {
        out->fd = error;
        return 0;
    }
    if (error == -ENOENT)
        error = output_file_resolve(path, &target);
    else
        return output_say(error, "cannot be written", why, why_bytes);
    if (!error) {
        error = output_file_open_path(target, out);
        free(target);
    }
    return error ? output_say(error, "cannot be written", why, why_bytes) : 0;
}

/* ---- writing ---- */

/* Steps of 8 MiB, so that progress is shown and a signal is heard between them. Standard output may
 * be non-blocking, because another process that shares it has made it so. */
int output_write_all(int fd, const void *from, uint64_t bytes, output_moved_fn moved,
                     void *context) {
    for (uint64_t done = 0; done < bytes;) {
        uint64_t step = bytes - done < WRITE_STEP_BYTES ? bytes - done : WRITE_STEP_BYTES;
        ssize_t put = write(fd, (const char *)from + done, step);
        if (put < 0 && errno == EAGAIN)
            poll(&(struct pollfd){.fd = fd, .events = POLLOUT}, 1, -1);
        else if (put < 0 && errno != EINTR)
            return -errno;
        if (put <= 0)
            continue;
        done += (uint64_t)put;
        if (moved)
            moved(context, (uint64_t)put);
    }
    return 0;
}

/* After a failure the file is abandoned: what was written of it is gone, and the old one stands. */
int output_file_write(struct output_file *out, const void *from, uint64_t bytes,
                      output_moved_fn moved, void *context, char *why, size_t why_bytes) {
    int error = out->truncate && ftruncate(out->fd, 0) != 0 ? -errno : 0;
    out->truncate = false;
    if (!error)
        error = output_write_all(out->fd, from, bytes, moved, context);
    if (!error)
        return 0;
    output_file_abandon(out);
    return output_say(error, "cannot be written", why, why_bytes);
}

/* ---- the end ---- */

/* Pipes and some file systems have nothing to synchronise. */
static int output_file_sync_descriptor(int fd) {
    return fsync(fd) != 0 && errno != EINVAL && errno != EOPNOTSUPP && errno != EROFS ? -errno : 0;
}

/* Some file systems tell of a write that failed only at fsync or close: both count as the write. */
static int output_file_close_file(struct output_file *out) {
    int error = output_file_sync_descriptor(out->fd);
    if (close(out->fd) != 0 && !error && errno != EINTR)
        error = -errno;
    out->fd = -1;
    return error;
}

/* The new name is on disk when its directory is. One that cannot be opened for reading cannot be
 * asked. */
static int output_file_sync_directory(const char *path) {
    char *directory = output_file_directory_of(path);
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    free(directory);
    if (fd < 0)
        return errno == EACCES ? 0 : -errno;
    int error = output_file_sync_descriptor(fd);
    close(fd);
    return error;
}

/* Not by rename, and so not all at once; see output_file_pour(). */
static int output_file_copy_bytes(int from, int to) {
    static char step[1u << 16];
    ssize_t got;
    int error = 0;
    while (!error && (got = read(from, step, sizeof step)) != 0)
        if (got > 0)
            error = output_write_all(to, step, (uint64_t)got, NULL, NULL);
        else if (errno != EINTR)
            error = -errno;
    return error;
}

/* A file that is mounted by itself (as containers do) keeps its name: its contents are replaced. */
static int output_file_pour(const struct output_file *out) {
    int from = open(out->beside, O_RDONLY | O_CLOEXEC);
    int to = from < 0 ? -1 : open(out->target, O_WRONLY | O_TRUNC | O_CLOEXEC);
    int error = to < 0 ? -errno : output_file_copy_bytes(from, to);
    if (!error)
        error = output_file_sync_descriptor(to);
    if (to >= 0 && close(to) != 0 && !error)
        error = -errno;
    if (from >= 0)
        close(from);
    if (!error)
        unlink(out->beside);
    return error;
}

/* EBUSY is what a mount point says when it is to be replaced. */
static int output_file_take_name(struct output_file *out) {
    if (rename(out->beside, out->target) == 0)
        return output_file_sync_directory(out->target);
    return errno == EBUSY ? output_file_pour(out) : -errno;
}

/* The order is what makes it safe: first the bytes are on disk, then the name changes, then the
 * change of the name is on disk. A crash at any point leaves the old file or the new one. */
int output_file_commit(struct output_file *out, char *why, size_t why_bytes) {
    int error = out->truncate && ftruncate(out->fd, 0) != 0 ? -errno : 0;
    int closed = output_file_close_file(out);
    error = error ? error : closed;
    if (!error && out->beside)
        error = output_file_take_name(out);
    if (error) {
        output_file_abandon(out);
        return output_say(error, "cannot be written", why, why_bytes);
    }
    output_file_forget_beside(out);
    return 0;
}

/* Removes what is there of it. May be called after a commit, and twice: then it does nothing. */
void output_file_abandon(struct output_file *out) {
    if (out->fd >= 0)
        close(out->fd);
    out->fd = -1;
    if (out->beside) {
        unlink(out->beside);
        output_file_forget_beside(out);
    }
}

/* True: no temporary file, so that a failure leaves whatever was written. */
bool output_file_in_place(const struct output_file *out) {
    return !out->beside;
}
