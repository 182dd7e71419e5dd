/* SPDX-License-Identifier: Apache-2.0
 *
 * One request to etcd, or one watch, as libcurl carries it out. Shared by client.c, which decides
 * what is asked of which endpoint and what an end means, and transfer.c, which speaks to libcurl.
 *
 * A transfer is in one of the client's lists, or in none while its end is being looked at:
 *   waiting   for a token
 *   active    in the multi handle
 *   failed    there was no memory for it; it is answered soon
 */
#ifndef FEATURED_DIRECTORY_ETCD_TRANSFER_H
#define FEATURED_DIRECTORY_ETCD_TRANSFER_H

#include <curl/curl.h>
#include <sys/queue.h>

#include "directory/etcd/endpoints.h"
#include "directory/etcd/etcd.h"
#include "directory/etcd/gateway.h"
#include "directory/etcd/multi.h"

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
    uint64_t asked_ns, deadline_ns; /* by uv_hrtime() */
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

/* body: taken over; NULL where there was no memory for it. NULL is returned only if there is no
 * memory and all spare transfers are in use: then the request is never answered. */
struct transfer *etcd_transfer_new(struct etcd_client *client, char *body);
void etcd_transfer_free(struct transfer *transfer);
/* Sends it to the endpoint in use. It is in `active` or `failed` then. */
void etcd_transfer_begin(struct transfer *transfer);
/* Out of its list and the multi handle. */
void etcd_transfer_take(struct transfer *transfer);
/* Tells whoever asked, and frees it. It is in no list. */
void etcd_transfer_answer(struct transfer *transfer, enum etcd_result result,
                          const struct etcd_answer *parsed, const char *why);
void etcd_client_drop_token(struct etcd_client *client);

#endif
