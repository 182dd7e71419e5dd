/* SPDX-License-Identifier: Apache-2.0
 *
 * Calls and their items, from the request to the one answer: the part that all kinds of request
 * have in common. What differs from kind to kind is behind call->kind, a table of functions.
 *
 *   request --begin--> call, items open --item_done() for each--> answered, freed
 *                        \--calls_abandon(): the session is gone--> freed without an answer
 *
 * Invariants:
 * - call->open is the number of items that are not done, and one more until call_begun(). Without
 *   that one more, a call whose first item is done at once would be answered before its second item
 *   has begun.
 * - An item that is done waits nowhere: no deadline, no ask, no queue of a store, and nothing of
 * its kind knows it. So a call can be freed as soon as its last item is done.
 * - What a call is charged for (CHARGE_REQUESTS, CHARGE_WAITS) is charged when it is made, and
 * given back when it is freed, whatever became of it.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/call.h"

/* The heap of deadlines of the broker calls this. The kind may end the item, or let it go on; the
 * deadline is not set any more in either case. */
static void call_on_time_over(struct deadline *timed, uint64_t now_ns);

/* ---- answers to requests ---- */

void request_send(const struct request *request, const Fb__ClientReply *reply, int fd) {
    if (request->wants_reply)
        request->session->ops->reply(request->session->client, request->request_id, reply, fd);
}

void request_reply(const struct request *request, Fb__Status status, const char *sentence) {
    Fb__ClientReply reply = FB__CLIENT_REPLY__INIT;
    reply.status = status;
    reply.error = (char *)(sentence ? sentence : "");
    request_send(request, &reply, -1);
}

void request_refuse_full(const struct request *request, const struct charge_refusal *full,
                         const char *remedy) {
    char limit[SENTENCE_BYTES], sentence[SENTENCE_BYTES + 64];
    account_sentence(limit, sizeof limit, full);
    snprintf(sentence, sizeof sentence, "%s: %s", limit, remedy);
    request_reply(request, FB__STATUS__FULL, sentence);
}

/* ---- calls ---- */

/* The items lie behind the call in one block of memory: a get of 64 items costs one allocation,
 * not 65. The limit on items is checked before anything is allocated, for the count comes from the
 * client. */
struct call *call_new(struct request *request, struct space *space, size_t count) {
    struct broker_session *session = request->session;
    struct charge_refusal full;
    if (count > FRAME_BATCH_ITEMS_MAX) {
        request->breach = "a batch of more than 256 items";
        return NULL;
    }
    if (!account_has_room(session->account, CHARGE_WAITS, count, &full)) {
        request_refuse_full(request, &full,
                            "wait for answers first, or ask for fewer items at once");
        return NULL;
    }
    struct call *call = calloc(1, sizeof *call + count * request->kind->item_bytes);
    if (!call) {
        request_reply(request, FB__STATUS__UNAVAILABLE, "the broker is out of memory");
        return NULL;
    }
    call->kind = request->kind;
    call->broker = session->broker;
    call->session = session;
    call->space = space;
    call->request_id = request->request_id;
    call->wants_reply = request->wants_reply;
    call->begun_ns = session->broker->now_ns;
    call->count = (uint32_t)count;
    call->open = (uint32_t)count + 1;
    for (size_t i = 0; i < count; i++) {
        struct item *item = call_item(call, i);
        item->call = call;
        deadline_init(&item->timed, call_on_time_over);
    }
    TAILQ_INSERT_TAIL(&session->calls, call, link);
    account_add(session->account, CHARGE_REQUESTS, 1);
    account_add(session->account, CHARGE_WAITS, count);
    return call;
}

/* Handles are numbers of the session: one that it has closed, or never had, is refused and breaks
 * nothing. */
struct attachment *request_attachment(const struct request *request, uint32_t handle) {
    struct attachment *attachment = session_attachment(request->session, handle);
    if (!attachment)
        request_reply(request, FB__STATUS__DENIED,
                      "this session has not opened a store under that handle");
    return attachment;
}

struct call *call_open(struct request *request, uint32_t handle, size_t count,
                       const char *read_only_refusal) {
    if (count > FRAME_BATCH_ITEMS_MAX) {
        request->breach = "a batch of more than 256 items";
        return NULL;
    }
    const struct attachment *attachment = request_attachment(request, handle);
    if (!attachment)
        return NULL;
    if (!attachment->write && read_only_refusal) {
        request_reply(request, FB__STATUS__DENIED, read_only_refusal);
        return NULL;
    }
    struct call *call = call_new(request, attachment->space, count);
    if (call)
        call->holder = attachment->holder;
    return call;
}

