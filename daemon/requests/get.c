/* SPDX-License-Identifier: Apache-2.0
 *
 * Get and release. A generation at home here is leased at once (one round trip, no copy); one whose
 * home is another node is leased there first (remote.c), its bytes are landed here once (fetch.c),
 * and the client gets a local lease on the landing copy. The home alone says whether a generation
 * may be read, each time.
 *
 * An id is looked for here, then in the index, then at the home that the index names. Between two
 * of these it may have been put anew elsewhere: what the index named and is gone is looked for
 * again, until the index names nothing new; and one whose put has reached the index, but whose home
 * has not heard of that yet, is waited for there.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/knowledge.h"
#include "requests/kinds.h"

#define PATIENCE_DEFAULT_MS 30000u

static void get_look_again(struct item *item, const char *why);

static bool get_copy_spec(struct item *item, uint32_t slot) {
    struct store *store = item->call->space->store;
    uint8_t spec[STORE_SPEC_BYTES_MAX], checksums[8 * STORE_TENSORS_MAX];
    if (!store_spec(store, slot, spec, sizeof spec, &get_of(item)->spec_bytes, checksums,
                    sizeof checksums, &get_of(item)->checksums_bytes))
        return false;
    get_of(item)->spec = malloc(get_of(item)->spec_bytes ? get_of(item)->spec_bytes : 1);
    get_of(item)->checksums =
        malloc(get_of(item)->checksums_bytes ? get_of(item)->checksums_bytes : 1);
    if (!get_of(item)->spec || !get_of(item)->checksums) {
        item->no_memory = true;
        return false;
    }
    memcpy(get_of(item)->spec, spec, get_of(item)->spec_bytes);
    memcpy(get_of(item)->checksums, checksums, get_of(item)->checksums_bytes);
    item->call->spec_bytes += get_of(item)->spec_bytes + get_of(item)->checksums_bytes;
    return item->call->spec_bytes <= SPEC_BYTES_PER_CALL;
}

static void get_grant(struct item *item, const struct store_lease *lease) {
    struct call *call = item->call;
    item->in_store = false;
    get_of(item)->remote = 0; /* the local lease carries it on as its cookie */
    get_of(item)->lease_hi = lease->hi;
    get_of(item)->lease_lo = lease->lo;
    item->ref.generation = lease->generation;
    get_of(item)->extent_offset = lease->extent_offset;
    get_of(item)->extent_bytes = lease->extent_bytes;
    if (!get_of(item)->over_network) { /* the ref may not have known our incarnation */
        strcpy(item->ref.home, call->broker->config->node);
        item->ref.incarnation = call->broker->options.incarnation;
    }
    if (get_of(item)->want_spec && !get_copy_spec(item, lease->slot)) {
        store_release(call->space->store, call->holder, lease->hi, lease->lo, STORE_RETURNED,
                      call->broker->now_ns);
        if (item->no_memory)
            item_done(item, FB__STATUS__UNAVAILABLE, "sample %s of store %s: its spec is not read",
                      item->ref.sample_id, call->space->name);
        else
            item_done(item, FB__STATUS__FULL,
                      "sample %s of store %s: the specs of this batch do not fit one answer; get "
                      "fewer at once",
                      item->ref.sample_id, call->space->name);
        return;
    }
    item_done(item, FB__STATUS__OK, NULL);
}

static void get_local_not_found(struct item *item) {
    char sentence[SENTENCE_BYTES];
    status_not_found(sentence, item->call->broker, item->call->space, item->ref.sample_id,
                     item->ref.generation);
    item_done(item, FB__STATUS__NOT_FOUND, "%s", sentence);
}

static void get_settle_local(struct item *item, enum store_result result,
                             const struct store_lease *lease, const struct store_refusal *refusal) {
    char sentence[SENTENCE_BYTES];
    switch (result) {
    case STORE_OK:
        get_grant(item, lease);
        break;
    case STORE_E_NOT_FOUND:
        get_local_not_found(item);
        break;
    case STORE_E_TIMEOUT:
        snprintf(sentence, sizeof sentence, "sample %s of store %s was not put within %llu ms",
                 item->ref.sample_id, item->call->space->name,
                 (unsigned long long)(item->call->wait_ns / NS_PER_MS));
        if (item->call->wait_cut)
            status_add_cut(sentence, item->call->space);
        item_done(item, FB__STATUS__TIMEOUT, "%s", sentence);
        break;
    default:
        status_sentence(sentence, item->call->space, result, refusal, item->ref.sample_id);
        item_done(item, status_of(result), "%s", sentence);
    }
}

