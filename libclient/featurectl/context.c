/* SPDX-License-Identifier: Apache-2.0
 *
 * Every sentence about trouble goes through context_report(): one line, shown as shown.h says
 * (names come from files and other clients), the same fields in JSON.
 *
 * A context is one run of one command: its options, its two streams, and the connection. A
 * command returns a status of the library or one of CTL_E_...; main.c makes the exit code of it.
 * Whoever returns a failure has told of it: each failure is told once.
 */
#include "featurectl/context.h"

#include <sodium.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "featurectl/memory.h"
#include "featurectl/secret.h"
#include "featurectl/shown.h"

/* JSON lines about trouble go to standard error, too, so that standard output holds nothing but
 * results.
 */
static void context_report(const struct context *context, const char *status, const char *object,
                           const char *sentence) {
    const char *command = context->command ? context->command->name : NULL;
    if (context->json) {
        json_t *line = json_pack("{s:s*, s:o*, s:s, s:o}", "command", command, "object",
                                 object ? shown_json(object) : NULL, "status", status, "error",
                                 shown_json(sentence));
        json_dumpf(line, context->err, JSON_COMPACT);
        fputc('\n', context->err);
        json_decref(line);
        return;
    }
    if (object && !*object)
        object = "''";
    char *line =
        memory_print("featurectl: %s%s%s%s%s", command ? command : "", command && object ? " " : "",
                     object ? object : "", command || object ? ": " : "", sentence);
    char *shown = shown_text(line);
    fprintf(context->err, "%s\n", shown);
    free(shown);
    free(line);
}

/* For what the library or the broker has refused: the sentence is theirs. */
int context_fail(struct context *context, int status, const char *object) {
    context_report(context, exit_code_word(status), object, feature_last_error());
    return status;
}

/* For what this program has found out by itself. */
int context_refuse(struct context *context, int status, const char *object, const char *format,
                   ...) {
    char sentence[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sentence, sizeof sentence, format, arguments);
    va_end(arguments);
    context_report(context, exit_code_word(status), object, sentence);
    return status;
}

/* Changes no exit code: the command goes on, and the caller remembers what it means. */
void context_warn(struct context *context, const char *object, const char *format, ...) {
    char sentence[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sentence, sizeof sentence, format, arguments);
    va_end(arguments);
    context_report(context, "WARNING", object, sentence);
}

/* Two descriptors may lead to one pipe or file, as with 2>&1; their numbers do not tell. */
static bool context_is_same_file(int fd, FILE *file) {
    struct stat one, other;
    return fstat(fd, &one) == 0 && fstat(fileno(file), &other) == 0 && one.st_dev == other.st_dev &&
           one.st_ino == other.st_ino;
}

/* A command that writes its data to standard output must not print sentences between them: they go
 * to standard error, or nowhere if both lead to the same place. */
void context_make_way(struct context *context, int fd) {
    bool takes_out = context_is_same_file(fd, context->out),
         takes_err = context_is_same_file(fd, context->err);
    FILE *nowhere = takes_out && takes_err ? fopen("/dev/null", "we") : NULL;
    if (nowhere)
        context->out = nowhere;
    else if (!takes_err)
        context->out = context->err;
}

/* The library looks for the socket in $FEATURED_SOCKET and then in its usual place when --socket
 * is not given.
 */
int context_connect(struct context *context) {
    struct feature_options options = {.size = sizeof options,
                                      .socket_path =
                                          options_text(&context->options, "socket", NULL),
                                      .client_name = "featurectl"};
    return feature_connect(&options, &context->feature);
}

/* May be called without a connection. */
void context_disconnect(struct context *context) {
    feature_disconnect(context->feature);
    context->feature = NULL;
}

int context_read_secret(struct context *context, uint8_t secret[SECRET_BYTES_MAX],
                        size_t *bytes_out) {
    const char *path = options_text(&context->options, "secret-file", NULL);
    char why[256];
    *bytes_out = 0;
    if (!path)
        return FEATURE_OK;
    ssize_t bytes = secret_read(path, secret, why, sizeof why);
    if (bytes < 0)
        return context_refuse(context, CTL_E_LOCAL, path, "%s", why);
    *bytes_out = (size_t)bytes;
    return FEATURE_OK;
}

/* Opens without reporting what the broker says; reports a secret file that cannot be used. */
static int context_open_quietly(struct context *context, const char *name, bool read_only,
                                struct feature_store **out, bool *reported) {
    uint8_t secret[SECRET_BYTES_MAX];
    struct feature_open_options options = {.size = sizeof options, .read_only = read_only};
    int status = context_read_secret(context, secret, &options.secret_bytes);
    *reported = status != FEATURE_OK;
    if (status)
        return status;
    options.secret = options.secret_bytes ? secret : NULL;
    status = feature_store_open(context->feature, name, &options, out);
    sodium_memzero(secret, sizeof secret);
    return status;
}

/* Read-only for whoever only reads: a store may allow more users to read than to write. */
int context_open(struct context *context, const char *name, bool read_only,
                 struct feature_store **out) {
    bool reported = false;
    int status = context_open_quietly(context, name, read_only, out, &reported);
    return status && !reported ? context_fail(context, status, name) : status;
}

/* 0 for a store whose secret is not known: the broker then shows what anybody may see of it. Only
 * listing commands use this; whoever changes something opens the store properly. */
int context_scope(struct context *context, const char *name, uint32_t *handle_out) {
    struct feature_store *store;
    bool reported = false;
    int status = context_open_quietly(context, name, true, &store, &reported);
    if (status == FEATURE_OK)
        *handle_out = feature_admin_handle(store);
    else if (status == FEATURE_E_DENIED)
        *handle_out = 0;
    else
        return reported ? status : context_fail(context, status, name);
    return FEATURE_OK;
}

/* An answer of another kind than the question's is a fault of the broker and is told as one; the
 * command does not go on with it. */
int context_call(struct context *context, const Fb__ClientRequest *request, const char *object,
                 Fb__ClientReply__ResultCase wanted, Fb__ClientReply **reply_out) {
    Fb__ClientReply *reply = NULL;
    int status = feature_admin_call(context->feature, request, CONTEXT_DEADLINE_MS, &reply);
    if (status)
        return context_fail(context, status, object);
    if (reply->result_case != wanted) {
        int kind = (int)reply->result_case;
        context_free_reply(reply);
        return context_refuse(context, FEATURE_E_INTERNAL, object,
                              "the broker's answer is of another kind (%d) than asked (%d)", kind,
                              wanted);
    }
    *reply_out = reply;
    return FEATURE_OK;
}

/* NULL is fine. */
void context_free_reply(Fb__ClientReply *reply) {
    if (reply)
        fb__client_reply__free_unpacked(reply, NULL);
}
