/* SPDX-License-Identifier: Apache-2.0
 *
 * A listening Unix SOCK_SEQPACKET socket as a file: made with its mode and group, replaced when
 * stale, removed only by who made it. Blocks no longer than a local system call.
 */
#ifndef FEATURED_LOCAL_SOCKET_FILE_H
#define FEATURED_LOCAL_SOCKET_FILE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/un.h>

struct socket_file { /* which file we made: the path may name another one later */
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
    dev_t device;
    ino_t inode;
};

/* A non-blocking, listening descriptor, or -errno with a sentence in why. group: "" or NULL = leave
 * it. */
int socket_file_listen(struct socket_file *file, const char *path, uint32_t mode, const char *group,
                       int backlog, char *why, size_t why_bytes);
/* Removes the file unless another daemon has put its own there. */
void socket_file_remove(const struct socket_file *file);

#endif
