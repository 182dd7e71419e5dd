/* SPDX-License-Identifier: Apache-2.0
 *
 * No state. The cursor of a page is a number of the node's, which stays good while samples come and
 * go: a listing of a million samples needs no memory on either side but for one page.
 */
#include "featurectl/pages.h"

#include "featurectl/members.h"

#define PAGE_ITEMS 256u

/* The connection may serve others between two pages, and samples may come and go. */
int pages_list(struct context *context, const struct pages_query *query, pages_visit_fn visit,
               void *user) {
    Fb__List list = FB__LIST__INIT;
    list.store = query->store->store;
    list.handle = query->handle;
    list.node = (char *)query->node;
    list.deadline_ms = MEMBERS_PATIENCE_MS;
    list.prefix = (char *)query->prefix;
    list.limit = PAGE_ITEMS;
    list.all_states = query->all_states;
    list.holders = query->holders;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_LIST;
    request.list = &list;
    do {
        Fb__ClientReply *reply;
        int status =
            context_call(context, &request, list.store, FB__CLIENT_REPLY__RESULT_LIST, &reply);
        if (status)
            return status;
        for (size_t i = 0; i < reply->list->n_samples; i++)
            visit(user, query, reply->list->samples[i]);
        list.cursor = reply->list->cursor;
        context_free_reply(reply);
    } while (list.cursor);
    return FEATURE_OK;
}
