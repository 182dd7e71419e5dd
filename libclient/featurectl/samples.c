/* SPDX-License-Identifier: Apache-2.0
 *
 * `samples`: what is there, who holds it, and why it has not been freed. Listings come in pages
 * with a cursor; what changes in between is seen or not.
 */
#include <stdlib.h>

#include "each_store.h"
#include "why.h"
#include "words.h"

#define PAGE_ITEMS 256u

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

static int list_store(struct context *context, const Fb__StoreInfo *store, struct table *table) {
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

static int run_samples(struct context *context) {
    struct table table;
    CONTEXT_TABLE(context, &table, sample_columns);
    return each_store(context, &table, list_store);
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
