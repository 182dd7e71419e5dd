/* SPDX-License-Identifier: Apache-2.0
 *
 * Answers of an etcd, or of whoever listens at its address. The first byte says what was asked;
 * keys and values found go on to the reader of records.
 */
#include <stdlib.h>
#include <string.h>

#include "directory/etcd/json.h"
#include "directory/etcd/record.h"

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t bytes);

static void expect(bool condition) {
    if (!condition)
        abort();
}

static void read_kv(const struct etcd_kv *kv) {
    struct sample_record sample;
    struct node_record node;
    uint64_t generation;
    char key[ETCD_KEY_BYTES];
    etcd_node_parse(kv->key, kv->value, &node);
    etcd_generation_parse(kv->value, &generation);
    if (etcd_sample_parse(kv->key, kv->value, &sample) < 0)
        return;
    etcd_sample_key(key, "c", sample.store, sample.sample_id); /* one id, one key */
    expect(etcd_sample_parse(key, kv->value, &sample) == 0);
}

static void read_answer(enum etcd_request_kind kind, const char *text, size_t bytes) {
    char why[64] = "";
    struct etcd_answer *answer = etcd_json_answer(kind, text, bytes, why, sizeof why);
    expect(answer || *why);
    for (size_t i = 0; answer && i < answer->op_count; i++)
        expect(answer->ops[i].kv_first + answer->ops[i].kv_count <= answer->kv_count);
    for (size_t i = 0; answer && i < answer->kv_count; i++)
        read_kv(&answer->kvs[i]);
    etcd_json_answer_free(answer);
}

static void read_watch(const char *text, size_t bytes) {
    struct etcd_watch_message message;
    struct etcd_answer *keep;
    if (etcd_json_watch_line(text, bytes, &message, &keep) < 0)
        return;
    for (size_t i = 0; i < message.event_count; i++)
        read_kv(&message.events[i].kv);
    etcd_json_answer_free(keep);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t bytes) {
    char why[64];
    bool unauthorized;
    if (!bytes)
        return 0;
    const char *text = (const char *)input + 1;
    uint8_t kind = input[0] % (ETCD_AUTHENTICATE + 3);
    if (kind <= ETCD_AUTHENTICATE)
        read_answer((enum etcd_request_kind)kind, text, bytes - 1);
    else if (kind == ETCD_AUTHENTICATE + 1)
        read_watch(text, bytes - 1);
    else
        etcd_json_error(400, text, bytes - 1, &unauthorized, why, sizeof why);
    return 0;
}
