/* SPDX-License-Identifier: Apache-2.0
 *
 * `explain`: what became of a sample. The broker composes the sentence: it alone knows the history.
 */
#include "select.h"
#include "words.h"

static const struct table_column columns[] = {
    {"store", "store", TABLE_LEFT},           {"sample_id", "sample", TABLE_LEFT},
    {"generation", "generation", TABLE_LEFT}, {"state", "state", TABLE_LEFT},
    {"reason", "reason", TABLE_LEFT},         {"node", "told by node", TABLE_LEFT},
    {"extent_bytes", "size", TABLE_LEFT},     {"age_ms", "age", TABLE_LEFT},
    {"leases", "leases", TABLE_LEFT},         {"sentence", "explanation", TABLE_LEFT},
};

static void print_explained(struct context *context, const struct target *target,
                            const Fb__ExplainReply *reply) {
    const Fb__SampleInfo none = FB__SAMPLE_INFO__INIT;
    const Fb__SampleInfo *info = reply->info ? reply->info : &none;
    char word[WORDS_ROOM];
    struct table table;
    CONTEXT_TABLE(context, &table, columns);
    table_text(&table, target->store);
    table_text(&table, target->sample_id);
    table_id(&table, info->generation ? info->generation
                                      : (target->ref ? feature_ref_generation(target->ref) : 0));
    table_text(&table, words_enum(&fb__sample_state__descriptor, (int)reply->state, word));
    table_text(&table, words_reason(info->reason, word));
    table_text(&table, reply->node);
    table_bytes(&table, info->extent_bytes);
    table_duration(&table, info->age_ms);
    table_count(&table, info->leases);
    table_text(&table, reply->sentence);
    table_end_row(&table);
    table_finish(&table, TABLE_FIELDS);
}

static int explain_target(struct context *context, const struct target *target) {
    Fb__RetireItem item = FB__RETIRE_ITEM__INIT;
    item.sample_id = target->sample_id;
    if (target->ref) {
        item.generation = feature_ref_generation(target->ref);
        item.home = (char *)feature_ref_home(target->ref);
        item.incarnation = feature_ref_incarnation(target->ref);
    }
    Fb__Explain explain = FB__EXPLAIN__INIT;
    explain.store = target->store;
    explain.item = &item;
    explain.deadline_ms = CONTEXT_DEADLINE_MS;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_EXPLAIN;
    request.explain = &explain;
    int status = context_scope(context, target->store, &explain.handle);
    if (status)
        return status;
    Fb__ClientReply *reply;
    status =
        context_call(context, &request, target->text, FB__CLIENT_REPLY__RESULT_EXPLAIN, &reply);
    if (status)
        return status;
    print_explained(context, target, reply->explain);
    context_free_reply(reply);
    return FEATURE_OK;
}

static int run_explain(struct context *context) {
    struct targets targets;
    int first_failure = select_targets(context, &targets);
    for (size_t i = 0; i < targets.count; i++) {
        int status = explain_target(context, &targets.list[i]);
        first_failure = first_failure ? first_failure : status;
    }
    refs_free(&targets);
    return first_failure;
}

static const struct option_spec options[] = {OPTION_MANIFEST, OPTION_ID, OPTION_SECRET_FILE, {0}};

const struct command command_explain = {
    .name = "explain",
    .arguments = "[REF...]",
    .summary = "why a get of REF works or fails: planned, resident and leased, retired, never "
               "seen, home gone",
    .options = options,
    .arguments_max = COMMAND_ARGUMENTS_ANY,
    .run = run_explain,
};
