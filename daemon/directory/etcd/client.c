/* SPDX-License-Identifier: Apache-2.0
 *
 * A call: created -> (waits for a token) -> under way at an endpoint -> answered.
 *
 * What a failed transfer means hangs on one bit: whether libcurl has taken a byte of the body. If
 * not, etcd cannot have the request, and the next endpoint is tried. If so, and no answer came, the
 * outcome is unknown and the caller is told. libcurl would by itself repeat a request whose reused
 * connection turns out dead, which is a second execution of a write; a body that refuses to be
 * rewound (refuse_rewind) makes that a failure.
 *
 * A token is asked for before the first request and again when etcd refuses one (simple tokens
 * expire after 300 s); the refused call, which was not carried out, goes again once.
 *
 * An endpoint that says no for good (a certificate, an address that is no etcd's) is ETCD_E_REFUSED
 * like a request that is: only whether the request has been sent and may be carried out makes a
 * difference. Every sentence names the endpoint, and what it or libcurl says is cut and cleaned.
 *
 * Logged are the first failure of an endpoint after an answer and the first answer after a failure;
 * refusals by whoever asked, who knows whether they are news.
 */
#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <uv.h>

#include "directory/etcd/endpoints.h"
#include "directory/etcd/etcd.h"
#include "directory/etcd/gateway.h"
#include "directory/etcd/json.h"
#include "directory/etcd/multi.h"
#include "directory/etcd/words.h"
#include "ops/log.h"
#include "proto/container.h"

#define ANSWER_BYTES_MAX   (64u << 20)
#define CONNECT_TIMEOUT_MS 1000u
#define REVOKE_TIMEOUT_MS  1000u
#define KEEPALIVE_S        5L /* TCP's, on watches: a vanished host is noticed in about 20 s */
#define NS_PER_MS          1000000u
/* Requests that can be refused at once when there is no memory even for refusing them: more than
 * the directory has under way (state.h), whose parts ask one thing after the other. */
#define TRANSFERS_SPARE 64u

struct text {
    char *data;
    size_t bytes, room;
};

struct transfer {
    TAILQ_ENTRY(transfer) link;
    struct etcd_client *client;
    CURL *easy;
    char curl_words[CURL_ERROR_SIZE]; /* of its failure, in detail */
    enum etcd_request_kind kind;      /* unless it is a watch */
    struct curl_slist *headers;
    bool under_way; /* in `active` and the multi handle; else in one of the others, or in none */
    bool failed;    /* in `failed` */
    bool is_spare, in_use;
    char *body;
    size_t body_bytes, body_taken;
    struct text answer; /* of a watch: what has come of the line under way */
    size_t endpoint;
    uint32_t attempts; /* endpoints tried */
    bool reauthenticated, said_ended;
    uint64_t deadline_ns; /* by uv_hrtime() */
    etcd_done_fn done;
    etcd_watch_fn watch; /* of a watch; then there is no `done` */
    void *context;
};
TAILQ_HEAD(transfers, transfer);

struct etcd_client {
    struct etcd base;
    struct etcd_multi *multi;
    struct transfers active, waiting; /* waiting: for the token */
    struct transfers failed;          /* there was no memory for them: answered soon */
    struct transfer spare[TRANSFERS_SPARE];
    char endpoints[ETCD_ENDPOINTS_MAX][ETCD_URL_BYTES];
    bool answered[ETCD_ENDPOINTS_MAX];                          /* ever */
    size_t endpoint_count, endpoint;                            /* endpoint: the one in use */
    char *ca_file, *cert_file, *key_file, *username, *password; /* NULL = none */
    char *authorization; /* header with the token; NULL = none yet */
    bool authenticating, failing;
};

/* ---- libcurl's callbacks ---- */

/* libcurl asks for the body piece by piece. body_taken > 0 afterwards is what tells "may have been
 * sent" from "cannot have been sent"; see the top of this file. */
