/* SPDX-License-Identifier: Apache-2.0
 *
 * What every command works with: its options, its connection, where it prints, and how it reports
 * trouble.
 */
#ifndef FEATURED_CTL_CONTEXT_H
#define FEATURED_CTL_CONTEXT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "admin.h"
#include "featurectl/command.h"
#include "featurectl/exit_code.h"
#include "featurectl/secret.h"
#include "featurectl/table.h"

/* Round trips of a command that says nothing else. */
#define CONTEXT_DEADLINE_MS 10000u

struct context {
    const struct command *command;
    struct options options;
    struct feature *feature; /* NULL when not connected */
    FILE *out, *err;
    bool json;
    uint64_t begun_ns, connected_ns; /* of the connection; for get --timing */
};

/* For commands whose table has columns that are not shown by default (TABLE_WIDE). */
#define OPTION_WIDE                                                                                \
    { .name = "wide", .letter = 'w', .help = "every column, also those that are empty" }
/* The option that names the file with a store's secret: part of every command that opens one. */
#define OPTION_SECRET_FILE                                                                         \
    {                                                                                              \
        .name = "secret-file", .kind = OPTION_TEXT, .argument = "FILE",                            \
        .help = "file with the store's secret (mode 0600, 16 to 4096 bytes)"                       \
    }
#define OPTION_STORE(is_required, text)                                                            \
    {                                                                                              \
        .name = "store", .letter = 's', .kind = OPTION_TEXT, .required = (is_required),            \
        .argument = "STORE", .help = (text)                                                        \
    }

/* Connects by --socket. Does not report: doctor and completion have their own words. */
int context_connect(struct context *context);
void context_disconnect(struct context *context);

/* The secret of --secret-file into `secret`, which the caller wipes; *bytes_out 0: there is no such
 * option. Reports trouble. */
int context_read_secret(struct context *context, uint8_t secret[SECRET_BYTES_MAX],
                        size_t *bytes_out);
/* Opens a store with --secret-file; reports trouble. */
int context_open(struct context *context, const char *name, bool read_only,
                 struct feature_store **out);
/* For admin requests about a store: the handle of this session when the store lets us in, else 0:
 * the broker then decides by admin rights. Reports trouble other than DENIED. */
int context_scope(struct context *context, const char *name, uint32_t *handle_out);
/* Sends a request; any answer that is not of the wanted kind is an error. Reports trouble about
 * `object` (NULL = none). *reply_out: freed by context_free_reply(). */
int context_call(struct context *context, const Fb__ClientRequest *request, const char *object,
                 Fb__ClientReply__ResultCase wanted, Fb__ClientReply **reply_out);
void context_free_reply(Fb__ClientReply *reply);

/* Prints "featurectl: COMMAND OBJECT: SENTENCE" (with --json an object) to err and returns status.
 * context_fail() takes the sentence from feature_last_error(). */
int context_fail(struct context *context, int status, const char *object);
int context_refuse(struct context *context, int status, const char *object, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* The same for what does not keep the command from its work: status "WARNING" in JSON. */
void context_warn(struct context *context, const char *object, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Data is about to be written to a descriptor that may be standard output: tables go to standard
 * error from now on; or, where that is the same file, to standard output; or nowhere. */
void context_make_way(struct context *context, int fd);

/* A table that prints where and as the command line says. */
#define CONTEXT_TABLE(context, table, columns)                                                     \
    table_init(table, (context)->out, (context)->json, columns,                                    \
               sizeof(columns) / sizeof(columns)[0])

/* The same with OPTION_WIDE, which the command must have. */
#define CONTEXT_WIDE_TABLE(context, table, columns)                                                \
    do {                                                                                           \
        CONTEXT_TABLE(context, table, columns);                                                    \
        (table)->wide = options_given(&(context)->options, "wide");                                \
    } while (false)

#endif