/* Somebody else may have superseded what we hold. */
static void get_refuse_fenced(struct item *item) {
    item_done(item, FB__STATUS__UNAVAILABLE,
              "sample %s of store %s: node %s serves nothing now: %s", item->ref.sample_id,
              item->call->space->name, item->call->broker->config->node,
              broker_fenced_why(item->call->broker));
}

static void get_on_resident(struct waiter *waiter, const struct store_effect *effect) {
    struct item *item = container_of(waiter, struct item, waiter);
    struct call *call = item->call;
    item->in_store = false;
    if (effect->result == STORE_OK && !broker_serves(call->broker)) {
        store_release(call->space->store, call->holder, effect->lease.hi, effect->lease.lo,
                      STORE_RETURNED, call->broker->now_ns);
        get_refuse_fenced(item);
        return;
    }
    /* While peers are being asked for the same id too, only a success here ends it. */
    if (effect->result != STORE_OK && item->ask_count)
        return;
    get_settle_local(item, effect->result, &effect->lease, &effect->refusal);
}

/* Tries this node's own generations; true if the item ended or waits in the store. */
static bool get_try_local(struct item *item, uint64_t wait_ns, bool final) {
    struct call *call = item->call;
    struct broker *broker = call->broker;
    if (!broker_serves(broker)) {
        get_refuse_fenced(item);
        return true;
    }
    struct store_get get = {
        .sample_id = item->ref.sample_id,
        .sample_id_bytes = (uint32_t)strlen(item->ref.sample_id),
        .generation = item->ref.generation,
        .deadline_ns = broker->now_ns + wait_ns,
        .tag = (uint64_t)(uintptr_t)&item->waiter,
    };
    struct store_lease lease;
    struct store_refusal refusal = {0};
    enum store_result result =
        store_get(call->space->store, call->holder, &get, broker->now_ns, &lease, &refusal);
    if (result == STORE_WAIT) {
        item->waiter.granted = get_on_resident;
        item->in_store = true;
        return true;
    }
    if (result == STORE_E_NOT_FOUND && !final)
        return false;
    get_settle_local(item, result, &lease, &refusal);
    return true;
}

/* It is nowhere: why, as whoever had it last said, or as we know it. */
static void get_refuse_absent(struct item *item) {
    char *why = item->error;
    if (item->in_store)
        return; /* it may still come */
    item->error = NULL;
    if (why)
        item_done(item, FB__STATUS__NOT_FOUND, "%s", why);
    else
        get_local_not_found(item);
    free(why);
}

/* The index named one of ours, which was not resident a moment ago. */
static void get_ours(struct item *item, uint64_t generation) {
    if (item->in_store)
        return; /* it ends when that one is resident, too */
    item->ref.generation = generation;
    if (get_try_local(item, sample_wait_ns(item->call->space, generation, item->call->wait_ns),
                      false))
        return;
    char sentence[SENTENCE_BYTES];
    status_not_found(sentence, item->call->broker, item->call->space, item->ref.sample_id,
                     generation);
    get_look_again(item, sentence);
}

static void get_on_located(void *context, enum directory_result result,
                           const struct directory_record *record, bool ask_peers) {
    struct item *item = ask_take(context);
    if (!item)
        return;
    struct broker *broker = item->call->broker;
    bool may_come = result == DIRECTORY_E_NOT_FOUND && item->call->wait_ns;
    bool stale = result == DIRECTORY_OK && record->generation == get_of(item)->missed;
    if (ask_peers || may_come) { /* each of them waits for it, if it is to be waited for */
        remote_get_anywhere(item);
    } else if (nodes_have_lost(broker, result, record)) {
        item_done(item, FB__STATUS__LOST,
                  "sample %s of store %s was at node %s, which is gone with its memory",
                  item->ref.sample_id, item->call->space->name, record->home);
    } else if (result == DIRECTORY_OK && !stale && strcmp(record->home, broker->config->node)) {
        strcpy(item->ref.home, record->home);
        item->ref.generation = record->generation;
        item->ref.incarnation = record->incarnation;
        get_of(item)->located = true;
        remote_get(item);
    } else if (result == DIRECTORY_OK && !stale) {
        get_ours(item, record->generation);
    } else if (result == DIRECTORY_E_UNAVAILABLE && !item->in_store) {
        char trouble[TROUBLE_BYTES];
        item_done(item, FB__STATUS__UNAVAILABLE,
                  "sample %s of store %s is not on this node and the directory cannot be reached: "
                  "%s",
                  item->ref.sample_id, item->call->space->name,
                  broker_trouble(broker, "it has not answered in time", trouble));
    } else {
        get_refuse_absent(item);
    }
}

