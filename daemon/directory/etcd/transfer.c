/* SPDX-License-Identifier: Apache-2.0
 *
 * One request or watch between this broker and libcurl: its headers, body and time limits, what
 * comes back, and the transfers that are kept for when there is no memory.
 *
 *   new -> begun: active -> ended (client.c looks at it) -> begun again, or answered and freed
 *              \-> failed -> answered and freed
 *
 * libcurl asks for the body piece by piece. `body_taken` says afterwards whether a byte of it may
 * have been sent; client.c builds on that (see there). libcurl would by itself repeat a request
 * whose reused connection turns out to be dead, and the repeat would be a second execution of a
 * write. It has to rewind the body for that, which transfer_refuse_rewind() refuses.
 */
#include "directory/etcd/transfer.h"

#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "directory/etcd/json.h"
#include "ops/log.h"

#define ANSWER_BYTES_MAX   (64u << 20)
#define CONNECT_TIMEOUT_MS 1000u
#define KEEPALIVE_S        5L /* TCP's, on watches: a vanished host is noticed in about 20 s */
#define NS_PER_MS          1000000u

/* ---- libcurl's callbacks ---- */

/* libcurl asks for the body piece by piece. body_taken > 0 afterwards is what tells "may have been
 * sent" from "cannot have been sent"; see the top of this file. */
static size_t transfer_give_body(char *out, size_t size, size_t count, void *context) {
    struct transfer *transfer = context;
    size_t left = transfer->body_bytes - transfer->body_taken, room = size * count;
    size_t bytes = left < room ? left : room;
    memcpy(out, transfer->body + transfer->body_taken, bytes);
    transfer->body_taken += bytes;
    return bytes;
}

static int transfer_refuse_rewind(void *context, curl_off_t offset, int origin) {
    (void)context, (void)offset, (void)origin;
    return CURL_SEEKFUNC_FAIL;
}

static bool transfer_text_add(struct text *text, const char *data, size_t bytes) {
    if (text->bytes + bytes + 1 > text->room) {
        size_t room = 2 * (text->bytes + bytes + 1);
        char *grown = room <= ANSWER_BYTES_MAX ? realloc(text->data, room) : NULL;
        if (!grown)
            return false;
        text->data = grown;
        text->room = room;
    }
    memcpy(text->data + text->bytes, data, bytes);
    text->bytes += bytes;
    text->data[text->bytes] = '\0';
    return true;
}

static size_t transfer_take_answer(char *data, size_t size, size_t count, void *context) {
    struct transfer *transfer = context;
    return transfer_text_add(&transfer->answer, data, size * count) ? size * count : 0;
}

void etcd_client_drop_token(struct etcd_client *client) {
    if (client->authorization)
        explicit_bzero(client->authorization, strlen(client->authorization));
    free(client->authorization);
    client->authorization = NULL;
}

/* 0, or -1: the watch has ended. */
static int transfer_take_line(struct transfer *transfer) {
    struct etcd_watch_message message;
    struct etcd_answer *keep;
    if (etcd_json_watch_line(transfer->answer.data, transfer->answer.bytes, &message, &keep) < 0)
        return -1;
    transfer->said_ended = message.ended;
    if (message.ended && !message.compact_revision) /* etcd says no more when the token is old */
        etcd_client_drop_token(transfer->client);
    transfer->watch(transfer->context, &message);
    etcd_json_answer_free(keep);
    transfer->answer.bytes = 0;
    return transfer->said_ended ? -1 : 0;
}

static size_t transfer_take_lines(char *data, size_t size, size_t count, void *context) {
    struct transfer *transfer = context;
    size_t bytes = size * count;
    for (const char *at = data, *end = data + bytes; at < end;) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        const char *stop = newline ? newline : end;
        if (!transfer_text_add(&transfer->answer, at, (size_t)(stop - at)) ||
            (newline && transfer_take_line(transfer) < 0))
            return 0; /* ends the transfer */
        at = newline ? newline + 1 : end;
    }
    return bytes;
}

/* ---- transfers ---- */

