/* SPDX-License-Identifier: Apache-2.0
 *
 * Reserve, commit, cancel, and the inline put that does all three with bytes from the request.
 *
 *   reserve: NEW -> (store has room | waits in the store's queue) -> answered with an offset
 *   commit:  NEW -> sealed under a new generation -> published (exchange/publish.c) -> answered
 *   inline:  reserve, copy, commit
 *
 * Who owns what: between reserve and commit the room belongs to the session, and the store keeps
 * the reservation. From the seal on, the generation belongs to its publishing, which goes on when
 * the client is gone; the item is then only who is to be told.
 *
 * Every put but a reserve carries an operation id. A client that has lost the answer repeats the
 * request under the same id, and is given the first answer: from the publishing while that is under
 * way, later from what the store remembers (store_replay_find()).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "requests/kinds.h"

/* So many items of a batch are told who holds the room: all of them would not fit one answer. */
#define ROOM_TOLD_ITEMS 64

/* What an inline put keeps while it waits for room. */
struct inline_put {
    struct layout layout;
    uint64_t tensor_bytes[LAYOUT_TENSORS_MAX];
    uint8_t checksums[8 * LAYOUT_TENSORS_MAX];
    uint32_t checksums_bytes;
    uint8_t bytes[];
};

/* What reserve, commit and an inline put have in common: an item of a commit knows neither place
 * nor payload. */
struct put_item {
    struct item item;
    struct inline_put *kept; /* while it waits for room */
    Fb__PutResult result;
    struct publish_waiter committed;
    uint64_t room_ns; /* so long after the request there was room for it; 0 = never asked for */
};

static struct put_item *put_of(const struct item *item) {
    return container_of(item, struct put_item, item);
}

/* ---- commit ---- */

/* The answer that was given the first time, status and generation. */
static void put_answer_committed(struct item *item, const struct store_answer *answer) {
    item->ref.generation = answer->value;
    item_done(item, (Fb__Status)answer->status, NULL);
}

/* It is said at length, because the client may be writing there at this moment: the room may belong
 * to another sample by now. */
static void put_refuse_ended(struct item *item, uint64_t reservation) {
    const struct space *space = item->call->space;
    char bound[32];
    item_done(
        item, FB__STATUS__NOT_FOUND,
        "store %s: reservation %016llx was not committed within max_reserve = %s (the smaller "
        "of max_reserve and max_hold) and has ended; its room may be another's by now: write "
        "nothing more there, put the sample again, and raise [stores] max_reserve if its "
        "bytes take that long",
        space->name, (unsigned long long)reservation,
        log_duration(space->settings.max_reserve_ms, bound));
}

static void put_on_committed(struct publish_waiter *waiter, Fb__Status status, uint64_t generation,
                             const char *sentence) {
    struct item *item = &container_of(waiter, struct put_item, committed)->item;
    if (generation)
        item->ref.generation = generation;
    item_done(item, status, sentence ? "%s" : NULL, sentence);
}

/* keeps: the client knows of the reservation, and may commit it again. A generation is taken from
 * the directory before the seal, because the seal writes it down. One that is not used after all is
 * lost, which does no harm: generations need to be unique, not to follow each other. */
static void put_commit_item(struct item *item, uint64_t reservation, const void *checksums,
                            size_t checksums_bytes, bool keeps) {
    struct call *call = item->call;
    struct broker *broker = call->broker;
    struct space *space = call->space;
    uint64_t generation = broker->directory->ops->next_generation(broker->directory);
    if (!generation) {
        char trouble[TROUBLE_BYTES];
        if (!keeps)
            store_cancel(space->store, call->holder, reservation, broker->now_ns);
        item_done(item, FB__STATUS__UNAVAILABLE,
                  "store %s: nothing can be put without generation numbers from the directory: %s; "
                  "%s when that is over",
                  space->name,
                  broker_trouble(broker, "it has not given any yet, or none in time", trouble),
                  keeps ? "the reservation stays: commit again" : "put again");
        return;
    }
    struct publish_put put = {
        .generation = generation, .op = item->op, .charged = call->session->account->parent};
    if (!publish_prepare(broker, space, &put)) {
        if (!keeps)
            store_cancel(space->store, call->holder, reservation, broker->now_ns);
        item_done(item, FB__STATUS__UNAVAILABLE,
                  "store %s: the broker has no room to keep one more put that is under way: %s "
                  "again when others have ended",
                  space->name, keeps ? "commit" : "put");
        return;
    }
    enum store_result result = store_seal(space->store, call->holder, reservation, checksums,
                                          (uint32_t)checksums_bytes, generation, broker->now_ns);
    if (result != STORE_OK)
        publish_not(broker, &put);
    if (result == STORE_E_NOT_FOUND && store_reserve_ended(space->store, reservation)) {
        put_refuse_ended(item, reservation);
        return;
    }
    if (result != STORE_OK) {
        item_done(item, status_of(result), "store %s: reservation %016llx %s", space->name,
                  (unsigned long long)reservation,
                  result == STORE_E_NOT_FOUND
                      ? "is not open in this session: it was cancelled or committed, or belongs to "
                        "an earlier connection"
                      : "has another number of tensors than there are checksums");
        return;
    }
    struct store_info info;
    store_stat(space->store, NULL, 0, generation, &info);
    memcpy(item->ref.sample_id, info.sample_id, sizeof item->ref.sample_id);
    put_of(item)->committed.ended = put_on_committed;
    publish(broker, space, &put, &put_of(item)->committed);
}

