/* SPDX-License-Identifier: Apache-2.0
 *
 * What the fake broker knows of samples, and how it answers. Called under broker->lock. A put with
 * an op_id that was seen before gets the first answer.
 */
#include <stdio.h>
#include <string.h>

#include "proto/layout.h"
#include "support/fake_broker_internal.h"

/* ---- samples ---- */

static uint64_t take_room(struct fake_broker *broker, uint64_t bytes) {
    uint64_t offset = (broker->arena_used_bytes + 4095) & ~4095ull;
    broker->arena_used_bytes = offset + bytes;
    MUST(broker->arena_used_bytes <= FAKE_ARENA_BYTES);
    return offset;
}

static struct layout layout_of(ProtobufCBinaryData spec) {
    struct layout layout;
    Fb__SampleSpec *message = fb__sample_spec__unpack(NULL, spec.len, spec.data);
    MUST(message && !layout_compute(message, &layout));
    fb__sample_spec__free_unpacked(message, NULL);
    return layout;
}

static uint64_t tensor_bytes(ProtobufCBinaryData spec, size_t index) {
    Fb__SampleSpec *message = fb__sample_spec__unpack(NULL, spec.len, spec.data);
    uint64_t bytes = message->tensors[index]->bytes;
    fb__sample_spec__free_unpacked(message, NULL);
    return bytes;
}

static struct fake_sample *plan(struct fake_broker *broker, const char *id,
                                ProtobufCBinaryData spec) {
    MUST(broker->sample_count < FAKE_SAMPLES_MAX);
    struct fake_sample *sample = &broker->samples[broker->sample_count++];
    memset(sample, 0, sizeof *sample);
    snprintf(sample->id, sizeof sample->id, "%s", id);
    memcpy(sample->spec, spec.data, spec.len);
    sample->spec_bytes = spec.len;
    sample->extent_bytes = layout_of(spec).extent_bytes;
    sample->extent_offset = take_room(broker, sample->extent_bytes);
    sample->reservation = broker->sample_count;
    return sample;
}

static void make_resident(struct fake_broker *broker, struct fake_sample *sample,
                          ProtobufCBinaryData checksums, uint64_t op_id) {
    if (checksums.len)
        memcpy(sample->checksums, checksums.data, checksums.len);
    sample->checksums_bytes = checksums.len;
    sample->op_id = op_id;
    sample->generation = broker->next_generation++;
    broker->effects++;
}

static struct fake_sample *find_op(struct fake_broker *broker, uint64_t op_id) {
    for (unsigned i = 0; i < broker->sample_count; i++)
        if (broker->samples[i].op_id == op_id)
            return &broker->samples[i];
    return NULL;
}

static struct fake_sample *find_sample(struct fake_broker *broker, const char *id,
                                       uint64_t generation) {
    for (unsigned i = broker->sample_count; i-- > 0;) {
        struct fake_sample *sample = &broker->samples[i];
        if (sample->generation && !strcmp(sample->id, id) &&
            (!generation || sample->generation == generation))
            return sample;
    }
    return NULL;
}

/* ---- answers ---- */

static void answer_hello(struct fake_broker *broker, struct fake_answer *answer) {
    fb__hello_reply__init(&answer->hello);
    fb__limits__init(&answer->limits);
    answer->limits.frame_bytes = FRAME_CLIENT_BYTES_MAX;
    answer->limits.inline_bytes = broker->inline_bytes;
    answer->limits.batch_items = broker->batch_items;
    answer->limits.requests_in_flight = broker->requests_said;
    answer->limits.waits = broker->items_said;
    answer->hello.version = broker->version;
    answer->hello.node = (char *)FAKE_NODE;
    answer->hello.incarnation = broker->incarnation;
    answer->hello.limits = &answer->limits;
    answer->reply.result_case = FB__CLIENT_REPLY__RESULT_HELLO;
    answer->reply.hello = &answer->hello;
}