static size_t client_give_body(char *out, size_t size, size_t count, void *context) {
    struct transfer *transfer = context;
    size_t left = transfer->body_bytes - transfer->body_taken, room = size * count;
    size_t bytes = left < room ? left : room;
    memcpy(out, transfer->body + transfer->body_taken, bytes);
    transfer->body_taken += bytes;
    return bytes;
}

static int client_refuse_rewind(void *context, curl_off_t offset, int origin) {
    (void)context, (void)offset, (void)origin;
    return CURL_SEEKFUNC_FAIL;
}

static bool client_text_add(struct text *text, const char *data, size_t bytes) {
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

static size_t client_take_answer(char *data, size_t size, size_t count, void *context) {
    struct transfer *transfer = context;
    return client_text_add(&transfer->answer, data, size * count) ? size * count : 0;
}

static void client_drop_token(struct etcd_client *client) {
    if (client->authorization)
        explicit_bzero(client->authorization, strlen(client->authorization));
    free(client->authorization);
    client->authorization = NULL;
}

/* 0, or -1: the watch has ended. */
static int client_take_line(struct transfer *transfer) {
    struct etcd_watch_message message;
    struct etcd_answer *keep;
    if (etcd_json_watch_line(transfer->answer.data, transfer->answer.bytes, &message, &keep) < 0)
        return -1;
    transfer->said_ended = message.ended;
    if (message.ended && !message.compact_revision) /* etcd says no more when the token is old */
        client_drop_token(transfer->client);
    transfer->watch(transfer->context, &message);
    etcd_json_answer_free(keep);
    transfer->answer.bytes = 0;
    return transfer->said_ended ? -1 : 0;
}

static size_t client_take_lines(char *data, size_t size, size_t count, void *context) {
    struct transfer *transfer = context;
    size_t bytes = size * count;
    for (const char *at = data, *end = data + bytes; at < end;) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        const char *stop = newline ? newline : end;
        if (!client_text_add(&transfer->answer, at, (size_t)(stop - at)) ||
            (newline && client_take_line(transfer) < 0))
            return 0; /* ends the transfer */
        at = newline ? newline + 1 : end;
    }
    return bytes;
}

/* ---- transfers ---- */

static void client_transfer_free(struct transfer *transfer) {
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
static struct transfer *client_transfer_new(struct etcd_client *client, char *body) {
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

static void client_set_tls(const struct etcd_client *client, CURL *easy) {
    if (client->ca_file)
        curl_easy_setopt(easy, CURLOPT_CAINFO, client->ca_file);
    if (client->cert_file)
        curl_easy_setopt(easy, CURLOPT_SSLCERT, client->cert_file);
    if (client->key_file)
        curl_easy_setopt(easy, CURLOPT_SSLKEY, client->key_file);
}

/* False: out of memory. */
static bool client_add_header(struct transfer *transfer, const char *header) {
    struct curl_slist *longer = curl_slist_append(transfer->headers, header);
    if (longer)
        transfer->headers = longer;
    return longer;
}

/* The token may have changed since the last attempt, so the headers are made anew with each.
 * "Expect:" with nothing behind it keeps libcurl from asking for a "100 Continue" before a long
 * body, which would cost a round trip. The request for a token carries no token. */
static bool client_set_headers(struct transfer *transfer, CURL *easy) {
    const char *authorization = transfer->client->authorization;
    bool authorized = authorization && (transfer->watch || transfer->kind != ETCD_AUTHENTICATE);
    curl_slist_free_all(transfer->headers);
    transfer->headers = NULL;
    if (!client_add_header(transfer, "Content-Type: application/json") ||
        !client_add_header(transfer, "Expect:") || /* no round trip before a long body */
        (authorized && !client_add_header(transfer, authorization)))
        return false;
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, transfer->headers);
    return true;
}

static void client_set_body(struct transfer *transfer, CURL *easy) {
    curl_easy_setopt(easy, CURLOPT_POST, 1L);
    curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)transfer->body_bytes);
    curl_easy_setopt(easy, CURLOPT_READFUNCTION, client_give_body);
    curl_easy_setopt(easy, CURLOPT_READDATA, transfer);
    curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, client_refuse_rewind);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION,
                     transfer->watch ? client_take_lines : client_take_answer);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, transfer);
}

