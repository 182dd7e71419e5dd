/* SPDX-License-Identifier: Apache-2.0
 *
 * The mode is checked on the open file, not on its name.
 */
#include "secret.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static ssize_t read_secret(int fd, uint8_t out[SECRET_BYTES_MAX], char *why, size_t why_bytes) {
    struct stat about;
    if (fstat(fd, &about) != 0 || !S_ISREG(about.st_mode)) {
        snprintf(why, why_bytes, "is not a regular file");
        return -EINVAL;
    }
    if (about.st_mode & 077) {
        snprintf(why, why_bytes, "its mode %04o lets group or others in: chmod 600 it",
                 about.st_mode & 07777);
        return -EPERM;
    }
    char extra;
    ssize_t bytes = read(fd, out, SECRET_BYTES_MAX);
    bool too_long = bytes == SECRET_BYTES_MAX && read(fd, &extra, 1) > 0;
    if (bytes > 0 && out[bytes - 1] == '\n' && !too_long)
        bytes--;
    if (bytes < (ssize_t)SECRET_BYTES_MIN || too_long) {
        snprintf(why, why_bytes, "does not hold %u to %u bytes", SECRET_BYTES_MIN,
                 SECRET_BYTES_MAX);
        return -EINVAL;
    }
    return bytes;
}

ssize_t secret_read(const char *path, uint8_t out[SECRET_BYTES_MAX], char *why, size_t why_bytes) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        int error = errno;
        snprintf(why, why_bytes, "cannot be opened: %s", strerror(error));
        return -error;
    }
    ssize_t bytes = read_secret(fd, out, why, why_bytes);
    close(fd);
    return bytes;
}
