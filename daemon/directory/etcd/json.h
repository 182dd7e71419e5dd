/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests of etcd.h as texts for etcd's v3 JSON gateway, and its answers read back, strictly.
 * Pure. Field names are written and read here only: the gateway ignores what it does not know, so
 * that a misspelt `compare` would make a guarded write unconditional.
 */
#ifndef FEATURED_DIRECTORY_ETCD_JSON_H
#define FEATURED_DIRECTORY_ETCD_JSON_H

#include "directory/etcd/gateway.h"

/* Below "/v3/". */
const char *etcd_json_path(enum etcd_request_kind kind);
/* The request's body, to be freed; NULL when out of memory. */
char *etcd_json_request(const struct etcd_request *request);
char *etcd_json_watch(const char *key, const char *range_end, int64_t start_revision);

/* The answer to a request of this kind with HTTP status 200; to be freed with
 * etcd_json_answer_free(). NULL: not an answer we understand, and why holds a sentence. */
struct etcd_answer *etcd_json_answer(enum etcd_request_kind kind, const char *text, size_t bytes,
                                     char *why, size_t why_bytes);
void etcd_json_answer_free(struct etcd_answer *answer);

/* What an answer with another HTTP status means. unauthorized: the token is missing, expired or
 * wrong. why: etcd's own words. */
enum etcd_result etcd_json_error(long http_status, const char *text, size_t bytes,
                                 bool *unauthorized, char *why, size_t why_bytes);

/* One line of a watch's stream. 0 and *message, whose events and strings `keep` holds until
 * etcd_json_answer_free(keep); or -EINVAL. */
int etcd_json_watch_line(const char *text, size_t bytes, struct etcd_watch_message *message,
                         struct etcd_answer **keep);

#endif
