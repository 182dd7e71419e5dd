/* SPDX-License-Identifier: Apache-2.0
 *
 * A client tells that it no longer wants an answer: it has cancelled a get that waits for a sample,
 * or whose bytes are on their way, or a put that waits for room. Without being told, the request
 * would count against the session's limits until its time is over, which may be an hour, and a put
 * would be carried out although its caller was told that it had failed.
 *
 * Whatever of the get has not ended yet ends as TIMEOUT; of a put, what waits for room. A put whose
 * sample has its generation is carried out. The answer is sent as always, and what it
 * grants is given back by the client as always: it may have been on its way already.
 */
#include "requests/kinds.h"

static struct call *give_up_find(struct broker_session *session, uint32_t request_id) {
    struct call *call;
    TAILQ_FOREACH (call, &session->calls, link)
        if (call->request_id == request_id &&
            (call->kind == &get_kind || call->kind == &put_reserve_kind ||
             call->kind == &put_inline_kind))
            return call;
    return NULL;
}

static bool give_up_ends(const struct item *item) {
    return !item->done && (item->call->kind == &get_kind || item->in_store);
}

/* One that has been answered meanwhile is not found, and nothing is to be done. */
static void give_up_begin(struct request *request) {
    const Fb__GiveUp *asked = request->message->give_up;
    struct call *call = give_up_find(request->session, asked->request_id);
    if (!call) {
        request_reply(request, FB__STATUS__OK, NULL);
        return;
    }
    call->open++; /* keeps it until all its items are done */
    for (uint32_t i = 0; i < call->count; i++)
        if (give_up_ends(call_item(call, i)))
            item_done(call_item(call, i), FB__STATUS__TIMEOUT,
                      "sample %s of store %s: its client has given up waiting",
                      call_item(call, i)->ref.sample_id, call->space->name);
    call_begun(call);
    request_reply(request, FB__STATUS__OK, NULL);
}

const struct request_kind give_up_kind = {.begin = give_up_begin};
