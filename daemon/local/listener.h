/* SPDX-License-Identifier: Apache-2.0
 *
 * The local socket: creates it, decides who may connect, and makes a session of each client. Owns
 * the socket file and every session.
 */
#ifndef FEATURED_LOCAL_LISTENER_H
#define FEATURED_LOCAL_LISTENER_H

#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "broker.h"
#include "config.h"
#include "local/session.h"

struct listener;

struct listener_options {
    const char *socket_path;
    uint32_t socket_mode;                             /* of the socket file, e.g. 0660 */
    const char *socket_group;                         /* "" or NULL = the daemon's own */
    const struct config_ids *allow_uids, *allow_gids; /* copied; see access.h */
    struct sessions_options sessions;
    const struct session_backend *backend; /* NULL = broker.h */
};

/* Creates the socket and accepts. A socket file left behind by a dead daemon is replaced. 0, or
 * -errno with a sentence in why; -EADDRINUSE when a live daemon serves that path. */
int listener_new(uv_loop_t *loop, const struct listener_options *options, struct broker *broker,
                 struct listener **out, char *why, size_t why_bytes);
/* No new clients from here on, the socket file is gone; sessions go on. Idempotent. */
void listener_stop_accepting(struct listener *listener);
/* Closes every session and frees the listener; closed(owner) comes from the loop. */
void listener_close(struct listener *listener, void (*closed)(void *owner), void *owner);

#endif