/* A malformed ref ends its own item only: the other items of the batch go on. */
bool item_name(struct item *item, const char *sample_id, uint64_t generation, const char *home,
               uint64_t incarnation) {
    const char *wrong = ref_set(&item->ref, sample_id, generation, home, incarnation);
    if (wrong)
        item_done(item, FB__STATUS__INVALID, "%s", wrong);
    return !wrong;
}

/* ---- asks ---- */

/* The account of the user is charged, not that of the session: the session may close while the
 * question is under way, and then the ask is an orphan that still takes memory and a place in the
 * queue of a peer. The store counts the ask among its uses, so that it is not freed before the
 * answer. */
struct ask *ask_new(struct item *item, struct peer *peer) {
    struct ask *ask = calloc(1, sizeof *ask);
    if (!ask) {
        item->no_memory = true;
        return NULL;
    }
    ask->item = item;
    ask->broker = item->call->broker;
    ask->space = item->call->space;
    ask->peer = peer;
    ask->generation = item->ref.generation;
    ask->asked_ns = broker_moment_ns(ask->broker);
    ask->user = item->call->session->account->parent;
    account_add(ask->user, CHARGE_WAITS, 1);
    if (ask->space)
        ask->space->uses++;
    LIST_INSERT_HEAD(&item->asks, ask, link);
    item->ask_count++;
    return ask;
}

/* Called first by whatever an answer is handed to, for the ask ends with its answer in any case. An
 * orphan has left the list of its item before (call_orphan_asks()). */
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

int ask_send(struct ask *ask, const Fb__PeerRequest *request, peer_reply_fn done) {
    int result = ask ? peer_call(ask->peer, request, done, ask, ask->broker->now_ns) : -ENOMEM;
    if (result < 0 && ask) {
        ask->item->no_memory |= result == -ENOMEM;
        ask_take(ask);
    }
    return result;
}

const char *ask_failure(const Fb__PeerReply *reply, const char *why) {
    if (!reply)
        return why;
    return reply->status != FB__STATUS__OK ? reply->error : "it does not know that request";
}

/* The asks are not freed here: the peer or the directory still holds a pointer to each as the
 * context of its answer. */
static void call_orphan_asks(struct item *item) {
    struct ask *ask;
    while ((ask = LIST_FIRST(&item->asks))) {
        LIST_REMOVE(ask, link);
        ask->item = NULL;
    }
    item->ask_count = 0;
}

/* The store knows the waiter by its tag, which is the address of item->waiter. */
static void call_leave_store(struct item *item) {
    if (item->in_store)
        store_cancel_wait(item->call->space->store, item->call->holder,
                          (uint64_t)(uintptr_t)&item->waiter);
    item->in_store = false;
}

void item_found(struct item *item) {
    call_orphan_asks(item);
    call_leave_store(item);
}

/* ---- deadlines ---- */

/* Moves the deadline if there is one already: bytes that keep coming in push it back. */
void item_set_deadline(struct item *item, uint64_t deadline_ns) {
    deadlines_set(&item->call->broker->deadlines, &item->timed, deadline_ns);
}

static void call_clear_deadline(struct item *item) {
    deadlines_clear(&item->call->broker->deadlines, &item->timed);
}

uint64_t item_took_ns(const struct item *item) {
    uint64_t now_ns = broker_moment_ns(item->call->broker);
    return now_ns > item->call->begun_ns ? now_ns - item->call->begun_ns : 0;
}

unsigned long long item_waited_ms(const struct item *item) {
    return (item->call->broker->now_ns - item->call->begun_ns) / NS_PER_MS;
}

/* Of several peers that have been asked the first is named: the sentence is for a person, who can
 * do something about one node at a time. */
const char *item_silent_node(const struct item *item) {
    const struct ask *ask = LIST_FIRST(&item->asks);
    return ask && ask->peer  ? peer_node(ask->peer)
           : *item->ref.home ? item->ref.home
                             : "another node";
}

/* An item that is about no store of this node, for example one node of `featurectl nodes`, says
 * only who was silent. A directory that has not answered is UNAVAILABLE (asking again may help), a
 * peer that has not is TIMEOUT. */
void item_expire_unanswered(struct item *item) {
    const struct ask *ask = LIST_FIRST(&item->asks);
    const char *node = item_silent_node(item);
    if (!item->call->space || !*item->ref.sample_id)
        item_done(item, FB__STATUS__TIMEOUT, "no answer from node %s within %llu ms", node,
                  item_waited_ms(item));
    else if (ask && !ask->peer)
        item_done(item, FB__STATUS__UNAVAILABLE,
                  "sample %s of store %s: the directory has not answered within %llu ms",
                  item->ref.sample_id, item->call->space->name, item_waited_ms(item));
    else
        item_done(item, FB__STATUS__TIMEOUT,
                  "sample %s of store %s: no answer from node %s within %llu ms",
                  item->ref.sample_id, item->call->space->name, node, item_waited_ms(item));
}

