/* SPDX-License-Identifier: Apache-2.0
 *
 * Sessions: the clients that are connected, and the stores that each has opened.
 *
 *   connected -> greeted (Hello) -> stores opened and closed, requests -> closed
 *
 * When a session closes its calls end without an answer, and what it holds in the stores is given
 * back: at once, or, where that is much, in turns to come (space_leave()). Until then its account
 * stays.
 *
 * An *owner* is whoever holds things in the stores, a session or another broker: stores know it by
 * its number alone.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "node/call.h"

/* ---- owners ---- */

void owner_add(struct broker *broker, struct owner *owner, const char *name) {
    owner->id = ++broker->next_owner;
    owner->name = name;
    LIST_INSERT_HEAD(&broker->owners, owner, link);
}

void owner_remove(struct owner *owner) {
    LIST_REMOVE(owner, link);
}

static const struct owner *sessions_find_owner(const struct broker *broker, uint64_t id) {
    const struct owner *owner;
    LIST_FOREACH (owner, &broker->owners, link)
        if (owner->id == id)
            return owner;
    return NULL;
}

const char *broker_owner_name(const struct broker *broker, uint64_t id, char out[160]) {
    const struct owner *owner = sessions_find_owner(broker, id);
    if (owner)
        return owner->name;
    snprintf(out, 160, "session %llu, ended", (unsigned long long)id);
    return out;
}

bool broker_owner_uid(const struct broker *broker, uint64_t id, uint32_t *uid_out) {
    const struct owner *owner = sessions_find_owner(broker, id);
    if (!owner || !owner->session)
        return false;
    *uid_out = owner->session->credentials.uid;
    return true;
}

/* ---- coming in ---- */

bool broker_is_admin(const struct broker *broker, uid_t uid) {
    const struct config *config = broker->config;
    if (uid == 0 || uid == geteuid())
        return true;
    for (uint32_t i = 0; i < config->admin_uids.count; i++)
        if (config->admin_uids.ids[i] == uid)
            return true;
    return false;
}

/* Some sessions are kept for admins, so that whoever has to look after a full broker gets in. */
static uint32_t sessions_kept_for_admins(const struct config *config) {
    return config->admin_sessions < config->max_sessions / 2 ? config->admin_sessions
                                                             : config->max_sessions / 2;
}

/* False: *why says which limit. */
static bool sessions_admit(const struct broker *broker, const struct account *user, bool admin,
                           char *why, size_t why_bytes) {
    const struct config *config = broker->config;
    uint32_t others = broker->session_count - broker->admin_count;
    uint32_t reserved = sessions_kept_for_admins(config);
    uint32_t per_user =
        config->max_sessions_per_user ? config->max_sessions_per_user : config->max_sessions / 2;
    if (broker->session_count >= config->max_sessions)
        snprintf(why, why_bytes,
                 "max_sessions = %u clients are connected already: featurectl sessions shows whose",
                 config->max_sessions);
    else if (!admin && others >= config->max_sessions - reserved)
        snprintf(why, why_bytes,
                 "max_sessions = %u, of which admin_sessions = %u are kept for admins: all others "
                 "are connected already; featurectl sessions shows whose",
                 config->max_sessions, reserved);
    else if (!admin && user->used[CHARGE_SESSIONS] >= (per_user ? per_user : 1))
        snprintf(why, why_bytes,
                 "max_sessions_per_user = %u: user %llu has %llu sessions already: close some",
                 per_user, (unsigned long long)user->number,
                 (unsigned long long)user->used[CHARGE_SESSIONS]);
    else
        return true;
    return false;
}

/* A session may open between two turns of the loop: its age counts from now, not from the last
 * turn. */
static uint64_t sessions_now_ns(const struct broker *broker) {
    return broker->options.clock_ns ? broker->options.clock_ns(broker->options.owner)
                                    : broker->now_ns;
}

/* The account comes first, because the limit on sessions per user is counted there. Nothing is
 * charged before the session is admitted. */
struct broker_session *broker_session_open(struct broker *broker,
                                           const struct broker_client_ops *ops, void *client,
                                           const struct broker_credentials *credentials, char *why,
                                           size_t why_bytes) {
    struct broker_session *session = calloc(1, sizeof *session);
    struct account *account =
        session ? accounts_session(broker, broker->next_owner + 1, credentials->uid) : NULL;
    bool admin = broker_is_admin(broker, credentials->uid);
    snprintf(why, why_bytes, "the broker is out of memory");
    if (!account || !sessions_admit(broker, account->parent, admin, why, why_bytes)) {
        if (account)
            accounts_unhold(broker, account);
        free(session);
        return NULL;
    }
    session->broker = broker;
    session->ops = ops;
    session->client = client;
    session->credentials = *credentials;
    session->admin = admin;
    session->account = account;
    session->opened_ns = session->last_ns = sessions_now_ns(broker);
    account_add(account, CHARGE_SESSIONS, 1);
    TAILQ_INIT(&session->calls);
    owner_add(broker, &session->owner, session->name);
    session->owner.session = session;
    snprintf(session->name, sizeof session->name, "session %llu pid %d uid %u",
             (unsigned long long)session->owner.id, (int)credentials->pid, credentials->uid);
    TAILQ_INSERT_TAIL(&broker->sessions, session, link);
    broker->session_count++;
    broker->admin_count += admin;
    return session;
}

/* ---- leaving ---- */

/* The slot of the attachment stays and is used again by the next store that is opened, so that the
 * other handles of the session keep their numbers. */
bool session_detach(struct broker_session *session, struct attachment *attachment) {
    bool over =
        space_leave(session->broker, attachment->space, attachment->holder, session->account);
    account_release(session->account, CHARGE_HANDLES, 1);
    attachment->space = NULL;
    return over;
}

/* The calls end first: an item that waits in a store names the holder that is closed after it. The
 * assertion finds a charge that was never given back; it holds only when nothing of the session is
 * left to end in later turns. */
void broker_session_close(struct broker_session *session, uint64_t now_ns) {
    struct broker *broker = session->broker;
    broker->now_ns = now_ns > broker->now_ns ? now_ns : broker->now_ns;
    bool over = TAILQ_EMPTY(&broker->leavings); /* else one of its handles may be leaving still */
    calls_abandon(session);
    for (uint32_t i = 0; i < session->attachment_count; i++)
        if (session->attachments[i].space)
            over &= session_detach(session, &session->attachments[i]);
    TAILQ_REMOVE(&broker->sessions, session, link);
    owner_remove(&session->owner);
    broker->session_count--;
    broker->admin_count -= session->admin;
    account_release(session->account, CHARGE_SESSIONS, 1);
    for (enum charge charge = 0; charge < CHARGES; charge++) /* acks alone outlive a session */
        assert(!over || charge == CHARGE_PENDING_ENDS || !session->account->used[charge]);
    accounts_unhold(broker, session->account);
    free(session->attachments);
    free(session);
}

/* ---- what others ask of a session ---- */

const char *broker_session_name(const struct broker_session *session) {
    return session->name;
}

struct account *broker_session_account(const struct broker_session *session) {
    return session->account;
}

uint64_t broker_session_id(const struct broker_session *session) {
    return session->owner.id;
}