void etcd_transfer_free(struct transfer *transfer) {
    if (transfer->easy)
        curl_easy_cleanup(transfer->easy);
    curl_slist_free_all(transfer->headers);
    if (transfer->body)
        explicit_bzero(transfer->body, transfer->body_bytes); /* it may hold the password */
    free(transfer->body);
    free(transfer->answer.data);
    transfer->in_use = false;
    if (!transfer->is_spare)
        free(transfer);
}

/* An answer is owed to every request and there is no way to refuse one at once: without memory for
 * it, it takes a spare one, and client_submit() lets it fail. NULL: all of those are in use, and
 * the request is never answered; ending the daemon would be worse. */
struct transfer *etcd_transfer_new(struct etcd_client *client, char *body) {
    struct transfer *transfer = calloc(1, sizeof *transfer);
    for (size_t i = 0; !transfer && i < TRANSFERS_SPARE; i++)
        if (!client->spare[i].in_use) {
            transfer = &client->spare[i];
            *transfer = (struct transfer){.is_spare = true, .in_use = true};
        }
    if (!transfer) {
        log_limited(LOG_LEVEL_ERROR, 0, "out of memory: a request to etcd is dropped");
        free(body);
        return NULL;
    }
    transfer->client = client;
    transfer->body = body;
    transfer->body_bytes = body ? strlen(body) : 0;
    return transfer;
}

static void transfer_set_tls(const struct etcd_client *client, CURL *easy) {
    if (client->ca_file)
        curl_easy_setopt(easy, CURLOPT_CAINFO, client->ca_file);
    if (client->cert_file)
        curl_easy_setopt(easy, CURLOPT_SSLCERT, client->cert_file);
    if (client->key_file)
        curl_easy_setopt(easy, CURLOPT_SSLKEY, client->key_file);
}

/* False: out of memory. */
static bool transfer_add_header(struct transfer *transfer, const char *header) {
    struct curl_slist *longer = curl_slist_append(transfer->headers, header);
    if (longer)
        transfer->headers = longer;
    return longer;
}

/* The token may have changed since the last attempt, so the headers are made anew with each.
 * "Expect:" with nothing behind it keeps libcurl from asking for a "100 Continue" before a long
 * body, which would cost a round trip. The request for a token carries no token. */
static bool transfer_set_headers(struct transfer *transfer, CURL *easy) {
    const char *authorization = transfer->client->authorization;
    bool authorized = authorization && (transfer->watch || transfer->kind != ETCD_AUTHENTICATE);
    curl_slist_free_all(transfer->headers);
    transfer->headers = NULL;
    if (!transfer_add_header(transfer, "Content-Type: application/json") ||
        !transfer_add_header(transfer, "Expect:") || /* no round trip before a long body */
        (authorized && !transfer_add_header(transfer, authorization)))
        return false;
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, transfer->headers);
    return true;
}

static void transfer_set_body(struct transfer *transfer, CURL *easy) {
    curl_easy_setopt(easy, CURLOPT_POST, 1L);
    curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)transfer->body_bytes);
    curl_easy_setopt(easy, CURLOPT_READFUNCTION, transfer_give_body);
    curl_easy_setopt(easy, CURLOPT_READDATA, transfer);
    curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, transfer_refuse_rewind);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION,
                     transfer->watch ? transfer_take_lines : transfer_take_answer);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, transfer);
}

/* A watch stays open for days and has no time limit; TCP's keep-alive finds out when its endpoint
 * has vanished. A request has what is left of its time, and at least 1 ms, because 0 means "no
 * limit" to libcurl. */
static void transfer_set_timeouts(const struct transfer *transfer, CURL *easy) {
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_TIMEOUT_MS);
    if (transfer->watch) {
        curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
        curl_easy_setopt(easy, CURLOPT_TCP_KEEPIDLE, KEEPALIVE_S);
        curl_easy_setopt(easy, CURLOPT_TCP_KEEPINTVL, KEEPALIVE_S);
        return;
    }
    uint64_t now_ns = uv_hrtime();
    uint64_t left_ns = transfer->deadline_ns > now_ns ? transfer->deadline_ns - now_ns : 0;
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)(left_ns / NS_PER_MS + 1));
}

