/* SPDX-License-Identifier: Apache-2.0
 *
 * Gc: a store is freed, now, of the samples that are older than the request says, or than the
 * store's own max_hold where it says nothing. (The store's own gc by timer is exchange's.)
 *
 *   waiting in requests->gc_asked -> walking, a part in each turn -> done: answered with a count
 *
 * A gc is a call of one item. Stores are walked one at a time, first asked first walked, because a
 * store keeps one place for a walk: two walks at once would each leave out what the other has
 * passed. The store counts the item as a use, so that a store that is dropped meanwhile is freed
 * after it.
 */
#include "requests/kinds.h"

#define GC_SLOTS_PER_TURN 4096u

struct gc_item {
    struct item item;
    TAILQ_ENTRY(gc_item) link; /* in requests->gc_asked until it is done */
    bool begun;
    uint64_t hold_ns, freed;
};

/* The store is used by the item: dropped meanwhile, it is freed only after it. */
static void gc_begin(struct request *request) {
    struct broker *broker = request->session->broker;
    const Fb__Gc *asked = request->message->gc;
    const struct attachment *attachment = session_attachment(request->session, asked->handle);
    if (attachment && !attachment->write) {
        request_reply(request, FB__STATUS__DENIED,
                      "this session opened the store read-only: it may not free samples");
        return;
    }
    struct space *space = request_space(request, asked->handle, asked->store);
    struct call *call = space ? call_new(request, space, 1) : NULL;
    if (!call)
        return;
    struct gc_item *gc = container_of(call_item(call, 0), struct gc_item, item);
    space->uses++;
    gc->hold_ns =
        (asked->max_hold_ms ? asked->max_hold_ms : space->settings.max_hold_ms) * NS_PER_MS;
    TAILQ_INSERT_TAIL(&broker->requests->gc_asked, gc, link);
    call_begun(call);
}

/* How many samples were freed. */
static void gc_answer(const struct call *call) {
    Fb__ItemsReply result = FB__ITEMS_REPLY__INIT;
    const struct item *item = call_item(call, 0);
    result.count = container_of(item, struct gc_item, item)->freed;
    Fb__ClientReply reply = FB__CLIENT_REPLY__INIT;
    reply.status = item->status;
    reply.error = item_error(item);
    if (item->status == FB__STATUS__OK) {
        reply.result_case = FB__CLIENT_REPLY__RESULT_ITEMS;
        reply.items = &result;
    }
    call_send(call, &reply);
}

/* Also when the session closes half-way: the next gc begins at the start of its store. */
static void gc_leave(struct item *item) {
    TAILQ_REMOVE(&item->call->broker->requests->gc_asked, container_of(item, struct gc_item, item),
                 link);
    item->call->space->uses--;
}

const struct request_kind gc_kind = {
    .begin = gc_begin,
    .item_bytes = sizeof(struct gc_item),
    .answer = gc_answer,
    .leave = gc_leave,
};

bool requests_have_gc(const struct broker *broker) {
    return !TAILQ_EMPTY(&broker->requests->gc_asked);
}

/* One store at a time and a part of it in each turn. max_hold 0 of the request and of the store
 * means that nothing is too old. */
bool requests_gc_on(struct broker *broker) {
    struct gc_item *gc = TAILQ_FIRST(&broker->requests->gc_asked);
    if (!gc)
        return false;
    struct store *store = gc->item.call->space->store;
    if (!gc->begun)
        store_gc_restart(store);
    gc->begun = true;
    if (gc->hold_ns)
        gc->freed += store_gc(store, gc->hold_ns, broker->now_ns, GC_SLOTS_PER_TURN);
    if (gc->hold_ns && store_gc_goes_on(store))
        return true;
    item_done(&gc->item, FB__STATUS__OK, NULL);
    return !TAILQ_EMPTY(&broker->requests->gc_asked);
}
