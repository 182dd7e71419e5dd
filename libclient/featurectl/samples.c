/* SPDX-License-Identifier: Apache-2.0
 *
 * `samples` and `leases`: what is there, who holds it, and why it has not been freed. Listings come
 * in pages with a cursor; what changes in between is seen or not.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "context.h"
#include "memory.h"
#include "why.h"
#include "words.h"

#define PAGE_ITEMS 256u

/* ---- samples ---- */

static const struct table_column sample_columns[] = {
    {"store", "STORE", TABLE_LEFT},
    {"sample_id", "SAMPLE", TABLE_LEFT},
    {"generation", "GENERATION", TABLE_RIGHT},
    {"state", "STATE", TABLE_LEFT},
    {"reason", "REASON", TABLE_LEFT},
    {"extent_bytes", "SIZE", TABLE_RIGHT},
    {"age_ms", "AGE", TABLE_RIGHT},
    {"leases", "LEASES", TABLE_RIGHT},
    {"consumed", "CONSUMED", TABLE_RIGHT},
    {"readers", "READERS", TABLE_RIGHT},
    {"home", "HOME", TABLE_LEFT},
    {"landing", "COPY", TABLE_LEFT},
    {"why", "WHY", TABLE_LEFT},
    {"holders", NULL, TABLE_LEFT},
};

static json_t *holders_json(const Fb__SampleInfo *info) {
    json_t *holders = json_array();
    for (size_t i = 0; i < info->n_holders; i++)
        json_array_append_new(holders,
                              json_pack("{s:s, s:I, s:I}", "holder", info->holders[i]->holder,
                                        "session_id", (json_int_t)info->holders[i]->session_id,
                                        "age_ms", (json_int_t)info->holders[i]->age_ms));
    return holders;
}

static void print_sample(struct table *table, const char *store, Fb__Policy policy,
                         const Fb__SampleInfo *info) {
    char word[WORDS_ROOM];
    char *why = why_kept(info, policy);
    table_text(table, store);
    table_text(table, info->sample_id);
    table_id(table, info->generation);
    table_text(table, words_enum(&fb__sample_state__descriptor, (int)info->state, word));
    table_text(table, words_reason(info->reason, word));
    table_bytes(table, info->extent_bytes);
    table_duration(table, info->age_ms);
    table_count(table, info->leases);
    table_count(table, info->consumed);
    table_count(table, info->readers);
    table_text(table, info->home);
    table_flag(table, info->landing);
    table_text(table, why);
    table_cell(table, holders_json(info), NULL);
    table_end_row(table);
    free(why);
}

static int list_store(struct context *context, struct table *table, const Fb__StoreInfo *store) {
    const struct options *options = &context->options;
    Fb__List list = FB__LIST__INIT;
    list.store = store->store;
    list.prefix = (char *)options_text(options, "prefix", "");
    list.limit = PAGE_ITEMS;
    list.all_states = options_given(options, "all");
    list.holders = options_given(options, "holders");
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_LIST;
    request.list = &list;
    int status = context_scope(context, store->store, &list.handle);
    if (status)
        return status;
    do {
        Fb__ClientReply *reply;
        status =
            context_call(context, &request, store->store, FB__CLIENT_REPLY__RESULT_LIST, &reply);
        if (status)
            return status;
        for (size_t i = 0; i < reply->list->n_samples; i++)
            print_sample(table, store->store, store->settings ? store->settings->policy : 0,
                         reply->list->samples[i]);
        list.cursor = reply->list->cursor;
        context_free_reply(reply);
    } while (list.cursor);
    return FEATURE_OK;
}

static int list_stores(struct context *context, struct table *table,
                       const Fb__StoresReply *stores) {
    const char *only = options_text(&context->options, "store", NULL);
    int first_failure = FEATURE_OK;
    bool found = false;
    for (size_t i = 0; i < stores->n_stores; i++) {
        if (only && strcmp(only, stores->stores[i]->store) != 0)
            continue;
        found = true;
        int status = list_store(context, table, stores->stores[i]);
        first_failure = first_failure ? first_failure : status;
    }
    if (only && !found)
        return context_refuse(context, FEATURE_E_NOT_FOUND, only,
                              "there is no such store on this node");
    return first_failure;
}

static int run_samples(struct context *context) {
    Fb__Stores stores = FB__STORES__INIT;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_STORES;
    request.stores = &stores;
    Fb__ClientReply *reply;
    int status = context_call(context, &request, NULL, FB__CLIENT_REPLY__RESULT_STORES, &reply);
    if (status)
        return status;
    struct table table;
    CONTEXT_TABLE(context, &table, sample_columns);
    status = list_stores(context, &table, reply->stores);
    table_finish(&table, TABLE_ROWS);
    context_free_reply(reply);
    return status;
}

static const struct option_spec sample_options[] = {
    OPTION_STORE(false, "only this store (default: all)"),
    {.name = "prefix",
     .kind = OPTION_TEXT,
     .argument = "TEXT",
     .help = "only ids that begin with TEXT"},
    {.name = "all", .letter = 'a', .help = "also those being written, retired or gone"},
    {.name = "holders", .help = "name the sessions and nodes that hold each sample"},
    OPTION_SECRET_FILE,
    {0},
};

const struct command command_samples = {
    .name = "samples",
    .arguments = "",
    .summary = "samples on this node: state, size, age, readers, and why each is not freed yet",
    .options = sample_options,
    .run = run_samples,
};

/* ---- leases ---- */

static const struct table_column lease_columns[] = {
    {"store", "STORE", TABLE_LEFT},
    {"sample_id", "SAMPLE", TABLE_LEFT},
    {"generation", "GENERATION", TABLE_RIGHT},
    {"holder", "HOLDER", TABLE_LEFT},
    {"session_id", "SESSION", TABLE_RIGHT},
    {"age_ms", "AGE", TABLE_RIGHT},
};

static void print_lease(struct table *table, const Fb__LeaseInfo *lease) {
    table_text(table, lease->store);
    table_text(table, lease->sample_id);
    table_id(table, lease->generation);
    table_text(table, lease->holder);
    table_count(table, lease->session_id);
    table_duration(table, lease->age_ms);
    table_end_row(table);
}

static int run_leases(struct context *context) {
    Fb__Leases leases = FB__LEASES__INIT;
    leases.store = (char *)options_text(&context->options, "store", "");
    leases.limit = PAGE_ITEMS;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_LEASES;
    request.leases = &leases;
    struct table table;
    CONTEXT_TABLE(context, &table, lease_columns);
    int status;
    do {
        Fb__ClientReply *reply;
        status = context_call(context, &request, NULL, FB__CLIENT_REPLY__RESULT_LEASES, &reply);
        if (status)
            break;
        for (size_t i = 0; i < reply->leases->n_leases; i++)
            print_lease(&table, reply->leases->leases[i]);
        leases.cursor = reply->leases->cursor;
        context_free_reply(reply);
    } while (leases.cursor);
    table_finish(&table, TABLE_ROWS);
    return status;
}

static const struct option_spec lease_options[] = {
    OPTION_STORE(false, "only this store (default: all)"), {0}};

const struct command command_leases = {
    .name = "leases",
    .arguments = "",
    .summary = "who reads what, and since when",
    .options = lease_options,
    .run = run_leases,
};
