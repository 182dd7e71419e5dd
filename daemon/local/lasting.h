/* SPDX-License-Identifier: Apache-2.0
 *
 * What of a client's session is there whether it is connected or not: the broker's session, and the
 * watch on the client's process. A session whose connection breaks is *parked* while its process
 * lives, and its client comes back to it over a new connection.
 *
 *   connected --the connection ends--> parked --Hello with number and token--> connected
 *       \                                 \
 *        \-- its process dies, it lets go of its lock, or its death cannot be told --> ended
 *
 * The process is dead for us when its pidfd is readable, or when it has no connection and its lock
 * is free (lasting_make_lock()): the lock tells what a pidfd does not, that the process has become
 * another program (exec), or that the client has left for good.
 */
#ifndef FEATURED_LOCAL_LASTING_H
#define FEATURED_LOCAL_LASTING_H

#include "local/death.h"
#include "local/session.h"

struct session;

struct lasting {
    LIST_ENTRY(lasting) link; /* of the set's */
    struct sessions *set;
    struct broker_session *broker;
    struct session *connection; /* NULL: parked */
    struct broker_credentials credentials;
    struct death_watch death;
    bool dead;
    int lock_fd; /* -1 = none */
};

/* Of a new connection, whose broker session is taken over. NULL: no memory. */
struct lasting *lasting_new(struct sessions *set, struct broker_session *broker,
                            struct session *connection,
                            const struct broker_credentials *credentials);
/* Takes pidfd, and ends the session when it tells the death of the process. 0 or -errno. */
int lasting_watch(struct lasting *lasting, int pidfd);
/* Makes the lock. *client_fd_out: for the client, which maps it and closes it; the caller closes
 * its own copy once it is sent. 0, or -errno: then the session ends with its connection. */
int lasting_make_lock(struct lasting *lasting, int *client_fd_out);
/* Hands what tells of its death to whoever keeps the broker's memory. 0 or -errno. */
int lasting_keep(const struct lasting *lasting);
/* True if the session could wait for its client: its death can be told in both ways. */
bool lasting_may_wait(const struct lasting *lasting);
/* Its connection has ended: the session waits for its client, or it ends. */
void lasting_disconnect(struct lasting *lasting, uint64_t now_ns);
void lasting_end(struct lasting *lasting, uint64_t now_ns);
/* The one whose session that is, if the process that connected this socket is its own; else NULL.
 * pidfd: of that process, -1 = none. */
struct lasting *lasting_find(struct sessions *set, const struct broker_session *broker,
                             const struct broker_credentials *credentials, int pidfd);

#endif
