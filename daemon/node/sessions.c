/* SPDX-License-Identifier: Apache-2.0
 *
 * Sessions: the clients, and the stores that each has opened.
 *
 *   connected -> greeted (Hello) -> stores opened and closed, requests -> closed
 *        ^                                                    |
 *        +-- resumed by a new connection -- parked <-- its connection broke, its process lives
 *
 * A session is its client's, not its connection's. A parked session holds all that it held, and
 * counts against all limits as if it were connected. Its client comes back with the number of the
 * session and its token. Who watches the process, and closes a parked session when it dies, is
 * local/lasting.c.
 *
 * A new connection counts as a session from the beginning. At a limit that would keep out those who
 * only come back, so whoever has sessions already gets as many connections over the limit as he has
 * sessions (over_limit); such a connection is counted nowhere, and is refused with its Hello unless
 * that comes back to a session, or there is room by then.
 *
 * When a session closes its calls end without an answer, and what it holds in the stores is given
 * back: at once, or, where that is much, in turns to come (space_leave()). Until then its account
 * stays.
 *
 * An *owner* is whoever holds things in the stores, a session or another broker: stores know it by
 * its number alone.
 */
#include <assert.h>
#include <sodium.h>
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

/* Each of a user's sessions may be about to be come back to, by one connection. The list is walked
 * only at a limit, and is as long as max_sessions at most, twice. */
static bool sessions_may_come_back(const struct broker *broker, uid_t uid) {
    const struct broker_session *session;
    uint32_t lasting = 0, over_limit = 0;
    TAILQ_FOREACH (session, &broker->sessions, link)
        if (session->credentials.uid == uid) {
            lasting += session->lasts;
            over_limit += session->over_limit;
        }
    return over_limit < lasting;
}

static void sessions_count(struct broker_session *session) {
    account_add(session->account, CHARGE_SESSIONS, 1);
    session->broker->session_count++;
    session->broker->admin_count += session->admin;
}

bool session_admit(struct broker_session *session, char *why, size_t why_bytes) {
    if (!session->over_limit)
        return true;
    if (!sessions_admit(session->broker, session->account->parent, session->admin, why, why_bytes))
        return false;
    session->over_limit = false;
    sessions_count(session);
    return true;
}

void session_rename(struct broker_session *session) {
    snprintf(session->name, sizeof session->name, "session %llu pid %d uid %u%s%s",
             (unsigned long long)session->owner.id, (int)session->credentials.pid,
             session->credentials.uid, *session->client_name ? " " : "", session->client_name);
}

/* In the order of their numbers, which is that of coming but for those that are recalled. */
static void sessions_insert(struct broker *broker, struct broker_session *session) {
    struct broker_session *before;
    TAILQ_FOREACH_REVERSE(before, &broker->sessions, session_list, link)
    if (before->owner.id < session->owner.id) {
        TAILQ_INSERT_AFTER(&broker->sessions, before, session, link);
        return;
    }
    TAILQ_INSERT_HEAD(&broker->sessions, session, link);
}

/* Takes the account. */
static void sessions_begin(struct broker *broker, struct broker_session *session,
                           const struct broker_credentials *credentials, struct account *account) {
    session->broker = broker;
    session->credentials = *credentials;
    session->admin = broker_is_admin(broker, credentials->uid);
    session->account = account;
    TAILQ_INIT(&session->calls);
    owner_add(broker, &session->owner, session->name);
    session->owner.session = session;
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
    bool admitted = account && sessions_admit(broker, account->parent, admin, why, why_bytes);
    if (!account || (!admitted && !sessions_may_come_back(broker, credentials->uid))) {
        if (account)
            accounts_unhold(broker, account);
        free(session);
        return NULL;
    }
    sessions_begin(broker, session, credentials, account);
    session->ops = ops;
    session->client = client;
    session->opened_ns = session->last_ns = sessions_now_ns(broker);
    session->over_limit = !admitted;
    randombytes_buf(session->token, sizeof session->token);
    if (admitted)
        sessions_count(session);
    session_rename(session);
    sessions_insert(broker, session);
    return session;
}

/* Limits are not asked: it was admitted once, and what it holds is there. */
struct broker_session *session_new_recalled(struct broker *broker, uint64_t id,
                                            const struct broker_credentials *credentials,
                                            uint64_t opened_ns) {
    struct broker_session *session = calloc(1, sizeof *session);
    struct account *account = session ? accounts_session(broker, id, credentials->uid) : NULL;
    if (!account) {
        free(session);
        return NULL;
    }
    uint64_t next_owner = broker->next_owner;
    broker->next_owner = id - 1;
    sessions_begin(broker, session, credentials, account);
    broker->next_owner = id > next_owner ? id : next_owner;
    session->opened_ns = opened_ns;
    session->last_ns = session->parked_ns = broker->now_ns;
    session->lasts = session->recalled = true;
    sessions_count(session);
    sessions_insert(broker, session);
    return session;
}

/* ---- coming back ---- */

/* What a client is told of as long as it is connected, and asks for anew when it comes back. */
bool broker_session_park(struct broker_session *session, uint64_t now_ns) {
    struct broker *broker = session->broker;
    if (!session->lasts)
        return false;
    broker->now_ns = now_ns > broker->now_ns ? now_ns : broker->now_ns;
    calls_abandon(session);
    session->client = NULL;
    session->greeted = session->wants_events = session->claiming = false;
    session->challenge = (struct challenge){0};
    session->parked_ns = broker->now_ns;
    return true;
}

static struct broker_session *sessions_find(struct broker *broker, uint64_t id) {
    struct broker_session *session;
    TAILQ_FOREACH (session, &broker->sessions, link)
        if (session->owner.id == id)
            return session;
    return NULL;
}

/* Compared in constant time. That the number exists is no secret, but the token is. Another user's
 * session is as good as none. */
struct broker_session *broker_session_claimed(struct broker *broker, const Fb__Hello *hello,
                                              const struct broker_credentials *credentials) {
    struct broker_session *session = sessions_find(broker, hello->session_id);
    if (!session || !session->lasts)
        return NULL;
    if (session->credentials.uid == credentials->uid && hello->token.len == BROKER_TOKEN_BYTES &&
        auth_equal(session->token, hello->token.data, BROKER_TOKEN_BYTES))
        return session;
    log_limited(LOG_LEVEL_WARNING, credentials->uid,
                "pid %d uid %u named session %llu with a wrong token, or as another user: it gets "
                "a session of its own",
                (int)credentials->pid, credentials->uid, (unsigned long long)hello->session_id);
    return NULL;
}

void broker_session_resume(struct broker_session *session, const struct broker_client_ops *ops,
                           void *client) {
    session->ops = ops;
    session->client = client;
    session->parked_ns = 0;
    session->resumed = true;
    session->last_ns = sessions_now_ns(session->broker);
}

/* ---- leaving ---- */

/* The slot of the attachment stays and is used again by the next store that is opened, so that the
 * other handles of the session keep their numbers. */
bool session_detach(struct broker_session *session, struct attachment *attachment) {
    session_forget_attachment(session, attachment);
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
    session_forget(session);
    TAILQ_REMOVE(&broker->sessions, session, link);
    owner_remove(&session->owner);
    if (!session->over_limit) {
        broker->session_count--;
        broker->admin_count -= session->admin;
        account_release(session->account, CHARGE_SESSIONS, 1);
    }
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
