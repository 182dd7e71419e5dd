/* SPDX-License-Identifier: Apache-2.0
 *
 * One broker per socket: a lock on PATH.lock, taken before anything else is made and kept until the
 * process ends. Whether somebody listens at PATH cannot decide it: two that start together both
 * find that nobody does. The file stays: removing it would let two processes lock two files.
 */
#ifndef FEATURED_LOCAL_SOCKET_LOCK_H
#define FEATURED_LOCAL_SOCKET_LOCK_H

#include <stddef.h>

/* path: of the socket. A descriptor that holds the lock (closing it lets go), or -errno with a
 * sentence in why: -EADDRINUSE names the process that holds it. */
int socket_lock_take(const char *path, char *why, size_t why_bytes);

#endif