static void call_on_time_over(struct deadline *timed, uint64_t now_ns) {
    (void)now_ns; /* broker->now_ns */
    struct item *item = container_of(timed, struct item, timed);
    if (item->call->kind->expire)
        item->call->kind->expire(item);
    else
        item_expire_unanswered(item);
}

/* ---- answers ---- */

char *item_error(const struct item *item) {
    static const char no_memory[] = "the broker is out of memory, and has none for a sentence";
    if (!item->error && item->status != FB__STATUS__OK)
        return (char *)no_memory;
    return item->error ? item->error : (char *)protobuf_c_empty_string;
}

void call_send(const struct call *call, const Fb__ClientReply *reply) {
    call->session->ops->reply(call->session->client, call->request_id, reply, -1);
}

/* ---- endings ---- */

/* The items own what their kind put there; the kind frees it, for only it knows what that is. */
static void call_free(struct call *call) {
    for (uint32_t i = 0; i < call->count; i++) {
        struct item *item = call_item(call, i);
        free(item->error);
        if (call->kind->free_item)
            call->kind->free_item(item);
    }
    TAILQ_REMOVE(&call->session->calls, call, link);
    account_release(call->session->account, CHARGE_REQUESTS, 1);
    account_release(call->session->account, CHARGE_WAITS, call->count);
    free(call);
}

/* The only place from which a call is answered. */
static void call_close_one(struct call *call) {
    if (--call->open)
        return;
    if (call->wants_reply)
        call->kind->answer(call);
    call_free(call);
}

void call_begun(struct call *call) {
    call_close_one(call);
}

/* Takes the item out of every place where it may wait. */
static void call_leave_all(struct item *item) {
    call_clear_deadline(item);
    call_orphan_asks(item);
    call_leave_store(item);
    if (item->call->kind->leave)
        item->call->kind->leave(item);
}

/* Without memory for a longer sentence: item_error() has one. */
static void call_add_no_memory(struct item *item) {
    char *longer = NULL;
    if (item->error && asprintf(&longer, "%s: the broker was out of memory", item->error) < 0)
        longer = NULL;
    free(item->error);
    item->error = longer;
}

/* However it ended: what was slow and failed is worth a line as well. Clients can cause such lines
 * at will, so that they are limited for each user. */
static void call_log_if_slow(const struct item *item, uint64_t took_ns) {
    const struct call *call = item->call;
    uint64_t slow_ns = call->broker->config->slow_op_ms * NS_PER_MS;
    char phases[PHASES_BYTES] = "";
    if (!slow_ns || took_ns < slow_ns || !call->kind->name)
        return;
    call->broker->counts.slow_ops++;
    if (call->kind->phases)
        call->kind->phases(item, phases);
    log_limited(LOG_LEVEL_WARNING, call->session->credentials.uid,
                "%s: slow %s of sample %s, store %s: %llu ms%s%s%s%s", call->session->name,
                call->kind->name, item->ref.sample_id, call->space ? call->space->name : "-",
                (unsigned long long)(took_ns / NS_PER_MS), *phases ? ": " : "", phases,
                item->status == FB__STATUS__OK ? "" : "; it failed: ",
                item->status == FB__STATUS__OK ? "" : item_error(item));
}

static void call_measure(const struct item *item) {
    const struct call *call = item->call;
    if (!call->kind->took && !call->kind->name) /* the clock is asked only for what is measured */
        return;
    uint64_t took_ns = item_took_ns(item);
    if (item->status == FB__STATUS__OK && call->kind->took)
        call->kind->took(item, took_ns);
    call_log_if_slow(item, took_ns);
}

void item_done(struct item *item, Fb__Status status, const char *format, ...) {
    call_leave_all(item);
    item->call->broker->items_ended++;
    item->call->broker->turn_work++;
    item->done = true;
    item->status = status;
    free(item->error);
    item->error = NULL;
    /* What could not be asked may well be there. */
    if (item->no_memory && status == FB__STATUS__NOT_FOUND)
        item->status = FB__STATUS__UNAVAILABLE;
    if (format) {
        va_list arguments;
        va_start(arguments, format);
        if (vasprintf(&item->error, format, arguments) < 0)
            item->error = NULL; /* item_error() has a sentence for that */
        va_end(arguments);
    }
    if (item->no_memory && status != FB__STATUS__OK)
        call_add_no_memory(item);
    call_measure(item);
    call_close_one(item->call);
}

/* Nobody is left to be answered. Items are not ended with item_done(), which would answer the call
 * when the last of them is done. */
void calls_abandon(struct broker_session *session) {
    struct call *call;
    while ((call = TAILQ_FIRST(&session->calls))) {
        for (uint32_t i = 0; i < call->count; i++)
            if (!call_item(call, i)->done)
                call_leave_all(call_item(call, i));
        call_free(call);
    }
}
