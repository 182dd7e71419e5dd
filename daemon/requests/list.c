/* SPDX-License-Identifier: Apache-2.0
 *
 * Inventories of one node: samples (of another one too, by asking it), leases, stores. Paged, so
 * that a large store never makes a large answer or a long turn of the loop.
 *
 * A page is a snapshot of the part of a store that it goes through, not of the store: samples that
 * come and go between two pages may be missed, and none that stays is. The cursor of a page says
 * where the next one begins; it holds no memory of the broker, so that a client may stop after any
 * page.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/knowledge.h"
#include "proto/frame.h"
#include "requests/kinds.h"

#define PAGE_ITEMS_MAX 256u
#define PERSON_BYTES   80u /* of a name, where each of 256 stores may tell two */
#define STEPS_PER_TURN 64u /* of up to 4096 slots each */

/* What the session may list: the store that it has opened under the handle, and an admin all of a
 * name. NULL: the request has been answered. */
static const struct space *list_begin(const struct request *request, uint32_t handle,
                                      const char *name, uint64_t cursor) {
    struct broker_session *session = request->session;
    const struct attachment *attachment = session_attachment(session, handle);
    const char *known = attachment ? attachment->space->name : name;
    const struct space *space = session->admin ? list_space(session->broker, known, cursor) : NULL;
    return space ? space : request_space(request, handle, name);
}

/* ---- samples ---- */

/* An admin sees the dropped stores of that name too, behind the one that is there: a lease that
 * still keeps one of them is what he may be looking for. */
static void list_own(const struct request *request, const struct space *space,
                     const Fb__List *asked) {
    const struct broker_session *session = request->session;
    Fb__ListReply *page = list_here(session->broker, space, asked, !session->admin);
    if (!page) {
        request_reply(request, FB__STATUS__UNAVAILABLE, "the broker is out of memory");
        return;
    }
    Fb__ClientReply reply = FB__CLIENT_REPLY__INIT;
    reply.result_case = FB__CLIENT_REPLY__RESULT_LIST;
    reply.list = page;
    request_send(request, &reply, -1);
    fb__list_reply__free_unpacked(page, NULL);
}

/* ---- another node's samples ---- */

/* The call has one item and has been begun before the peer is asked: it is answered while the
 * peer's page is still there. */
struct page_item {
    struct item item;
    Fb__ListReply *page;
};

/* `page` is the peer's own message, valid while list_on_peer_page() runs: the answer is sent from
 * there. Without an answer of that node there is only the status and the sentence. */
static void list_answer(const struct call *call) {
    const struct item *item = call_item(call, 0);
    Fb__ClientReply reply = FB__CLIENT_REPLY__INIT;
    reply.status = item->status;
    reply.error = item_error(item);
    if (item->status == FB__STATUS__OK) {
        reply.result_case = FB__CLIENT_REPLY__RESULT_LIST;
        reply.list = container_of(item, struct page_item, item)->page;
    }
    call_send(call, &reply);
}

/* The page is sent on as it came. */
static void list_on_peer_page(void *context, const Fb__PeerReply *reply, const uint8_t *payload,
                              size_t payload_bytes, const char *why) {
    (void)payload, (void)payload_bytes;
    struct item *item = ask_take(context);
    if (!item)
        return;
    if (!reply || reply->result_case != FB__PEER_REPLY__RESULT_LIST) {
        item_done(item, reply && reply->status ? reply->status : FB__STATUS__UNAVAILABLE,
                  "node %s: %s", item->ref.home, ask_failure(reply, why));
        return;
    }
    container_of(item, struct page_item, item)->page = reply->list;
    item_done(item, FB__STATUS__OK, NULL);
}

/* The question is passed on as it came, but for the handle, which means something in this session
 * only: the other node is told the name of the store. */
static void list_ask_page(struct item *item, Fb__List *asked, const char *store) {
    struct broker *broker = item->call->broker;
    struct peer *peer = peers_find(broker->peers, asked->node);
    Fb__List list = *asked;
    list.handle = 0;
    list.store = (char *)store;
    Fb__PeerList peer_list = FB__PEER_LIST__INIT;
    peer_list.list = &list;
    Fb__PeerRequest request = FB__PEER_REQUEST__INIT;
    request.op_case = FB__PEER_REQUEST__OP_LIST;
    request.list = &peer_list;
    snprintf(item->ref.home, sizeof item->ref.home, "%.*s", (int)sizeof item->ref.home - 1,
             asked->node);
    item_set_deadline(item, broker->now_ns + item->call->patience_ns);
    if (peer && !ask_send(ask_new(item, peer), &request, list_on_peer_page))
        return;
    item_done(item, FB__STATUS__UNAVAILABLE, "node %s is no peer of node %s, or cannot be asked",
              item->ref.home, broker->config->node);
}

