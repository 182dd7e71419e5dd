/* SPDX-License-Identifier: Apache-2.0
 *
 * A file that is complete or not there. What a path names is looked at first:
 *
 *   a regular file, or nothing     a temporary file beside it takes its name when all is on disk;
 *                                  mode and owner of what it replaces are kept (the owner as far as
 *                                  the user may give files away)
 *   a symbolic link                the same with what it leads to; the link stays
 *   "-", /dev/stdout, /dev/fd/N    written to that descriptor, where it stands
 *   a device, a FIFO               written into
 *   a regular file whose directory  written into, once there is something to write: it may be left
 *   takes no new one, or that is   half written
 *   mounted by itself
 *
 * A link in a directory that everybody may write to (sticky, as /tmp) is followed only when it is
 * ours or the directory's owner's, as the kernel's protected_symlinks has it. An interrupted
 * process leaves no temporary file (ending.h); one that is killed leaves .NAME.*.part.
 */
#ifndef FEATURED_CTL_OUTPUT_FILE_H
#define FEATURED_CTL_OUTPUT_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct output_file {
    int fd;
    char *target;  /* where it goes in the end; NULL = written in place */
    char *beside;  /* the temporary file; NULL when written in place */
    bool truncate; /* in place, and it held something before */
};

/* Called as bytes move, with how many moved since the last call. */
typedef void (*output_moved_fn)(void *context, uint64_t bytes);

/* Functions that return int: 0, or -errno with a sentence in why that does not repeat the path.
 * After a failure of write() or commit() nothing is left of it, and what was there before is. */
int output_file_open(const char *path, struct output_file *out, char *why, size_t why_bytes);
/* moved may be NULL. */
int output_file_write(struct output_file *out, const void *from, uint64_t bytes,
                      output_moved_fn moved, void *context, char *why, size_t why_bytes);
int output_file_commit(struct output_file *out, char *why, size_t why_bytes);
/* Leaves what was there. Fine after a failure and after commit(). */
void output_file_abandon(struct output_file *out);

bool output_file_in_place(const struct output_file *out);

/* The descriptor that a path means rather than a file ("-", /dev/stdout, /dev/fd/N): a copy of it,
 * closed on exec. -EBADF when it cannot be written; -ENOENT when it means none. */
int output_descriptor(const char *path);
/* All of it, or -errno. A descriptor that does not block is waited for. */
int output_write_all(int fd, const void *from, uint64_t bytes, output_moved_fn moved,
                     void *context);

#endif
