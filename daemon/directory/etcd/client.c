/* SPDX-License-Identifier: Apache-2.0
 *
 * A call: created -> (waits for a token) -> under way at an endpoint -> answered.
 *
 * What a failed transfer means hangs on one bit: whether libcurl has taken a byte of the body. If
 * not, etcd cannot have the request, and the next endpoint is tried. If so, and no answer came, the
 * outcome is unknown and the caller is told. How requests and watches are carried out is in
 * transfer.c.
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
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "directory/etcd/json.h"
#include "directory/etcd/transfer.h"
#include "directory/etcd/words.h"
#include "ops/log.h"
#include "proto/container.h"

#define TOKEN_TIMEOUT_MS  2000u
#define REVOKE_TIMEOUT_MS 1000u
#define NS_PER_MS         1000000u

/* ---- endpoints ---- */

/* Watches at an endpoint that fails end, for they might just fall silent. */
static void client_end_watches(struct etcd_client *client, size_t endpoint) {
    struct transfer *transfer, *next;
    for (transfer = TAILQ_FIRST(&client->active); transfer; transfer = next) {
        next = TAILQ_NEXT(transfer, link);
        if (!transfer->watch || transfer->endpoint != endpoint)
            continue;
        etcd_transfer_take(transfer);
        etcd_transfer_answer(transfer, ETCD_E_UNREACHABLE, NULL, "the endpoint has failed");
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
    etcd_client_drop_token(client);
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
            etcd_transfer_begin(transfer);
        else
            etcd_transfer_answer(transfer, result == ETCD_E_REFUSED ? result : ETCD_E_UNREACHABLE,
                                 NULL, why);
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
    client_ask(&client->base, &request, TOKEN_TIMEOUT_MS, client_on_token, client);
}

static void client_submit(struct transfer *transfer) {
    const struct etcd_client *client = transfer->client;
    bool needs_token = client->username && (transfer->watch || transfer->kind != ETCD_AUTHENTICATE);
    if (needs_token && !client->authorization)
        client_wait_for_token(transfer);
    else
        etcd_transfer_begin(transfer);
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
    etcd_transfer_answer(transfer, parsed ? ETCD_OK : ETCD_E_UNKNOWN, parsed, why);
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
        etcd_client_drop_token(client);
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
    etcd_transfer_answer(transfer, result, NULL, why);
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
        etcd_transfer_answer(transfer,
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
    etcd_transfer_take(transfer);
    etcd_transfer_answer(
        transfer, ETCD_E_UNREACHABLE, NULL,
        "this broker is out of memory for a request to etcd"); /* may close the client */
    return true;
}

/* ---- operations ---- */

static void client_ask(struct etcd *etcd, const struct etcd_request *request, uint32_t timeout_ms,
                       etcd_done_fn done, void *context) {
    struct etcd_client *client = container_of(etcd, struct etcd_client, base);
    struct transfer *transfer = etcd_transfer_new(client, etcd_json_request(request));
    if (!transfer)
        return;
    transfer->kind = request->kind;
    transfer->asked_ns = uv_hrtime();
    transfer->deadline_ns = transfer->asked_ns + (uint64_t)timeout_ms * NS_PER_MS;
    transfer->done = done;
    transfer->context = context;
    client_submit(transfer);
}

static struct etcd_watch *client_watch(struct etcd *etcd, const char *key, const char *range_end,
                                       int64_t start_revision, etcd_watch_fn fn, void *context) {
    struct etcd_client *client = container_of(etcd, struct etcd_client, base);
    struct transfer *transfer =
        etcd_transfer_new(client, etcd_json_watch(key, range_end, start_revision));
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
    etcd_transfer_take(transfer);
    etcd_transfer_free(transfer);
}

static void client_free(struct etcd_client *client) {
    if (client->multi)
        etcd_multi_close(client->multi);
    etcd_client_drop_token(client);
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
            etcd_transfer_take(transfer);
            transfer->said_ended = true;
            etcd_transfer_answer(transfer, ETCD_E_UNKNOWN, NULL, "the client is being closed");
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
