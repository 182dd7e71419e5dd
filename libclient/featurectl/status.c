/* SPDX-License-Identifier: Apache-2.0
 *
 * `status` and `nodes`: this broker and the ones it knows.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "featurectl/members.h"
#include "featurectl/memory.h"
#include "featurectl/readiness.h"
#include "featurectl/shown.h"
#include "featurectl/units.h"

/* What stands before and behind the counters that the broker names. */
static const struct table_column status_first[] = {
    {"node", "node", TABLE_LEFT},
    {"incarnation", "incarnation", TABLE_LEFT},
    {"broker_version", "version", TABLE_LEFT},
    {"uptime_ms", "up", TABLE_LEFT},
    {"directory", "directory", TABLE_LEFT},
    {"resident_bytes", "resident", TABLE_LEFT},
    {"max_resident_bytes", "limit", TABLE_LEFT},
    {"stores", "stores", TABLE_LEFT},
    {"sessions", "sessions", TABLE_LEFT},
    {"leases", "leases", TABLE_LEFT},
    {"release_pending", "release pending", TABLE_LEFT},
    {"index_pending", "index pending", TABLE_LEFT},
    {"draining", "draining", TABLE_LEFT},
    {"ready", "ready", TABLE_LEFT},
};
static const struct table_column status_last[] = {
    {"trouble", "trouble", TABLE_LEFT},
    {"twin", "twin", TABLE_LEFT},
    {"not_ready_why", NULL, TABLE_LEFT},
};
#define STATUS_FIRST (sizeof status_first / sizeof *status_first)
#define STATUS_LAST  (sizeof status_last / sizeof *status_last)

/* status asks this broker about itself; nodes asks it about all members. The counters of
 * `status` are named by the broker, so that a counter of a newer broker is shown by an older
 * featurectl.
 */
/* A unit that this featurectl does not know is shown as a plain number: the name says what it is.
 */
static void status_print_counter(struct table *table, const Fb__Counter *counter) {
    switch (counter->unit) {
    case FB__COUNTER__UNIT__BYTES:
        table_bytes(table, counter->value);
        break;
    case FB__COUNTER__UNIT__MS:
        table_duration(table, counter->value);
        break;
    default:
        table_count(table, counter->value);
    }
}

/* One cell for each column: the fixed ones, then the counters, then the words. */
static void status_print_row(struct table *table, const Fb__HealthReply *h) {
    table_text(table, h->node);
    table_id(table, h->incarnation);
    table_text(table, h->broker_version);
    table_duration(table, h->uptime_ms);
    table_text(table, h->directory);
    table_bytes(table, h->resident_bytes);
    table_bytes(table, h->max_resident_bytes);
    table_count(table, h->stores);
    table_count(table, h->sessions);
    table_count(table, h->leases);
    table_count(table, h->release_pending);
    table_count(table, h->index_pending);
    table_flag(table, h->draining);
    readiness_print(table, h);
    for (size_t i = 0; i < h->n_counters; i++)
        status_print_counter(table, h->counters[i]);
    table_text(table, h->trouble);
    table_text(table, h->twin);
    table_text(table, h->not_ready_why);
    table_end_row(table);
}

/* The counters are whatever the broker tells of, in its order and under its labels. */
static void status_print_status(struct context *context, const Fb__HealthReply *h) {
    const size_t count = STATUS_FIRST + h->n_counters + STATUS_LAST;
    struct table_column *columns = memory_grow(NULL, count, sizeof *columns);
    char **labels = memory_grow(NULL, h->n_counters + 1, sizeof *labels);
    struct table table;
    memcpy(columns, status_first, sizeof status_first);
    for (size_t i = 0; i < h->n_counters; i++) {
        labels[i] = shown_text(h->counters[i]->label);
        columns[STATUS_FIRST + i] =
            (struct table_column){h->counters[i]->name, labels[i], TABLE_LEFT};
    }
    memcpy(columns + count - STATUS_LAST, status_last, sizeof status_last);
    table_init(&table, context->out, context->json, columns, count);
    status_print_row(&table, h);
    table_finish(&table, TABLE_FIELDS);
    for (size_t i = 0; i < h->n_counters; i++)
        free(labels[i]);
    free(labels);
    free(columns);
}

/* For probes that want nothing else (--ready): asking for less keeps the output stable. */
static void status_print_ready(struct context *context, const Fb__HealthReply *h) {
    static const struct table_column columns[] = {{"ready", "ready", TABLE_LEFT},
                                                  {"not_ready_why", NULL, TABLE_LEFT}};
    struct table table;
    CONTEXT_TABLE(context, &table, columns);
    readiness_print(&table, h);
    table_text(&table, h->not_ready_why);
    table_end_row(&table);
    table_finish(&table, TABLE_FIELDS);
}

/* Asks this broker alone and prints what it says of itself. Whether it is ready decides the exit
 * code, so that a probe needs no parsing. */