/* An admin may name a store that this node does not have. */
static void list_there(struct request *request, Fb__List *asked) {
    struct broker_session *session = request->session;
    const struct attachment *attachment = session_attachment(session, asked->handle);
    const char *store = attachment ? attachment->space->name : asked->store;
    if (!attachment && (!session->admin || layout_check_name(store))) {
        request_reply(request, FB__STATUS__DENIED,
                      "open the store first (only admins may look into one that they have not "
                      "opened)");
        return;
    }
    struct call *call = call_new(request, NULL, 1);
    if (!call)
        return;
    call->patience_ns = asked->deadline_ms ? asked->deadline_ms * NS_PER_MS : ROUND_TRIP_LIMIT_NS;
    struct item *item = call_item(call, 0);
    call_begun(call);
    list_ask_page(item, asked, store);
}

/* Another node is asked for its own samples; it never asks on. */
static void list_samples(struct request *request) {
    struct broker_session *session = request->session;
    Fb__List *asked = request->message->list;
    if (*asked->node && strcmp(asked->node, session->broker->config->node)) {
        list_there(request, asked);
        return;
    }
    const struct space *space = list_begin(request, asked->handle, asked->store, asked->cursor);
    if (space)
        list_own(request, space, asked);
}

/* ---- leases ---- */

/* What a page of leases points to. Some slots of a turn's walk are empty, so that a page may come
 * out short, or empty, and still have a cursor to go on from. */
struct lease_page {
    Fb__LeaseInfo infos[PAGE_ITEMS_MAX], *pointers[PAGE_ITEMS_MAX];
    struct store_lease_info from[PAGE_ITEMS_MAX];
    char owners[PAGE_ITEMS_MAX][160];
    size_t count;
};

/* Steps without a lease are counted, because a store with few leases may have millions of empty
 * places. */
static uint64_t list_fill_leases(const struct broker *broker, const struct space *space,
                                 const Fb__Leases *asked, struct lease_page *page) {
    uint64_t cursor = asked->cursor & LIST_CURSOR_MASK;
    uint32_t limit = asked->limit && asked->limit < PAGE_ITEMS_MAX ? asked->limit : PAGE_ITEMS_MAX;
    for (uint32_t steps = 0; page->count < limit && steps < STEPS_PER_TURN;) {
        struct store_lease_info *from = &page->from[page->count];
        if (!store_lease_next(space->store, &cursor, from))
            return 0;
        if (!from->generation) {
            steps++;
            continue;
        }
        Fb__LeaseInfo *info = &page->infos[page->count];
        fb__lease_info__init(info);
        info->session_id = from->owner;
        info->holder = (char *)broker_owner_name(broker, from->owner, page->owners[page->count]);
        info->of_session = broker_owner_uid(broker, from->owner, &info->uid);
        info->age_ms = (broker->now_ns - from->since_ns) / NS_PER_MS;
        info->store = (char *)space->name;
        info->sample_id = from->sample_id;
        info->generation = from->generation;
        info->dropped = space->dropped;
        page->pointers[page->count++] = info;
    }
    return cursor;
}

/* A page of them is about 100 KiB, too much for the stack of the loop's thread.
 *
 * Leases of one store, by whoever holds them: sessions and other brokers. For admins only, as it
 * names other people's sessions. */
static void list_leases(struct request *request) {
    struct broker_session *session = request->session;
    const Fb__Leases *asked = request->message->leases;
    const struct space *space = list_begin(request, 0, asked->store, asked->cursor);
    if (!space)
        return;
    struct lease_page *page = malloc(sizeof *page);
    if (!page) {
        request_reply(request, FB__STATUS__UNAVAILABLE, "the broker is out of memory");
        return;
    }
    page->count = 0;
    Fb__LeasesReply result = FB__LEASES_REPLY__INIT;
    result.cursor = list_onward(session->broker, space,
                                list_fill_leases(session->broker, space, asked, page), false);
    result.n_leases = page->count;
    result.leases = page->pointers;
    Fb__ClientReply reply = FB__CLIENT_REPLY__INIT;
    reply.result_case = FB__CLIENT_REPLY__RESULT_LEASES;
    reply.leases = &result;
    request_send(request, &reply, -1);
    free(page);
}

/* ---- stores ---- */

