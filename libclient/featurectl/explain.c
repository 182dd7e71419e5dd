/* SPDX-License-Identifier: Apache-2.0
 *
 * `explain`: what became of a sample. The brokers compose the sentences: they alone know the
 * history.
 *
 * One question for each target. What is printed as "explanation" is the sentence of the node
 * that knows most; with --json there are the sentences of all nodes and the record of the index,
 * too.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "featurectl/memory.h"
#include "featurectl/select.h"
#include "featurectl/shown.h"
#include "featurectl/why.h"
#include "featurectl/words.h"

/* How long the others have to say what they know. */
#define PATIENCE_MS 3000u

static const struct table_column columns[] = {
    {"store", "store", TABLE_LEFT},
    {"sample_id", "sample", TABLE_LEFT},
    {"generation", "generation", TABLE_LEFT},
    {"state", "state", TABLE_LEFT},
    {"reason", "reason", TABLE_LEFT},
    {"node", "told by node", TABLE_LEFT},
    {"extent_bytes", "size", TABLE_LEFT},
    {"age_ms", "age", TABLE_LEFT},
    {"leases", "leases", TABLE_LEFT},
    {"holders", "held by", TABLE_LEFT},
    {"path", "way of its bytes", TABLE_LEFT},
    {"index", "index", TABLE_LEFT},
    {"sentence", "explanation", TABLE_LEFT},
    {"silent", "silent nodes", TABLE_LEFT},
    {"record", NULL, TABLE_LEFT},
    {"nodes", NULL, TABLE_LEFT},
};

/* "session 3 pid 4312 uid 0 trainer (12 s), node b (3 s)" */
static void explain_print_holders(struct table *table, const Fb__SampleInfo *info) {
    char *names = why_holders(info);
    table_cell(table, why_holders_json(info), *names ? names : "-");
    free(names);
}

/* Those who should know and did not answer. */
static void explain_print_silent(struct table *table, const Fb__ExplainReply *reply) {
    char *text = memory_copy("");
    json_t *silent = json_array();
    for (size_t i = 0; i < reply->n_says; i++) {
        const Fb__NodeSays *says = reply->says[i];
        if (says->status == FB__STATUS__OK)
            continue;
        char *longer =
            memory_print("%s%s%s: %s", text, *text ? "; " : "", says->node, says->sentence);
        free(text);
        text = longer;
        json_array_append_new(silent, json_pack("{s:o, s:o}", "node", shown_json(says->node),
                                                "silence", shown_json(says->sentence)));
    }
    table_cell(table, silent, *text ? text : "-");
    free(text);
}

/* Generation and incarnation are strings, for 64-bit numbers are not exact in every JSON reader. */
static json_t *explain_record_json(const Fb__IndexRecord *record) {
    char generation[24], incarnation[24];
    if (!record)
        return json_null();
    snprintf(generation, sizeof generation, "%" PRIu64, record->generation);
    snprintf(incarnation, sizeof incarnation, "%" PRIu64, record->incarnation);
    return json_pack("{s:s, s:o, s:s, s:I, s:b}", "generation", generation, "home",
                     shown_json(record->home), "incarnation", incarnation, "bytes",
                     (json_int_t)record->bytes, "home_is_member", record->home_is_member);
}

/* Those that answered; whoever was silent stands in a list of its own. */
static json_t *explain_says_json(const Fb__ExplainReply *reply) {
    json_t *nodes = json_array();
    for (size_t i = 0; i < reply->n_says; i++)
        if (reply->says[i]->status == FB__STATUS__OK)
            json_array_append_new(nodes,
                                  json_pack("{s:o, s:o}", "node", shown_json(reply->says[i]->node),
                                            "sentence", shown_json(reply->says[i]->sentence)));
    return nodes;
}

/* Of a sample that nobody knows there is no info: zeros then, and the generation of the ref, if
 * one was given.
 */
static void explain_print_explained(struct context *context, const struct target *target,
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
    explain_print_holders(&table, info);
    table_text(&table, reply->path);
    table_text(&table, reply->index);
    table_text(&table, reply->sentence);
    explain_print_silent(&table, reply);
    table_cell(&table, explain_record_json(reply->record), NULL);
    table_cell(&table, explain_says_json(reply), NULL);
    table_end_row(&table);
    table_finish(&table, TABLE_FIELDS);
}

/* Only the parts of the ref that tell which generation is meant are sent. The store need not
 * exist on this node: an admin may ask about any (context_scope()).
 */
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
    explain.deadline_ms = PATIENCE_MS;
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
    explain_print_explained(context, target, reply->explain);
    context_free_reply(reply);
    return FEATURE_OK;
}

/* All targets are explained, also after one has failed; the first failure is the exit code. */
static int explain_run_explain(struct context *context) {
    struct targets targets;
    int first_failure = select_targets(context, &targets);
    for (size_t i = 0; i < targets.count; i++) {
        int status = explain_target(context, &targets.list[i]);
        first_failure = first_failure ? first_failure : status;
    }
    first_failure = first_failure ? first_failure : targets.damage;
    refs_free(&targets);
    return first_failure;
}

static const struct option_spec options[] = {OPTION_MANIFEST, OPTION_ID, OPTION_SECRET_FILE, {0}};

const struct command command_explain = {
    .name = "explain",
    .arguments = "[REF...]",
    .summary = "what became of a sample: why a get of it works or fails",
    .details =
        "The home is asked, or for STORE/SAMPLE every member, and the index. A node that does "
        "not answer within 3 s\nis named. What is over is remembered for a while: how many "
        "a store remembers is a multiple of max_samples.",
    .options = options,
    .arguments_max = COMMAND_ARGUMENTS_ANY,
    .run = explain_run_explain,
};
