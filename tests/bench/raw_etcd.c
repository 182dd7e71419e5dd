/* SPDX-License-Identifier: Apache-2.0
 *
 * libcurl's easy interface, which keeps its connection. Bodies are built at the start.
 */
#include "bench/raw_etcd.h"

#include <curl/curl.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"

#define RECORD                                                                                     \
    "{\"gen\":117660430027325444,\"home\":\"a\",\"inc\":\"6935e33944047f21\",\"bytes\":73728,"     \
    "\"time\":1795355683020}"
#define BODY_BYTES   (64u * 1024u)
#define ANSWER_BYTES (512u * 1024u)

struct raw_etcd {
    CURL *curl;
    struct curl_slist *headers;
    char base_url[128];
    char put_body[1024], txn_body[BODY_BYTES];
    char answer[ANSWER_BYTES];
    size_t answer_bytes;
};

static size_t on_answer(char *data, size_t size, size_t count, void *context) {
    struct raw_etcd *etcd = context;
    size_t bytes = size * count;
    if (etcd->answer_bytes + bytes >= sizeof etcd->answer)
        return 0;
    memcpy(etcd->answer + etcd->answer_bytes, data, bytes);
    etcd->answer_bytes += bytes;
    etcd->answer[etcd->answer_bytes] = '\0';
    return bytes;
}

/* body NULL: GET. */
static int request(struct raw_etcd *etcd, const char *path, const char *body) {
    char url[256];
    long status = 0;
    snprintf(url, sizeof url, "%s%s", etcd->base_url, path);
    etcd->answer_bytes = 0;
    curl_easy_setopt(etcd->curl, CURLOPT_URL, url);
    if (body != NULL)
        curl_easy_setopt(etcd->curl, CURLOPT_POSTFIELDS, body);
    else
        curl_easy_setopt(etcd->curl, CURLOPT_HTTPGET, 1L);
    CURLcode result = curl_easy_perform(etcd->curl);
    curl_easy_getinfo(etcd->curl, CURLINFO_RESPONSE_CODE, &status);
    if (result == CURLE_OK && status == 200)
        return 0;
    return bench_fail("etcd %s: %s, HTTP status %ld", path, curl_easy_strerror(result), status);
}

static void encode(const char *text, char *out, size_t room) {
    sodium_bin2base64(out, room, (const unsigned char *)text, strlen(text),
                      sodium_base64_VARIANT_ORIGINAL);
}

static void build_bodies(struct raw_etcd *etcd) {
    char key[64], key64[96], value64[256];
    encode(RECORD, value64, sizeof value64);
    encode("/raw/samples/run0/sample", key64, sizeof key64);
    snprintf(etcd->put_body, sizeof etcd->put_body, "{\"key\":\"%s\",\"value\":\"%s\"}", key64,
             value64);
    size_t used = (size_t)snprintf(etcd->txn_body, BODY_BYTES, "{\"success\":[");
    for (unsigned i = 0; i < RAW_ETCD_TXN_KEYS; i++) {
        snprintf(key, sizeof key, "/raw/samples/run0/sample-%06u", i);
        encode(key, key64, sizeof key64);
        used += (size_t)snprintf(etcd->txn_body + used, BODY_BYTES - used,
                                 "%s{\"request_put\":{\"key\":\"%s\",\"value\":\"%s\"}}",
                                 i > 0 ? "," : "", key64, value64);
    }
    snprintf(etcd->txn_body + used, BODY_BYTES - used, "]}");
}

struct raw_etcd *raw_etcd_new(const char *url) {
    struct raw_etcd *etcd = calloc(1, sizeof *etcd);
    if (etcd == NULL || (etcd->curl = curl_easy_init()) == NULL) {
        bench_fail("out of memory");
        free(etcd);
        return NULL;
    }
    snprintf(etcd->base_url, sizeof etcd->base_url, "%s", url);
    etcd->headers = curl_slist_append(NULL, "Expect:"); /* no round trip before large bodies */
    curl_easy_setopt(etcd->curl, CURLOPT_HTTPHEADER, etcd->headers);
    curl_easy_setopt(etcd->curl, CURLOPT_WRITEFUNCTION, on_answer);
    curl_easy_setopt(etcd->curl, CURLOPT_WRITEDATA, etcd);
    curl_easy_setopt(etcd->curl, CURLOPT_TCP_NODELAY, 1L);
    curl_easy_setopt(etcd->curl, CURLOPT_NOSIGNAL, 1L);
    build_bodies(etcd);
    return etcd;
}

void raw_etcd_free(struct raw_etcd *etcd) {
    if (etcd == NULL)
        return;
    curl_easy_cleanup(etcd->curl);
    curl_slist_free_all(etcd->headers);
    free(etcd);
}

int raw_etcd_put(void *context) {
    struct raw_etcd *etcd = context;
    return request(etcd, "/v3/kv/put", etcd->put_body);
}

int raw_etcd_txn(void *context) {
    struct raw_etcd *etcd = context;
    if (request(etcd, "/v3/kv/txn", etcd->txn_body) != 0)
        return -1;
    if (strstr(etcd->answer, "\"succeeded\":true") == NULL)
        return bench_fail("etcd: a Txn without compares did not succeed: %.200s", etcd->answer);
    return 0;
}

/* Value of a line "NAME VALUE" of etcd's metrics. */
static int metric(const struct raw_etcd *etcd, const char *name, uint64_t *out) {
    char line[96];
    double value = 0;
    snprintf(line, sizeof line, "\n%s ", name);
    const char *at = strstr(etcd->answer, line);
    if (at == NULL || sscanf(at + strlen(line), "%lf", &value) != 1)
        return bench_fail("etcd has no metric %s", name);
    *out = (uint64_t)value;
    return 0;
}

int raw_etcd_count(struct raw_etcd *etcd, struct raw_etcd_counts *out) {
    if (request(etcd, "/metrics", NULL) != 0)
        return -1;
    if (metric(etcd, "etcd_debugging_mvcc_current_revision", &out->revision) != 0 ||
        metric(etcd, "etcd_debugging_mvcc_put_total", &out->puts) != 0)
        return -1;
    return metric(etcd, "etcd_debugging_mvcc_delete_total", &out->deletes);
}
