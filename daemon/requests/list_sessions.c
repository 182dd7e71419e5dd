/* SPDX-License-Identifier: Apache-2.0
 *
 * Who is connected and what is charged to each: session by session, or user by user and node by
 * node. Paged. Who is no admin sees his own alone.
 *
 * Nothing here waits for anything: the answer is put together from the accounts (store/charges.h),
 * which are up to date at any moment, because every limit is checked against them.
 */
#include <stdlib.h>
#include <string.h>

#include "proto/frame.h"
#include "requests/kinds.h"

#define PAGE_ITEMS_MAX 256u

/* The same for sessions, users and nodes: charges are kept alike for all of them. */
static void sessions_fill_holdings(const struct account *account, Fb__Holdings *to) {
    const uint64_t *used = account->used;
    fb__holdings__init(to);
    to->handles = used[CHARGE_HANDLES];
    to->leases = used[CHARGE_LEASES];
    to->reservations = used[CHARGE_RESERVATIONS];
    to->reserved_bytes = used[CHARGE_RESERVED_BYTES];
    to->queued_bytes = used[CHARGE_QUEUED_BYTES];
    to->kept_bytes = used[CHARGE_KEPT_BYTES];
    to->requests = used[CHARGE_REQUESTS];
    to->waits = used[CHARGE_WAITS];
    to->unread_bytes = used[CHARGE_UNREAD_BYTES];
    to->unread_descriptors = used[CHARGE_UNREAD_DESCRIPTORS];
    to->pending_ends = used[CHARGE_PENDING_ENDS];
}

/* A store that is opened under two handles counts once. */
static uint32_t sessions_count_stores(const struct broker_session *session) {
    bool seen[SPACES_MAX] = {false};
    uint32_t count = 0;
    for (uint32_t i = 0; i < session->attachment_count; i++) {
        const struct space *space = session->attachments[i].space;
        count += space && !seen[space->index];
        if (space)
            seen[space->index] = true;
    }
    return count;
}

/* The time of the broker is that of its turn: a session that has opened within the turn is as young
 * as can be. */
static uint64_t sessions_ms_since(const struct broker *broker, uint64_t then_ns) {
    return broker->now_ns > then_ns ? (broker->now_ns - then_ns) / NS_PER_MS : 0;
}

/* Sessions or owners, whichever was asked for, and what the messages point to. */
struct session_page {
    Fb__SessionInfo infos[PAGE_ITEMS_MAX], *pointers[PAGE_ITEMS_MAX];
    Fb__OwnerInfo owners[PAGE_ITEMS_MAX], *owner_pointers[PAGE_ITEMS_MAX];
    Fb__Holdings holds[PAGE_ITEMS_MAX];
    char names[PAGE_ITEMS_MAX][LAYOUT_NAME_BYTES_MAX + 16];
    size_t count;
};

/* The name is what the client called itself; pid and uid come from the kernel. */
static void sessions_add(struct session_page *page, const struct broker_session *session) {
    const struct broker *broker = session->broker;
    Fb__SessionInfo *info = &page->infos[page->count];
    fb__session_info__init(info);
    info->session_id = session->owner.id;
    info->pid = (uint32_t)session->credentials.pid;
    info->uid = session->credentials.uid;
    info->name = (char *)session->client_name;
    info->admin = session->admin;
    info->age_ms = sessions_ms_since(broker, session->opened_ns);
    info->idle_ms = sessions_ms_since(broker, session->last_ns);
    if (session->parked_ns) /* 0 says that it is connected */
        info->parked_ms = 1 + sessions_ms_since(broker, session->parked_ns);
    info->stores = sessions_count_stores(session);
    info->holds = &page->holds[page->count];
    sessions_fill_holdings(session->account, info->holds);
    page->pointers[page->count++] = info;
}

/* cursor: the last session shown. Sessions are in the order of their numbers, and numbers are never
 * used again: a page that goes on behind the last number shown neither repeats nor leaves out
 * anybody who is connected all the while. */
static uint64_t sessions_fill(const struct broker_session *asker, uint64_t cursor, uint32_t limit,
                              struct session_page *page) {
    const struct broker_session *session;
    TAILQ_FOREACH (session, &asker->broker->sessions, link) {
        bool shown = asker->admin || session->credentials.uid == asker->credentials.uid;
        if (session->owner.id <= cursor || !shown)
            continue;
        if (page->count == limit)
            return page->infos[limit - 1].session_id;
        sessions_add(page, session);
    }
    return 0;
}

/* An owner is a user of this machine or another node: what all his sessions, or all its
 * connections, are charged for together. */
static void sessions_add_owner(struct session_page *page, const struct account *account) {
    bool is_node = account->kind == ACCOUNT_PEER;
    Fb__OwnerInfo *info = &page->owners[page->count];
    fb__owner_info__init(info);
    account_name(account, page->names[page->count], sizeof page->names[0]);
    info->name = page->names[page->count];
    info->is_node = is_node;
    info->uid = (uint32_t)account->number;
    info->sessions = account->used[is_node ? CHARGE_CONNECTIONS : CHARGE_SESSIONS];
    info->stores = account->used[CHARGE_STORES];
    info->holds = &page->holds[page->count];
    sessions_fill_holdings(account, info->holds);
    page->owner_pointers[page->count++] = info;
}

/* cursor: how many have been shown. Owners have no number of their own. One that comes or goes
 * between two pages may shift the others by one, and be shown twice or not at all: this is for
 * people who look. */
static uint64_t sessions_fill_owners(const struct broker_session *asker, uint64_t cursor,
                                     uint32_t limit, struct session_page *page) {
    const struct held_account *held;
    uint64_t at = 0;
    TAILQ_FOREACH (held, &asker->broker->accounts, link) {
        bool shown = asker->admin || &held->account == asker->account->parent;
        if (at++ < cursor || !shown)
            continue;
        if (page->count == limit)
            return at - 1;
        sessions_add_owner(page, &held->account);
    }
    return 0;
}

/* A page is too large for the stack of the loop thread, some 100 KiB, and so malloc'ed. */
static void list_sessions(struct request *request) {
    struct broker_session *session = request->session;
    const Fb__Sessions *asked = request->message->sessions;
    uint32_t limit = asked->limit && asked->limit < PAGE_ITEMS_MAX ? asked->limit : PAGE_ITEMS_MAX;
    struct session_page *page = malloc(sizeof *page);
    if (!page) {
        request_reply(request, FB__STATUS__UNAVAILABLE, "the broker is out of memory");
        return;
    }
    page->count = 0;
    Fb__SessionsReply result = FB__SESSIONS_REPLY__INIT;
    if (asked->by_owner)
        result.cursor = sessions_fill_owners(session, asked->cursor, limit, page);
    else
        result.cursor = sessions_fill(session, asked->cursor, limit, page);
    result.n_owners = asked->by_owner ? page->count : 0;
    result.owners = page->owner_pointers;
    result.n_sessions = asked->by_owner ? 0 : page->count;
    result.sessions = page->pointers;
    Fb__ClientReply reply = FB__CLIENT_REPLY__INIT;
    reply.result_case = FB__CLIENT_REPLY__RESULT_SESSIONS;
    reply.sessions = &result;
    request_send(request, &reply, -1);
    free(page);
}

const struct request_kind sessions_kind = {.begin = list_sessions};