/* ---- reserve ---- */

/* Tensors lie in the request one after the other without gaps; in the extent each begins at its
 * aligned offset. */
static void put_copy_payload(const struct item *item, const struct inline_put *put,
                             const uint8_t *bytes) {
    uint8_t *extent = (uint8_t *)item->call->space->arena.base + put_of(item)->result.extent_offset;
    for (uint32_t i = 0; i < put->layout.tensor_count; i++) {
        memcpy(extent + put->layout.offset_bytes[i], bytes, put->tensor_bytes[i]);
        bytes += put->tensor_bytes[i];
    }
}

/* There is room. A reserve is answered with it; an inline put goes on to its commit. */
static void put_reserved(struct item *item, const struct store_reservation *reservation,
                         const struct inline_put *put, const uint8_t *bytes) {
    put_of(item)->result.reservation = reservation->token;
    put_of(item)->result.extent_offset = reservation->place.offset;
    put_of(item)->room_ns = item_took_ns(item);
    if (!put) {
        item_done(item, FB__STATUS__OK, NULL);
        return;
    }
    put_copy_payload(item, put, bytes);
    put_commit_item(item, reservation->token, put->checksums, put->checksums_bytes, false);
}

/* With many items a sentence for each about who holds the room would not fit the answer: the first
 * ones are told. */
static void put_refused(struct item *item, enum store_result result,
                        const struct store_refusal *refusal, bool waited) {
    char sentence[SENTENCE_BYTES];
    space_count_refusal(item->call->space, refusal);
    status_sentence(sentence, item->call->space, result, refusal, item->ref.sample_id);
    if (result == STORE_E_FULL && item_index(item) < ROOM_TOLD_ITEMS)
        status_add_room(sentence, item->call->broker, item->call->space, refusal);
    if (waited && item->call->wait_cut)
        status_add_cut(sentence, item->call->space);
    /* A put that waited in vain is told what it waited for, not merely that time passed. */
    Fb__Status status = result == STORE_E_TIMEOUT ? FB__STATUS__FULL : status_of(result);
    item_done(item, status, "%s", sentence);
}

/* The store has room at last, or the time is over. */
static void put_on_room(struct waiter *waiter, const struct store_effect *effect) {
    struct item *item = container_of(waiter, struct item, waiter);
    const struct inline_put *kept = put_of(item)->kept;
    item->in_store = false;
    if (effect->result == STORE_OK)
        put_reserved(item, &effect->reservation, kept, kept ? kept->bytes : NULL);
    else
        put_refused(item, effect->result, &effect->refusal, true);
}

/* Unpacks and checks a spec; a sentence in *wrong when it is no good. */
static Fb__SampleSpec *put_check_spec(struct broker *broker, const char *sample_id,
                                      ProtobufCBinaryData packed, struct layout *layout,
                                      const char **wrong) {
    *wrong = layout_check_sample_id(sample_id)
                 ? "the sample_id is empty, longer than 128 bytes, or not printable UTF-8"
                 : NULL;
    if (!*wrong && packed.len > LAYOUT_SPEC_BYTES_MAX)
        *wrong = "its tensor specs and metadata are larger than 8 KiB packed";
    if (*wrong)
        return NULL;
    Fb__SampleSpec *spec =
        fb__sample_spec__unpack(bump_begin(&broker->bump), packed.len, packed.data);
    if (!spec)
        *wrong = "its spec is malformed";
    else
        *wrong = layout_compute(spec, layout);
    return *wrong ? NULL : spec;
}