static int status_run_status(struct context *context) {
    Fb__Health health = FB__HEALTH__INIT;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_HEALTH;
    request.health = &health;
    Fb__ClientReply *reply;
    int status = context_call(context, &request, NULL, FB__CLIENT_REPLY__RESULT_HEALTH, &reply);
    if (status)
        return status;
    bool only_ready = options_given(&context->options, "ready");
    if (only_ready)
        status_print_ready(context, reply->health);
    else
        status_print_status(context, reply->health);
    switch (readiness_of(reply->health)) {
    case READINESS_READY:
        break;
    case READINESS_NOT_READY:
        status = context_refuse(context, CTL_E_NOT_READY, NULL, "node %s is not ready: %s",
                                reply->health->node, readiness_why(reply->health));
        break;
    case READINESS_NOT_TOLD:
        if (only_ready)
            status = context_refuse(context, FEATURE_E_UNSUPPORTED, NULL,
                                    "node %s, version %s, does not tell whether it is ready",
                                    reply->health->node, reply->health->broker_version);
    }
    context_free_reply(reply);
    return status;
}

/* What a node says of itself; nothing where it is silent. */
static void status_print_health(struct table *table, const Fb__NodeInfo *node) {
    const Fb__HealthReply *health = node->health;
    if (!health) {
        for (int i = 0; i < 5; i++)
            table_text(table, NULL);
        return;
    }
    table_count(table, health->resident_samples);
    table_bytes(table, health->resident_bytes);
    table_bytes(table, health->max_resident_bytes);
    table_count(table, health->leases);
    table_count(table, health->release_pending + health->index_pending);
}

/* last_failure is left out where there was none. */
static json_t *status_rail_json(const Fb__RailInfo *rail) {
    return json_pack("{s:o, s:o, s:b, s:I, s:I, s:I, s:I, s:o*}", "name", shown_json(rail->name),
                     "local", shown_json(rail->local), "up", (int)rail->up, "mtu_bytes",
                     (json_int_t)rail->mtu_bytes, "bytes_in", (json_int_t)rail->bytes_in, "reads",
                     (json_int_t)rail->reads, "errors", (json_int_t)rail->errors, "last_failure",
                     *rail->last_failure ? shown_json(rail->last_failure) : NULL);
}

/* "rxe0/1 up, MTU 4096, read 3.0 MiB; rxe1/1 down, ..."; without rails what the transport says of
 * itself. */
static void status_print_path(struct table *table, const Fb__NodeInfo *node) {
    json_t *list = json_array();
    char *text = memory_copy(node->n_rails ? "" : node->detail);
    for (size_t i = 0; i < node->n_rails; i++) {
        const Fb__RailInfo *rail = node->rails[i];
        char bytes[UNITS_ROOM], *longer;
        units_bytes(rail->bytes_in, bytes);
        longer = memory_print("%s%s%s %s, MTU %u, read %s, errors %llu%s%s", text, i ? "; " : "",
                              rail->name, rail->up ? "up" : "down", (unsigned)rail->mtu_bytes,
                              bytes, (unsigned long long)rail->errors,
                              *rail->last_failure ? ", last: " : "", rail->last_failure);
        free(text);
        text = longer;
        json_array_append_new(list, status_rail_json(rail));
    }
    table_cell(table, json_pack("{s:o, s:o}", "detail", shown_json(node->detail), "rails", list),
               *text ? text : "-");
    free(text);
}

/* What this node knows of the other one, around what the other one says of itself. */
static void status_print_node(struct table *table, const Fb__NodeInfo *node) {
    table_text(table, node->node);
    table_flag(table, node->self);
    table_text(table, node->address);
    table_text(table, node->data_address);
    table_text(table, node->state);
    table_text(table, node->transport);
    table_id(table, node->incarnation);
    if (node->heard)
        table_duration(table, node->heard_ms_ago);
    else
        table_text(table, NULL);
    status_print_health(table, node);
    table_bytes(table, node->bytes_in);
    table_bytes(table, node->bytes_out);
    table_count(table, node->reads);
    table_count(table, node->reads_in_flight);
    table_count(table, node->errors);
    table_count(table, node->release_pending);
    table_text(table, node->self ? NULL : members_silence(node));
    table_text(table, node->last_failure);
    table_text(table, node->data_failure);
    table_count(table, node->odd_answers);
    table_text(table, node->twin);
    table_text(table, node->health ? node->health->trouble : NULL);
    status_print_path(table, node);
    table_text(table, node->health ? node->health->broker_version : NULL);
    if (node->health)
        table_duration(table, node->health->uptime_ms);
    else
        table_text(table, NULL);
    table_end_row(table);
}

/* What is wrong with a node, in sentences below the table: columns of them would be as wide as the
 * longest, and mostly empty.
 */