static void open_store(struct fake_broker *broker, struct fake_answer *answer, bool write) {
    fb__store_opened__init(&answer->opened);
    fb__store_settings__init(&answer->settings);
    answer->settings.checksum = broker->checksum;
    answer->opened.handle = 7 + broker->connections;
    answer->opened.arena_bytes = broker->arena_bytes_said;
    answer->opened.write = write;
    answer->opened.settings = &answer->settings;
    answer->reply.result_case = FB__CLIENT_REPLY__RESULT_STORE_OPENED;
    answer->reply.store_opened = &answer->opened;
    answer->fd = broker->arena_fd;
}

static void answer_open(struct fake_broker *broker, struct fake_session *session,
                        const Fb__StoreOpen *open, struct fake_answer *answer) {
    if (!broker->has_secret) {
        open_store(broker, answer, open->write);
        return;
    }
    memcpy(session->client_nonce, open->client_nonce.data, AUTH_NONCE_BYTES);
    auth_nonce(session->server_nonce);
    fb__store_challenge__init(&answer->challenge);
    answer->challenge.server_nonce =
        (ProtobufCBinaryData){.data = session->server_nonce, .len = AUTH_NONCE_BYTES};
    answer->reply.result_case = FB__CLIENT_REPLY__RESULT_STORE_CHALLENGE;
    answer->reply.store_challenge = &answer->challenge;
}

static void answer_prove(struct fake_broker *broker, const struct fake_session *session,
                         const Fb__StoreProve *prove, struct fake_answer *answer) {
    uint8_t expected[AUTH_PROOF_BYTES];
    auth_proof(broker->key, AUTH_ROLE_ASKER, FAKE_STORE, strlen(FAKE_STORE), session->client_nonce,
               session->server_nonce, expected);
    if (prove->proof.len != sizeof expected ||
        !auth_equal(prove->proof.data, expected, sizeof expected)) {
        answer->reply.status = FB__STATUS__DENIED;
        answer->reply.error = (char *)"store run0: wrong secret";
        return;
    }
    open_store(broker, answer, true);
    auth_proof(broker->key, AUTH_ROLE_ANSWERER, FAKE_STORE, strlen(FAKE_STORE),
               session->client_nonce, session->server_nonce, answer->proof);
    if (broker->wrong_proof)
        answer->proof[0] ^= 1;
    answer->opened.server_proof =
        (ProtobufCBinaryData){.data = answer->proof, .len = sizeof answer->proof};
}

static Fb__PutResult *put_result(struct fake_answer *answer, size_t index) {
    Fb__PutResult *result = answer->put_pointers[index] = &answer->put_results[index];
    fb__put_result__init(result);
    fb__put_reply__init(&answer->put);
    answer->put.items = answer->put_pointers;
    answer->put.n_items = index + 1;
    answer->reply.result_case = FB__CLIENT_REPLY__RESULT_PUT;
    answer->reply.put = &answer->put;
    return result;
}

static void answer_reserve(struct fake_broker *broker, const Fb__Reserve *reserve,
                           struct fake_answer *answer) {
    for (size_t i = 0; i < reserve->n_items; i++) {
        const struct fake_sample *sample =
            plan(broker, reserve->items[i]->sample_id, reserve->items[i]->spec);
        Fb__PutResult *result = put_result(answer, i);
        result->reservation = sample->reservation;
        result->extent_offset = sample->extent_offset;
    }
}

static void answer_commit(struct fake_broker *broker, const Fb__Commit *commit,
                          struct fake_answer *answer) {
    for (size_t i = 0; i < commit->n_items; i++) {
        uint64_t index = commit->items[i]->reservation;
        struct fake_sample *sample = find_op(broker, commit->op_id + i);
        Fb__PutResult *result = put_result(answer, i);
        if (!sample && index && index <= broker->sample_count) {
            sample = &broker->samples[index - 1];
            make_resident(broker, sample, commit->items[i]->checksums, commit->op_id + i);
        }
        if (sample)
            result->generation = sample->generation;
        else
            result->status = FB__STATUS__INVALID;
    }
}