/* A watch stays open for days and has no time limit; TCP's keep-alive finds out when its endpoint
 * has vanished. A request has what is left of its time, and at least 1 ms, because 0 means "no
 * limit" to libcurl. */
static void client_set_timeouts(const struct transfer *transfer, CURL *easy) {
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
static bool client_transfer_try(struct transfer *transfer) {
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
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    client_set_tls(client, easy);
    client_set_body(transfer, easy);
    client_set_timeouts(transfer, easy);
    if (!client_set_headers(transfer, easy) || etcd_multi_add(client->multi, easy) < 0)
        return false;
    transfer->under_way = true;
    TAILQ_INSERT_TAIL(&client->active, transfer, link);
    return true;
}

/* Under way, or answered soon that there was no memory for it. */
static void client_transfer_begin(struct transfer *transfer) {
    struct etcd_client *client = transfer->client;
    if (transfer->body && client_transfer_try(transfer))
        return;
    log_limited(LOG_LEVEL_ERROR, 0, "out of memory for a request to etcd");
    transfer->failed = true;
    TAILQ_INSERT_TAIL(&client->failed, transfer, link);
    etcd_multi_soon(client->multi);
}

/* Out of its list and the multi handle. */
static void client_transfer_take(struct transfer *transfer) {
    struct etcd_client *client = transfer->client;
    if (transfer->under_way)
        etcd_multi_remove(client->multi, transfer->easy);
    struct transfers *list = transfer->under_way ? &client->active
                             : transfer->failed  ? &client->failed
                                                 : &client->waiting;
    TAILQ_REMOVE(list, transfer, link);
    transfer->under_way = transfer->failed = false;
}

static void client_answer(struct transfer *transfer, enum etcd_result result,
                          const struct etcd_answer *parsed, const char *why) {
    const struct etcd_watch_message ended = {.ended = true};
    if (!transfer->watch)
        transfer->done(transfer->context, result, parsed, why);
    else if (!transfer->said_ended)
        transfer->watch(transfer->context, &ended);
    client_transfer_free(transfer);
}

/* ---- endpoints ---- */

/* Watches at an endpoint that fails end, for they might just fall silent. */
static void client_end_watches(struct etcd_client *client, size_t endpoint) {
    struct transfer *transfer, *next;
    for (transfer = TAILQ_FIRST(&client->active); transfer; transfer = next) {
        next = TAILQ_NEXT(transfer, link);
        if (!transfer->watch || transfer->endpoint != endpoint)
            continue;
        client_transfer_take(transfer);
        client_answer(transfer, ETCD_E_UNREACHABLE, NULL, "the endpoint has failed");
    }
}

/* Of several requests that fail together only the first moves on to the next endpoint. told:
 * whoever asked is told so, in a way that it will log. */
static void client_endpoint_failed(struct etcd_client *client, size_t endpoint, const char *why,
                                   bool told) {
    if (endpoint != client->endpoint)
        return; /* another call has found it out before */
    client->endpoint = (client->endpoint + 1) % client->endpoint_count;
    if (!client->failing && client->endpoint_count > 1)
        log_warning("%s; trying %s", why, client->endpoints[client->endpoint]);
    else if (!client->failing && !told)
        log_warning("%s; trying it again", why);
    client->failing |= !told || client->endpoint_count > 1;
    client_end_watches(client, endpoint);
}

static void client_endpoint_answered(struct etcd_client *client, size_t endpoint) {
    if (client->failing)
        log_info("etcd at %s answers", client->endpoints[endpoint]);
    client->failing = false;
    client->answered[endpoint] = true;
}

/* "etcd at URL SAYS: WORDS" */
static void client_say(const struct transfer *transfer, const char *says, const char *words,
                       char why[ETCD_WHY_BYTES]) {
    snprintf(why, ETCD_WHY_BYTES, "etcd at %s %s: %s%s",
             transfer->client->endpoints[transfer->endpoint], says, words,
             etcd_words_advice(words));
}

/* ---- authentication ---- */

static void client_ask(struct etcd *etcd, const struct etcd_request *request, uint32_t timeout_ms,
                       etcd_done_fn done, void *context);

static void client_keep_token(struct etcd_client *client, const char *token) {
    client_drop_token(client);
    if (asprintf(&client->authorization, "Authorization: %s", token) < 0)
        client->authorization = NULL; /* etcd refuses what follows, and it is asked for anew */
}

/* Those who wait are taken out of the list first: one that is begun and refused again would join
 * the list while it is walked. Without a token a request was never sent, so "not reached" is true
 * of it, and whoever asked may repeat it safely. */
static void client_on_token(void *context, enum etcd_result result,
                            const struct etcd_answer *parsed, const char *why) {
    struct etcd_client *client = context;
    client->authenticating = false;
    if (result == ETCD_OK)
        client_keep_token(client, parsed->token);
    struct transfers waiting = TAILQ_HEAD_INITIALIZER(waiting);
    TAILQ_CONCAT(&waiting, &client->waiting, link);
    for (struct transfer *transfer; (transfer = TAILQ_FIRST(&waiting));) {
        TAILQ_REMOVE(&waiting, transfer, link);
        if (result == ETCD_OK)
            client_transfer_begin(transfer);
        else
            client_answer(transfer, result == ETCD_E_REFUSED ? result : ETCD_E_UNREACHABLE, NULL,
                          why);
    }
}

static void client_wait_for_token(struct transfer *transfer) {
    struct etcd_client *client = transfer->client;
    struct etcd_request request = {
        .kind = ETCD_AUTHENTICATE, .name = client->username, .password = client->password};
    TAILQ_INSERT_TAIL(&client->waiting, transfer, link);
    if (client->authenticating)
        return;
    client->authenticating = true;
    client_ask(&client->base, &request, 2 * CONNECT_TIMEOUT_MS, client_on_token, client);
}

static void client_submit(struct transfer *transfer) {
    const struct etcd_client *client = transfer->client;
    bool needs_token = client->username && (transfer->watch || transfer->kind != ETCD_AUTHENTICATE);
    if (needs_token && !client->authorization)
        client_wait_for_token(transfer);
    else
        client_transfer_begin(transfer);
}

/* ---- ends of transfers ---- */

static void client_on_answer(struct transfer *transfer) {
    char words[256], why[ETCD_WHY_BYTES] = "";
    struct etcd_answer *parsed = etcd_json_answer(transfer->kind, transfer->answer.data,
                                                  transfer->answer.bytes, words, sizeof words);
    if (parsed) {
        client_endpoint_answered(transfer->client, transfer->endpoint);
    } else {
        client_say(transfer, "does not answer as an etcd does", words, why);
        client_endpoint_failed(transfer->client, transfer->endpoint, why, false);
    }
    client_answer(transfer, parsed ? ETCD_OK : ETCD_E_UNKNOWN, parsed, why);
    etcd_json_answer_free(parsed);
}

/* A refused token is replaced and the request sent again, once: a second refusal is about the user,
 * and would go on for ever. etcd answers so before it does anything, so that sending again is no
 * second execution. */
static void client_on_error(struct transfer *transfer, long status) {
    struct etcd_client *client = transfer->client;
    char words[2 * ETCD_WORDS_BYTES], why[ETCD_WHY_BYTES], refuses[ETCD_WORDS_BYTES] = "refuses";
    bool unauthorized;
    enum etcd_result result = etcd_json_error(status, transfer->answer.data, transfer->answer.bytes,
                                              &unauthorized, words, sizeof words);
    if (unauthorized)
        client_drop_token(client);
    if (unauthorized && client->username && !transfer->watch && !transfer->reauthenticated &&
        transfer->kind != ETCD_AUTHENTICATE) {
        transfer->reauthenticated = true;
        client_submit(transfer);
        return;
    }
    if (client->username) /* what may be done depends on who asks */
        snprintf(refuses, sizeof refuses, "refuses user %s", client->username);
    client_say(transfer, result == ETCD_E_UNKNOWN ? "fails" : refuses, words, why);
    if (result == ETCD_E_UNKNOWN)
        client_endpoint_failed(client, transfer->endpoint, why, false);
    else
        client_endpoint_answered(client, transfer->endpoint);
    client_answer(transfer, result, NULL, why);
}

/* The transfer has failed, or was a watch that has ended. Three things are found out, in this
 * order: whether the other side said no (then nothing was carried out, whatever was sent); whether
 * a byte of the request was sent (then it is unknown what was carried out); else the request goes
 * to the next endpoint, until each was tried once or the time is over. */
static void client_on_broken(struct transfer *transfer, CURLcode code) {
    struct etcd_client *client = transfer->client;
    char words[ETCD_WORDS_BYTES], why[ETCD_WHY_BYTES];
    const char *said = !code                   ? "the watch was closed"
                       : *transfer->curl_words ? transfer->curl_words
                                               : curl_easy_strerror(code);
    etcd_words(words, said, strlen(said));
    bool refused = etcd_words_of_refusal(code, words);
    bool sent = transfer->body_taken > 0 && !refused;
    const char *endpoint = client->endpoints[transfer->endpoint], *hang_up = NULL;
    curl_off_t secured_us = 0;
    curl_easy_getinfo(transfer->easy, CURLINFO_APPCONNECT_TIME_T, &secured_us);
    if (!refused && !client->answered[transfer->endpoint])
        hang_up = etcd_words_of_hang_up(code, endpoint, secured_us > 0);
    client_say(transfer,
               refused   ? "refuses, or is refused by us"
               : hang_up ? hang_up
                         : "cannot be used",
               words, why);
    if (!transfer->said_ended)
        client_endpoint_failed(client, transfer->endpoint, why, refused);
    if (!sent && !transfer->watch && ++transfer->attempts < client->endpoint_count &&
        uv_hrtime() < transfer->deadline_ns)
        client_submit(transfer);
    else
        client_answer(transfer,
                      refused ? ETCD_E_REFUSED
                      : sent  ? ETCD_E_UNKNOWN
                              : ETCD_E_UNREACHABLE,
                      NULL, why);
}

static void client_on_ended(void *owner, CURL *easy, CURLcode code) {
    struct etcd_client *client = owner;
    char *private;
    long status = 0;
    curl_easy_getinfo(easy, CURLINFO_PRIVATE, &private);
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    struct transfer *transfer = (struct transfer *)(void *)private;
    TAILQ_REMOVE(&client->active, transfer, link);
    transfer->under_way = false;
    if (code == CURLE_OK && status != 200)
        client_on_error(transfer, status);
    else if (code == CURLE_OK && !transfer->watch)
        client_on_answer(transfer);
    else
        client_on_broken(transfer, code);
}

/* One that there was no memory for. True: there are more. */
static bool client_on_soon(void *owner) {
    struct etcd_client *client = owner;
    struct transfer *transfer = TAILQ_FIRST(&client->failed);
    if (!transfer)
        return false;
    client_transfer_take(transfer);
    client_answer(transfer, ETCD_E_UNREACHABLE, NULL,
                  "this broker is out of memory for a request to etcd"); /* may close the client */
    return true;
}

/* ---- operations ---- */

static void client_ask(struct etcd *etcd, const struct etcd_request *request, uint32_t timeout_ms,
                       etcd_done_fn done, void *context) {
    struct etcd_client *client = container_of(etcd, struct etcd_client, base);
    struct transfer *transfer = client_transfer_new(client, etcd_json_request(request));
    if (!transfer)
        return;
    transfer->kind = request->kind;
    transfer->deadline_ns = uv_hrtime() + (uint64_t)timeout_ms * NS_PER_MS;
    transfer->done = done;
    transfer->context = context;
    client_submit(transfer);
}

static struct etcd_watch *client_watch(struct etcd *etcd, const char *key, const char *range_end,
                                       int64_t start_revision, etcd_watch_fn fn, void *context) {
    struct etcd_client *client = container_of(etcd, struct etcd_client, base);
    struct transfer *transfer =
        client_transfer_new(client, etcd_json_watch(key, range_end, start_revision));
    if (!transfer)
        return NULL;
    transfer->watch = fn;
    transfer->context = context;
    client_submit(transfer);
    return (struct etcd_watch *)transfer;
}

static void client_unwatch(struct etcd *etcd, struct etcd_watch *watch) {
    struct transfer *transfer = (struct transfer *)watch;
    (void)etcd;
    if (!transfer)
        return;
    client_transfer_take(transfer);
    client_transfer_free(transfer);
}

static void client_free(struct etcd_client *client) {
    if (client->multi)
        etcd_multi_close(client->multi);
    client_drop_token(client);
    if (client->password)
        explicit_bzero(client->password, strlen(client->password));
    free(client->ca_file);
    free(client->cert_file);
    free(client->key_file);
    free(client->username);
    free(client->password);
    free(client);
}

static void client_on_revoked(void *context, enum etcd_result result,
                              const struct etcd_answer *parsed, const char *why) {
    (void)parsed;
    if (result != ETCD_OK)
        log_debug("etcd: our lease was not given back: %s", why);
    client_free(context);
}

/* Every request that is still open is answered first, for that is promised. The lease is then given
 * back with one more request, which is the client's last: its answer frees the client. Without a
 * token that request would have to wait for one, and the lease ends by itself soon. */
static void client_destroy(struct etcd *etcd, int64_t revoke) {
    struct etcd_client *client = container_of(etcd, struct etcd_client, base);
    struct etcd_request request = {.kind = ETCD_LEASE_REVOKE, .lease = revoke};
    struct transfers *lists[] = {&client->waiting, &client->active, &client->failed};
    for (size_t i = 0; i < 3; i++)
        for (struct transfer *transfer; (transfer = TAILQ_FIRST(lists[i]));) {
            client_transfer_take(transfer);
            transfer->said_ended = true;
            client_answer(transfer, ETCD_E_UNKNOWN, NULL, "the client is being closed");
        }
    if (revoke && (!client->username || client->authorization))
        client_ask(etcd, &request, REVOKE_TIMEOUT_MS, client_on_revoked, client);
    else
        client_free(client);
}

static const struct etcd_ops client_ops = {
    .ask = client_ask,
    .watch = client_watch,
    .unwatch = client_unwatch,
    .destroy = client_destroy,
};

/* ---- making ---- */

static int client_copy(char **out, const char *text) {
    *out = text && *text ? strdup(text) : NULL;
    return text && *text && !*out ? -ENOMEM : 0;
}

static int client_init(struct etcd_client *client, uv_loop_t *loop,
                       const struct etcd_client_options *options, char *why, size_t why_bytes) {
    int count = etcd_endpoints_parse(options->endpoints, client->endpoints, why, why_bytes);
    if (count < 0)
        return count;
    client->endpoint_count = (size_t)count;
    snprintf(why, why_bytes, "out of memory");
    if (client_copy(&client->ca_file, options->ca_file) < 0 ||
        client_copy(&client->cert_file, options->cert_file) < 0 ||
        client_copy(&client->key_file, options->key_file) < 0 ||
        client_copy(&client->username, options->username) < 0 ||
        client_copy(&client->password, options->password ? options->password : "") < 0)
        return -ENOMEM;
    return etcd_multi_new(loop, client_on_ended, client_on_soon, client, &client->multi);
}

int etcd_client_new(uv_loop_t *loop, const struct etcd_client_options *options, struct etcd **out,
                    char *why, size_t why_bytes) {
    struct etcd_client *client = calloc(1, sizeof *client);
    if (!client || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        snprintf(why, why_bytes, "libcurl cannot be initialised");
        free(client);
        return -ENOMEM;
    }
    client->base.ops = &client_ops;
    TAILQ_INIT(&client->active);
    TAILQ_INIT(&client->waiting);
    TAILQ_INIT(&client->failed);
    int result = client_init(client, loop, options, why, why_bytes);
    if (result < 0) {
        client_free(client);
        return result;
    }
    *out = &client->base;
    return 0;
}
