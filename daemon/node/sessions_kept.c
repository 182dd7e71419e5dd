/* SPDX-License-Identifier: Apache-2.0
 *
 * What of a session outlives the broker: a record in the node's memory, one for each store that it
 * has open, and two descriptors with the keeper, by which the next broker tells whether the client
 * lives (local/lasting.c): "p.N", a pidfd of its process, and "l.N", the lock of its program. N is
 * the number of the session's record.
 *
 *   a session begins:  record taken -> "l.N", "p.N" with the keeper -> record committed -> answered
 *   a store is opened: holder opened in the store -> record committed -> answered
 *   a store is closed: record freed -> holder closed, in turns to come perhaps
 *   a session ends:    its stores closed -> record freed -> "l.N", "p.N" dropped
 *
 * So at every instruction one of these holds, and the next broker can go on with each:
 *   - a descriptor without a committed record: nobody was told, it is dropped;
 *   - a holder in a store without a record: nobody was told, or it was being closed; it is closed;
 *   - a record with all that belongs to it: the session is parked, and its client comes back;
 *   - a record whose client is dead: the session ends as it would have done.
 *
 * Some clients cannot come back to a session, for example programs that are linked with an earlier
 * libfeature. Their sessions have no record, and end when the broker does.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "node/kept.h"
#include "node/node.h"

static struct kept_table *sessions_table(const struct broker *broker) {
    return kept_table(broker->kept, KEPT_SESSIONS);
}

static struct kept_table *sessions_attachments(const struct broker *broker) {
    return kept_table(broker->kept, KEPT_ATTACHMENTS);
}

/* ---- while it lives ---- */

static void sessions_drop_keys(const struct broker *broker, uint32_t record) {
    char key[KEEP_NAME_BYTES_MAX + 1];
    keep_name(key, 'p', record);
    keep_drop(broker->options.keep, key);
    keep_name(key, 'l', record);
    keep_drop(broker->options.keep, key);
}

/* Both or none: with one of the two the next broker could not tell whether the client lives. */
static int sessions_put_keys(const struct broker *broker, uint32_t record, int pidfd, int lock_fd) {
    char key[KEEP_NAME_BYTES_MAX + 1];
    keep_name(key, 'l', record);
    int error = keep_put(broker->options.keep, key, lock_fd);
    if (error)
        return error;
    keep_name(key, 'p', record);
    error = keep_put(broker->options.keep, key, pidfd);
    if (error)
        sessions_drop_keys(broker, record);
    return error;
}

static void sessions_fill(const struct broker_session *session, struct kept_session *record) {
    record->id = session->owner.id;
    record->client_id = session->client_id;
    record->opened_ns = session->opened_ns;
    record->uid = session->credentials.uid;
    record->gid = session->credentials.gid;
    record->pid = session->credentials.pid;
    memcpy(record->token, session->token, sizeof record->token);
    memcpy(record->client_name, session->client_name, sizeof record->client_name);
}

/* A client may have opened stores before its pidfd came, where it has to send one; these are
 * recorded now. On a failure the session is closed by the caller, which undoes all of it. */
int broker_session_keep(struct broker_session *session, int pidfd, int lock_fd) {
    const struct broker *broker = session->broker;
    uint32_t index;
    if (!broker->options.keep || session->kept)
        return 0;
    struct kept_session *record = kept_take(sessions_table(broker), &index);
    if (!record)
        return -ENOSPC;
    sessions_fill(session, record);
    int error = sessions_put_keys(broker, index, pidfd, lock_fd);
    if (error) {
        kept_free(sessions_table(broker), index);
        return error;
    }
    kept_commit(sessions_table(broker), index, KEPT_SESSION_LIVES);
    session->kept = index + 1;
    for (uint32_t i = 0; i < session->attachment_count; i++)
        if (session->attachments[i].space && !session_keep_attachment(session, i))
            return -ENOSPC;
    return 0;
}

/* The holder is open in the store already: should the broker be killed before the commit, nobody
 * adopts it, and it is closed. */
