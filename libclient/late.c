/* SPDX-License-Identifier: Apache-2.0
 *
 * What the broker must still hear although nobody waits for an answer: releases, cancels and
 * closes that the socket did not take at once, and whatever it granted to a call that had given up
 * by then.
 *
 *    a call gives up --> abandoned --its reply comes--> what it grants is told back, or kept as
 * untold fc_link_tell()  --> sent, or untold --the socket has room--> sent
 *
 * Both lists belong to the link and go with it: when a connection ends, the broker takes back all
 * that its session held. Nothing here waits, and only the end of memory loses anything. A frame
 * that the socket does not take is kept, in order, and goes before the next request or with the
 * flusher's tick. The order matters: a StoreClose must not overtake the release of a view of that
 * store.
 */
#include "late.h"

#include <errno.h>
#include <stdlib.h>

#include "socket.h"

struct fc_untold {
    struct fc_untold *next;
    size_t bytes;
    uint8_t frame[];
};

/* ---- what must still be said ---- */

/* Packed at once, as the request borrows memory of its caller. Without memory to keep it in, what
 * it would have ended ends with the session. */
static void late_keep(struct fc_link *link, const Fb__ClientRequest *request) {
    size_t body_bytes = fb__client_request__get_packed_size(request);
    struct fc_untold *untold = malloc(sizeof *untold + FRAME_HEADER_BYTES + body_bytes);
    struct fc_untold **end = &link->untold;
    if (!untold)
        return;
    struct frame_header header = {
        .version = FRAME_VERSION, .type = FRAME_NOTE, .body_bytes = (uint32_t)body_bytes};
    untold->next = NULL;
    untold->bytes = FRAME_HEADER_BYTES + body_bytes;
    frame_encode(&header, untold->frame);
    fb__client_request__pack(request, untold->frame + FRAME_HEADER_BYTES);
    while (*end)
        end = &(*end)->next;
    *end = untold;
}

/* What is kept goes first. If that does not get through, this one is kept behind it. */
void fc_link_tell(struct fc_link *link, const Fb__ClientRequest *request) {
    if (link->broken)
        return;
    if (fc_link_tell_kept(link) || fc_link_note(link, request))
        late_keep(link, request);
}

int fc_link_tell_kept(struct fc_link *link) {
    while (link->untold && !link->broken) {
        struct fc_untold *untold = link->untold;
        const struct iovec part = {.iov_base = untold->frame, .iov_len = untold->bytes};
        int rc = fc_socket_send(link->socket.fd, &part, 1, 0);
        if (rc && !fc_socket_is_lost(-rc))
            return -EAGAIN;
        if (rc)
            fc_link_break(link, "the broker closed it");
        link->untold = untold->next;
        free(untold);
    }
    return 0;
}

/* ---- what came too late ---- */

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
        if (reply->items[i]->reservation)
            reservations[cancel.n_reservations++] = reply->items[i]->reservation;
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

/* The entry was allocated before the request was sent: when a call gives up there may be no
 * memory. */
void fc_late_abandon(struct fc_link *link, struct fc_abandoned *entry) {
    entry->next = link->abandoned;
    link->abandoned = entry;
}

/* An id that is not on the list was answered before, or never asked. A broker that sends such a
 * reply is broken, but not dangerous: nothing of it is used. */
void fc_late_reply(struct fc_link *link, uint32_t request_id, const Fb__ClientReply *reply) {
    struct fc_abandoned **at = &link->abandoned;
    while (*at && (*at)->request_id != request_id)
        at = &(*at)->next;
    struct fc_abandoned *entry = *at;
    if (!entry)
        return;
    *at = entry->next;
    link->arenas_due -= entry->arena_due;
    fc_late_hand_back(link, entry->handle, reply);
    free(entry);
}

void fc_late_deinit(struct fc_link *link) {
    while (link->abandoned) {
        struct fc_abandoned *entry = link->abandoned;
        link->abandoned = entry->next;
        free(entry);
    }
    while (link->untold) {
        struct fc_untold *untold = link->untold;
        link->untold = untold->next;
        free(untold);
    }
}
