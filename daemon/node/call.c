/* SPDX-License-Identifier: Apache-2.0
 *
 * Calls and their items, from the request to the one answer. See state.h.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "requests/requests.h"

static void call_on_time_over(struct deadline *timed, uint64_t now_ns);

struct call *call_new(struct broker_session *session, enum call_kind kind, size_t count,
                      uint32_t request_id, bool wants_reply) {
    struct charge_refusal full;
    if (!account_has_room(session->account, CHARGE_WAITS, count, &full)) {
        call_refuse(session, request_id, wants_reply, &full,
                    "wait for answers first, or ask for fewer items at once");
        return NULL;
    }
    struct call *call = calloc(1, sizeof *call + count * sizeof call->items[0]);
    if (!call) {
        call_reply_simple(session, request_id, wants_reply, FB__STATUS__UNAVAILABLE,
                          "the broker is out of memory");
        return NULL;
    }
    call->broker = session->broker;
    call->session = session;
    call->kind = kind;
    call->request_id = request_id;
    call->wants_reply = wants_reply;
    call->begun_ns = session->broker->now_ns;
    call->count = (uint32_t)count;
    call->open = (uint32_t)count + 1;
    for (size_t i = 0; i < count; i++) {
        call->items[i].call = call;
        deadline_init(&call->items[i].timed, call_on_time_over);
    }
    TAILQ_INSERT_TAIL(&session->calls, call, link);
    account_add(session->account, CHARGE_REQUESTS, 1);
    account_add(session->account, CHARGE_WAITS, count);
    return call;
}

struct call *call_open(struct broker_session *session, enum call_kind kind, uint32_t handle,
                       size_t count, uint32_t request_id, bool wants_reply,
                       const char *read_only_refusal, const char **why) {
    if (count > FRAME_BATCH_ITEMS_MAX) {
        *why = "a batch of more than 256 items";
        return NULL;
    }
    const struct attachment *attachment = session_attachment(session, handle);
    const char *refusal = !attachment ? "this session has not opened a store under that handle"
                          : !attachment->write ? read_only_refusal
                                               : NULL;
    if (refusal) {
        call_reply_simple(session, request_id, wants_reply, FB__STATUS__DENIED, refusal);
        return NULL;
    }
    struct call *call = call_new(session, kind, count, request_id, wants_reply);
    if (call) {
        call->space = attachment->space;
        call->holder = attachment->holder;
    }
    return call;
}

bool item_name(struct item *item, const char *sample_id, uint64_t generation, const char *home,
               uint64_t incarnation) {
    if (layout_check_sample_id(sample_id) || (*home && layout_check_name(home))) {
        item_done(item, FB__STATUS__INVALID, "the sample_id or the home of the ref is malformed");
        return false;
    }
    strcpy(item->sample_id, sample_id);
    strcpy(item->home, home);
    item->generation = generation;
    item->incarnation = incarnation;
    return true;
}

/* ---- asks ---- */

struct ask *ask_new(struct item *item, struct peer *peer) {
    struct ask *ask = calloc(1, sizeof *ask);
    if (!ask)
        return NULL;
    ask->item = item;
    ask->broker = item->call->broker;
    ask->space = item->call->space;
    ask->peer = peer;
    ask->generation = item->generation;
    ask->op = item->op;
    ask->user = item->call->session->account->parent;
    account_add(ask->user, CHARGE_WAITS, 1);
    if (ask->space)
        ask->space->uses++;
    LIST_INSERT_HEAD(&item->asks, ask, link);
    item->ask_count++;
    return ask;
}

struct item *ask_take(struct ask *ask) {
    struct item *item = ask->item;
    if (item) {
        LIST_REMOVE(ask, link);
        item->ask_count--;
    }
    if (ask->space)
        ask->space->uses--;
    accounts_release(ask->broker, ask->user, CHARGE_WAITS, 1);
    free(ask);
    return item;
}

const char *ask_failure(const Fb__PeerReply *reply, const char *why) {
    if (!reply)
        return why;
    return reply->status != FB__STATUS__OK ? reply->error : "it does not know that request";
}

static void call_orphan_asks(struct item *item) {
    struct ask *ask;
    while ((ask = LIST_FIRST(&item->asks))) {
        LIST_REMOVE(ask, link);
        ask->item = NULL;
    }
    item->ask_count = 0;
}