bool session_keep_attachment(struct broker_session *session, uint32_t i) {
    struct attachment *attachment = &session->attachments[i];
    struct kept_table *table = sessions_attachments(session->broker);
    uint32_t index;
    if (!session->kept)
        return true;
    struct kept_attachment *record = kept_take(table, &index);
    if (!record)
        return false;
    *record = (struct kept_attachment){.session_id = session->owner.id,
                                       .session = session->kept - 1,
                                       .handle = i + 1,
                                       .slot = attachment->space->index,
                                       .holder = attachment->holder,
                                       .write = attachment->write};
    kept_commit(table, index, KEPT_ATTACHMENT_OPEN);
    attachment->kept = index + 1;
    return true;
}

/* Before its holder is closed, which may take several turns. */
void session_forget_attachment(const struct broker_session *session,
                               struct attachment *attachment) {
    if (attachment->kept)
        kept_free(sessions_attachments(session->broker), attachment->kept - 1);
    attachment->kept = 0;
}

/* The record goes first: descriptors without a record are dropped at the next start, but a record
 * without descriptors would be a session that nobody can watch. */
void session_forget(struct broker_session *session) {
    if (!session->kept)
        return;
    kept_free(sessions_table(session->broker), session->kept - 1);
    sessions_drop_keys(session->broker, session->kept - 1);
    session->kept = 0;
}

/* ---- after a restart ---- */

/* NULL: no memory. Then its record stays, and what it holds ends. */
static struct broker_session *sessions_recall_one(struct broker *broker, uint32_t index) {
    const struct kept_session *record = kept_record(sessions_table(broker), index);
    const struct broker_credentials credentials = {
        .uid = record->uid, .gid = record->gid, .pid = record->pid};
    struct broker_session *session =
        session_new_recalled(broker, record->id, &credentials, record->opened_ns);
    if (!session)
        return NULL;
    session->kept = index + 1;
    session->client_id = record->client_id;
    memcpy(session->token, record->token, sizeof session->token);
    memcpy(session->client_name, record->client_name, sizeof session->client_name);
    session->client_name[sizeof session->client_name - 1] = '\0';
    session_rename(session);
    return session;
}

/* The slots of closed handles in between stay free, as they were. */
static bool sessions_make_room(struct broker_session *session, uint32_t handle) {
    if (handle <= session->attachment_count)
        return true;
    struct attachment *grown = realloc(session->attachments, handle * sizeof *grown);
    if (!grown)
        return false;
    memset(grown + session->attachment_count, 0,
           (handle - session->attachment_count) * sizeof *grown);
    session->attachments = grown;
    session->attachment_count = handle;
    return true;
}

/* What the record says; whether the store agrees is seen later. False: there is no such session or
 * store. */
static bool sessions_recall_attachment(struct broker *broker,
                                       struct broker_session *const *sessions, uint32_t index) {
    const struct kept_attachment *record = kept_record(sessions_attachments(broker), index);
    struct broker_session *session = record->session < kept_table_capacity(sessions_table(broker))
                                         ? sessions[record->session]
                                         : NULL;
    struct space *space = record->slot < SPACES_MAX && broker->spaces[record->slot].used
                              ? &broker->spaces[record->slot]
                              : NULL;
    if (!session || session->owner.id != record->session_id)
        return false;
    if (!space || !record->handle || record->handle > RECALLED_HANDLES_MAX ||
        !sessions_make_room(session, record->handle)) {
        session->attachments_lost = true;
        return false;
    }
    session->attachments[record->handle - 1] = (struct attachment){
        .space = space, .holder = record->holder, .write = record->write, .kept = index + 1};
    return true;
}

static struct attachment *sessions_recall_find(struct broker *broker, const struct space *space,
                                               uint32_t holder, uint64_t owner,
                                               struct broker_session **session_out) {
    TAILQ_FOREACH (*session_out, &broker->sessions, link) {
        struct broker_session *session = *session_out;
        for (uint32_t i = 0; session->owner.id == owner && i < session->attachment_count; i++)
            if (session->attachments[i].space == space && session->attachments[i].holder == holder)
                return &session->attachments[i];
    }
    return NULL;
}

