/* SPDX-License-Identifier: Apache-2.0
 *
 * `index check`: the records of the index against what the members hold.
 *
 *   members -> all records -> every member's samples -> suspects -> judged by their nodes, again
 * and again, until each agrees or is confirmed -> (--repair) mended by their nodes -> printed
 *
 * A node that stops answering on the way is named, and its records are counted as unknown.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "featurectl/audit.h"
#include "featurectl/members.h"
#include "featurectl/memory.h"
#include "featurectl/progress.h"
#include "featurectl/shown.h"
#include "featurectl/words.h"

#define PAGE_ITEMS    256u
#define CHECK_ITEMS   64u
#define LOOKS_MAX     8u
#define LOOK_PAUSE_NS 500000000l
#define PATIENCE_MS   5000u

struct check {
    struct context *context;
    const Fb__NodesReply *nodes;
    bool *silent; /* of each node: it has been named */
    struct audit audit;
    struct progress progress;
    uint64_t unreadable, unknown, repaired, findings, unsettled;
};

/* For the bar: so many samples are going to be read. Nodes that are silent count as 0. */
static uint64_t index_check_expected_samples(const Fb__NodesReply *nodes) {
    uint64_t samples = 0;
    for (size_t i = 0; i < nodes->n_nodes; i++)
        samples += nodes->nodes[i]->health ? nodes->nodes[i]->health->resident_samples : 0;
    return samples;
}

/* ---- who can be asked ---- */

/* Each node is named once, however many of its stores could not be read. */
static void index_check_name_silent(struct check *check, size_t node, const char *why) {
    if (!check->silent[node])
        context_refuse(check->context, FEATURE_E_UNAVAILABLE, check->nodes->nodes[node]->node,
                       "it cannot be asked, its records are unknown: %s", why);
    check->silent[node] = true;
}

/* Before anything is read. A node that falls silent later is named where that is noticed. */
static void index_check_name_all_silent(struct check *check) {
    for (size_t i = 0; i < check->nodes->n_nodes; i++) {
        const char *why = members_silence(check->nodes->nodes[i]);
        if (why && members_has_left(check->nodes->nodes[i]))
            check->silent[i] = true; /* its records are of a dead home: no need to ask */
        else if (why)
            index_check_name_silent(check, i, why);
    }
}

/* A node that has joined meanwhile is asked too, when its records are judged. */
static bool index_check_is_reached(void *context, const char *node) {
    const struct check *check = context;
    for (size_t i = 0; i < check->nodes->n_nodes; i++)
        if (!strcmp(check->nodes->nodes[i]->node, node))
            return !check->silent[i];
    return true;
}

/* ---- reading ---- */

/* In pages, and each is dropped once it was compared: a million records are 200 MB in etcd, and
 * only their names and generations are kept here. */
static int index_check_read_records(struct check *check) {
    const char *store = options_text(&check->context->options, "store", "");
    Fb__IndexList list = FB__INDEX_LIST__INIT;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_INDEX_LIST;
    request.index_list = &list;
    list.store = (char *)store;
    char *cursor = memory_copy("");
    int status;
    do {
        Fb__ClientReply *reply;
        list.cursor = cursor;
        status = context_call(check->context, &request, NULL, FB__CLIENT_REPLY__RESULT_INDEX_LIST,
                              &reply);
        if (status)
            break;
        for (size_t i = 0; i < reply->index_list->n_records; i++)
            audit_add_record(&check->audit, reply->index_list->records[i]);
        check->unreadable += reply->index_list->unreadable;
        free(cursor);
        cursor = memory_copy(reply->index_list->cursor);
        context_free_reply(reply);
        progress_set(&check->progress, check->audit.record_count, check->progress.total);
    } while (*cursor);
    free(cursor);
    return status;
}

/* False: the node has stopped answering. A store that is gone is none of that: it was dropped
 * meanwhile, and its samples with it. */
static bool index_check_read_store(struct check *check, size_t node, const char *store) {
    Fb__List list = FB__LIST__INIT;
    list.store = (char *)store;
    list.node = check->nodes->nodes[node]->node;
    list.limit = PAGE_ITEMS;
    list.deadline_ms = PATIENCE_MS;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_LIST;
    request.list = &list;
    do {
        Fb__ClientReply *reply;
        int status =
            feature_admin_call(check->context->feature, &request, CONTEXT_DEADLINE_MS, &reply);
        if (status)
            return status == FEATURE_E_NOT_FOUND; /* the store has been dropped meanwhile */
        for (size_t i = 0; reply->list && i < reply->list->n_samples; i++)
            audit_add_sample(&check->audit, store, list.node, reply->list->samples[i]);
        list.cursor = reply->list ? reply->list->cursor : 0;
        context_free_reply(reply);
        progress_set(&check->progress, check->audit.sample_count, check->progress.total);
    } while (list.cursor);
    return true;
}

