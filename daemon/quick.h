/* SPDX-License-Identifier: Apache-2.0
 *
 * `featured --quick`: a broker for one machine and one user, without a configuration file. Its
 * defaults differ from those of featured.conf(5) where a service and a person's own broker do:
 *
 *   [local] socket       in a directory of the user's own, see quick_socket_path()
 *   [local] socket_mode  0600: only this user connects, and as the broker's own user may make
 * stores [memory], [stores]   a part of the memory that is free now; nothing to land, as no node is
 * near [memory] prefault    off: memory is taken as samples come, for other programs run here too
 *   [daemon] drain_timeout  2 s: Ctrl-C does not wait long for readers
 */
#ifndef FEATURED_QUICK_H
#define FEATURED_QUICK_H

#include <stddef.h>
#include <stdint.h>

#include "config.h"

/* The path of the socket. asked: what the user gave; a relative path begins at the current
 * directory; nothing else is looked at or made. NULL: XDG_RUNTIME_DIR/featured/featured.sock, or
 * /tmp/featured-UID/featured.sock where that variable names no directory of the user's own. That
 * directory is made if need be, mode 0700; one that others may write to is refused, for they could
 * put a socket of theirs there. 0, or -errno with a sentence in why. */
int quick_socket_path(const char *asked, char out[108], char *why, size_t why_bytes);

/* Puts the defaults above into a config that config_defaults() has filled. available_bytes: see
 * quick_available_bytes(). */
void quick_set_defaults(struct config *config, const char *socket_path, uint64_t available_bytes);

/* Memory that programs can still take without swapping, or the limit of the process's cgroup where
 * that is less. */
uint64_t quick_available_bytes(void);

/* How to connect, for the user who has just started it: on standard output, all at once, when the
 * socket takes connections. */
void quick_say_how_to_connect(const struct config *config);

#endif
