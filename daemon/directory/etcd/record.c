/* SPDX-License-Identifier: Apache-2.0
 *
 * Values are JSON for the sake of etcdctl. They are written with printf: store and node names have
 * no character that JSON would escape (layout_check_name()), addresses neither (host:port).
 * Generations and sizes fit an int64, which is what jansson reads; incarnations use all 64 bits and
 * are written in hexadecimal.
 */
#include "directory/etcd/record.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- keys ---- */

void etcd_node_key(char out[ETCD_KEY_BYTES], const char *cluster, const char *node) {
    snprintf(out, ETCD_KEY_BYTES, "/featured/%s/nodes/%s", cluster, node);
}

void etcd_generation_key(char out[ETCD_KEY_BYTES], const char *cluster) {
    snprintf(out, ETCD_KEY_BYTES, "/featured/%s/generation", cluster);
}

void etcd_history_key(char out[ETCD_KEY_BYTES], const char *cluster) {
    snprintf(out, ETCD_KEY_BYTES, "/featured/%s/history", cluster);
}

void etcd_range_of(char begin[ETCD_KEY_BYTES], char end[ETCD_KEY_BYTES], const char *cluster,
                   const char *kind) {
    snprintf(begin, ETCD_KEY_BYTES, "/featured/%s/%s/", cluster, kind);
    snprintf(end, ETCD_KEY_BYTES, "/featured/%s/%s0", cluster, kind); /* '0' comes after '/' */
}

void etcd_store_range_of(char begin[ETCD_KEY_BYTES], char end[ETCD_KEY_BYTES], const char *cluster,
                         const char *store) {
    snprintf(begin, ETCD_KEY_BYTES, "/featured/%s/samples/%s/", cluster, store);
    snprintf(end, ETCD_KEY_BYTES, "/featured/%s/samples/%s0", cluster, store);
}

/* The characters that RFC 3986 calls unreserved. A slash is not one of them, so that a key has as
 * many slashes as its form says, whatever the sample's id. */
static bool record_is_plain(char c) {
    return isalnum((unsigned char)c) || (c && strchr("-._~", c));
}

/* ETCD_KEY_BYTES has room for three bytes for each byte of the longest id; the check is for an id
 * that is longer than the layout allows. */
static void record_add_id(char out[ETCD_KEY_BYTES], const char *sample_id) {
    char *to = out + strlen(out);
    for (const char *from = sample_id; *from && to + 4 <= out + ETCD_KEY_BYTES; from++)
        if (record_is_plain(*from))
            *to++ = *from;
        else
            to += sprintf(to, "%%%02X", (unsigned)(unsigned char)*from);
    *to = '\0';
}

void etcd_sample_key(char out[ETCD_KEY_BYTES], const char *cluster, const char *store,
                     const char *sample_id) {
    snprintf(out, ETCD_KEY_BYTES, "/featured/%s/samples/%s/", cluster, store);
    record_add_id(out, sample_id);
}

void etcd_ended_key(char out[ETCD_KEY_BYTES], const char *cluster,
                    const struct directory_record *record, int64_t registration) {
    snprintf(out, ETCD_KEY_BYTES, "/featured/%s/ended/%s/%" PRIx64 "/%s/", cluster, record->home,
             record->incarnation, record->store);
    record_add_id(out, record->sample_id);
    size_t used = strlen(out);
    if (record->generation)
        snprintf(out + used, ETCD_KEY_BYTES - used, "/%" PRIu64, record->generation);
    else
        snprintf(out + used, ETCD_KEY_BYTES - used, "/r%" PRId64, registration);
}

void etcd_ended_range_of(char begin[ETCD_KEY_BYTES], char end[ETCD_KEY_BYTES], const char *cluster,
                         const char *node, uint64_t incarnation) {
    snprintf(begin, ETCD_KEY_BYTES, "/featured/%s/ended/%s/%" PRIx64 "/", cluster, node,
             incarnation);
    snprintf(end, ETCD_KEY_BYTES, "/featured/%s/ended/%s/%" PRIx64 "0", cluster, node, incarnation);
}