/* Each attempt takes a new easy handle: what an earlier attempt has left in one could not be told
 * apart from this one's. The connections themselves are kept in the multi handle and used again.
 * Proxies are never used, whatever the environment says: a broker speaks to etcd directly, and
 * http_proxy is often set on the nodes where people train.
 * False: out of memory. */
static bool transfer_try(struct transfer *transfer) {
    struct etcd_client *client = transfer->client;
    char url[ETCD_URL_BYTES + 32];
    if (transfer->easy)
        curl_easy_cleanup(transfer->easy);
    CURL *easy = transfer->easy = curl_easy_init();
    if (!easy)
        return false;
    transfer->endpoint = client->endpoint;
    transfer->body_taken = 0;
    transfer->answer.bytes = 0;
    snprintf(url, sizeof url, "%s/v3/%s", client->endpoints[client->endpoint],
             transfer->watch ? "watch" : etcd_json_path(transfer->kind));
    if (curl_easy_setopt(easy, CURLOPT_URL, url) != CURLE_OK)
        return false;
    curl_easy_setopt(easy, CURLOPT_PRIVATE, transfer);
    transfer->curl_words[0] = '\0';
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, transfer->curl_words);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
#if LIBCURL_VERSION_NUM >= 0x075500
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
#else /* Ubuntu 22.04 has 7.81 */
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    transfer_set_tls(client, easy);
    transfer_set_body(transfer, easy);
    transfer_set_timeouts(transfer, easy);
    if (!transfer_set_headers(transfer, easy) || etcd_multi_add(client->multi, easy) < 0)
        return false;
    transfer->under_way = true;
    TAILQ_INSERT_TAIL(&client->active, transfer, link);
    return true;
}

/* Under way, or answered soon that there was no memory for it. */
void etcd_transfer_begin(struct transfer *transfer) {
    struct etcd_client *client = transfer->client;
    if (transfer->body && transfer_try(transfer))
        return;
    log_limited(LOG_LEVEL_ERROR, 0, "out of memory for a request to etcd");
    transfer->failed = true;
    TAILQ_INSERT_TAIL(&client->failed, transfer, link);
    etcd_multi_soon(client->multi);
}

void etcd_transfer_take(struct transfer *transfer) {
    struct etcd_client *client = transfer->client;
    if (transfer->under_way)
        etcd_multi_remove(client->multi, transfer->easy);
    struct transfers *list = transfer->under_way ? &client->active
                             : transfer->failed  ? &client->failed
                                                 : &client->waiting;
    TAILQ_REMOVE(list, transfer, link);
    transfer->under_way = transfer->failed = false;
}

/* For whoever watches. Requests for a token are not counted: they come before others that are. */
static void transfer_count(const struct transfer *transfer, enum etcd_result result) {
    struct directory_counts *counts = &transfer->client->base.counts;
    uint64_t now_ns = uv_hrtime();
    bool lease = false;
    switch (transfer->kind) {
    case ETCD_TXN:
        counts->txns++;
        break;
    case ETCD_READ:
        counts->reads++;
        break;
    case ETCD_LEASE_GRANT:
    case ETCD_LEASE_KEEP_ALIVE:
    case ETCD_LEASE_REVOKE:
        counts->leases++;
        lease = true;
        break;
    case ETCD_AUTHENTICATE:
        return;
    }
    if (result != ETCD_OK)
        counts->failures++;
    else if (lease)
        histogram_add_span(&counts->lease, transfer->asked_ns, now_ns);
    else if (transfer->kind == ETCD_TXN)
        histogram_add_span(&counts->txn, transfer->asked_ns, now_ns);
}

void etcd_transfer_answer(struct transfer *transfer, enum etcd_result result,
                          const struct etcd_answer *parsed, const char *why) {
    const struct etcd_watch_message ended = {.ended = true};
    if (!transfer->watch) {
        transfer_count(transfer, result);
        transfer->done(transfer->context, result, parsed, why);
    } else if (!transfer->said_ended) {
        transfer->watch(transfer->context, &ended);
    }
    etcd_transfer_free(transfer);
}
