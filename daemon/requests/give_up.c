/* SPDX-License-Identifier: Apache-2.0
 *
 * A client tells that it no longer wants an answer: it has cancelled a get that waits for a sample,
 * or whose bytes are on their way. Without being told, the get would count against the session's
 * limits until its time is over, which may be an hour.
 *
 * Whatever of the get has not ended yet ends as TIMEOUT. The answer is sent as always, and what it
 * grants is given back by the client as always: it may have been on its way already.
 */
#include "requests/kinds.h"

static struct call *give_up_find(struct broker_session *session, uint32_t request_id) {
    struct call *call;
    TAILQ_FOREACH (call, &session->calls, link)
        if (call->kind == &get_kind && call->request_id == request_id)
            return call;
    return NULL;
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
        if (!call_item(call, i)->done)
            item_done(call_item(call, i), FB__STATUS__TIMEOUT,
                      "sample %s of store %s: its client has given up waiting",
                      call_item(call, i)->ref.sample_id, call->space->name);
    call_begun(call);
    request_reply(request, FB__STATUS__OK, NULL);
}

const struct request_kind give_up_kind = {.begin = give_up_begin};