/* Whoever holds or waits for room, as far as that is told of each store. */
struct store_people {
    Fb__LeaseInfo reserver, first;
    char reserver_name[PERSON_BYTES], first_name[PERSON_BYTES];
};

/* A reserver or waiter is told with the message that tells of leases: who, and since when. */
static Fb__LeaseInfo *list_fill_person(const struct broker *broker, uint64_t owner,
                                       uint64_t since_ns, char name[PERSON_BYTES],
                                       Fb__LeaseInfo *info) {
    char whole[160];
    fb__lease_info__init(info);
    snprintf(name, PERSON_BYTES, "%s", broker_owner_name(broker, owner, whole));
    info->session_id = owner;
    info->holder = name;
    info->age_ms = broker->now_ns > since_ns ? (broker->now_ns - since_ns) / NS_PER_MS : 0;
    return info;
}

/* Who keeps the room, and who is first in line for it: the two names that explain why a put waits.
 */
static void list_fill_room(const struct broker *broker, const struct space *space,
                           struct store_people *people, Fb__StoreInfo *info) {
    struct store_room room;
    store_room(space->store, &room);
    info->reserved_bytes = room.reserved_bytes;
    info->retired_bytes = room.retired_bytes;
    if (room.has_reserver)
        info->reserver = list_fill_person(broker, room.reserver, room.reserver_since_ns,
                                          people->reserver_name, &people->reserver);
    if (room.has_first)
        info->first_waiter = list_fill_person(broker, room.first, room.first_since_ns,
                                              people->first_name, &people->first);
    info->first_bytes = room.first_bytes;
}

/* Numbers are taken from the store each time: nothing here is counted twice. */
static void list_fill_store(struct space *space, Fb__StoreInfo *info) {
    struct store_totals totals;
    store_totals(space->store, &totals);
    fb__store_info__init(info);
    info->store = space->name;
    info->settings = &space->settings;
    info->resident_bytes = totals.resident_bytes;
    info->landing_used_bytes = totals.landing_used_bytes;
    info->planned = totals.planned + totals.sealed;
    info->resident = totals.resident;
    info->retired = totals.retired;
    info->landing = totals.landing;
    info->leases = totals.leases;
    info->reservations = totals.reservations;
    info->put_waiters = totals.put_waiters;
    info->get_waiters = totals.get_waiters;
    info->arena_bytes = space->arena.bytes;
    info->prefaulted_bytes = space->prefaulted_bytes;
    info->hugepages = space->arena.hugepages;
    info->secret = space->has_secret;
    info->puts = totals.puts;
    info->gets = totals.gets;
    info->frees = totals.frees;
    info->free_largest_bytes = totals.largest_free_bytes;
    info->holders = totals.holders;
    info->max_holders = totals.max_holders;
    info->max_leases = totals.max_leases;
    info->max_waiters = totals.max_waiters;
    info->dropped = space->dropped;
}

/* The first that was dropped of a name that no other store has now. */
static bool list_stands_for_dropped(struct broker *broker, const struct space *space) {
    return !space_find(broker, space->name) && list_space(broker, space->name, 0) == space;
}

/* All in one answer: there are 256 stores at most. No right is needed, and names are no secret:
 * whoever may connect has to find out what there is to open. */
static void list_stores(struct request *request) {
    struct broker_session *session = request->session;
    struct broker *broker = session->broker;
    bool dropped = request->message->stores->dropped;
    Fb__StoreInfo infos[SPACES_MAX], *pointers[SPACES_MAX];
    struct store_people people[SPACES_MAX];
    Fb__StoresReply result = FB__STORES_REPLY__INIT;
    result.stores = pointers;
    for (uint32_t i = 0; i < broker->space_end; i++) {
        struct space *space = &broker->spaces[i];
        if (!space->used ||
            (space->dropped && !(dropped && list_stands_for_dropped(broker, space))))
            continue;
        list_fill_store(space, &infos[result.n_stores]);
        list_fill_room(session->broker, space, &people[result.n_stores], &infos[result.n_stores]);
        pointers[result.n_stores] = &infos[result.n_stores];
        result.n_stores++;
    }
    Fb__ClientReply reply = FB__CLIENT_REPLY__INIT;
    reply.result_case = FB__CLIENT_REPLY__RESULT_STORES;
    reply.stores = &result;
    request_send(request, &reply, -1);
}

const struct request_kind list_kind = {
    .begin = list_samples,
    .item_bytes = sizeof(struct page_item),
    .answer = list_answer,
};
const struct request_kind leases_kind = {.begin = list_leases};
const struct request_kind stores_kind = {.begin = list_stores};
