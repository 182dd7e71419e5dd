/* SPDX-License-Identifier: Apache-2.0
 *
 * Answers of the gateway. Strict: a field of another type than rpc.proto's, a number that is not
 * one, base64 that is not, or a missing field that proto3 would not leave out refuses the whole
 * answer. What proto3 leaves out means 0 or false: a failed Txn is an answer without `succeeded`, a
 * dead lease a keep-alive without `TTL`.
 *
 * Decoded keys and values lie one behind the other in `strings`; each is shorter than its base64
 * between quotes, so that a block as long as the text has room for all.
 */
#include <errno.h>
#include <jansson.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "directory/etcd/json.h"
#include "directory/etcd/words.h"
#include "proto/container.h"

#define CODE_UNAUTHENTICATED 16 /* gRPC status codes */
#define CODE_OUT_OF_RANGE    11

struct reading {
    struct etcd_answer answer; /* etcd_json_answer_free() finds the rest by it */
    struct etcd_event *events;
    size_t kv_room;
    char *strings, *next;
    bool failed;
    char *why;
    size_t why_bytes;
};

static void __attribute__((format(printf, 2, 3)))
read_refuse(struct reading *reading, const char *format, ...) {
    va_list args;
    if (reading->failed)
        return;
    reading->failed = true;
    va_start(args, format);
    vsnprintf(reading->why, reading->why_bytes, format, args);
    va_end(args);
}

/* ---- fields ---- */

/* proto3's JSON writes 64-bit numbers as strings, since JavaScript would round them. A number
 * without quotes comes from something that is no etcd. */
static int64_t read_int64(struct reading *reading, const json_t *object, const char *name) {
    const json_t *field = json_object_get(object, name);
    if (!field)
        return 0;
    const char *text = json_string_value(field);
    char *end = NULL;
    errno = 0;
    int64_t value = text ? strtoll(text, &end, 10) : 0;
    bool good = text && (*text == '-' || (*text >= '0' && *text <= '9')) && !*end && !errno;
    if (!good)
        read_refuse(reading, "etcd's %s is not an int64 in a string", name);
    return good ? value : 0;
}

static bool read_bool(struct reading *reading, const json_t *object, const char *name) {
    const json_t *field = json_object_get(object, name);
    if (field && !json_is_boolean(field))
        read_refuse(reading, "etcd's %s is not a truth value", name);
    return json_is_true(field);
}

/* Decoded in place behind what was decoded before; see the top of the file for why there is always
 * room. A key with a NUL in it is cut there and then is no key of featured's. */
static const char *read_bytes(struct reading *reading, const json_t *object, const char *name) {
    const json_t *field = json_object_get(object, name);
    char *out = reading->next;
    size_t bytes = 0;
    if (field && (!json_is_string(field) ||
                  sodium_base642bin((unsigned char *)out, json_string_length(field),
                                    json_string_value(field), json_string_length(field), NULL,
                                    &bytes, NULL, sodium_base64_VARIANT_ORIGINAL) != 0))
        read_refuse(reading, "etcd's %s is not base64", name);
    if (!field)
        return "";
    out[bytes] = '\0';
    reading->next += bytes + 1;
    return out;
}

/* NULL and refused when it is there and is no array. */
static const json_t *read_array(struct reading *reading, const json_t *object, const char *name) {
    const json_t *field = json_object_get(object, name);
    if (field && !json_is_array(field))
        read_refuse(reading, "etcd's %s is not a list", name);
    return json_is_array(field) ? field : NULL;
}

static const json_t *read_object(struct reading *reading, const json_t *object, const char *name) {
    const json_t *field = json_object_get(object, name);
    if (!json_is_object(field))
        read_refuse(reading, "etcd's answer has no %s", name);
    return json_is_object(field) ? field : NULL;
}

/* A value may be missing, for an empty one is left out by proto3; a pair without a key cannot be.
 */
static struct etcd_kv read_kv(struct reading *reading, const json_t *kv) {
    if (!json_is_object(kv) || !json_object_get(kv, "key"))
        read_refuse(reading, "etcd's answer has a pair without a key");
    return (struct etcd_kv){
        .key = read_bytes(reading, kv, "key"),
        .value = read_bytes(reading, kv, "value"),
        .create_revision = read_int64(reading, kv, "create_revision"),
        .mod_revision = read_int64(reading, kv, "mod_revision"),
        .lease = read_int64(reading, kv, "lease"),
    };
}

static void json_read_add_kv(struct reading *reading, const json_t *kv) {
    struct etcd_answer *answer = &reading->answer;
    if (answer->kv_count == reading->kv_room) {
        size_t room = reading->kv_room ? 2 * reading->kv_room : 16;
        struct etcd_kv *kvs = reallocarray(answer->kvs, room, sizeof *kvs);
        if (!kvs) {
            read_refuse(reading, "out of memory");
            return;
        }
        answer->kvs = kvs;
        reading->kv_room = room;
    }
    answer->kvs[answer->kv_count++] = read_kv(reading, kv);
}