/* Up to the end of the text, or a slash. Strict: what record_add_id() would not have written is
 * refused, because two keys for one sample would be two records of it. An encoded NUL is refused,
 * too: ids are C strings. */
static int record_decode_id(const char *text, char *out, size_t out_bytes) {
    size_t used = 0;
    for (; *text && *text != '/'; text++) {
        unsigned byte = (unsigned char)*text;
        if (used + 1 == out_bytes)
            return -EINVAL;
        if (*text == '%') {
            if (!isxdigit((unsigned char)text[1]) || !isxdigit((unsigned char)text[2]) ||
                sscanf(text + 1, "%2x", &byte) != 1 || !byte)
                return -EINVAL;
            text += 2;
        } else if (!record_is_plain(*text)) {
            return -EINVAL;
        }
        out[used++] = (char)byte;
    }
    out[used] = '\0';
    return used ? 0 : -EINVAL;
}

/* What follows "/featured/CLUSTER/KIND/". The cluster is not compared: the range that was read was
 * this cluster's. */
static const char *record_key_tail(const char *key, const char *kind) {
    const char *at = strncmp(key, "/featured/", 10) == 0 ? strchr(key + 10, '/') : NULL;
    size_t kind_bytes = strlen(kind);
    if (!at || strncmp(at + 1, kind, kind_bytes) != 0 || at[1 + kind_bytes] != '/')
        return NULL;
    return at + kind_bytes + 2;
}

static int record_take_name(const char *text, size_t bytes, char out[LAYOUT_NAME_BYTES_MAX + 1]) {
    if (bytes > LAYOUT_NAME_BYTES_MAX)
        return -EINVAL;
    memcpy(out, text, bytes);
    out[bytes] = '\0';
    return layout_check_name(out) ? -EINVAL : 0;
}

/* ---- values ---- */

void etcd_node_value(char out[ETCD_VALUE_BYTES], const struct node_record *node) {
    snprintf(out, ETCD_VALUE_BYTES,
             "{\"incarnation\":\"%" PRIx64
             "\",\"address\":\"%s\",\"data\":\"%s\",\"capacity\":%" PRIu64 "}",
             node->incarnation, node->address, node->data_address, node->capacity_bytes);
}

void etcd_sample_value(char out[ETCD_VALUE_BYTES], const struct directory_record *record,
                       uint64_t unix_ms) {
    snprintf(out, ETCD_VALUE_BYTES,
             "{\"gen\":%" PRIu64 ",\"home\":\"%s\",\"inc\":\"%" PRIx64 "\",\"bytes\":%" PRIu64
             ",\"time\":%" PRIu64 "%s}",
             record->generation, record->home, record->incarnation, record->bytes, unix_ms,
             record->again ? ",\"again\":true" : "");
}

/* A value is compared with these two as bytes. Every value of generation 7 begins with {"gen":7,
 * and goes on, so it lies above that; and below {"gen":7- since '-' is the next character after
 * ','. Generation 70 begins with {"gen":70, which is above the upper bound because '0' comes after
 * '-'. */
void etcd_generation_bounds(char above[32], char below[32], uint64_t generation) {
    snprintf(above, 32, "{\"gen\":%" PRIu64 ",", generation);
    snprintf(below, 32, "{\"gen\":%" PRIu64 "-", generation); /* '-' comes after ',' */
}

static int record_take_number(const json_t *object, const char *name, uint64_t *out) {
    const json_t *field = json_object_get(object, name);
    if (!json_is_integer(field) || json_integer_value(field) < 0)
        return -EINVAL;
    *out = (uint64_t)json_integer_value(field);
    return 0;
}

/* Incarnations use all 64 bits, and JSON integers end at 63: hexadecimal text. Only the form that
 * featured writes is read. */
static int record_take_hex(const json_t *object, const char *name, uint64_t *out) {
    const char *text = json_string_value(json_object_get(object, name));
    if (!text || !*text || strlen(text) > 16 || strspn(text, "0123456789abcdef") != strlen(text))
        return -EINVAL;
    *out = strtoull(text, NULL, 16);
    return 0;
}

