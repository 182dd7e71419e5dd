/* SPDX-License-Identifier: Apache-2.0
 *
 * The session of a handle, which outlives its connections: leases, reservations and open stores are
 * the session's. After a lost connection the handle names it in its next Hello, and goes on with
 * all of them. All with the hub's lock held.
 */
#ifndef FEATURED_LIBCLIENT_SESSION_H
#define FEATURED_LIBCLIENT_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "client.pb-c.h"
#include "fork.h"
#include "link.h"

#define FC_TOKEN_BYTES 16u

struct feature;

struct fc_session {
    uint64_t number; /* of this handle's sessions: the epoch of the connection it began with */
    uint64_t id;     /* the broker's */
    uint8_t token[FC_TOKEN_BYTES];
    bool lasts;      /* it can be come back to */
    void *lock_page; /* mapped as long as somebody may come back; NULL = none */
};

/* Fills in what Hello says of the session. */
void fc_session_greet(struct fc_session *session, Fb__Hello *hello);
/* What the answer says: the same session or a new one; sets link->session. lock: came with the
 * answer, fd -1 = none; it is closed. */
void fc_session_take(struct feature *feature, struct fc_link *link, const Fb__HelloReply *hello,
                     struct fc_inherited *lock);
/* For a link on which the broker has given this client its session back. Tells the broker which
 * leases and reservations this handle holds, so that it ends all others of the session. Releases
 * that were sent on the lost connection may not have arrived, and are sent again. False: there is
 * no memory for the message. */
bool fc_session_say_holdings(struct feature *feature, struct fc_link *link);
/* Nobody will come back: the broker ends the session with its connection. */
void fc_session_leave(struct fc_session *session);

#endif
