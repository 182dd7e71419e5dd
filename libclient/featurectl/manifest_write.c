/* SPDX-License-Identifier: Apache-2.0
 *
 * A regular file is locked while a line is added, so that of several writers each can take back
 * what it could not finish.
 *
 * open -> for each sample: expect (room is taken), add (the line is written) -> close
 *
 * Lines are added to what is there, and never changed. A pipe, a terminal or a device has no
 * room to be taken and no lock, and gets its lines one after the other.
 */
#include "featurectl/manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "featurectl/memory.h"
#include "featurectl/output_file.h"
#include "proto/layout.h"

/* Upper bounds, in bytes, of what a line has beside names: the JSON around the values with 20
 * digits of size; the URI around its names with 20 digits of generation and of incarnation; the
 * ref's own fields; a tensor's own fields, its dimensions aside; a dimension, which is a varint. */
#define LINE_JSON_BYTES   96u
#define LINE_URI_BYTES    96u
#define REF_FIELDS_BYTES  48u
#define TENSOR_SPEC_BYTES 32u
#define DIMENSION_BYTES   10u
#define CHECKSUM_BYTES    8u

#define LOCK_TRIES    1000u
#define LOCK_PAUSE_NS 2000000 /* together 2 s */

static int manifest_say(int error, char *why, size_t why_bytes) {
    snprintf(why, why_bytes, "cannot be written: %s", strerror(-error));
    return error;
}

/* Waits for 2 s at most. A writer that was stopped (Ctrl-Z) within a line keeps its lock for
 * ever; then this goes on without it. A file system without locks is no reason to fail either.
 */
void manifest_lock(int fd, int operation) {
    const struct timespec pause = {.tv_nsec = LOCK_PAUSE_NS};
    for (unsigned i = 0; i < LOCK_TRIES; i++) {
        if (flock(fd, operation | LOCK_NB) == 0 || errno != EWOULDBLOCK)
            return;
        nanosleep(&pause, NULL);
    }
}

/* ---- opening ---- */

/* Read too, for its last byte; a FIFO is not, for then we would be its reader. */
static int manifest_write_open_path(const char *path) {
    struct stat about;
    bool special = stat(path, &about) == 0 && !S_ISREG(about.st_mode);
    int flags = special ? O_WRONLY : O_RDWR | O_CREAT;
    int fd = open(path, flags | O_APPEND | O_CLOEXEC | O_NOCTTY, 0666);
    return fd < 0 ? -errno : fd;
}

/* A path that is mistyped may lead to somebody's data: what is there must begin as a manifest does.
 */
static bool manifest_write_may_grow(int fd) {
    char begin[256];
    ssize_t bytes = pread(fd, begin, sizeof begin, 0), at = 0;
    if (bytes >= 3 && memcmp(begin, "\xef\xbb\xbf", 3) == 0)
        at = 3;
    while (at < bytes && strchr(" \t\r\n", begin[at]) && begin[at])
        at++;
    return at >= bytes || begin[at] == '{';
}

/* A descriptor that the shell has opened (>> FILE) is used as it is. */
int manifest_open(const char *path, struct manifest *out, char *why, size_t why_bytes) {
    struct stat about;
    int fd = output_descriptor(path);
    bool lent = fd != -ENOENT; /* its offset is its owner's matter */
    if (!lent)
        fd = manifest_write_open_path(path);
    if (fd < 0)
        return manifest_say(fd, why, why_bytes);
    *out = (struct manifest){.fd = fd,
                             .regular = !lent && fstat(fd, &about) == 0 && S_ISREG(about.st_mode)};
    if (!out->regular || manifest_write_may_grow(fd))
        return 0;
    close(fd);
    snprintf(why, why_bytes, "is there and is no manifest: it does not begin with a JSON object");
    return -EINVAL;
}

/* ---- room ---- */

/* An upper bound, in plain sums: a little too much room does no harm, manifest_close() gives it
 * back.
 */
