/* SPDX-License-Identifier: Apache-2.0
 *
 * No state.
 *
 * Commands that list something go through all stores of this broker, or through the one of
 * --store. The visitor fills rows of the table.
 */
#include "featurectl/each_store.h"

#include <string.h>

/* dropped: also stores that were dropped and that somebody still holds something of. */
static int each_store_fetch_names(struct context *context, bool dropped,
                                  Fb__ClientReply **reply_out) {
    Fb__Stores stores = FB__STORES__INIT;
    stores.dropped = dropped;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_STORES;
    request.stores = &stores;
    return context_call(context, &request, NULL, FB__CLIENT_REPLY__RESULT_STORES, reply_out);
}

/* The whole answer, for the command that shows the stores themselves. */
int each_store_fetch(struct context *context, Fb__ClientReply **reply_out) {
    return each_store_fetch_names(context, false, reply_out);
}

/* A store that fails (dropped meanwhile, or with a secret that is not ours) does not keep the
 * others from being shown; the exit code is that of the first failure. The table is finished in any
 * case, so that what was collected is printed. */
static int each(struct context *context, bool dropped, struct table *table, each_store_fn visit,
                void *user) {
    const char *only = options_text(&context->options, "store", NULL);
    Fb__ClientReply *reply;
    int first_failure = each_store_fetch_names(context, dropped, &reply);
    if (first_failure)
        return first_failure;
    bool found = false;
    for (size_t i = 0; i < reply->stores->n_stores; i++) {
        const Fb__StoreInfo *store = reply->stores->stores[i];
        if (only && strcmp(only, store->store) != 0)
            continue;
        found = true;
        int status = visit(context, store, table, user);
        first_failure = first_failure ? first_failure : status;
    }
    context_free_reply(reply);
    table_finish(table, TABLE_ROWS);
    if (only && !found)
        return context_refuse(context, FEATURE_E_NOT_FOUND, only,
                              "there is no such store on this node");
    return first_failure;
}

int each_store(struct context *context, struct table *table, each_store_fn visit, void *user) {
    return each(context, false, table, visit, user);
}

int each_store_or_dropped(struct context *context, struct table *table, each_store_fn visit,
                          void *user) {
    return each(context, true, table, visit, user);
}