static void read_kvs(struct reading *reading, const json_t *object) {
    const json_t *kvs = read_array(reading, object, "kvs");
    for (size_t i = 0; i < json_array_size(kvs) && !reading->failed; i++)
        json_read_add_kv(reading, json_array_get(kvs, i));
}

static void read_header(struct reading *reading, const json_t *object) {
    const json_t *header = read_object(reading, object, "header");
    if (header)
        reading->answer.revision = read_int64(reading, header, "revision");
}

/* ---- Txn ---- */

/* The kind of each answer shows in the name of its field. They come in the order of the operations,
 * and one answer for each operation, which the callers check by the count. */
static void read_op(struct reading *reading, const json_t *wrapper, struct etcd_op_answer *op) {
    const json_t *body;
    op->kv_first = reading->answer.kv_count;
    if ((body = json_object_get(wrapper, "response_put"))) {
        if (json_object_get(body, "prev_kv"))
            json_read_add_kv(reading, json_object_get(body, "prev_kv"));
    } else if ((body = json_object_get(wrapper, "response_range"))) {
        read_kvs(reading, body);
    } else if ((body = json_object_get(wrapper, "response_delete_range"))) {
        op->deleted = read_int64(reading, body, "deleted");
    } else if ((body = json_object_get(wrapper, "response_txn"))) {
        op->succeeded = read_bool(reading, body, "succeeded");
    } else {
        read_refuse(reading, "etcd's answer has an operation of an unknown kind");
    }
    op->kv_count = reading->answer.kv_count - op->kv_first;
}

static void read_txn(struct reading *reading, const json_t *root) {
    struct etcd_answer *answer = &reading->answer;
    const json_t *responses = read_array(reading, root, "responses");
    answer->succeeded = read_bool(reading, root, "succeeded");
    answer->op_count = json_array_size(responses);
    answer->ops = calloc(answer->op_count + 1, sizeof *answer->ops);
    if (!answer->ops) {
        read_refuse(reading, "out of memory");
        return;
    }
    for (size_t i = 0; i < answer->op_count && !reading->failed; i++)
        read_op(reading, json_array_get(responses, i), &answer->ops[i]);
}

/* ---- answers ---- */

static void read_lease(struct reading *reading, const json_t *object) {
    reading->answer.lease = read_int64(reading, object, "ID");
    reading->answer.ttl_s = read_int64(reading, object, "TTL");
    if (!reading->answer.lease)
        read_refuse(reading, "etcd's answer about a lease has no ID");
}

static void read_token(struct reading *reading, const json_t *root) {
    const char *token = json_string_value(json_object_get(root, "token"));
    if (!token || !*token) {
        read_refuse(reading, "etcd's answer has no token");
        return;
    }
    reading->answer.token = strcpy(reading->next, token);
    reading->next += strlen(token) + 1;
}

/* The gateway wraps each message of a streaming call in {"result":...}. A keep-alive is such a
 * call, of which one message is read. */
static void read_answer(struct reading *reading, enum etcd_request_kind kind, const json_t *root) {
    const json_t *body = root;
    if (kind == ETCD_LEASE_KEEP_ALIVE) /* a stream of one */
        body = read_object(reading, root, "result");
    if (!body)
        return;
    read_header(reading, body);
    switch (kind) {
    case ETCD_TXN:
        read_txn(reading, body);
        return;
    case ETCD_READ:
        read_kvs(reading, body);
        reading->answer.more = read_bool(reading, body, "more");
        return;
    case ETCD_LEASE_GRANT:
    case ETCD_LEASE_KEEP_ALIVE:
        read_lease(reading, body);
        return;
    case ETCD_LEASE_REVOKE:
        return;
    case ETCD_AUTHENTICATE:
        read_token(reading, body);
        return;
    }
}

static struct reading *json_read_reading_new(size_t bytes, char *why, size_t why_bytes) {
    struct reading *reading = calloc(1, sizeof *reading);
    if (!reading)
        return NULL;
    reading->strings = reading->next = malloc(bytes + 1);
    reading->why = why;
    reading->why_bytes = why_bytes;
    if (reading->strings)
        return reading;
    free(reading);
    return NULL;
}

/* Duplicate names are refused: which of two values counts would depend on the parser. */
static json_t *json_read_parse(struct reading *reading, const char *text, size_t bytes) {
    json_error_t error;
    json_t *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(root))
        read_refuse(reading, "etcd's answer is not JSON: %s", root ? "no object" : error.text);
    return root;
}