static size_t manifest_write_line_bytes_max(const char *store,
                                            const struct feature_sample *sample) {
    size_t id = strlen(sample->sample_id), name = strlen(store), home = LAYOUT_NAME_BYTES_MAX;
    size_t json = LINE_JSON_BYTES + name + 6 * id;      /* \u0000 at worst */
    size_t uri = LINE_URI_BYTES + name + 3 * id + home; /* %00 */
    size_t ref = REF_FIELDS_BYTES + name + id + home + sample->metadata_bytes;
    for (uint32_t i = 0; i < sample->tensor_count; i++)
        ref += TENSOR_SPEC_BYTES + CHECKSUM_BYTES + strlen(sample->tensors[i].name) +
               (size_t)sample->tensors[i].rank * DIMENSION_BYTES;
    return json + uri + (ref + 2) / 3 * 4;
}

/* Room for the line is taken before the sample is put. A full disk is then found out while nothing
 * has happened yet, and not when the only thing that is missing is the ref of a sample that is
 * there. */
int manifest_expect(const struct manifest *manifest, const char *store,
                    const struct feature_sample *sample, size_t more_bytes, char *why,
                    size_t why_bytes) {
    struct stat about;
    if (!manifest->regular || fstat(manifest->fd, &about) != 0)
        return 0;
    if (fallocate(manifest->fd, FALLOC_FL_KEEP_SIZE, about.st_size,
                  (off_t)(manifest_write_line_bytes_max(store, sample) + more_bytes)) == 0)
        return 0;
    bool full = errno == ENOSPC || errno == EDQUOT || errno == EFBIG;
    return full ? manifest_say(-errno, why, why_bytes) : 0;
}

/* ---- lines ---- */

/* The file ends within a line: somebody's write was cut short. */
static bool manifest_write_is_torn(int fd, off_t size) {
    char last;
    return size > 0 && pread(fd, &last, 1, size - 1) == 1 && last != '\n';
}

/* 0 or -errno. One write for a line, on a descriptor with O_APPEND, under the lock: other writers
 * of the same file see a whole line or none. */
static int manifest_write_append(int fd, const char *line, size_t bytes) {
    struct stat about;
    if (fstat(fd, &about) != 0)
        return -errno;
    size_t skipped = manifest_write_is_torn(fd, about.st_size)
                         ? 0
                         : 1; /* the line comes with a newline before */
    ssize_t put;
    do
        put = write(fd, line + skipped, bytes - skipped);
    while (put < 0 && errno == EINTR);
    if (put == (ssize_t)(bytes - skipped))
        return 0;
    int error = put < 0 ? -errno : -ENOSPC; /* a short write to a file: there was no more room */
    if (put > 0 && ftruncate(fd, about.st_size) != 0)
        error = -errno;
    return error;
}

/* The line begins with a newline in case the file ends within a line; else that newline is
 * skipped.
 */
int manifest_add(const struct manifest *manifest, const struct feature_ref *ref, json_t *more,
                 char *why, size_t why_bytes) {
    json_t *object = refs_to_json(ref);
    if (more)
        json_object_update(object, more);
    json_decref(more);
    char *text = json_dumps(object, JSON_COMPACT);
    char *line = memory_print("\n%s\n", text ? text : "");
    size_t bytes = strlen(line);
    int error = text ? 0 : -EINVAL;
    free(text);
    json_decref(object);
    if (!error && manifest->regular) {
        manifest_lock(manifest->fd, LOCK_EX);
        error = manifest_write_append(manifest->fd, line, bytes);
        flock(manifest->fd, LOCK_UN);
    } else if (!error) {
        error = output_write_all(manifest->fd, line + 1, bytes - 1, NULL, NULL);
    }
    free(line);
    return error ? manifest_say(error, why, why_bytes) : 0;
}

/* fsync, because a manifest that is lost in a crash would leave samples that nobody knows of. */
int manifest_close(struct manifest *manifest, char *why, size_t why_bytes) {
    struct stat about;
    int error = 0;
    if (manifest->regular) {
        manifest_lock(manifest->fd, LOCK_EX);
        /* Room that was taken and not used lies behind the end. */
        if (fstat(manifest->fd, &about) == 0 && ftruncate(manifest->fd, about.st_size) != 0)
            error = -errno;
        flock(manifest->fd, LOCK_UN);
        if (fsync(manifest->fd) != 0 && errno != EINVAL && !error)
            error = -errno;
    }
    if (close(manifest->fd) != 0 && errno != EINTR && !error)
        error = -errno;
    manifest->fd = -1;
    return error ? manifest_say(error, why, why_bytes) : 0;
}
