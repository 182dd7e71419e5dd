/* SPDX-License-Identifier: Apache-2.0
 *
 * `samples`: what is there, who holds it, and why it has not been freed. Listings come in pages
 * with a cursor; what changes in between is seen or not.
 *
 * A row is one sample on one node. Where another node reads it at the moment, that node lists
 * its copy too (its WHY begins with "copy of node").
 *
 * The nodes are asked one after the other, through this broker. A node that does not answer is
 * named on standard error and costs its own rows only; the exit code says that something is
 * missing.
 */
#include <stdlib.h>
#include <string.h>

#include "featurectl/each_store.h"
#include "featurectl/members.h"
#include "featurectl/memory.h"
#include "featurectl/pages.h"
#include "featurectl/why.h"
#include "featurectl/words.h"

/* "why" is put together here (why.c); all else is as the brokers tell it. It has the state, the
 * reason and the readers in words, so that their columns are not needed by default.
 */
static const struct table_column sample_columns[] = {
    {"store", "STORE", TABLE_LEFT},
    {"sample_id", "SAMPLE", TABLE_LEFT},
    {"generation", "GENERATION", TABLE_RIGHT | TABLE_WIDE},
    {"state", "STATE", TABLE_LEFT | TABLE_WIDE},
    {"reason", "REASON", TABLE_LEFT | TABLE_WIDE},
    {"extent_bytes", "SIZE", TABLE_RIGHT},
    {"age_ms", "AGE", TABLE_RIGHT},
    {"leases", "LEASES", TABLE_RIGHT | TABLE_WIDE},
    {"consumed", "CONSUMED", TABLE_RIGHT | TABLE_WIDE},
    {"readers", "READERS", TABLE_RIGHT | TABLE_WIDE},
    {"home", "HOME", TABLE_LEFT | TABLE_WIDE},
    {"node", "NODE", TABLE_LEFT},
    {"landing", "COPY", TABLE_LEFT | TABLE_WIDE},
    {"why", "WHY", TABLE_LEFT},
    {"holders", NULL, TABLE_LEFT},
};

/* node: on which it lies, NULL = none. */
static void samples_print_sample(struct table *table, const char *store, Fb__Policy policy,
                                 const char *node, const Fb__SampleInfo *info) {
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
    table_text(table, node);
    table_flag(table, info->landing);
    table_text(table, why);
    table_cell(table, why_holders_json(info), NULL);
    table_end_row(table);
    free(why);
}

static void samples_visit(void *table, const struct pages_query *query,
                          const Fb__SampleInfo *sample) {
    const Fb__StoreInfo *store = query->store;
    samples_print_sample(table, store->store, store->settings ? store->settings->policy : 0,
                         query->node, sample);
}

static int samples_list_node(struct context *context, const Fb__StoreInfo *store,
                             struct table *table, uint32_t handle, const char *node) {
    const struct options *options = &context->options;
    const struct pages_query query = {.store = store,
                                      .handle = handle,
                                      .node = node,
                                      .prefix = options_text(options, "prefix", ""),
                                      .all_states = options_given(options, "all"),
                                      .holders = options_given(options, "holders")};
    return pages_list(context, &query, samples_visit, table);
}

/* ---- samples whose home is dead: known by their records alone ---- */

/* Of a record only what the index holds is known: no readers, no reason. Records of homes that
 * live are left out, because those homes list their samples themselves.
 */
static void samples_print_lost(struct context *context, const Fb__StoreInfo *store,
                               struct table *table, const Fb__IndexRecord *record) {
    const char *prefix = options_text(&context->options, "prefix", "");
    Fb__SampleInfo info = FB__SAMPLE_INFO__INIT;
    if (record->home_is_member || strncmp(record->sample_id, prefix, strlen(prefix)) != 0)
        return;
    info.sample_id = record->sample_id;
    info.generation = record->generation;
    info.state = FB__SAMPLE_STATE__HOME_LOST;
    info.extent_bytes = record->bytes;
    info.age_ms = record->age_ms;
    info.home = record->home;
    samples_print_sample(table, store->store, 0, NULL, &info);
}

