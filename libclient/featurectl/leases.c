/* SPDX-License-Identifier: Apache-2.0
 *
 * `leases`: who reads what. Pages as in samples.c.
 *
 * For the question why memory does not come back: a retired sample stays for as long as somebody
 * reads it, and this says who. Behind the leases of each store stand the two that explain why a
 * put waits: who has reserved most of its room, and who is first in line.
 */
#include "featurectl/each_store.h"

#define PAGE_ITEMS 256u

static const struct table_column lease_columns[] = {
    {"store", "STORE", TABLE_LEFT},
    {"sample_id", "SAMPLE", TABLE_LEFT},
    {"generation", "GENERATION", TABLE_RIGHT | TABLE_WIDE},
    {"holder", "HOLDER", TABLE_LEFT},
    {"session_id", "SESSION", TABLE_RIGHT | TABLE_WIDE},
    {"age_ms", "AGE", TABLE_RIGHT},
    {"dropped", "DROPPED", TABLE_LEFT | TABLE_IF_ANY},
    {"kind", "KIND", TABLE_LEFT},
    {"uid", NULL, TABLE_LEFT},
};

/* A lease of another node has no user: "uid" is null then. */
static void leases_print_lease(struct table *table, const char *store, const Fb__LeaseInfo *lease,
                               const char *kind) {
    table_text(table, store);
    table_text(table, lease->sample_id);
    table_id(table, lease->generation);
    table_text(table, lease->holder);
    table_count(table, lease->session_id);
    table_duration(table, lease->age_ms);
    table_flag(table, lease->dropped);
    table_text(table, kind);
    table_cell(table, lease->of_session ? json_integer(lease->uid) : json_null(), NULL);
    table_end_row(table);
}

/* Who has reserved most of the room, and who waits first for more of it. */
static void leases_print_line(struct table *table, const Fb__StoreInfo *store) {
    if (store->reserver)
        leases_print_lease(table, store->store, store->reserver, "reservations");
    if (store->first_waiter)
        leases_print_lease(table, store->store, store->first_waiter, "first in line");
}

/* Every page of one store, then who keeps its room. A dropped store is asked by its name, too. */
static int leases_list_leases(struct context *context, const Fb__StoreInfo *store,
                              struct table *table, void *user) {
    (void)user;
    Fb__Leases leases = FB__LEASES__INIT;
    leases.store = store->store;
    leases.limit = PAGE_ITEMS;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_LEASES;
    request.leases = &leases;
    do {
        Fb__ClientReply *reply;
        int status =
            context_call(context, &request, store->store, FB__CLIENT_REPLY__RESULT_LEASES, &reply);
        if (status)
            return status;
        for (size_t i = 0; i < reply->leases->n_leases; i++)
            leases_print_lease(table, store->store, reply->leases->leases[i], "lease");
        leases.cursor = reply->leases->cursor;
        context_free_reply(reply);
    } while (leases.cursor);
    leases_print_line(table, store);
    return FEATURE_OK;
}

/* Leases of readers on this node and of other nodes that read from here; those on other nodes
 * are listed there.
 */
static int leases_run_leases(struct context *context) {
    struct table table;
    CONTEXT_WIDE_TABLE(context, &table, lease_columns);
    return each_store_or_dropped(context, &table, leases_list_leases, NULL);
}

static const struct option_spec lease_options[] = {
    OPTION_STORE(false, "only this store (default: all)"), OPTION_WIDE, {0}};

const struct command command_leases = {
    .name = "leases",
    .arguments = "",
    .summary = "who reads what, who holds up and who waits first; for admins",
    .details = "DROPPED: the store was dropped meanwhile. Whoever reads of it keeps what it has; "
               "what is held goes\nwhen the last of them has let go.",
    .options = lease_options,
    .run = leases_run_leases,
};
