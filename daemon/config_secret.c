/* SPDX-License-Identifier: Apache-2.0
 *
 * Secrets come from files of their own, so that featured.conf can be shown to anybody. The copy on
 * the stack is wiped before we return.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECRET_BYTES_MIN 16u
#define SECRET_BYTES_MAX 4096u

static int open_secret(const char *path, char *why, size_t why_bytes) {
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &status) < 0) {
        int error = errno;
        snprintf(why, why_bytes, "secret file %s: cannot be opened: %s", path, strerror(error));
        if (fd >= 0)
            close(fd);
        return -error;
    }
    if (S_ISREG(status.st_mode) && !(status.st_mode & 077))
        return fd;
    close(fd);
    if (!S_ISREG(status.st_mode))
        snprintf(why, why_bytes, "secret file %s: not a regular file", path);
    else
        snprintf(why, why_bytes, "secret file %s: mode %04o lets others read it; do: chmod 600 %s",
                 path, (unsigned)(status.st_mode & 07777), path);
    return -EACCES;
}

int config_read_secret(const char *path, void *out, size_t out_bytes, char *why, size_t why_bytes) {
    char text[SECRET_BYTES_MAX + 2]; /* a newline, and one byte to notice that there is more */
    size_t used = 0;
    ssize_t got;
    int fd = open_secret(path, why, why_bytes);
    if (fd < 0)
        return fd;
    while ((got = read(fd, text + used, sizeof text - used)) != 0) {
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            break;
        used += (size_t)got;
    }
    int result = got < 0 ? -errno : 0;
    close(fd);
    if (used && text[used - 1] == '\n')
        used--;
    size_t max = out_bytes < SECRET_BYTES_MAX ? out_bytes : SECRET_BYTES_MAX;
    if (result < 0) {
        snprintf(why, why_bytes, "secret file %s: cannot be read: %s", path, strerror(-result));
    } else if (used < SECRET_BYTES_MIN || used > max) {
        snprintf(why, why_bytes,
                 "secret file %s: %s%zu bytes; allowed: %u to %zu; do: head -c 32 /dev/urandom "
                 "| base64 > %s",
                 path, used > max ? "more than " : "", used > max ? max : used, SECRET_BYTES_MIN,
                 max, path);
        result = -EINVAL;
    } else {
        memcpy(out, text, used);
        result = (int)used;
    }
    explicit_bzero(text, sizeof text);
    return result;
}