/* False: out of memory. */
static bool get_look(struct item *item) {
    struct ask *ask = ask_new(item, NULL);
    struct directory *directory = item->call->broker->directory;
    if (ask)
        directory->ops->locate(directory, item->call->space->name, item->ref.sample_id,
                               get_on_located, ask);
    return ask;
}

static void get_look_again(struct item *item, const char *why) {
    free(item->error);
    item->error = strdup(why);
    get_of(item)->missed = item->ref.generation;
    item->ref.generation = item->ref.incarnation = 0;
    *item->ref.home = '\0';
    get_of(item)->located = false;
    if (!get_look(item))
        get_refuse_absent(item);
}

static void get_by_id(struct item *item) {
    struct call *call = item->call;
    if (get_try_local(item, call->wait_ns, false) && !item->in_store)
        return;
    item_set_deadline(item, call->broker->now_ns + call->wait_ns + call->patience_ns);
    if (!get_look(item))
        get_refuse_absent(item);
}

static void get_one(struct item *item, const Fb__GetItem *asked) {
    struct broker *broker = item->call->broker;
    if (!item_name(item, asked->sample_id, asked->generation, asked->home, asked->incarnation))
        return;
    if (item->call->space->dropped) {
        item_done(item, FB__STATUS__NOT_FOUND, "sample %s of store %s: the store was dropped",
                  item->ref.sample_id, item->call->space->name);
        return;
    }
    get_of(item)->want_spec = asked->want_spec;
    bool here = !*asked->home || !strcmp(asked->home, broker->config->node);
    if (!here)
        remote_get(item);
    else if (!asked->generation)
        get_by_id(item);
    else if (asked->incarnation && asked->incarnation != broker->options.incarnation)
        item_done(item, FB__STATUS__LOST,
                  "sample %s of store %s: node %s has restarted without its memory since this ref "
                  "was made",
                  item->ref.sample_id, item->call->space->name, broker->config->node);
    else
        get_try_local(item, item->call->wait_ns, true);
}

static const struct get_ops get_ops = {
    .grant = get_grant,
    .absent = get_local_not_found,
    .look_again = get_look_again,
};

static void get_begin(struct request *request) {
    const Fb__Get *asked = request->message->get;
    struct call *call = call_open(request, asked->handle, asked->n_items, NULL);
    if (!call)
        return;
    uint64_t patience_ms = asked->deadline_ms ? asked->deadline_ms : PATIENCE_DEFAULT_MS;
    bool silence_cut;
    call->wait_ns = space_cut_wait_ns(call->space, asked->wait_ms * NS_PER_MS, &call->wait_cut);
    call->patience_ns = space_cut_wait_ns(call->space, patience_ms * NS_PER_MS, &silence_cut);
    call->wait_cut |= silence_cut;
    for (size_t i = 0; i < asked->n_items; i++) {
        get_of(call_item(call, i))->ops = &get_ops;
        get_of(call_item(call, i))->wants_landed = asked->want_landed;
        get_one(call_item(call, i), asked->items[i]);
    }
    call_begun(call);
}