static void status_note_node(struct table *table, const Fb__NodeInfo *node) {
    const bool down = !node->self && strcmp(node->state, "up") != 0;
    const struct {
        const char *what, *sentence;
    } notes[] = {
        {"says nothing", node->self ? NULL : members_silence(node)},
        {"its last failure", down ? node->last_failure : NULL}, /* --wide has those of before */
        {"its data address is not reached", node->data_failure},
        {"two of this name", node->twin},
        {"its directory", node->health ? node->health->trouble : NULL},
    };
    for (size_t i = 0; i < sizeof notes / sizeof *notes; i++)
        if (notes[i].sentence && *notes[i].sentence)
            table_note(table, "%s: %s: %s", node->node, notes[i].what, notes[i].sentence);
    if (node->odd_answers)
        table_note(table, "%s: %" PRIu64 " of its answers were not to what had been asked",
                   node->node, node->odd_answers);
    if (node->release_pending)
        table_note(table, "%s: %" PRIu64 " releases of this node that it has not confirmed",
                   node->node, node->release_pending);
}

/* One question to this broker, which asks all others and waits 2 s for them at most. The answer is
 * collected and then printed, because the widths of columns depend on all rows. */
static int status_run_nodes(struct context *context) {
    static const struct table_column columns[] = {
        {"node", "NODE", TABLE_LEFT},
        {"self", "SELF", TABLE_LEFT | TABLE_WIDE},
        {"address", "ADDRESS", TABLE_LEFT | TABLE_WIDE},
        {"data_address", "DATA ADDRESS", TABLE_LEFT | TABLE_WIDE},
        {"state", "STATE", TABLE_LEFT},
        {"transport", "VIA", TABLE_LEFT},
        {"incarnation", "INCARNATION", TABLE_LEFT | TABLE_WIDE},
        {"heard_ms_ago", "HEARD", TABLE_RIGHT},
        {"resident_samples", "SAMPLES", TABLE_RIGHT},
        {"resident_bytes", "RESIDENT", TABLE_RIGHT},
        {"max_resident_bytes", "LIMIT", TABLE_RIGHT},
        {"leases", "LEASES", TABLE_RIGHT},
        {"its_pending", "ITS PENDING", TABLE_RIGHT | TABLE_WIDE},
        {"bytes_in", "IN", TABLE_RIGHT},
        {"bytes_out", "OUT", TABLE_RIGHT},
        {"reads", "READS", TABLE_RIGHT | TABLE_WIDE},
        {"reads_in_flight", "ACTIVE", TABLE_RIGHT | TABLE_WIDE},
        {"errors", "ERRORS", TABLE_RIGHT | TABLE_WIDE},
        {"release_pending", "PENDING", TABLE_RIGHT | TABLE_WIDE},
        {"silence", "SILENT BECAUSE", TABLE_LEFT | TABLE_WIDE},
        {"last_failure", "LAST FAILURE", TABLE_LEFT | TABLE_WIDE},
        {"data_failure", "DATA ADDRESS NOT REACHED", TABLE_LEFT | TABLE_WIDE},
        {"odd_answers", "ODD ANSWERS", TABLE_RIGHT | TABLE_WIDE},
        {"twin", "TWIN", TABLE_LEFT | TABLE_WIDE},
        {"trouble", "ITS DIRECTORY", TABLE_LEFT | TABLE_WIDE},
        {"path", "PATH", TABLE_LEFT | TABLE_WIDE},
        {"broker_version", NULL, TABLE_LEFT},
        {"uptime_ms", NULL, TABLE_LEFT},
    };
    Fb__ClientReply *reply;
    int status = members_fetch(context, &reply);
    if (status)
        return status;
    struct table table;
    CONTEXT_WIDE_TABLE(context, &table, columns);
    for (size_t i = 0; i < reply->nodes->n_nodes; i++) {
        status_print_node(&table, reply->nodes->nodes[i]);
        if (!table.wide)
            status_note_node(&table, reply->nodes->nodes[i]);
    }
    table_finish(&table, TABLE_ROWS);
    context_free_reply(reply);
    return FEATURE_OK;
}

static const struct option_spec status_options[] = {
    {.name = "ready",
     .help = "print that alone; a broker too old to tell is an error (exit code 20)"},
    {0},
};

const struct command command_status = {
    .name = "status",
    .arguments = "",
    .summary = "this node's broker: memory, sessions, leases, what is pending",
    .details =
        "Exit code 3 when the broker answers and takes no puts and gets now (it is stopping, or "
        "cut off from\netcd): a probe of readiness is featurectl status --ready.",
    .options = status_options,
    .run = status_run_status,
};

static const struct option_spec node_options[] = {OPTION_WIDE, {0}};

const struct command command_nodes = {
    .name = "nodes",
    .arguments = "",
    .summary = "every broker of the cluster: what it holds, how it is reached",
    .details =
        "SAMPLES to ITS PENDING is what each says of itself, within 2 s; one that says nothing is "
        "listed with\nthe reason. What is wrong with one is said below. A "
        "node that has left (its\nrecord in etcd has ended) stays listed until this broker "
        "restarts. With directory = static the nodes\nare the peers of the configuration. They "
        "answer gets by ref and by id; supersede and abort act on\nthe home that is asked.",
    .options = node_options,
    .run = status_run_nodes,
};