void etcd_json_answer_free(struct etcd_answer *answer) {
    if (!answer)
        return;
    struct reading *reading = container_of(answer, struct reading, answer);
    free(answer->kvs);
    free(answer->ops);
    free(reading->events);
    free(reading->strings);
    free(reading);
}

struct etcd_answer *etcd_json_answer(enum etcd_request_kind kind, const char *text, size_t bytes,
                                     char *why, size_t why_bytes) {
    snprintf(why, why_bytes, "out of memory");
    struct reading *reading = json_read_reading_new(bytes, why, why_bytes);
    if (!reading)
        return NULL;
    json_t *root = json_read_parse(reading, text, bytes);
    if (!reading->failed)
        read_answer(reading, kind, root);
    json_decref(root);
    if (!reading->failed)
        return &reading->answer;
    etcd_json_answer_free(&reading->answer);
    return NULL;
}

/* What says it in plain text is another server, or a proxy. */
static void json_read_say_error(long http_status, const char *words, const char *text, size_t bytes,
                                char *why, size_t why_bytes) {
    char clean[ETCD_WORDS_BYTES];
    etcd_words(clean, words ? words : text, words ? strlen(words) : bytes);
    if (words)
        snprintf(why, why_bytes, "%s (HTTP status %ld)", clean, http_status);
    else
        snprintf(why, why_bytes,
                 "HTTP status %ld and no error in JSON, as no etcd 3.4 or later answers%s%s",
                 http_status, *clean ? ": " : "", clean);
}

/* What an error means: the words below are those of etcd 3.4's api/v3rpc/rpctypes/error.go. Codes
 * of 500 and above, but for 501 (not implemented), and 408 say nothing of whether the request was
 * proposed to the cluster, and may come true later: UNKNOWN. All else was refused before it was
 * proposed. */
enum etcd_result etcd_json_error(long http_status, const char *text, size_t bytes,
                                 bool *unauthorized, char *why, size_t why_bytes) {
    json_t *root = json_loadb(text, bytes, JSON_DISABLE_EOF_CHECK, NULL); /* a trailer follows */
    const char *words = json_string_value(json_object_get(root, "error"));
    json_int_t code = json_integer_value(json_object_get(root, "code"));
    json_read_say_error(http_status, words, text, bytes, why, why_bytes);
    bool nameless = words && strstr(words, "user name is empty");
    bool old = words && strstr(words, "revision") && strstr(words, "auth") && strstr(words, "old");
    *unauthorized = http_status == 401 || code == CODE_UNAUTHENTICATED || nameless || old;
    enum etcd_result result = ETCD_E_REFUSED;
    if (code == CODE_OUT_OF_RANGE && words && strstr(words, "compacted"))
        result = ETCD_E_COMPACTED;
    else if ((http_status >= 500 && http_status != 501) ||
             http_status == 408) /* it may have been proposed already */
        result = ETCD_E_UNKNOWN;
    json_decref(root);
    return result;
}

/* ---- watch ---- */

static void read_events(struct reading *reading, const json_t *result,
                        struct etcd_watch_message *message) {
    const json_t *events = read_array(reading, result, "events");
    size_t count = json_array_size(events);
    reading->events = calloc(count + 1, sizeof *reading->events);
    if (!reading->events)
        read_refuse(reading, "out of memory");
    for (size_t i = 0; i < count && !reading->failed; i++) {
        const json_t *event = json_array_get(events, i);
        const char *type = json_string_value(json_object_get(event, "type"));
        reading->events[i].deleted = type && strcmp(type, "DELETE") == 0; /* PUT is left out */
        reading->events[i].kv = read_kv(reading, json_object_get(event, "kv"));
    }
    message->events = reading->events;
    message->event_count = count;
}

/* A message of a watch holds a header, perhaps events, and perhaps an end: `canceled`, with a
 * compact_revision if the revision that was asked for is no longer kept. */
int etcd_json_watch_line(const char *text, size_t bytes, struct etcd_watch_message *message,
                         struct etcd_answer **keep) {
    char why[128];
    struct reading *reading = json_read_reading_new(bytes, why, sizeof why);
    if (!reading)
        return -ENOMEM;
    *message = (struct etcd_watch_message){0};
    json_t *root = json_read_parse(reading, text, bytes);
    const json_t *result = reading->failed ? NULL : read_object(reading, root, "result");
    if (result) {
        read_header(reading, result);
        message->revision = reading->answer.revision;
        message->ended = read_bool(reading, result, "canceled");
        message->compact_revision = read_int64(reading, result, "compact_revision");
        read_events(reading, result, message);
    }
    json_decref(root);
    *keep = reading->failed ? NULL : &reading->answer;
    if (!reading->failed)
        return 0;
    etcd_json_answer_free(&reading->answer);
    return -EINVAL;
}