static void call_leave_store(struct item *item) {
    if (item->in_store)
        store_cancel_wait(item->call->space->store, item->call->holder,
                          (uint64_t)(uintptr_t)&item->waiter);
    item->in_store = false;
}

void item_found(struct item *item) {
    if (BROKER_PLANTED(PLANTED_FOUND_TWICE))
        return;
    call_orphan_asks(item);
    call_leave_store(item);
}

/* ---- deadlines ---- */

void item_set_deadline(struct item *item, uint64_t deadline_ns) {
    deadlines_set(&item->call->broker->deadlines, &item->timed, deadline_ns);
}

static void call_clear_deadline(struct item *item) {
    deadlines_clear(&item->call->broker->deadlines, &item->timed);
}

/* Ends the item, for good or to go on without this deadline. */
static void call_expire(struct item *item) {
    unsigned long long waited_ms = (item->call->broker->now_ns - item->call->begun_ns) / NS_PER_MS;
    const struct ask *ask = LIST_FIRST(&item->asks);
    const char *node = ask && ask->peer ? peer_node(ask->peer)
                       : *item->home    ? item->home
                                        : "another node";
    if (item->call->kind == CALL_DRAIN) {
        steer_drained(item);
    } else if (item->call->kind == CALL_EXPLAIN) {
        explain_expired(item);
    } else if (item->call->kind > CALL_EXPLAIN) {
        item_done(item, FB__STATUS__TIMEOUT, "no answer from node %s within %llu ms", node,
                  waited_ms);
    } else if (item->call->kind == CALL_RETIRE && item->call->reason == STORE_ACKED &&
               item->generation && ask && ask->peer) {
        if (outbox_ack(item->call->broker, ask->peer, item))
            item_done(item, FB__STATUS__OK, NULL);
    } else if (ask && !ask->peer) {
        item_done(item, FB__STATUS__UNAVAILABLE,
                  "sample %s of store %s: the directory has not answered within %llu ms",
                  item->sample_id, item->call->space->name, waited_ms);
    } else if (item->fetch && !item->fetch->landed) {
        item_done(item, FB__STATUS__FULL,
                  "sample %s of store %s: no room to land it here within %llu ms: others' samples "
                  "hold the landing_bytes of this node",
                  item->sample_id, item->call->space->name, waited_ms);
    } else if (item->fetch) {
        item_done(
            item, FB__STATUS__TIMEOUT,
            "sample %s of store %s: its bytes stopped coming from node %s; gave up after %llu ms",
            item->sample_id, item->call->space->name, node, waited_ms);
    } else {
        item_done(item, FB__STATUS__TIMEOUT,
                  "sample %s of store %s: no answer from node %s within %llu ms", item->sample_id,
                  item->call->space ? item->call->space->name : "?", node, waited_ms);
    }
}

static void call_on_time_over(struct deadline *timed, uint64_t now_ns) {
    (void)now_ns; /* broker->now_ns */
    call_expire(container_of(timed, struct item, timed));
}

/* ---- answers ---- */

static char *call_text_or_empty(char *text) {
    return text ? text : (char *)protobuf_c_empty_string;
}

void call_send(const struct call *call, const Fb__ClientReply *reply) {
    call->session->ops->reply(call->session->client, call->request_id, reply, -1);
}

static void call_answer_put(struct call *call) {
    Fb__PutResult results[FRAME_BATCH_ITEMS_MAX], *pointers[FRAME_BATCH_ITEMS_MAX];
    for (uint32_t i = 0; i < call->count; i++) {
        const struct item *item = &call->items[i];
        fb__put_result__init(&results[i]);
        results[i].status = item->status;
        results[i].error = call_text_or_empty(item->error);
        results[i].reservation = item->reservation;
        results[i].extent_offset = item->extent_offset;
        results[i].generation = item->generation;
        pointers[i] = &results[i];
    }
    Fb__PutReply put = FB__PUT_REPLY__INIT;
    put.n_items = call->count;
    put.items = pointers;
    Fb__ClientReply reply = FB__CLIENT_REPLY__INIT;
    reply.result_case = FB__CLIENT_REPLY__RESULT_PUT;
    reply.put = &put;
    call_send(call, &reply);
}

