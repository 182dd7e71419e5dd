/* SPDX-License-Identifier: Apache-2.0
 *
 * Request bodies. Names and forms are those of etcd's api/etcdserverpb/rpc.proto (3.4) in
 * proto3's JSON: bytes as base64, int64 as strings, enums by name.
 */
#include <inttypes.h>
#include <jansson.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "directory/etcd/json.h"

#define CHUNK_BYTES 192u /* a multiple of 3: pads at the end only */

/* Encoded in pieces, so that no value needs a block of its own. Each piece but the last is a
 * multiple of three bytes, whose base64 has no padding, so that the pieces put together are the
 * base64 of the whole. */
static void json_write_add_base64(FILE *out, const char *name, const char *text) {
    char encoded[sodium_base64_ENCODED_LEN(CHUNK_BYTES, sodium_base64_VARIANT_ORIGINAL)];
    fprintf(out, "\"%s\":\"", name);
    for (size_t left = strlen(text); left > 0;) {
        size_t chunk = left < CHUNK_BYTES ? left : CHUNK_BYTES;
        sodium_bin2base64(encoded, sizeof encoded, (const unsigned char *)text, chunk,
                          sodium_base64_VARIANT_ORIGINAL);
        fputs(encoded, out);
        text += chunk;
        left -= chunk;
    }
    fputc('"', out);
}

/* 0 is left out, as proto3 does, and means the same: now, all, none. A comma comes first: these
 * fields always follow another one. */
static void json_write_add_int64(FILE *out, const char *name, int64_t value) {
    if (value)
        fprintf(out, ",\"%s\":\"%" PRId64 "\"", name, value);
}

/* The names are in the order of the enums of gateway.h. */
static void json_write_add_compare(FILE *out, const struct etcd_compare *compare) {
    static const char *const targets[] = {"CREATE", "MOD", "VALUE"};
    static const char *const relations[] = {"EQUAL", "GREATER", "LESS"};
    fputc('{', out);
    json_write_add_base64(out, "key", compare->key);
    fprintf(out, ",\"target\":\"%s\",\"result\":\"%s\",", targets[compare->target],
            relations[compare->relation]);
    if (compare->target == ETCD_VALUE)
        json_write_add_base64(out, "value", compare->value);
    else /* always written: with 0 left out the compare would have no target value at all */
        fprintf(out, "\"%s\":\"%" PRId64 "\"",
                compare->target == ETCD_MOD_REVISION ? "mod_revision" : "create_revision",
                compare->revision);
    fputc('}', out);
}

static void json_write_add_compares(FILE *out, const struct etcd_compare *compares, size_t count) {
    fputs("\"compare\":[", out);
    for (size_t i = 0; i < count; i++) {
        if (i)
            fputc(',', out);
        json_write_add_compare(out, &compares[i]);
    }
    fputc(']', out);
}

static void json_write_add_range(FILE *out, const struct etcd_op *op) {
    fputc('{', out);
    json_write_add_base64(out, "key", op->key);
    if (op->range_end) {
        fputc(',', out);
        json_write_add_base64(out, "range_end", op->range_end);
    }
    json_write_add_int64(out, "limit", op->limit);
    json_write_add_int64(out, "revision", op->revision);
    fputc('}', out);
}

/* The same text is an operation of a transaction and, inside request_txn, of a nested one. */
static void json_write_add_put(FILE *out, const struct etcd_op *op) {
    fputs("{\"request_put\":{", out);
    json_write_add_base64(out, "key", op->key);
    fputc(',', out);
    json_write_add_base64(out, "value", op->value);
    json_write_add_int64(out, "lease", op->lease);
    fputs(op->prev_kv ? ",\"prev_kv\":true}}" : "}}", out);
}

static void json_write_add_delete(FILE *out, const char *key) {
    fputs("{\"request_delete_range\":{", out);
    json_write_add_base64(out, "key", key);
    fputs("}}", out);
}

/* PUT_IF and DELETE_IF become a transaction inside the transaction: etcd carries out the outer one
 * even if the compares of an inner one fail. */
static void json_write_add_op(FILE *out, const struct etcd_op *op) {
    switch (op->kind) {
    case ETCD_PUT:
        json_write_add_put(out, op);
        return;
    case ETCD_RANGE:
        fputs("{\"request_range\":", out);
        json_write_add_range(out, op);
        fputc('}', out);
        return;
    case ETCD_DELETE:
        json_write_add_delete(out, op->key);
        return;
    case ETCD_PUT_IF:
    case ETCD_DELETE_IF:
        fputs("{\"request_txn\":{", out);
        json_write_add_compares(out, op->compares, op->compare_count);
        fputs(",\"success\":[", out);
        if (op->kind == ETCD_PUT_IF)
            json_write_add_put(out, op);
        else
            json_write_add_delete(out, op->key);
        fputs("]}}", out);
        return;
    }
}

static void json_write_add_ops(FILE *out, const char *name, const struct etcd_op *ops,
                               size_t count) {
    fprintf(out, ",\"%s\":[", name);
    for (size_t i = 0; i < count; i++) {
        if (i)
            fputc(',', out);
        json_write_add_op(out, &ops[i]);
    }
    fputc(']', out);
}

static void json_write_add_txn(FILE *out, const struct etcd_request *request) {
    fputc('{', out);
    json_write_add_compares(out, request->compares, request->compare_count);
    json_write_add_ops(out, "success", request->success, request->success_count);
    json_write_add_ops(out, "failure", request->failure, request->failure_count);
    fputc('}', out);
}

/* The only text from outside that may hold quotes or backslashes: jansson escapes them. */
static char *json_write_credentials(const struct etcd_request *request) {
    json_t *body = json_pack("{s:s, s:s}", "name", request->name, "password", request->password);
    char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    json_decref(body);
    return text;
}

const char *etcd_json_path(enum etcd_request_kind kind) {
    static const char *const paths[] = {"kv/txn",          "kv/range",     "lease/grant",
                                        "lease/keepalive", "lease/revoke", "auth/authenticate"};
    return paths[kind];
}

/* A stream in memory grows by itself and remembers that it has failed: one check, of fclose(),
 * covers all that was printed before it. */
char *etcd_json_request(const struct etcd_request *request) {
    char *text = NULL;
    size_t bytes;
    if (request->kind == ETCD_AUTHENTICATE)
        return json_write_credentials(request);
    FILE *out = open_memstream(&text, &bytes);
    if (!out)
        return NULL;
    if (request->kind == ETCD_TXN)
        json_write_add_txn(out, request);
    else if (request->kind == ETCD_READ)
        json_write_add_range(out, &request->read);
    else if (request->kind == ETCD_LEASE_GRANT)
        fprintf(out, "{\"TTL\":\"%" PRId64 "\"}", request->ttl_s);
    else
        fprintf(out, "{\"ID\":\"%" PRId64 "\"}", request->lease);
    if (fclose(out) == 0)
        return text;
    free(text);
    return NULL;
}

char *etcd_json_watch(const char *key, const char *range_end, int64_t start_revision) {
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    if (!out)
        return NULL;
    fputs("{\"create_request\":{", out);
    json_write_add_base64(out, "key", key);
    fputc(',', out);
    json_write_add_base64(out, "range_end", range_end);
    json_write_add_int64(out, "start_revision", start_revision);
    fputs("}}", out);
    if (fclose(out) == 0)
        return text;
    free(text);
    return NULL;
}