static void answer_put(struct fake_broker *broker, const Fb__Put *put, const uint8_t *payload,
                       struct fake_answer *answer) {
    for (size_t i = 0; i < put->n_items; i++) {
        const Fb__PutItem *item = put->items[i];
        struct fake_sample *sample = find_op(broker, put->op_id + i);
        if (!sample) {
            struct layout layout = layout_of(item->spec);
            sample = plan(broker, item->sample_id, item->spec);
            const uint8_t *from = payload;
            for (uint32_t t = 0; t < layout.tensor_count; t++) {
                uint64_t bytes = tensor_bytes(item->spec, t);
                memcpy(broker->arena + sample->extent_offset + layout.offset_bytes[t], from, bytes);
                from += bytes;
            }
            make_resident(broker, sample, item->checksums, put->op_id + i);
        }
        payload += item->bytes;
        put_result(answer, i)->generation = sample->generation;
    }
}

static void answer_get(struct fake_broker *broker, const Fb__Get *get, struct fake_answer *answer) {
    fb__get_reply__init(&answer->get);
    answer->get.items = answer->get_pointers;
    answer->get.n_items = get->n_items;
    answer->reply.result_case = FB__CLIENT_REPLY__RESULT_GET;
    answer->reply.get = &answer->get;
    for (size_t i = 0; i < get->n_items; i++) {
        const Fb__GetItem *item = get->items[i];
        struct fake_sample *sample = find_sample(broker, item->sample_id, item->generation);
        Fb__GetResult *result = answer->get_pointers[i] = &answer->get_results[i];
        fb__get_result__init(result);
        if (!sample) {
            result->status = FB__STATUS__NOT_FOUND;
            result->error = (char *)"no such sample";
            continue;
        }
        result->lease_hi = 99;
        result->lease_lo = broker->next_lease++;
        result->extent_offset = sample->extent_offset;
        result->extent_bytes = sample->extent_bytes;
        result->generation = sample->generation;
        result->over_network = broker->over_network;
        if (!item->want_spec)
            continue;
        result->home = (char *)FAKE_NODE;
        result->incarnation = broker->incarnation;
        result->spec = (ProtobufCBinaryData){.data = sample->spec, .len = sample->spec_bytes};
        result->checksums =
            (ProtobufCBinaryData){.data = sample->checksums, .len = sample->checksums_bytes};
    }
}

static void answer_items(size_t count, struct fake_answer *answer) {
    fb__items_reply__init(&answer->items);
    for (size_t i = 0; i < count; i++) {
        answer->item_pointers[i] = &answer->item_results[i];
        fb__item_result__init(&answer->item_results[i]);
    }
    answer->items.items = answer->item_pointers;
    answer->items.n_items = count;
    answer->reply.result_case = FB__CLIENT_REPLY__RESULT_ITEMS;
    answer->reply.items = &answer->items;
}

static void fill_info(const struct fake_sample *sample, Fb__SampleInfo *info) {
    fb__sample_info__init(info);
    info->sample_id = (char *)sample->id;
    info->generation = sample->generation;
    info->state = FB__SAMPLE_STATE__RESIDENT;
    info->extent_bytes = sample->extent_bytes;
}

static void answer_stat(struct fake_broker *broker, const Fb__Stat *stat,
                        struct fake_answer *answer) {
    struct fake_sample *sample =
        find_sample(broker, stat->items[0]->sample_id, stat->items[0]->generation);
    fb__stat_reply__init(&answer->stat);
    fb__stat_result__init(&answer->stat_result);
    answer->stat_pointer = &answer->stat_result;
    answer->stat.items = &answer->stat_pointer;
    answer->stat.n_items = 1;
    answer->reply.result_case = FB__CLIENT_REPLY__RESULT_STAT;
    answer->reply.stat = &answer->stat;
    if (!sample) {
        answer->stat_result.status = FB__STATUS__NOT_FOUND;
        return;
    }
    fill_info(sample, &answer->infos[0]);
    answer->stat_result.info = &answer->infos[0];
    answer->stat_result.spec =
        (ProtobufCBinaryData){.data = sample->spec, .len = sample->spec_bytes};
    answer->stat_result.checksums =
        (ProtobufCBinaryData){.data = sample->checksums, .len = sample->checksums_bytes};
}