/* The item is done when they cannot be kept. The payload of the request is gone when put_inline()
 * returns: what has to wait for room is copied, and charged to the session, for it is the broker's
 * own memory. */
static void put_keep_payload(struct item *item, const struct inline_put *put,
                             const uint8_t *bytes) {
    struct account *account = item->call->session->account;
    uint64_t kept_bytes = sizeof *put + put->layout.sum_bytes;
    struct charge_refusal full;
    if (!account_has_room(account, CHARGE_KEPT_BYTES, kept_bytes, &full)) {
        char limit[SENTENCE_BYTES];
        account_sentence(limit, sizeof limit, &full);
        item_done(item, FB__STATUS__FULL,
                  "sample %s of store %s: there is no room for it yet and it cannot be kept: %s",
                  item->ref.sample_id, item->call->space->name, limit);
        return;
    }
    struct inline_put *kept = malloc(kept_bytes);
    if (!kept) {
        item_done(item, FB__STATUS__UNAVAILABLE, "sample %s: the broker is out of memory",
                  item->ref.sample_id);
        return;
    }
    memcpy(kept, put, sizeof *put);
    memcpy(kept->bytes, bytes, put->layout.sum_bytes);
    account_add(account, CHARGE_KEPT_BYTES, kept_bytes);
    put_of(item)->kept = kept;
}

/* The item is done, or its room has come and the bytes have been copied there. */
static void put_forget_payload(struct item *item) {
    struct inline_put *put = put_of(item)->kept;
    if (!put)
        return;
    account_release(item->call->session->account, CHARGE_KEPT_BYTES,
                    sizeof *put + put->layout.sum_bytes);
    free(put);
    put_of(item)->kept = NULL;
}

/* Where the store can do it at once no memory is allocated for the item. Otherwise the store keeps
 * the place in the line and the deadline, and tells the waiter. */
static void put_reserve_item(struct item *item, ProtobufCBinaryData spec,
                             const struct layout *layout, uint64_t deadline_ns,
                             const struct inline_put *put, const uint8_t *bytes) {
    struct call *call = item->call;
    struct store_put asked = {
        .sample_id = item->ref.sample_id,
        .sample_id_bytes = (uint32_t)strlen(item->ref.sample_id),
        .spec = spec.data,
        .spec_bytes = (uint32_t)spec.len,
        .tensor_count = layout->tensor_count,
        .extent_bytes = layout->extent_bytes,
        .align_bytes = layout->align_bytes,
        .deadline_ns = deadline_ns,
        .tag = (uint64_t)(uintptr_t)&item->waiter,
    };
    struct store_reservation reservation;
    struct store_refusal refusal = {0};
    enum store_result result = store_reserve(call->space->store, call->holder, &asked,
                                             call->broker->now_ns, &reservation, &refusal);
    if (result == STORE_OK) {
        put_reserved(item, &reservation, put, bytes);
    } else if (result == STORE_WAIT) {
        item->waiter.granted = put_on_room;
        item->in_store = true;
        if (put)
            put_keep_payload(item, put, bytes);
    } else {
        put_refused(item, result, &refusal, false);
    }
}

/* ---- requests ---- */

/* The call, or NULL when the request was answered already, or is a breach. */
static struct call *put_begin(struct request *request, uint32_t handle, size_t count) {
    const struct attachment *attachment = session_attachment(request->session, handle);
    if (attachment && attachment->write && attachment->space->dropped) {
        request_reply(request, FB__STATUS__NOT_FOUND, "the store was dropped");
        return NULL;
    }
    return call_open(request, handle, count, "this session opened the store read-only");
}

/* The results are part of the items, and filled in while the items go on: answering copies nothing.
 */
static void put_init_results(const struct call *call) {
    for (uint32_t i = 0; i < call->count; i++)
        fb__put_result__init(&put_of(call_item(call, i))->result);
}

/* True, and the item is done: the node takes no new samples, because it is draining, is fenced, or
 * has a twin of the same name that was there first. */
static bool put_refuse_new(struct item *item) {
    const struct broker *broker = item->call->broker;
    const char *why = broker_refuses_why(broker);
    if (why)
        item_done(item, FB__STATUS__UNAVAILABLE, "node %s takes no new samples: %s",
                  broker->config->node, why);
    return why;
}