/* Node by node and store by store, through this broker; the rest of a silent node is left out. */
static void index_check_read_samples(struct check *check) {
    const char *only = options_text(&check->context->options, "store", NULL);
    for (size_t i = 0; i < check->nodes->n_nodes; i++) {
        const Fb__HealthReply *health = check->nodes->nodes[i]->health;
        for (size_t k = 0; health && k < health->n_store_names && !check->silent[i]; k++)
            if ((!only || !strcmp(only, health->store_names[k])) &&
                !index_check_read_store(check, i, health->store_names[k]))
                index_check_name_silent(check, i, feature_last_error());
    }
}

/* ---- judging ---- */

/* The reply that it came in is freed; a finding lives on with its suspect. Packing and unpacking
 * copies all parts.
 */
static Fb__IndexFinding *index_check_copy_finding(const Fb__IndexFinding *from) {
    size_t bytes = fb__index_finding__get_packed_size(from);
    uint8_t *packed = memory_grow(NULL, bytes + 1, 1);
    fb__index_finding__pack(from, packed);
    Fb__IndexFinding *copy = fb__index_finding__unpack(NULL, bytes, packed);
    free(packed);
    return copy;
}

/* How many suspects, from `at` on, are of one store and fit a request. */
static size_t index_check_run_length(const struct audit *audit, size_t at) {
    size_t end = at + 1;
    while (end < audit->suspect_count && end - at < CHECK_ITEMS &&
           !strcmp(audit->suspects[end].store, audit->suspects[at].store))
        end++;
    return end - at;
}

/* Asks the nodes about some suspects of one store. With `repair` they mend what they find, and
 * answer what they find afterwards.
 */
static int index_check_look_at_run(struct check *check, struct suspect *suspects, size_t count,
                                   bool repair) {
    Fb__IndexCheckItem items[CHECK_ITEMS], *pointers[CHECK_ITEMS];
    Fb__IndexCheck asked = FB__INDEX_CHECK__INIT;
    for (size_t i = 0; i < count; i++) {
        fb__index_check_item__init(&items[i]);
        items[i].sample_id = suspects[i].sample_id;
        items[i].node = suspects[i].node;
        pointers[i] = &items[i];
    }
    asked.store = suspects[0].store;
    asked.n_items = count;
    asked.items = pointers;
    asked.repair = repair;
    asked.deadline_ms = PATIENCE_MS;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_INDEX_CHECK;
    request.index_check = &asked;
    Fb__ClientReply *reply;
    int status = context_call(check->context, &request, suspects[0].store,
                              FB__CLIENT_REPLY__RESULT_INDEX_CHECK, &reply);
    if (status)
        return status;
    for (size_t i = 0; i < count && i < reply->index_check->n_items; i++) {
        Fb__IndexFinding *finding = index_check_copy_finding(reply->index_check->items[i]);
        if (finding)
            (repair ? audit_mend : audit_judge)(&suspects[i], finding);
    }
    context_free_reply(reply);
    return FEATURE_OK;
}

/* Each suspect once. They are sorted by store, so that few requests are needed. */
static int index_check_look(struct check *check) {
    struct audit *audit = &check->audit;
    for (size_t at = 0, count; at < audit->suspect_count; at += count) {
        count = index_check_run_length(audit, at);
        int status = index_check_look_at_run(check, &audit->suspects[at], count, false);
        if (status)
            return status;
        progress_set(&check->progress, at + count, audit->suspect_count);
    }
    return FEATURE_OK;
}

/* Each look is half a second after the one before, which is longer than a put or a retire takes;
 * what still changes after eight looks is reported as that and is no finding. */
static int index_check_judge(struct check *check) {
    for (uint32_t looks = 0; looks < LOOKS_MAX && check->audit.suspect_count; looks++) {
        if (looks)
            nanosleep(&(struct timespec){.tv_nsec = LOOK_PAUSE_NS}, NULL);
        int status = index_check_look(check);
        if (status)
            return status;
        if (!audit_sift(&check->audit))
            break;
    }
    return FEATURE_OK;
}

/* ---- mending ---- */

/* To be mended: confirmed as wrong, and not mended yet. */
static bool index_check_is_broken(const struct suspect *suspect) {
    return audit_is_finding(suspect) && !suspect->finding->repaired;
}

/* Those to be repaired, from `at` on, of one store; at least one. */
static size_t index_check_broken_length(const struct audit *audit, size_t at) {
    size_t most = index_check_run_length(audit, at), end = at + 1;
    while (end < at + most && index_check_is_broken(&audit->suspects[end]))
        end++;
    return end - at;
}

