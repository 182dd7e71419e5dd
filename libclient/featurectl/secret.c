/* SPDX-License-Identifier: Apache-2.0
 *
 * A secret is the content of a file, without the newline that editors put at its end. The checks
 * of the file itself (owner, mode, no link) are those of the daemon (host/secret_file.h).
 */
#include "featurectl/secret.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "host/secret_file.h"

/* One more byte is tried, because a file that is longer would otherwise be cut without a word,
 * and the key would be another one.
 */
static ssize_t secret_read_secret(int fd, uint8_t out[SECRET_BYTES_MAX], char *why,
                                  size_t why_bytes) {
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

/* The caller wipes `out`. The number of bytes, or -errno with a sentence. */
ssize_t secret_read(const char *path, uint8_t out[SECRET_BYTES_MAX], char *why, size_t why_bytes) {
    int fd = secret_file_open(path, why, why_bytes);
    if (fd < 0)
        return fd;
    ssize_t bytes = secret_read_secret(fd, out, why, why_bytes);
    close(fd);
    return bytes;
}
