/* SPDX-License-Identifier: Apache-2.0
 *
 * Secrets come from files of their own, so that featured.conf can be shown to anybody. The file
 * must be private (host/secret_file.h), and the copy on the stack is wiped before we return.
 *
 * The bounds: 16 bytes are the least that cannot be guessed by trying, 4096 are more than anybody
 * needs.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "host/secret_file.h"

#define SECRET_BYTES_MIN 16u
#define SECRET_BYTES_MAX 4096u

/* The buffer is two bytes larger than the largest secret: one for the newline that an editor leaves
 * at the end and that does not count, one to notice that there is more. */
int config_read_secret(const char *path, void *out, size_t out_bytes, char *why, size_t why_bytes) {
    char text[SECRET_BYTES_MAX + 2]; /* a newline, and one byte to notice that there is more */
    size_t used = 0;
    ssize_t got;
    char wrong[384];
    int fd = secret_file_open(path, wrong, sizeof wrong);
    if (fd < 0) {
        snprintf(why, why_bytes, "secret file %s: %s", path, wrong);
        return fd;
    }
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