/* Only what is confirmed is mended: what is still changing would be mended into something wrong.
 * *left_out: how many are still wrong.
 */
static int index_check_repair_all(struct check *check, uint64_t *left_out) {
    struct audit *audit = &check->audit;
    *left_out = 0;
    for (size_t at = 0, count = 1; at < audit->suspect_count; at += count, count = 1) {
        if (!index_check_is_broken(&audit->suspects[at]))
            continue;
        count = index_check_broken_length(audit, at);
        int status = index_check_look_at_run(check, &audit->suspects[at], count, true);
        if (status)
            return status;
        for (size_t i = at; i < at + count; i++)
            *left_out += index_check_is_broken(&audit->suspects[i]);
        progress_set(&check->progress, at + count, audit->suspect_count);
    }
    return FEATURE_OK;
}

/* One repair may set another in motion: what could not be mended is tried again. */
static int index_check_repair(struct check *check) {
    uint64_t left = 1;
    for (uint32_t rounds = 0; rounds < LOOKS_MAX && left; rounds++) {
        if (rounds)
            nanosleep(&(struct timespec){.tv_nsec = LOOK_PAUSE_NS}, NULL);
        int status = index_check_repair_all(check, &left);
        if (status)
            return status;
    }
    for (size_t i = 0; i < check->audit.suspect_count; i++)
        check->repaired += audit_is_finding(&check->audit.suspects[i]) &&
                           check->audit.suspects[i].finding->repaired;
    return FEATURE_OK;
}

/* ---- what is printed ---- */

/* One row. The sentence and the remedy are the words of the node that has judged. */
static void index_check_print_finding(struct table *table, const struct suspect *suspect,
                                      bool repair) {
    const Fb__IndexFinding *finding = suspect->finding;
    char word[WORDS_ROOM];
    table_text(table, words_enum(&fb__finding__descriptor, (int)finding->finding, word));
    table_cell(table, json_boolean(finding->repaired),
               !repair             ? "-"
               : finding->repaired ? "yes"
                                   : "no");
    char *what =
        memory_print("%s%s%s", finding->sentence, *finding->remedy ? "; " : "", finding->remedy);
    table_cell(table, shown_json(finding->sentence), what);
    free(what);
    table_text(table, finding->remedy);
    table_text(table, suspect->store);
    table_text(table, suspect->sample_id);
    table_text(table, finding->node);
    table_id(table, finding->record ? finding->record->generation : 0);
    table_id(table, finding->held);
    table_end_row(table);
}

/* Findings, and what could not be checked; both are counted on the way. What is still changing
 * is only counted.
 */
static void index_check_print_findings(struct check *check) {
    static const struct table_column columns[] = {
        {"finding", "FINDING", TABLE_LEFT},
        {"repaired", "REPAIRED", TABLE_LEFT},
        {"what", "WHAT, AND WHAT TO DO", TABLE_LEFT},
        {"remedy", NULL, TABLE_LEFT},
        {"store", NULL, TABLE_LEFT},
        {"sample_id", NULL, TABLE_LEFT},
        {"node", NULL, TABLE_LEFT},
        {"recorded", NULL, TABLE_LEFT},
        {"held", NULL, TABLE_LEFT},
    };
    struct table table;
    CONTEXT_TABLE(check->context, &table, columns);
    bool mended = options_given(&check->context->options, "repair");
    for (size_t i = 0; i < check->audit.suspect_count; i++) {
        const struct suspect *suspect = &check->audit.suspects[i];
        if (audit_is_finding(suspect)) {
            index_check_print_finding(&table, suspect, mended);
            check->findings++;
        } else if (suspect->finding && suspect->finding->finding == FB__FINDING__NOT_CHECKED) {
            index_check_print_finding(&table, suspect, mended);
            check->unknown++;
        } else if (!suspect->finding || suspect->finding->finding != FB__FINDING__AGREES) {
            check->unsettled++;
        }
    }
    table_finish(&table, table.cell_count ? TABLE_ROWS : TABLE_FIELDS); /* no titles over nothing */
}

/* Nodes that have left the cluster are not silent: their records are findings, of a dead home. */
static json_t *index_check_silent_json(const struct check *check, char **text_out) {
    json_t *silent = json_array();
    char *text = memory_copy("");
    for (size_t i = 0; i < check->nodes->n_nodes; i++) {
        if (!check->silent[i] || members_has_left(check->nodes->nodes[i]))
            continue;
        json_array_append_new(silent, shown_json(check->nodes->nodes[i]->node));
        char *longer =
            memory_print("%s%s%s", text, *text ? ", " : "", check->nodes->nodes[i]->node);
        free(text);
        text = longer;
    }
    *text_out = text;
    return silent;
}