static void get_expire(struct item *item) {
    const struct ask *ask = LIST_FIRST(&item->asks);
    const struct fetch *fetch = get_of(item)->fetch;
    if ((ask && !ask->peer) || !fetch)
        item_expire_unanswered(item);
    else if (!fetch->landed)
        item_done(item, FB__STATUS__FULL,
                  "sample %s of store %s: no room to land it here within %llu ms: others' samples "
                  "hold the landing_bytes of this node",
                  item->ref.sample_id, item->call->space->name, item_waited_ms(item));
    else
        item_done(
            item, FB__STATUS__TIMEOUT,
            "sample %s of store %s: its bytes stopped coming from node %s; gave up after %llu ms",
            item->ref.sample_id, item->call->space->name, item_silent_node(item),
            item_waited_ms(item));
}

static void get_leave(struct item *item) {
    struct get_item *get = get_of(item);
    if (get->fetch)
        fetch_detach(item);
    if (get->remote) /* leased at its home, never granted here */
        outbox_release(item->call->broker, get->remote, false);
    get->remote = 0;
}

static void get_free_item(struct item *item) {
    free(get_of(item)->spec);
    free(get_of(item)->checksums);
}

static void get_fill_result(const struct item *item, Fb__GetResult *result) {
    const struct get_item *get = get_of(item);
    fb__get_result__init(result);
    result->status = item->status;
    result->error = item_error(item);
    if (item->status != FB__STATUS__OK)
        return;
    result->lease_hi = get->lease_hi;
    result->lease_lo = get->lease_lo;
    result->extent_offset = get->extent_offset;
    result->extent_bytes = get->extent_bytes;
    result->generation = item->ref.generation;
    result->over_network = get->over_network;
    result->transfer = get->transfer;
    if (!get->want_spec)
        return;
    result->home = (char *)item->ref.home;
    result->incarnation = item->ref.incarnation;
    result->spec = (ProtobufCBinaryData){get->spec_bytes, get->spec};
    result->checksums = (ProtobufCBinaryData){get->checksums_bytes, get->checksums};
}

static void get_answer(const struct call *call) {
    Fb__GetResult results[FRAME_BATCH_ITEMS_MAX], *pointers[FRAME_BATCH_ITEMS_MAX];
    for (uint32_t i = 0; i < call->count; i++) {
        get_fill_result(call_item(call, i), &results[i]);
        pointers[i] = &results[i];
    }
    Fb__GetReply result = FB__GET_REPLY__INIT;
    result.n_items = call->count;
    result.items = pointers;
    Fb__ClientReply reply = FB__CLIENT_REPLY__INIT;
    reply.result_case = FB__CLIENT_REPLY__RESULT_GET;
    reply.get = &result;
    call_send(call, &reply);
}

const struct request_kind get_kind = {
    .begin = get_begin,
    .item_bytes = sizeof(struct get_item),
    .answer = get_answer,
    .expire = get_expire,
    .leave = get_leave,
    .free_item = get_free_item,
};

/* ---- release ---- */

static void get_release_one(struct broker_session *session, const struct attachment *attachment,
                            const Fb__ReleaseItem *asked) {
    struct broker *broker = session->broker;
    struct store *store = attachment->space->store;
    if (asked->corrupt) {
        uint64_t remote =
            store_lease_cookie(store, attachment->holder, asked->lease_hi, asked->lease_lo);
        struct remote_lease *lease = remote ? remote_lease_find(broker, remote) : NULL;
        log_limited(LOG_LEVEL_WARNING, session->credentials.uid,
                    "%s: store %s: checksum mismatch in generation %llu%s%s", session->name,
                    attachment->space->name, lease ? (unsigned long long)lease->generation : 0ull,
                    lease ? " read from node " : "", lease ? peer_node(lease->peer) : "");
        if (lease) {
            lease->corrupt = true;
            store_land_failed(store, lease->generation, broker->now_ns);
        }
    }
    store_release(store, attachment->holder, asked->lease_hi, asked->lease_lo,
                  asked->consumed && !asked->corrupt ? STORE_CONSUMED_BY_READER : STORE_RETURNED,
                  broker->now_ns);
}

void get_release_batch(struct broker_session *session, const Fb__Release *release) {
    struct attachment *attachment = session_attachment(session, release->handle);
    for (size_t i = 0; attachment && i < release->n_items; i++)
        get_release_one(session, attachment, release->items[i]);
}

static void get_release(struct request *request) {
    get_release_batch(request->session, request->message->release);
    request_reply(request, FB__STATUS__OK, NULL);
}

const struct request_kind release_kind = {.begin = get_release};
