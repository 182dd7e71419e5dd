/* SPDX-License-Identifier: Apache-2.0
 *
 * Get and release. This file takes the request apart, fills in the answer, and ends leases. How a
 * readable generation is found, here or on another node, is the search of exchange/find.c, which
 * every item of a get begins with: its states are drawn in cluster/search.c.
 *
 *   asked --find_begin()--> the search --get_on_granted()--> result filled in, item done
 *                                \--a refusal: the search ends the item itself
 *
 * A lease that a get has been granted belongs to the session's holder in the store, and ends with a
 * release or with the session. A result that does not fit into the one answer of a batch gives its
 * lease back and is refused: no client holds a lease that it was not told of.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/knowledge.h"
#include "requests/kinds.h"

/* How long a get waits for somebody's next word or byte, when its client does not say. */
#define PATIENCE_DEFAULT_MS 30000u

struct get_item {
    struct find find;
    bool want_spec;
    struct place place;          /* of the bytes, in the store's arena */
    uint64_t lease_hi, lease_lo; /* the token */
    uint8_t *spec, *checksums;   /* malloc'ed when want_spec */
    uint32_t spec_bytes, checksums_bytes;
};

static struct get_item *get_of(const struct item *item) {
    return container_of(item, struct get_item, find.item);
}

/* False: no memory, or the specs of the batch are too much for one answer. */
static bool get_copy_spec(struct get_item *get, uint32_t slot) {
    struct call *call = get->find.item.call;
    uint8_t spec[STORE_SPEC_BYTES_MAX], checksums[8 * STORE_TENSORS_MAX];
    if (!store_spec(call->space->store, slot, spec, sizeof spec, &get->spec_bytes, checksums,
                    sizeof checksums, &get->checksums_bytes))
        return false;
    get->spec = malloc(get->spec_bytes ? get->spec_bytes : 1);
    get->checksums = malloc(get->checksums_bytes ? get->checksums_bytes : 1);
    if (!get->spec || !get->checksums) {
        get->find.item.no_memory = true;
        return false;
    }
    memcpy(get->spec, spec, get->spec_bytes);
    memcpy(get->checksums, checksums, get->checksums_bytes);
    call->spec_bytes += get->spec_bytes + get->checksums_bytes;
    return call->spec_bytes <= SPEC_BYTES_PER_CALL;
}

static void get_on_granted(struct find *find, const struct store_lease *lease) {
    struct item *item = &find->item;
    struct get_item *get = get_of(item);
    struct call *call = item->call;
    get->lease_hi = lease->hi;
    get->lease_lo = lease->lo;
    get->place = lease->place;
    item->ref.generation = lease->generation;
    if (!find->over_network) { /* the ref may not have known our incarnation */
        strcpy(item->ref.home, call->broker->config->node);
        item->ref.incarnation = call->broker->options.incarnation;
    }
    if (!get->want_spec || get_copy_spec(get, lease->slot)) {
        item_done(item, FB__STATUS__OK, NULL);
        return;
    }
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
}

static void get_one(struct item *item, const Fb__GetItem *asked, bool want_landed) {
    const struct broker *broker = item->call->broker;
    struct get_item *get = get_of(item);
    get->find.granted = get_on_granted;
    get->find.wants_landed = want_landed;
    get->want_spec = asked->want_spec;
    if (!item_name(item, asked->sample_id, asked->generation, asked->home, asked->incarnation))
        return;
    if (item->call->space->dropped)
        item_done(item, FB__STATUS__NOT_FOUND, "sample %s of store %s: the store was dropped",
                  item->ref.sample_id, item->call->space->name);
    else if (item->ref.generation && ref_is_of_earlier_incarnation(broker, &item->ref))
        item_done(item, FB__STATUS__LOST,
                  "sample %s of store %s: node %s has restarted without its memory since this ref "
                  "was made",
                  item->ref.sample_id, item->call->space->name, broker->config->node);
    else
        find_begin(&get->find);
}

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
    for (size_t i = 0; i < asked->n_items; i++)
        get_one(call_item(call, i), asked->items[i], asked->want_landed);
    call_begun(call);
}

static void get_expire(struct item *item) {
    find_expire(&get_of(item)->find);
}

static void get_leave(struct item *item) {
    find_leave(&get_of(item)->find);
}

static void get_free_item(struct item *item) {
    free(get_of(item)->spec);
    free(get_of(item)->checksums);
}

static void get_took(const struct item *item, uint64_t ns) {
    struct node_counts *counts = &item->call->broker->counts;
    histogram_add(get_of(item)->find.over_network ? &counts->get_remote : &counts->get_local, ns);
}

/* What is neither the home nor the transfer is waiting: for the sample to be put, for a lease, for
 * the index. */
static void get_phases(const struct item *item, char out[PHASES_BYTES]) {
    const struct find *find = &get_of(item)->find;
    uint64_t known_ns = find->home_ns + find->reader.room_ns + find->reader.wire_ns;
    uint64_t took_ns = item_took_ns(item);
    if (!known_ns)
        snprintf(out, PHASES_BYTES, "all of it until the sample was found");
    else
        snprintf(out, PHASES_BYTES,
                 "%llu ms for the answer of node %s, %llu ms for room to land in, %llu ms on the "
                 "wire, %llu ms for the rest",
                 (unsigned long long)(find->home_ns / NS_PER_MS), item->ref.home,
                 (unsigned long long)(find->reader.room_ns / NS_PER_MS),
                 (unsigned long long)(find->reader.wire_ns / NS_PER_MS),
                 (unsigned long long)((took_ns > known_ns ? took_ns - known_ns : 0) / NS_PER_MS));
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
    result->extent_offset = get->place.offset;
    result->extent_bytes = get->place.bytes;
    result->generation = item->ref.generation;
    result->over_network = get->find.over_network;
    result->transfer = get->find.reader.transfer;
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
    .took = get_took,
    .name = "get",
    .phases = get_phases,
    .free_item = get_free_item,
};

/* ---- release ---- */

static void get_release_one(struct broker_session *session, const struct attachment *attachment,
                            const Fb__ReleaseItem *asked) {
    struct broker *broker = session->broker;
    struct store *store = attachment->space->store;
    if (asked->corrupt) {
        uint64_t generation = 0;
        attachment->space->counts.corrupt_reads++;
        const char *home = remote_lease_is_corrupt(
            broker, store,
            store_lease_cookie(store, attachment->holder, asked->lease_hi, asked->lease_lo),
            &generation);
        log_limited(LOG_LEVEL_WARNING, session->credentials.uid,
                    "%s: store %s: checksum mismatch in generation %llu%s%s", session->name,
                    attachment->space->name, (unsigned long long)generation,
                    home ? " read from node " : "", home ? home : "");
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
