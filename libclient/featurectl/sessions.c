/* SPDX-License-Identifier: Apache-2.0
 *
 * `sessions`: who is connected, and what the broker keeps for each; finds who holds what others
 * would need.
 *
 * By session for the question "which process keeps this?", and with --by-user for "who keeps so
 * much?": limits are for users, and what ended sessions have left behind counts there, too.
 */
#include <stdio.h>

#include "featurectl/context.h"
#include "featurectl/units.h"

#define PAGE_ITEMS 256u

static const struct table_column session_columns[] = {
    {"session_id", "SESSION", TABLE_RIGHT},
    {"pid", "PID", TABLE_RIGHT},
    {"uid", "USER", TABLE_RIGHT},
    {"name", "NAME", TABLE_LEFT},
    {"state", "STATE", TABLE_LEFT},
    {"age_ms", "AGE", TABLE_RIGHT},
    {"idle_ms", "IDLE", TABLE_RIGHT},
    {"stores", "STORES", TABLE_RIGHT | TABLE_WIDE},
    {"handles", "HANDLES", TABLE_RIGHT | TABLE_WIDE},
    {"leases", "LEASES", TABLE_RIGHT},
    {"reservations", "RESERVATIONS", TABLE_RIGHT | TABLE_WIDE},
    {"reserved_bytes", "RESERVED", TABLE_RIGHT | TABLE_IF_ANY},
    {"waits", "WAITING", TABLE_RIGHT | TABLE_IF_ANY},
    {"unread_bytes", "UNREAD", TABLE_RIGHT | TABLE_WIDE},
    {"unread_descriptors", "DESCRIPTORS", TABLE_RIGHT | TABLE_WIDE},
    {"pending_ends", "PENDING", TABLE_RIGHT | TABLE_IF_ANY},
    {"requests", NULL, TABLE_LEFT},
    {"queued_bytes", NULL, TABLE_LEFT},
    {"kept_bytes", NULL, TABLE_LEFT},
    {"admin", NULL, TABLE_LEFT},
    {"parked_ms", NULL, TABLE_LEFT},
};

static const struct table_column owner_columns[] = {
    {"name", "WHO", TABLE_LEFT},
    {"sessions", "SESSIONS", TABLE_RIGHT},
    {"created_stores", "CREATED", TABLE_RIGHT | TABLE_IF_ANY},
    {"handles", "HANDLES", TABLE_RIGHT | TABLE_WIDE},
    {"leases", "LEASES", TABLE_RIGHT},
    {"reservations", "RESERVATIONS", TABLE_RIGHT | TABLE_WIDE},
    {"reserved_bytes", "RESERVED", TABLE_RIGHT | TABLE_IF_ANY},
    {"waits", "WAITING", TABLE_RIGHT | TABLE_IF_ANY},
    {"unread_bytes", "UNREAD", TABLE_RIGHT | TABLE_WIDE},
    {"unread_descriptors", "DESCRIPTORS", TABLE_RIGHT | TABLE_WIDE},
    {"pending_ends", "PENDING", TABLE_RIGHT | TABLE_IF_ANY},
    {"requests", NULL, TABLE_LEFT},
    {"queued_bytes", NULL, TABLE_LEFT},
    {"kept_bytes", NULL, TABLE_LEFT},
    {"uid", NULL, TABLE_LEFT},
    {"node", NULL, TABLE_LEFT},
};

/* The same eleven cells in both tables. Both lists of columns have them in this order. */
static void sessions_print_holdings(struct table *table, const Fb__Holdings *holds) {
    table_count(table, holds->handles);
    table_count(table, holds->leases);
    table_count(table, holds->reservations);
    table_bytes(table, holds->reserved_bytes);
    table_count(table, holds->waits);
    table_bytes(table, holds->unread_bytes);
    table_count(table, holds->unread_descriptors);
    table_count(table, holds->pending_ends);
    table_count(table, holds->requests);
    table_bytes(table, holds->queued_bytes);
    table_bytes(table, holds->kept_bytes);
}

/* Parked: its connection broke, its process lives, and the broker keeps all that it holds for it.
 */
static void sessions_print_state(struct table *table, uint64_t parked_ms) {
    char state[48], duration[UNITS_ROOM];
    if (parked_ms)
        snprintf(state, sizeof state, "parked %s", units_duration(parked_ms, duration));
    table_text(table, parked_ms ? state : "connected");
}

/* The name is what the program called itself; pid and user come from the kernel. */
static void sessions_print(struct table *table, const Fb__SessionInfo *session) {
    const Fb__Holdings none = FB__HOLDINGS__INIT;
    table_count(table, session->session_id);
    table_count(table, session->pid);
    table_count(table, session->uid);
    table_text(table, session->name);
    sessions_print_state(table, session->parked_ms);
    table_duration(table, session->age_ms);
    table_duration(table, session->idle_ms);
    table_count(table, session->stores);
    sessions_print_holdings(table, session->holds ? session->holds : &none);
    table_flag(table, session->admin);
    table_count(table, session->parked_ms);
    table_end_row(table);
}

/* An owner is a user of this machine or another node that reads from here. */
static void sessions_print_owner(struct table *table, const Fb__OwnerInfo *owner) {
    const Fb__Holdings none = FB__HOLDINGS__INIT;
    table_text(table, owner->name);
    table_count(table, owner->sessions);
    table_count(table, owner->stores);
    sessions_print_holdings(table, owner->holds ? owner->holds : &none);
    table_count(table, owner->uid);
    table_flag(table, owner->is_node);
    table_end_row(table);
}

/* One of the two lists of a reply is empty, depending on what was asked for. */
static int sessions_run_sessions(struct context *context) {
    Fb__Sessions sessions = FB__SESSIONS__INIT;
    sessions.limit = PAGE_ITEMS;
    sessions.by_owner = options_given(&context->options, "by-user");
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_SESSIONS;
    request.sessions = &sessions;
    struct table table;
    if (sessions.by_owner)
        CONTEXT_WIDE_TABLE(context, &table, owner_columns);
    else
        CONTEXT_WIDE_TABLE(context, &table, session_columns);
    int status;
    do {
        Fb__ClientReply *reply;
        status = context_call(context, &request, NULL, FB__CLIENT_REPLY__RESULT_SESSIONS, &reply);
        if (status)
            break;
        for (size_t i = 0; i < reply->sessions->n_sessions; i++)
            sessions_print(&table, reply->sessions->sessions[i]);
        for (size_t i = 0; i < reply->sessions->n_owners; i++)
            sessions_print_owner(&table, reply->sessions->owners[i]);
        sessions.cursor = reply->sessions->cursor;
        context_free_reply(reply);
    } while (sessions.cursor);
    table_finish(&table, TABLE_ROWS);
    return status;
}

static const struct option_spec session_options[] = {
    {.name = "by-user",
     .help = "one line for each user and for each node that reads from here, with what ended "
             "sessions have left"},
    OPTION_WIDE,
    {0},
};

const struct command command_sessions = {
    .name = "sessions",
    .arguments = "",
    .summary = "who is connected, and what each holds",
    .options = session_options,
    .run = sessions_run_sessions,
};