/* Holders of other brokers that read here, of clients that do not come back, and of handles that
 * were being closed are nobody's: they end. Numbers of owners that a store knows are not used
 * again. */
static void sessions_recall_holders(struct broker *broker, struct space *space) {
    uint32_t cursor = 0, holder;
    uint64_t owner;
    while (store_holder_next(space->store, &cursor, &holder, &owner)) {
        struct broker_session *session;
        struct attachment *attachment =
            sessions_recall_find(broker, space, holder, owner, &session);
        broker->next_owner = owner > broker->next_owner ? owner : broker->next_owner;
        if (!attachment) {
            store_holder_close(space->store, holder, broker->now_ns);
            continue;
        }
        store_holder_adopt(space->store, holder, owner, session->account);
        account_add(session->account, CHARGE_HANDLES, 1);
        attachment->claimed = true;
    }
}

/* A record without its holder, which is to say that the keeper has lost a store. Then the session
 * is not what its client takes it for. It ends, and the client gets a new one. */
static void sessions_recall_check(struct broker_session *session) {
    bool lost = session->attachments_lost;
    for (uint32_t i = 0; i < session->attachment_count; i++) {
        struct attachment *attachment = &session->attachments[i];
        if (!attachment->space || attachment->claimed)
            continue;
        session_forget_attachment(session, attachment);
        attachment->space = NULL;
        lost = true;
    }
    if (!lost)
        return;
    log_warning("%s: ended: a store that it had open is not there any more", session->name);
    broker_session_close(session, session->broker->now_ns);
}

/* What was handed to the keeper for a session that was never committed, or has ended. */
static void sessions_drop_strays(struct broker *broker) {
    const struct kept_table *table = sessions_table(broker);
    size_t cursor = 0;
    const char *name;
    while ((name = keep_next(broker->options.keep, &cursor))) {
        unsigned record;
        char kind;
        if (sscanf(name, "%c.%u", &kind, &record) == 2 && (kind == 'p' || kind == 'l') &&
            (record >= kept_table_capacity(table) || !kept_word(table, record)))
            keep_drop(broker->options.keep, name);
    }
}

/* A table from the number of a record to the session that was made of it, for as long as this
 * lasts. */
int sessions_recall(struct broker *broker) {
    uint32_t capacity = kept_table_capacity(sessions_table(broker)), cursor = 0, index;
    struct broker_session **sessions = calloc(capacity, sizeof *sessions);
    if (!sessions)
        return -ENOMEM;
    while (kept_walk(sessions_table(broker), &cursor, &index))
        sessions[index] = sessions_recall_one(broker, index);
    cursor = 0;
    while (kept_walk(sessions_attachments(broker), &cursor, &index))
        if (!sessions_recall_attachment(broker, sessions, index))
            kept_free(sessions_attachments(broker), index);
    free(sessions);
    for (uint32_t i = 0; i < broker->space_end; i++)
        if (broker->spaces[i].used)
            sessions_recall_holders(broker, &broker->spaces[i]);
    struct broker_session *session, *next;
    for (session = TAILQ_FIRST(&broker->sessions); session; session = next) {
        next = TAILQ_NEXT(session, link);
        sessions_recall_check(session);
    }
    sessions_drop_strays(broker);
    if (broker->session_count)
        log_info("node %s: %u sessions wait for their clients", broker->config->node,
                 broker->session_count);
    return 0;
}

/* The next of those that wait: whoever watches processes takes it over with its descriptors. */
struct broker_session *broker_session_recalled(struct broker *broker,
                                               struct broker_credentials *credentials,
                                               int *pidfd_out, int *lock_fd_out) {
    struct broker_session *session;
    char key[KEEP_NAME_BYTES_MAX + 1];
    TAILQ_FOREACH (session, &broker->sessions, link)
        if (session->recalled)
            break;
    if (!session)
        return NULL;
    session->recalled = false;
    *credentials = session->credentials;
    keep_name(key, 'p', session->kept - 1);
    *pidfd_out = keep_take(broker->options.keep, key);
    keep_name(key, 'l', session->kept - 1);
    *lock_fd_out = keep_take(broker->options.keep, key);
    return session;
}