/* cursor: index of the next sample. */
static void answer_list(struct fake_broker *broker, const Fb__List *list,
                        struct fake_answer *answer) {
    unsigned i = (unsigned)list->cursor;
    fb__list_reply__init(&answer->list);
    answer->list.samples = answer->info_pointers;
    for (; i < broker->sample_count && answer->list.n_samples < 10; i++) {
        const struct fake_sample *sample = &broker->samples[i];
        if (!sample->generation || strncmp(sample->id, list->prefix, strlen(list->prefix)))
            continue;
        size_t at = answer->list.n_samples++;
        answer->info_pointers[at] = &answer->infos[at];
        fill_info(sample, &answer->infos[at]);
    }
    answer->list.cursor = i < broker->sample_count ? i : 0;
    answer->reply.result_case = FB__CLIENT_REPLY__RESULT_LIST;
    answer->reply.list = &answer->list;
}

static void answer_health(struct fake_broker *broker, struct fake_answer *answer) {
    fb__health_reply__init(&answer->health);
    answer->health.node = (char *)FAKE_NODE;
    answer->health.incarnation = broker->incarnation;
    answer->reply.result_case = FB__CLIENT_REPLY__RESULT_HEALTH;
    answer->reply.health = &answer->health;
}

static void answer_drain(struct fake_answer *answer) {
    fb__drain_reply__init(&answer->drain);
    answer->reply.result_case = FB__CLIENT_REPLY__RESULT_DRAIN;
    answer->reply.drain = &answer->drain;
}

void fake_answer_fill(struct fake_broker *broker, struct fake_session *session,
                      const struct fake_request *request, struct fake_answer *answer) {
    const Fb__ClientRequest *message = request->message;
    fb__client_reply__init(&answer->reply);
    answer->fd = -1;
    switch (message->op_case) {
    case FB__CLIENT_REQUEST__OP_HELLO:
        answer_hello(broker, answer);
        break;
    case FB__CLIENT_REQUEST__OP_STORE_OPEN:
        answer_open(broker, session, message->store_open, answer);
        break;
    case FB__CLIENT_REQUEST__OP_STORE_PROVE:
        answer_prove(broker, session, message->store_prove, answer);
        break;
    case FB__CLIENT_REQUEST__OP_RESERVE:
        answer_reserve(broker, message->reserve, answer);
        break;
    case FB__CLIENT_REQUEST__OP_COMMIT:
        answer_commit(broker, message->commit, answer);
        break;
    case FB__CLIENT_REQUEST__OP_PUT:
        answer_put(broker, message->put, request->payload, answer);
        break;
    case FB__CLIENT_REQUEST__OP_GET:
        answer_get(broker, message->get, answer);
        break;
    case FB__CLIENT_REQUEST__OP_ACK:
    case FB__CLIENT_REQUEST__OP_ABORT:
        answer_items(message->ack->n_items, answer);
        break;
    case FB__CLIENT_REQUEST__OP_GC:
        answer_items(0, answer);
        answer->items.count = 3;
        break;
    case FB__CLIENT_REQUEST__OP_STAT:
        answer_stat(broker, message->stat, answer);
        break;
    case FB__CLIENT_REQUEST__OP_LIST:
        answer_list(broker, message->list, answer);
        break;
    case FB__CLIENT_REQUEST__OP_HEALTH:
        answer_health(broker, answer);
        break;
    case FB__CLIENT_REQUEST__OP_DRAIN:
        answer_drain(answer);
        break;
    default:
        break;
    }
}