static int record_take_text(const json_t *object, const char *name, char *out, size_t out_bytes) {
    const char *text = json_string_value(json_object_get(object, name));
    if (!text || strlen(text) >= out_bytes)
        return -EINVAL;
    strcpy(out, text);
    return 0;
}

/* "data" is missing in records of versions before it was known; the bytes are then read at the
 * address for messages. */
int etcd_node_parse(const char *key, const char *value, struct node_record *out) {
    const char *name = record_key_tail(key, "nodes");
    json_t *object = json_loads(value, 0, NULL);
    int result = -EINVAL;
    if (name && record_take_name(name, strlen(name), out->node) == 0 &&
        record_take_hex(object, "incarnation", &out->incarnation) == 0 && out->incarnation &&
        record_take_text(object, "address", out->address, sizeof out->address) == 0 &&
        record_take_text(object, json_object_get(object, "data") ? "data" : "address",
                         out->data_address, sizeof out->data_address) == 0 &&
        record_take_number(object, "capacity", &out->capacity_bytes) == 0)
        result = 0;
    json_decref(object);
    return result;
}

/* A generation of 0 is none and makes the record one that featured did not write. */
int etcd_sample_parse(const char *key, const char *value, struct sample_record *out) {
    const char *store = record_key_tail(key, "samples");
    const char *id = store ? strchr(store, '/') : NULL;
    json_t *object = json_loads(value, 0, NULL);
    int result = -EINVAL;
    if (id && !strchr(id + 1, '/') &&
        record_take_name(store, (size_t)(id - store), out->store) == 0 &&
        record_decode_id(id + 1, out->sample_id, sizeof out->sample_id) == 0 &&
        record_take_number(object, "gen", &out->generation) == 0 && out->generation &&
        record_take_text(object, "home", out->home, sizeof out->home) == 0 &&
        !layout_check_name(out->home) && record_take_hex(object, "inc", &out->incarnation) == 0 &&
        record_take_number(object, "bytes", &out->bytes) == 0 &&
        record_take_number(object, "time", &out->unix_ms) == 0)
        result = 0;
    out->again = json_is_true(json_object_get(object, "again"));
    json_decref(object);
    return result;
}

/* strtoull() alone would take "-1", and blanks in front. */
int etcd_generation_parse(const char *value, uint64_t *out) {
    char *end;
    if (!isdigit((unsigned char)*value))
        return -EINVAL;
    errno = 0;
    *out = strtoull(value, &end, 10);
    return *end || errno ? -EINVAL : 0;
}

/* The parts are found by their slashes: home / incarnation / store / id / generation. None of them
 * can hold a slash itself. */
int etcd_ended_parse(const char *key, struct sample_record *out, int64_t *registration) {
    const char *home = record_key_tail(key, "ended");
    const char *incarnation = home ? strchr(home, '/') : NULL;
    const char *store = incarnation ? strchr(incarnation + 1, '/') : NULL;
    const char *id = store ? strchr(store + 1, '/') : NULL;
    const char *generation = id ? strchr(id + 1, '/') : NULL;
    char *end;
    bool whatever = generation && generation[1] == 'r';
    uint64_t number = 0;
    *out = (struct sample_record){0};
    if (!generation || record_take_name(home, (size_t)(incarnation - home), out->home) ||
        record_take_name(store + 1, (size_t)(id - store - 1), out->store) ||
        record_decode_id(id + 1, out->sample_id, sizeof out->sample_id) ||
        etcd_generation_parse(generation + 1 + whatever, &number) || number > INT64_MAX)
        return -EINVAL;
    out->generation = whatever ? 0 : number;
    *registration = whatever ? (int64_t)number : 0;
    errno = 0;
    out->incarnation = strtoull(incarnation + 1, &end, 16);
    return end == store && !errno ? 0 : -EINVAL;
}

struct directory_record etcd_sample_view(const struct sample_record *record) {
    return (struct directory_record){
        .store = record->store,
        .sample_id = record->sample_id,
        .home = record->home,
        .generation = record->generation,
        .incarnation = record->incarnation,
        .bytes = record->bytes,
        .again = record->again,
    };
}