/* The wait is cut to max_wait of the store: whoever waits keeps memory, and others out of the line.
 */
static uint64_t put_deadline_of(struct call *call, uint32_t deadline_ms) {
    return call->broker->now_ns +
           space_cut_wait_ns(call->space, deadline_ms * NS_PER_MS, &call->wait_cut);
}

/* Reserving has no operation id: a reservation whose answer was lost ends with the session or after
 * max_reserve, and never becomes a sample. */
static void put_reserve(struct request *request) {
    struct broker_session *session = request->session;
    const Fb__Reserve *asked = request->message->reserve;
    struct call *call = put_begin(request, asked->handle, asked->n_items);
    if (!call)
        return;
    put_init_results(call);
    uint64_t deadline_ns = put_deadline_of(call, asked->deadline_ms);
    for (size_t i = 0; i < asked->n_items; i++) {
        struct item *item = call_item(call, i);
        struct layout layout;
        const char *wrong;
        if (put_refuse_new(item))
            continue;
        if (!put_check_spec(session->broker, asked->items[i]->sample_id, asked->items[i]->spec,
                            &layout, &wrong)) {
            item_done(item, FB__STATUS__INVALID, "sample %.128s of store %s: %s",
                      asked->items[i]->sample_id, call->space->name, wrong);
            continue;
        }
        strcpy(item->ref.sample_id, asked->items[i]->sample_id);
        put_reserve_item(item, asked->items[i]->spec, &layout, deadline_ns, NULL, NULL);
    }
    call_begun(call);
}

/* True if this operation was carried out before: the item is done with the first answer. */
static bool put_repeated(struct item *item, uint64_t client_id, uint64_t op_id, size_t index) {
    struct store_answer answer;
    if (!op_id)
        return false;
    item->op = (struct store_op){client_id, op_id + index};
    put_of(item)->committed.ended = put_on_committed;
    if (publish_adopt(item->call->broker, item->call->space, item->op, &put_of(item)->committed))
        return true;
    if (!store_replay_find(item->call->space->store, item->op, &answer))
        return false;
    put_answer_committed(item, &answer);
    return true;
}

/* A commit is not refused while the broker is draining or fenced: the room is there already, and
 * the directory says by itself whether it takes the record. */
static void put_commit(struct request *request) {
    struct broker_session *session = request->session;
    const Fb__Commit *asked = request->message->commit;
    struct call *call = put_begin(request, asked->handle, asked->n_items);
    if (!call)
        return;
    put_init_results(call);
    for (size_t i = 0; i < asked->n_items; i++)
        if (!put_repeated(call_item(call, i), session->client_id, asked->op_id, i))
            put_commit_item(call_item(call, i), asked->items[i]->reservation,
                            asked->items[i]->checksums.data, asked->items[i]->checksums.len, true);
    call_begun(call);
}

/* Of a reservation that is unknown nothing is left to cancel: a success. */
static void put_cancel(struct request *request) {
    struct broker_session *session = request->session;
    const Fb__Cancel *asked = request->message->cancel;
    struct attachment *attachment = session_attachment(session, asked->handle);
    for (size_t i = 0; attachment && i < asked->n_reservations; i++)
        store_cancel(attachment->space->store, attachment->holder, asked->reservations[i],
                     session->broker->now_ns);
    request_reply(request, FB__STATUS__OK, NULL);
}

/* The spec says how many bytes the tensors have, and so does the request: where the two differ, one
 * of them is wrong, and nothing is written. */
static void put_one(struct item *item, const Fb__PutItem *asked, uint64_t deadline_ns,
                    const uint8_t *bytes) {
    struct layout layout;
    const char *wrong = NULL;
    struct inline_put put = {.checksums_bytes = (uint32_t)asked->checksums.len};
    Fb__SampleSpec *spec =
        put_check_spec(item->call->broker, asked->sample_id, asked->spec, &layout, &wrong);
    if (!wrong && layout.sum_bytes != asked->bytes)
        wrong = "its tensors' bytes differ from the bytes sent";
    if (!wrong && asked->checksums.len && asked->checksums.len != 8ull * layout.tensor_count)
        wrong = "it has another number of checksums than tensors";
    if (wrong) {
        item_done(item, FB__STATUS__INVALID, "sample %.128s of store %s: %s", asked->sample_id,
                  item->call->space->name, wrong);
        return;
    }
    strcpy(item->ref.sample_id, asked->sample_id);
    put.layout = layout;
    for (uint32_t i = 0; i < layout.tensor_count; i++)
        put.tensor_bytes[i] = spec->tensors[i]->bytes;
    if (asked->checksums.len)
        memcpy(put.checksums, asked->checksums.data, asked->checksums.len);
    put_reserve_item(item, asked->spec, &layout, deadline_ns, &put, bytes);
}