static void call_fill_get(const struct item *item, Fb__GetResult *result) {
    fb__get_result__init(result);
    result->status = item->status;
    result->error = call_text_or_empty(item->error);
    if (item->status != FB__STATUS__OK)
        return;
    result->lease_hi = item->lease_hi;
    result->lease_lo = item->lease_lo;
    result->extent_offset = item->extent_offset;
    result->extent_bytes = item->extent_bytes;
    result->generation = item->generation;
    result->over_network = item->over_network;
    result->transfer = item->transfer;
    if (!item->want_spec)
        return;
    result->home = (char *)item->home;
    result->incarnation = item->incarnation;
    result->spec = (ProtobufCBinaryData){item->spec_bytes, item->spec};
    result->checksums = (ProtobufCBinaryData){item->checksums_bytes, item->checksums};
}

static void call_answer_get(struct call *call) {
    Fb__GetResult results[FRAME_BATCH_ITEMS_MAX], *pointers[FRAME_BATCH_ITEMS_MAX];
    for (uint32_t i = 0; i < call->count; i++) {
        call_fill_get(&call->items[i], &results[i]);
        pointers[i] = &results[i];
    }
    Fb__GetReply get = FB__GET_REPLY__INIT;
    get.n_items = call->count;
    get.items = pointers;
    Fb__ClientReply reply = FB__CLIENT_REPLY__INIT;
    reply.result_case = FB__CLIENT_REPLY__RESULT_GET;
    reply.get = &get;
    call_send(call, &reply);
}

static void call_answer_retire(struct call *call) {
    Fb__ItemResult results[FRAME_BATCH_ITEMS_MAX], *pointers[FRAME_BATCH_ITEMS_MAX];
    for (uint32_t i = 0; i < call->count; i++) {
        fb__item_result__init(&results[i]);
        results[i].status = call->items[i].status;
        results[i].error = call_text_or_empty(call->items[i].error);
        pointers[i] = &results[i];
    }
    Fb__ItemsReply items = FB__ITEMS_REPLY__INIT;
    items.n_items = call->count;
    items.items = pointers;
    Fb__ClientReply reply = FB__CLIENT_REPLY__INIT;
    reply.result_case = FB__CLIENT_REPLY__RESULT_ITEMS;
    reply.items = &items;
    call_send(call, &reply);
}

static void call_answer_stat(struct call *call) {
    Fb__StatResult failed[FRAME_BATCH_ITEMS_MAX], *pointers[FRAME_BATCH_ITEMS_MAX];
    for (uint32_t i = 0; i < call->count; i++) {
        const struct item *item = &call->items[i];
        pointers[i] =
            item->answer ? fb__stat_result__unpack(NULL, item->answer_bytes, item->answer) : NULL;
        if (pointers[i])
            continue;
        fb__stat_result__init(&failed[i]);
        failed[i].status = item->status;
        failed[i].error = call_text_or_empty(item->error);
        pointers[i] = &failed[i];
    }
    Fb__StatReply stat = FB__STAT_REPLY__INIT;
    stat.n_items = call->count;
    stat.items = pointers;
    Fb__ClientReply reply = FB__CLIENT_REPLY__INIT;
    reply.result_case = FB__CLIENT_REPLY__RESULT_STAT;
    reply.stat = &stat;
    call_send(call, &reply);
    for (uint32_t i = 0; i < call->count; i++)
        if (pointers[i] != &failed[i])
            fb__stat_result__free_unpacked(pointers[i], NULL);
}

static void call_answer_drain(struct call *call) {
    const struct item *item = &call->items[0];
    const struct directory *directory = call->broker->directory;
    Fb__ClientReply reply = FB__CLIENT_REPLY__INIT;
    reply.status = item->status;
    reply.error = call_text_or_empty(item->error);
    Fb__DrainReply drain = FB__DRAIN_REPLY__INIT;
    reply.result_case = FB__CLIENT_REPLY__RESULT_DRAIN;
    reply.drain = &drain;
    drain.release_pending = call->broker->exchange->release_pending;
    drain.index_pending = directory->ops->pending(directory);
    drain.sentence = reply.error;
    call_send(call, &reply);
}

void item_answer(struct item *item, const ProtobufCMessage *message) {
    item->answer_bytes = protobuf_c_message_get_packed_size(message);
    item->answer = malloc(item->answer_bytes + 1);
    if (item->answer)
        protobuf_c_message_pack(message, item->answer);
    item_done(item, FB__STATUS__OK, NULL);
}