/* Also when nothing was found: "0 findings of 12,000 records" is what the caller wants to know. */
static void index_check_print_summary(const struct check *check) {
    static const struct table_column columns[] = {
        {"records", "records", TABLE_LEFT},
        {"samples", "samples", TABLE_LEFT},
        {"findings", "findings", TABLE_LEFT},
        {"repaired", "repaired", TABLE_LEFT},
        {"unsettled", "still changing", TABLE_LEFT},
        {"unknown", "unknown", TABLE_LEFT},
        {"unreadable", "no records of ours", TABLE_LEFT},
        {"silent", "nodes not asked", TABLE_LEFT},
    };
    char *text;
    json_t *silent = index_check_silent_json(check, &text);
    struct table table;
    CONTEXT_TABLE(check->context, &table, columns);
    table_count(&table, check->audit.record_count);
    table_count(&table, check->audit.sample_count);
    table_count(&table, check->findings);
    table_count(&table, check->repaired);
    table_count(&table, check->unsettled);
    table_count(&table, check->unknown);
    table_count(&table, check->unreadable);
    table_cell(&table, silent, *text ? text : "-");
    table_end_row(&table);
    table_finish(&table, TABLE_FIELDS);
    free(text);
}

/* Findings outweigh what is unknown: exit code 0 means that everything was looked at and agrees. */
static int index_check_verdict(const struct check *check) {
    bool silent = false;
    if (check->unreadable)
        context_refuse(check->context, CTL_E_LOCAL, NULL,
                       "%" PRIu64 " keys among the samples in etcd are no records of featured; the "
                       "log of this node's broker names them: delete them with etcdctl",
                       check->unreadable);
    for (size_t i = 0; i < check->nodes->n_nodes; i++)
        silent |= check->silent[i] && !members_has_left(check->nodes->nodes[i]);
    if (check->findings || check->unreadable)
        return CTL_E_LOCAL;
    return check->unknown || silent ? CTL_E_UNCHECKED : FEATURE_OK;
}

/* The steps that are drawn above, each with a bar of its own. */
static int index_check_carry_out(struct check *check) {
    struct context *context = check->context;
    progress_begin(&check->progress, context->err, "records", PROGRESS_SAMPLES,
                   index_check_expected_samples(check->nodes));
    int status = index_check_read_records(check);
    progress_end(&check->progress);
    if (status)
        return status;
    index_check_name_all_silent(check);
    progress_begin(&check->progress, context->err, "samples", PROGRESS_SAMPLES,
                   index_check_expected_samples(check->nodes));
    index_check_read_samples(check);
    progress_end(&check->progress);
    check->unknown = audit_close(&check->audit, index_check_is_reached, check);
    progress_begin(&check->progress, context->err, "suspects", PROGRESS_SAMPLES,
                   check->audit.suspect_count);
    status = index_check_judge(check);
    if (!status && options_given(&context->options, "repair"))
        status = index_check_repair(check);
    progress_end(&check->progress);
    return status;
}

/* A check that could not be carried out to the end is "not checked", whatever it had found by
 * then.
 */
static int index_check_run_index_check(struct context *context) {
    struct check check = {.context = context};
    Fb__ClientReply *reply;
    if (members_fetch(context, &reply))
        return CTL_E_UNCHECKED;
    check.nodes = reply->nodes;
    check.silent = memory_grow(NULL, check.nodes->n_nodes + 1, sizeof *check.silent);
    memset(check.silent, 0, (check.nodes->n_nodes + 1) * sizeof *check.silent);
    int status = index_check_carry_out(&check) ? CTL_E_UNCHECKED : FEATURE_OK;
    if (!status) {
        index_check_print_findings(&check);
        index_check_print_summary(&check);
        status = index_check_verdict(&check);
    }
    audit_deinit(&check.audit);
    free(check.silent);
    context_free_reply(reply);
    return status;
}

static const struct option_spec index_options[] = {
    OPTION_STORE(false, "only this store (default: all)"),
    {.name = "repair", .help = "mend what is found, and say what was done"},
    {0},
};

const struct command command_index_check = {
    .name = "index check",
    .arguments = "",
    .summary = "compare etcd's records with what the brokers hold; for admins",
    .details =
        "Every disagreement is looked at again until two looks, half a second apart, say the same, "
        "so that\ntraffic is no finding. A node that does not answer is named, and its records are "
        "neither judged\nnor repaired. Exit code 0: all agree; 1: there are findings, repaired or "
        "not; 2: not everything\ncould be checked.",
    .options = index_options,
    .run = index_check_run_index_check,
};