/* All payloads of a batch come in one piece, in the order of the items. Their sizes are added up
 * before anything is carried out, so that no item can reach beyond the piece. */
static void put_inline(struct request *request) {
    struct broker_session *session = request->session;
    const Fb__Put *asked = request->message->put;
    uint64_t sum_bytes = 0;
    for (size_t i = 0; i < asked->n_items; i++)
        sum_bytes += asked->items[i]->bytes;
    if (sum_bytes != request->payload_bytes) {
        request->breach = "a Put whose items do not add up to its payload";
        return;
    }
    struct call *call = put_begin(request, asked->handle, asked->n_items);
    if (!call)
        return;
    put_init_results(call);
    uint64_t deadline_ns = put_deadline_of(call, asked->deadline_ms);
    const uint8_t *payload = request->payload;
    for (size_t i = 0; i < asked->n_items; i++) {
        if (!put_repeated(call_item(call, i), session->client_id, asked->op_id, i) &&
            !put_refuse_new(call_item(call, i)))
            put_one(call_item(call, i), asked->items[i], deadline_ns, payload);
        payload += asked->items[i]->bytes;
    }
    call_begun(call);
}

/* ---- the answer ---- */

/* One result for each item, in the order of the request: some may have failed while others are put.
 */
static void put_answer(const struct call *call) {
    Fb__PutResult *results[FRAME_BATCH_ITEMS_MAX];
    for (uint32_t i = 0; i < call->count; i++) {
        const struct item *item = call_item(call, i);
        Fb__PutResult *result = results[i] = &put_of(item)->result;
        result->status = item->status;
        result->error = item_error(item);
        result->generation = item->ref.generation;
    }
    Fb__PutReply put = FB__PUT_REPLY__INIT;
    put.n_items = call->count;
    put.items = results;
    Fb__ClientReply reply = FB__CLIENT_REPLY__INIT;
    reply.result_case = FB__CLIENT_REPLY__RESULT_PUT;
    reply.put = &put;
    call_send(call, &reply);
}

/* The publishing goes on without the item: what is in the index must become true. */
static void put_leave(struct item *item) {
    publish_leave(&put_of(item)->committed);
    put_forget_payload(item);
}

/* What is not the wait for room is the way to the index, where there is one. */
static void put_phases(const struct item *item, char out[PHASES_BYTES]) {
    const uint64_t took_ns = item_took_ns(item), room_ns = put_of(item)->room_ns;
    const bool had_room = room_ns || item->call->kind == &put_commit_kind;
    snprintf(out, PHASES_BYTES, "%llu ms until there was room%s, %llu ms for the rest",
             (unsigned long long)((had_room ? room_ns : took_ns) / NS_PER_MS),
             had_room ? "" : " (there was none)",
             (unsigned long long)((had_room ? took_ns - room_ns : 0) / NS_PER_MS));
}

static void put_reserve_took(const struct item *item, uint64_t ns) {
    histogram_add(&item->call->broker->counts.reserve, ns);
}

static void put_commit_took(const struct item *item, uint64_t ns) {
    histogram_add(&item->call->broker->counts.commit, ns);
}

static void put_inline_took(const struct item *item, uint64_t ns) {
    histogram_add(&item->call->broker->counts.put_inline, ns);
}

/* The store keeps the time of those that wait for room, and a commit is not given up. */
#define PUT_KIND(word, name_)                                                                      \
    {                                                                                              \
        .begin = put_##word, .item_bytes = sizeof(struct put_item), .answer = put_answer,          \
        .leave = put_leave, .took = put_##word##_took, .name = (name_), .phases = put_phases       \
    }

const struct request_kind put_reserve_kind = PUT_KIND(reserve, "reserve");
const struct request_kind put_commit_kind = PUT_KIND(commit, "commit");
const struct request_kind put_inline_kind = PUT_KIND(inline, "put");
const struct request_kind put_cancel_kind = {.begin = put_cancel};
