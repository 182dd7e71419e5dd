/* SPDX-License-Identifier: Apache-2.0
 *
 * What the broker granted to a call that had given up by then.
 *
 *    a call gives up --> abandoned --its reply comes--> what it grants is told back
 * (fc_link_tell())
 *
 * The list belongs to the link and goes with it: a handle that has lost its connection comes back
 * and says what it holds (session.c), and the broker takes back the rest. Nothing here waits.
 */
#include "late.h"

#include <stdlib.h>

/* Leases that came too late are given back as returned: nobody has seen the bytes, so the read
 * does not count. */
static void late_release(struct fc_link *link, uint32_t handle, const Fb__GetReply *reply) {
    Fb__ReleaseItem items[FRAME_BATCH_ITEMS_MAX], *pointers[FRAME_BATCH_ITEMS_MAX];
    Fb__Release release = FB__RELEASE__INIT;
    release.handle = handle;
    release.items = pointers;
    for (size_t i = 0; i < reply->n_items && release.n_items < FRAME_BATCH_ITEMS_MAX; i++) {
        if (reply->items[i]->status != FB__STATUS__OK)
            continue;
        fc_held_drop(&link->hub->held, reply->items[i]->lease_hi, reply->items[i]->lease_lo);
        Fb__ReleaseItem *item = pointers[release.n_items] = &items[release.n_items];
        fb__release_item__init(item);
        item->lease_hi = reply->items[i]->lease_hi;
        item->lease_lo = reply->items[i]->lease_lo;
        release.n_items++;
    }
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_RELEASE;
    request.release = &release;
    if (release.n_items)
        fc_link_tell(link, &request);
}

/* Rooms that came too late. Nothing was written to them, and nothing will be. */
static void late_cancel(struct fc_link *link, uint32_t handle, const Fb__PutReply *reply) {
    uint64_t reservations[FRAME_BATCH_ITEMS_MAX];
    Fb__Cancel cancel = FB__CANCEL__INIT;
    cancel.handle = handle;
    cancel.reservations = reservations;
    for (size_t i = 0; i < reply->n_items && cancel.n_reservations < FRAME_BATCH_ITEMS_MAX; i++)
        if (reply->items[i]->reservation) {
            fc_held_drop(&link->hub->held, 0, reply->items[i]->reservation);
            reservations[cancel.n_reservations++] = reply->items[i]->reservation;
        }
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_CANCEL;
    request.cancel = &cancel;
    if (cancel.n_reservations)
        fc_link_tell(link, &request);
}

/* A store that was opened too late. Its descriptor has come with the reply and is closed by the
 * link; its handle at the broker counts against max_handles_per_session until it is closed here. */
static void late_close(struct fc_link *link, const Fb__StoreOpened *opened) {
    Fb__StoreClose close_store = FB__STORE_CLOSE__INIT;
    close_store.handle = opened->handle;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_STORE_CLOSE;
    request.store_close = &close_store;
    fc_link_tell(link, &request);
}

void fc_late_hand_back(struct fc_link *link, uint32_t handle, const Fb__ClientReply *reply) {
    switch (reply->result_case) {
    case FB__CLIENT_REPLY__RESULT_GET:
        late_release(link, handle, reply->get);
        break;
    case FB__CLIENT_REPLY__RESULT_PUT:
        late_cancel(link, handle, reply->put);
        break;
    case FB__CLIENT_REPLY__RESULT_STORE_OPENED:
        late_close(link, reply->store_opened);
        break;
    default:
        break;
    }
}

/* Requests whose answers give something that has to be given back. The others change nothing that
 * outlives their answer, or, as a commit does, something that the caller wanted. */
bool fc_late_grants(const Fb__ClientRequest *request, uint32_t *handle_out) {
    switch (request->op_case) {
    case FB__CLIENT_REQUEST__OP_GET:
        *handle_out = request->get->handle;
        return true;
    case FB__CLIENT_REQUEST__OP_RESERVE:
        *handle_out = request->reserve->handle;
        return true;
    case FB__CLIENT_REQUEST__OP_STORE_OPEN:
    case FB__CLIENT_REQUEST__OP_STORE_PROVE:
        *handle_out = 0;
        return true;
    default:
        return false;
    }
}

uint32_t fc_late_count(const Fb__ClientRequest *request) {
    if (request->op_case == FB__CLIENT_REQUEST__OP_GET)
        return (uint32_t)request->get->n_items;
    return request->op_case == FB__CLIENT_REQUEST__OP_RESERVE ? (uint32_t)request->reserve->n_items
                                                              : 0;
}

/* The entry was allocated before the request was sent: when a call gives up there may be no
 * memory. */
void fc_late_abandon(struct fc_link *link, struct fc_abandoned *entry) {
    entry->next = link->abandoned;
    link->abandoned = entry;
}

/* An id that is not on the list was answered before, or never asked. A broker that sends such a
 * reply is broken, but not dangerous: nothing of it is used. */
bool fc_late_reply(struct fc_link *link, uint32_t request_id, const Fb__ClientReply *reply,
                   uint32_t *items_out) {
    struct fc_abandoned **at = &link->abandoned;
    while (*at && (*at)->request_id != request_id)
        at = &(*at)->next;
    struct fc_abandoned *entry = *at;
    if (!entry)
        return false;
    *at = entry->next;
    *items_out = entry->items;
    link->arenas_due -= entry->arena_due;
    if (reply)
        fc_late_hand_back(link, entry->handle, reply);
    free(entry);
    return true;
}
