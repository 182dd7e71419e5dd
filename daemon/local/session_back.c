/* SPDX-License-Identifier: Apache-2.0
 *
 * A client comes back: its Hello names the session that it had, and this connection goes on with
 * it. The session that the connection began with is then empty and goes.
 *
 *   Hello{0}             -> a new session, with a lock if its client will come back
 *   Hello{id, token}     -> the session of that number, if it is this process's; else as above
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "local/session_internal.h"
#include "ops/log.h"

/* The broker's answer has a token: its client will come back. That takes both ways to tell the
 * death of its process; without them the token is taken out again, and the client does not count on
 * it. Whoever keeps the broker's memory has to know the session before its client does. */
int session_make_lasting(const struct session *session, Fb__HelloReply *hello, int *keep_error) {
    struct lasting *lasting = session->lasting;
    int lock_fd = -1, error = -ENOENT;
    *keep_error = 0;
    if (!hello->token.len || lasting->lock_fd >= 0)
        return -1; /* the client has its lock since it first came */
    if (session->set->backend->park && (lasting->death.watching || session->pidfd_wanted))
        error = lasting_make_lock(lasting, &lock_fd);
    if (error) {
        hello->token.len = 0;
        log_limited(LOG_LEVEL_WARNING, session->uid,
                    "%s: its leases end when its connection breaks, for the death of its process "
                    "cannot be told: %s",
                    session_name(session), strerror(-error));
    } else if (!session->pidfd_wanted) {
        *keep_error = lasting_keep(lasting);
    }
    return lock_fd;
}

/* The client may try again: the keeper catches up, or another session makes room there. */
void session_refuse_unkept(struct session *session, uint32_t request_id, int error) {
    char sentence[200];
    snprintf(sentence, sizeof sentence,
             error == -ENOSPC
                 ? "whoever keeps the broker's memory has no place for another session: raise "
                   "FileDescriptorStoreMax= of its unit, or close sessions"
                 : "whoever keeps the broker's memory cannot take another session now: %s",
             strerror(-error));
    log_limited(LOG_LEVEL_WARNING, session->uid, "%s: refused: %s", session_name(session),
                sentence);
    session_answer_refusal(session, request_id,
                           error == -ENOSPC ? FB__STATUS__FULL : FB__STATUS__UNAVAILABLE, sentence);
}

/* ---- coming back ---- */

/* Another connection takes its place: what is still to be read or sent there is thrown away, for
 * its client does not look at it any more. */
static void session_back_replace(struct session *session) {
    log_debug("%s: its client has a new connection", session_name(session));
    session_forget_unread(session);
    session->account = NULL;
    session->lasting = NULL;
    session_drop_quietly(session);
}

/* The session that this connection began with goes, and with it its watch on the process: the one
 * that is come back to has its own. */
static void session_back_take_over(struct session *session, struct lasting *lasting,
                                   uint64_t now_ns) {
    struct sessions *set = session->set;
    struct session *before = lasting->connection;
    if (before) {
        session_back_replace(before);
        set->backend->park(lasting->broker, now_ns);
    }
    lasting_end(session->lasting, now_ns);
    session->lasting = lasting;
    lasting->connection = session;
    session->account = set->backend->account ? set->backend->account(lasting->broker) : NULL;
    session->pidfd_wanted = false;
    set->backend->resume(lasting->broker, &session_client_ops, session);
}

/* A Hello that names a session which is not its own, or is not there any more, is answered as one
 * that names none: with a new session. */
void session_come_back(struct session *session, const Fb__Hello *hello, uint64_t now_ns) {
    struct sessions *set = session->set;
    struct lasting *own = session->lasting, *lasting = NULL;
    if (!hello->session_id || !set->backend->claimed)
        return;
    struct broker_session *claimed = set->backend->claimed(set->broker, hello, &own->credentials);
    if (claimed)
        lasting = lasting_find(set, claimed, &own->credentials,
                               own->death.watching ? own->death.pidfd : -1);
    if (lasting && lasting != own)
        session_back_take_over(session, lasting, now_ns);
}
