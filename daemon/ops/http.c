/* SPDX-License-Identifier: Apache-2.0
 *
 * The HTTP server, by libmicrohttpd with one thread that polls. One thread is enough: an answer
 * takes milliseconds, and those who ask are a scraper and a probe. What a stranger can do is
 * bounded: so many connections, so much memory for each (libmicrohttpd keeps a request's head
 * there, and refuses longer ones), so long without a word.
 *
 * GET and HEAD of three paths are answered; everything else is refused before anything is made.
 * Without the token the paths are not told apart: a stranger learns only that one is wanted.
 */
#include "ops/http.h"

#include <errno.h>
#include <microhttpd.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "ops/log.h"

#define CONNECTIONS_MAX  16u
#define CONNECTION_BYTES 16384u
#define SILENCE_S        10u

static const char text_plain[] = "text/plain; charset=utf-8";

struct http {
    struct MHD_Daemon *daemon;
    struct http_options options;
    uint8_t *token;
};

static void http_say(struct http_answer *out, unsigned status, const char *sentence) {
    *out = (struct http_answer){.status = status, .type = text_plain, .text = strdup(sentence)};
    out->text_bytes = strlen(sentence);
}

/* The scheme is case-insensitive, the token is compared in constant time. Its length is no secret.
 */
static bool http_may(const struct http *http, struct MHD_Connection *connection) {
    static const char scheme[] = "Bearer ";
    if (!http->token)
        return true;
    const char *shown =
        MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_AUTHORIZATION);
    if (!shown || strncasecmp(shown, scheme, sizeof scheme - 1) != 0)
        return false;
    shown += sizeof scheme - 1;
    return strlen(shown) == http->options.token_bytes &&
           sodium_memcmp(shown, http->token, http->options.token_bytes) == 0;
}

/* Prometheus names several forms with weights. The newer one is preferred wherever it is named: who
 * can read it loses nothing by it. */
static bool http_wants_open_metrics(struct MHD_Connection *connection) {
    const char *accept =
        MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_ACCEPT);
    return accept && strstr(accept, "application/openmetrics-text");
}

/* The token comes first, before method and path are looked at. */
static void http_route(const struct http *http, struct MHD_Connection *connection, const char *path,
                       const char *method, struct http_answer *out) {
    const struct http_options *options = &http->options;
    if (!http_may(http, connection))
        http_say(out, MHD_HTTP_UNAUTHORIZED, "a bearer token is wanted: [ops] http_token_file\n");
    else if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
        http_say(out, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET and HEAD\n");
    else if (strcmp(path, "/metrics") == 0)
        options->metrics(options->context, http_wants_open_metrics(connection), out);
    else if (strcmp(path, "/healthz") == 0)
        options->healthy(options->context, out);
    else if (strcmp(path, "/readyz") == 0)
        options->ready(options->context, out);
    else
        http_say(out, MHD_HTTP_NOT_FOUND, "there are /metrics, /healthz and /readyz\n");
}

/* The text becomes the response's. Answers are of this moment: no cache may keep them. */
static enum MHD_Result http_send(struct MHD_Connection *connection, struct http_answer *answer) {
    struct MHD_Response *response =
        answer->text ? MHD_create_response_from_buffer(answer->text_bytes, answer->text,
                                                       MHD_RESPMEM_MUST_FREE)
                     : NULL;
    if (!response) {
        free(answer->text);
        return MHD_NO; /* closes the connection */
    }
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, answer->type);
    MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    if (answer->status == MHD_HTTP_UNAUTHORIZED)
        MHD_add_response_header(response, MHD_HTTP_HEADER_WWW_AUTHENTICATE,
                                "Bearer realm=\"featured\"");
    if (answer->status == MHD_HTTP_METHOD_NOT_ALLOWED)
        MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
    enum MHD_Result result = MHD_queue_response(connection, answer->status, response);
    MHD_destroy_response(response);
    return result;
}

/* libmicrohttpd calls this once when the head of a request is there, and again for its body and its
 * end. It is answered with the second call: only then does the connection stay open for the next
 * request. A body means a request that is none of ours: the connection is closed. */
static enum MHD_Result http_on_request(void *context, struct MHD_Connection *connection,
                                       const char *url, const char *method, const char *version,
                                       const char *upload, size_t *upload_bytes, void **state) {
    static char begun;
    struct http_answer answer = {0};
    (void)version;
    (void)upload;
    if (!*state) {
        *state = &begun;
        return MHD_YES;
    }
    if (*upload_bytes)
        return MHD_NO;
    http_route(context, connection, url, method, &answer);
    return http_send(connection, &answer);
}

/* What libmicrohttpd has to say of a connection is at most worth a debug line: strangers cause it.
 */
static void http_on_log(void *context, const char *format, va_list arguments) {
    (void)context;
    (void)format;
    (void)arguments;
}

/* The token is copied, for its owner wipes what it has read from the file. The thread of
 * libmicrohttpd runs before this returns, so that all that it uses is set up first. */
int http_new(const struct http_options *options, struct http **out) {
    struct http *http = calloc(1, sizeof *http);
    if (!http)
        return -ENOMEM;
    http->options = *options;
    if (options->token) {
        http->token = malloc(options->token_bytes + 1);
        if (!http->token) {
            free(http);
            return -ENOMEM;
        }
        memcpy(http->token, options->token, options->token_bytes);
    }
    http->daemon = MHD_start_daemon(
        MHD_USE_POLL_INTERNAL_THREAD | MHD_USE_ERROR_LOG, 0, NULL, NULL, http_on_request, http,
        MHD_OPTION_EXTERNAL_LOGGER, http_on_log, NULL, MHD_OPTION_LISTEN_SOCKET, options->listen_fd,
        MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS_MAX, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)CONNECTION_BYTES, MHD_OPTION_CONNECTION_TIMEOUT, SILENCE_S, MHD_OPTION_END);
    if (!http->daemon) {
        int error = errno ? errno : EAGAIN;
        free(http->token);
        free(http);
        return -error;
    }
    *out = http;
    return 0;
}

/* libmicrohttpd ends its thread and closes the listening socket. */
void http_free(struct http *http) {
    if (!http)
        return;
    MHD_stop_daemon(http->daemon);
    if (http->token)
        sodium_memzero(http->token, http->options.token_bytes);
    free(http->token);
    free(http);
}