static void call_answer_whole(struct call *call) {
    const struct item *item = &call->items[0];
    Fb__ClientReply *whole =
        item->answer ? fb__client_reply__unpack(NULL, item->answer_bytes, item->answer) : NULL;
    Fb__ClientReply failed = FB__CLIENT_REPLY__INIT;
    failed.status = item->answer ? FB__STATUS__UNAVAILABLE : item->status;
    failed.error = call_text_or_empty(item->error);
    call_send(call, whole ? whole : &failed);
    if (whole)
        fb__client_reply__free_unpacked(whole, NULL);
}

static void (*const answers[])(struct call *call) = {
    [CALL_PUT] = call_answer_put,          [CALL_GET] = call_answer_get,
    [CALL_RETIRE] = call_answer_retire,    [CALL_STAT] = call_answer_stat,
    [CALL_EXPLAIN] = explain_answer,       [CALL_DRAIN] = call_answer_drain,
    [CALL_NODES] = list_answer_nodes,      [CALL_LIST] = call_answer_whole,
    [CALL_INDEX_LIST] = call_answer_whole, [CALL_INDEX_CHECK] = index_answer,
    [CALL_GC] = call_answer_whole,
};

/* ---- endings ---- */

static void call_free(struct call *call) {
    for (uint32_t i = 0; i < call->count; i++) {
        struct item *item = &call->items[i];
        free(item->error);
        free(item->spec);
        free(item->checksums);
        free(item->answer);
        if (item->explained)
            explain_free(item->explained);
    }
    TAILQ_REMOVE(&call->session->calls, call, link);
    account_release(call->session->account, CHARGE_REQUESTS, 1);
    account_release(call->session->account, CHARGE_WAITS, call->count);
    free(call);
}

static void call_close_one(struct call *call) {
    if (--call->open)
        return;
    if (call->wants_reply)
        answers[call->kind](call);
    call_free(call);
}

void call_begun(struct call *call) {
    call_close_one(call);
}

/* Takes the item out of every place where it may wait. */
static void call_leave_all(struct item *item) {
    call_clear_deadline(item);
    call_orphan_asks(item);
    if (item->fetch)
        fetch_detach(item);
    if (item->publishing)
        publish_detach(item);
    if (item->draining)
        TAILQ_REMOVE(&item->call->broker->drains, item, drain_link);
    item->draining = false;
    if (item->collecting) {
        TAILQ_REMOVE(&item->call->broker->gc_asked, item, drain_link);
        item->call->space->uses--;
    }
    item->collecting = false;
    call_leave_store(item);
    if (item->remote) /* leased at its home, never granted here */
        outbox_release(item->call->broker, item->remote, false);
    item->remote = 0;
    put_forget_payload(item);
}

void item_done(struct item *item, Fb__Status status, const char *format, ...) {
    call_leave_all(item);
    item->call->broker->items_ended++;
    item->call->broker->turn_work++;
    item->done = true;
    item->status = status;
    free(item->error);
    item->error = NULL;
    if (format) {
        va_list arguments;
        va_start(arguments, format);
        if (vasprintf(&item->error, format, arguments) < 0)
            item->error = NULL;
        va_end(arguments);
    }
    call_close_one(item->call);
}

void calls_abandon(struct broker_session *session) {
    struct call *call;
    while ((call = TAILQ_FIRST(&session->calls))) {
        for (uint32_t i = 0; i < call->count; i++)
            if (!call->items[i].done)
                call_leave_all(&call->items[i]);
        call_free(call);
    }
}

void call_reply_simple(struct broker_session *session, uint32_t request_id, bool wants_reply,
                       Fb__Status status, const char *sentence) {
    if (!wants_reply)
        return;
    Fb__ClientReply reply = FB__CLIENT_REPLY__INIT;
    reply.status = status;
    reply.error = (char *)(sentence ? sentence : "");
    session->ops->reply(session->client, request_id, &reply, -1);
}

void call_refuse(struct broker_session *session, uint32_t request_id, bool wants_reply,
                 const struct charge_refusal *full, const char *remedy) {
    char limit[SENTENCE_BYTES], sentence[SENTENCE_BYTES + 64];
    account_sentence(limit, sizeof limit, full);
    snprintf(sentence, sizeof sentence, "%s: %s", limit, remedy);
    call_reply_simple(session, request_id, wants_reply, FB__STATUS__FULL, sentence);
}