/* Page after page of the index. The cursor of a page lies in the reply, which is freed before
 * the next question, hence the copy.
 */
static int samples_list_lost(struct context *context, const Fb__StoreInfo *store,
                             struct table *table, uint32_t handle) {
    Fb__IndexList list = FB__INDEX_LIST__INIT;
    list.store = store->store;
    list.handle = handle;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_INDEX_LIST;
    request.index_list = &list;
    char *cursor = memory_copy("");
    int status;
    do {
        Fb__ClientReply *reply;
        list.cursor = cursor;
        status = context_call(context, &request, store->store, FB__CLIENT_REPLY__RESULT_INDEX_LIST,
                              &reply);
        if (status)
            break;
        for (size_t i = 0; i < reply->index_list->n_records; i++)
            samples_print_lost(context, store, table, reply->index_list->records[i]);
        free(cursor);
        cursor = memory_copy(reply->index_list->cursor);
        context_free_reply(reply);
    } while (*cursor);
    free(cursor);
    return status;
}

/* ---- the cluster ---- */

/* First the nodes, this one first; then what only the index knows. The first failure decides the
 * exit code, and the rest is listed all the same.
 */
static int samples_list_store(struct context *context, const Fb__StoreInfo *store,
                              struct table *table, void *user) {
    const Fb__NodesReply *nodes = user;
    uint32_t handle = 0;
    int first_failure = store->dropped ? FEATURE_OK /* it cannot be opened any more */
                                       : context_scope(context, store->store, &handle);
    if (first_failure)
        return first_failure;
    bool has_index = nodes->nodes[0]->health && /* this node */
                     strcmp(nodes->nodes[0]->health->directory, "etcd") == 0;
    bool local = options_given(&context->options, "local");
    for (size_t i = 0; i < (local ? 1 : nodes->n_nodes); i++) {
        const char *silence = members_silence(nodes->nodes[i]);
        if (members_has_left(nodes->nodes[i]))
            continue;
        int status =
            silence ? context_refuse(context, FEATURE_E_UNAVAILABLE, store->store,
                                     "node %s is not listed: %s", nodes->nodes[i]->node, silence)
                    : samples_list_node(context, store, table, handle, nodes->nodes[i]->node);
        first_failure = first_failure ? first_failure : status;
    }
    int status =
        has_index && !local ? samples_list_lost(context, store, table, handle) : FEATURE_OK;
    return first_failure ? first_failure : status;
}

/* The members are asked once and handed to each store, so that all stores are listed from the
 * same nodes.
 */
static int samples_run_samples(struct context *context) {
    Fb__ClientReply *reply;
    struct table table;
    int status = members_fetch(context, &reply);
    if (status)
        return status;
    CONTEXT_WIDE_TABLE(context, &table, sample_columns);
    status = each_store_or_dropped(context, &table, samples_list_store, reply->nodes);
    context_free_reply(reply);
    return status;
}

static const struct option_spec sample_options[] = {
    OPTION_STORE(false, "only this store (default: all of this node)"),
    {.name = "prefix",
     .kind = OPTION_TEXT,
     .argument = "TEXT",
     .help = "only ids that begin with TEXT"},
    {.name = "local", .letter = 'l', .help = "only what lies on this node"},
    {.name = "all", .letter = 'a', .help = "also those being written, retired or gone"},
    {.name = "holders", .help = "name the sessions and nodes that hold each sample"},
    OPTION_WIDE,
    OPTION_SECRET_FILE,
    {0},
};

const struct command command_samples = {
    .name = "samples",
    .arguments = "",
    .summary = "samples of the cluster, and why each is not freed yet",
    .details =
        "Every member is asked for its own. One that does not answer is named, and the others "
        "are listed all the\nsame. With directory = etcd samples whose home is dead are "
        "listed too, as home-lost, until their\nrecords are swept (lost_keep).",
    .options = sample_options,
    .run = samples_run_samples,
};
