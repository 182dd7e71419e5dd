/* SPDX-License-Identifier: Apache-2.0
 *
 * A small HTTP server for whoever watches the broker: /metrics, /healthz and /readyz, read-only. It
 * runs in a thread of its own, so that a slow or hostile reader costs the broker nothing, and knows
 * nothing of brokers: what is answered comes from the functions that it was given, which are called
 * in that thread.
 */
#ifndef FEATURED_OPS_HTTP_H
#define FEATURED_OPS_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

struct http;

struct http_answer {
    unsigned status; /* of HTTP: 200, 503 ... */
    char *text;      /* malloc'ed; the server frees it; NULL: out of memory */
    size_t text_bytes;
    const char *type; /* Content-Type */
};

struct http_options {
    int listen_fd; /* a listening socket; taken over if http_new() succeeds */
    /* Whoever asks must show it as a bearer token (RFC 6750); NULL: anybody may ask. Copied. */
    const void *token;
    size_t token_bytes;
    /* open_metrics: whoever asks prefers that form to the older one. */
    void (*metrics)(void *context, bool open_metrics, struct http_answer *out);
    void (*healthy)(void *context, struct http_answer *out);
    void (*ready)(void *context, struct http_answer *out);
    void *context;
};

/* 0 or -errno. */
int http_new(const struct http_options *options, struct http **out);
/* Closes the socket and all connections, and waits for the thread: no function is called from this
 * return on. */
void http_free(struct http *http);

#endif
