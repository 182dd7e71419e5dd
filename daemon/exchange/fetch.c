/* SPDX-License-Identifier: Apache-2.0
 *
 * Brings a generation's bytes from its home into a landing extent, once for all who want them.
 *
 *   new --room--> reading --done--> landing copy RESIDENT, every item granted
 *    \--no room--> failed   \--error--> failed: every item told, landing extent freed
 *
 * Each item holds a lease at the home. If all items leave while the read runs, their leases go back
 * and the bytes are discarded when it ends, unless another item has joined by then: its own lease
 * proves that the generation was RESIDENT all along, so the bytes are good. The landing extent is
 * never freed before the transport has let go of it.
 *
 * While the bytes of a large sample come in, clients that asked for it are told how many have
 * (Landed), so that they check them meanwhile. Each fetch has a number of its own, `transfer`: a
 * get that it granted carries it in its answer, and only then do the notices count for anything.
 */
#include <stdlib.h>
#include <string.h>

#include "exchange/exchange_internal.h"
#include "proto/frame.h"

#define NOTICE_INTERVAL_NS (100 * NS_PER_MS)
#define LANDED_GRAINS_MIN                                                                          \
    4u /* of a sample that is told of: below, the notices cost what they save */
#define LANDED_NOTICES_MAX 64u /* for one sample */

static struct fetch *fetch_find(struct broker *broker, const struct space *space,
                                uint64_t generation) {
    struct fetch *fetch;
    TAILQ_FOREACH (fetch, &broker->exchange->fetches, link)
        if (fetch->space == space && fetch->generation == generation)
            return fetch;
    return NULL;
}

bool fetch_has_copy(struct broker *broker, struct space *space, uint64_t generation) {
    return fetch_find(broker, space, generation) || store_has_landing(space->store, generation);
}

static void fetch_free(struct fetch *fetch) {
    TAILQ_REMOVE(&fetch->broker->exchange->fetches, fetch, link);
    fetch->space->uses--;
    free(fetch);
}

void fetch_detach(struct item *item) {
    struct fetch *fetch = get_of(item)->fetch;
    TAILQ_REMOVE(&fetch->items, get_of(item), fetch_link);
    get_of(item)->fetch = NULL;
    /* Nobody wants the bytes any more, and the fetch stands in the store's queue for room before
     * others. It leaves the queue, unless the store has given it the room already: then
     * fetch_on_room() comes. */
    if (fetch->waits_for_room && TAILQ_EMPTY(&fetch->items) &&
        store_cancel_wait(fetch->space->store, STORE_NO_HOLDER,
                          (uint64_t)(uintptr_t)&fetch->waiter)) {
        fetch_free(fetch);
        return;
    }
}

static void fetch_attach(struct fetch *fetch, struct item *item) {
    get_of(item)->fetch = fetch;
    TAILQ_INSERT_TAIL(&fetch->items, get_of(item), fetch_link);
    item_set_deadline(item, fetch->broker->now_ns + item->call->patience_ns);
}

/* ---- endings ---- */

static void fetch_on_copy(struct waiter *waiter, const struct store_effect *effect) {
    struct item *item = container_of(waiter, struct item, waiter);
    item->in_store = false;
    if (effect->result == STORE_OK)
        get_of(item)->ops->grant(item, &effect->lease);
    else
        item_done(item, FB__STATUS__UNAVAILABLE,
                  "sample %s of store %s: its landing copy was dropped", item->ref.sample_id,
                  item->call->space->name);
}

/* Leases the landing copy for the item, or queues it for one that is about to be RESIDENT; false if
 * there is none. */
static bool fetch_grant_copy(struct item *item) {
    struct call *call = item->call;
    struct store_get get = {.generation = item->ref.generation,
                            .tag = (uint64_t)(uintptr_t)&item->waiter,
                            .cookie = get_of(item)->remote};
    struct store_lease lease;
    struct store_refusal refusal = {0};
    enum store_result result =
        store_get(call->space->store, call->holder, &get, call->broker->now_ns, &lease, &refusal);
    char sentence[SENTENCE_BYTES];
    switch (result) {
    case STORE_OK:
        get_of(item)->ops->grant(item, &lease);
        return true;
    case STORE_WAIT:
        item->waiter.granted = fetch_on_copy;
        item->in_store = true;
        return true;
    case STORE_E_NOT_FOUND:
        return false;
    default:
        status_sentence(sentence, call->space, result, &refusal, item->ref.sample_id);
        item_done(item, status_of(result), "%s", sentence);
        return true;
    }
}

/* The items queue for the copy first, so that it is never without a reader once it is RESIDENT. */
static void fetch_finish(struct fetch *fetch) {
    struct store *store = fetch->space->store;
    bool wanted = false;
    struct get_item *get;
    while ((get = TAILQ_FIRST(&fetch->items))) {
        struct item *item = &get->item;
        fetch_detach(item);
        get_of(item)->transfer = fetch->transfer;
        if (!fetch_grant_copy(item))
            item_done(item, FB__STATUS__INTERNAL, "sample %s: its landing copy vanished",
                      item->ref.sample_id);
        wanted = true;
    }
    if (wanted)
        store_land_done(store, fetch->generation, fetch->checksums, fetch->checksums_bytes,
                        fetch->space->settings.policy == FB__POLICY__RETAIN, fetch->broker->now_ns);
    else
        store_land_failed(store, fetch->generation, fetch->broker->now_ns);
    fetch_free(fetch);
}

static void fetch_fail(struct fetch *fetch, Fb__Status status, const char *why) {
    if (fetch->landed)
        store_land_failed(fetch->space->store, fetch->generation, fetch->broker->now_ns);
    struct get_item *get;
    while ((get = TAILQ_FIRST(&fetch->items)))
        item_done(&get->item, status, "sample %s of store %s: reading it from node %s: %s",
                  get->item.ref.sample_id, fetch->space->name, peer_node(fetch->peer), why);
    fetch_free(fetch);
}

/* ---- reading ---- */

static void fetch_on_read(void *context, int status, const char *why) {
    struct fetch *fetch = context;
    if (status)
        fetch_fail(fetch, FB__STATUS__UNAVAILABLE, why);
    else
        fetch_finish(fetch);
}

static void fetch_notify(const struct item *item, const Fb__ClientNotice *notice) {
    const struct broker_session *session = item->call->session;
    session->ops->notice(session->client, item->call->request_id, notice);
}

static void fetch_send_progress(const struct fetch *fetch, const struct item *item,
                                uint64_t bytes_done) {
    Fb__Progress progress = FB__PROGRESS__INIT;
    progress.bytes_done = bytes_done;
    progress.bytes_total = fetch->extent_bytes;
    Fb__ClientNotice notice = FB__CLIENT_NOTICE__INIT;
    notice.note_case = FB__CLIENT_NOTICE__NOTE_PROGRESS;
    notice.progress = &progress;
    fetch_notify(item, &notice);
}

static void fetch_send_landed(const struct fetch *fetch, const struct item *item, uint64_t bytes) {
    Fb__Landed landed = FB__LANDED__INIT;
    landed.item = (uint32_t)item_index(item);
    landed.transfer = fetch->transfer;
    landed.extent_offset = fetch->landing_offset;
    landed.bytes = bytes;
    Fb__ClientNotice notice = FB__CLIENT_NOTICE__INIT;
    notice.note_case = FB__CLIENT_NOTICE__NOTE_LANDED;
    notice.landed = &landed;
    fetch_notify(item, &notice);
}

/* Should clients be told that the first prefix_bytes have landed? Each notice costs a message, so
 * they come a grain apart, LANDED_NOTICES_MAX of them at most; true: sets where the next is due. */
static bool fetch_landed_step(struct fetch *fetch, uint64_t prefix_bytes) {
    uint64_t grain_bytes = fetch->broker->options.landed_grain_bytes;
    if (fetch->extent_bytes < LANDED_GRAINS_MIN * grain_bytes ||
        prefix_bytes < fetch->landed_next_bytes || !prefix_bytes)
        return false;
    if (grain_bytes < fetch->extent_bytes / LANDED_NOTICES_MAX)
        grain_bytes = fetch->extent_bytes / LANDED_NOTICES_MAX;
    fetch->landed_next_bytes = prefix_bytes + grain_bytes;
    return true;
}

/* Called by the transport as bytes come in. Each item gets its whole patience anew from here: its
 * deadline is meant for a read that stands still, and a sample of gigabytes may well take longer
 * than that. So a get ends with TIMEOUT only when nothing has come for the time it asked for. */
static void fetch_on_progress(void *context, uint64_t bytes_done, uint64_t prefix_bytes,
                              uint64_t now_ns) {
    struct fetch *fetch = context;
    bool progressed = now_ns >= fetch->notice_ns;
    bool landed = fetch_landed_step(fetch, prefix_bytes);
    if (progressed)
        fetch->notice_ns = now_ns + NOTICE_INTERVAL_NS;
    struct get_item *get;
    TAILQ_FOREACH (get, &fetch->items, fetch_link) {
        struct item *item = &get->item;
        const struct call *call = item->call;
        item_set_deadline(item, now_ns + call->patience_ns);
        if (progressed && call->wants_reply)
            fetch_send_progress(fetch, item, bytes_done);
        if (landed && call->wants_reply && get->wants_landed)
            fetch_send_landed(fetch, item, prefix_bytes);
    }
}

static void fetch_read_bytes(struct fetch *fetch) {
    uint8_t *local = (uint8_t *)fetch->space->arena.base + fetch->landing_offset;
    fetch->landed = true;
    if (fetch->bytes) {
        memcpy(local, fetch->bytes, fetch->extent_bytes);
        fetch_finish(fetch);
        return;
    }
    struct peer_read read = {
        .region = fetch->region,
        .remote_offset = fetch->remote_offset,
        .bytes = fetch->extent_bytes,
        .local = local,
        .done = fetch_on_read,
        .progress = fetch_on_progress,
        .context = fetch,
    };
    if (peer_read(fetch->peer, fetch->epoch, &read, fetch->broker->now_ns) < 0)
        fetch_fail(fetch, FB__STATUS__UNAVAILABLE, "the link was lost before the read began");
}

static void fetch_on_room(struct waiter *waiter, const struct store_effect *effect) {
    struct fetch *fetch = (struct fetch *)((char *)waiter - offsetof(struct fetch, waiter));
    fetch->waits_for_room = false;
    if (effect->result == STORE_OK) {
        fetch->landing_offset = effect->reservation.extent_offset;
        fetch_read_bytes(fetch);
        return;
    }
    char sentence[SENTENCE_BYTES];
    const struct get_item *get = TAILQ_FIRST(&fetch->items);
    status_sentence(sentence, fetch->space, STORE_E_FULL, &effect->refusal,
                    get ? get->item.ref.sample_id : "");
    fetch_fail(fetch, FB__STATUS__FULL, sentence);
}

static void fetch_land(struct fetch *fetch, const struct item *item,
                       const Fb__PeerLeaseReply *reply, const struct layout *layout) {
    struct store_land asked = {
        .put =
            {
                .sample_id = item->ref.sample_id,
                .sample_id_bytes = (uint32_t)strlen(item->ref.sample_id),
                .spec = reply->spec.data,
                .spec_bytes = (uint32_t)reply->spec.len,
                .tensor_count = layout->tensor_count,
                .extent_bytes = layout->extent_bytes,
                .align_bytes = layout->align_bytes,
                .deadline_ns = fetch->broker->now_ns + item->call->patience_ns,
                .tag = (uint64_t)(uintptr_t)&fetch->waiter,
            },
        .generation = fetch->generation,
        .origin = (uint64_t)(uintptr_t)fetch->peer,
    };
    struct store_refusal refusal = {0};
    enum store_result result = store_land(fetch->space->store, &asked, fetch->broker->now_ns,
                                          &fetch->landing_offset, &refusal);
    if (result == STORE_OK) {
        fetch_read_bytes(fetch);
    } else if (result == STORE_WAIT) {
        fetch->bytes = NULL; /* They came with the answer and are gone after it. They are not
                              * kept, because many fetches may wait for room: they are read. */
        fetch->waiter.granted = fetch_on_room;
        fetch->waits_for_room = true;
    } else {
        char sentence[SENTENCE_BYTES];
        status_sentence(sentence, fetch->space, result, &refusal, item->ref.sample_id);
        fetch_fail(fetch, status_of(result), sentence);
    }
}

/* Returns NULL, or what is wrong with the home's answer. The sizes are computed from the spec here
 * and not taken from the answer, because they say how much memory is written. */
static const char *fetch_check_reply(struct broker *broker, const Fb__PeerLeaseReply *reply,
                                     size_t payload_bytes, struct layout *layout) {
    Fb__SampleSpec *spec =
        reply->spec.len > LAYOUT_SPEC_BYTES_MAX
            ? NULL
            : fb__sample_spec__unpack(bump_begin(&broker->bump), reply->spec.len, reply->spec.data);
    if (!spec)
        return "the home sent a malformed spec";
    const char *wrong = layout_compute(spec, layout);
    if (wrong)
        return wrong;
    if (layout->extent_bytes != reply->extent_bytes ||
        (payload_bytes && payload_bytes != reply->extent_bytes))
        return "the home sent sizes that do not fit the spec";
    if (reply->checksums.len && reply->checksums.len != 8ull * layout->tensor_count)
        return "the home sent another number of checksums than tensors";
    return NULL;
}

static struct fetch *fetch_new(struct item *item, const Fb__PeerLeaseReply *reply,
                               const uint8_t *payload, size_t payload_bytes) {
    struct broker *broker = item->call->broker;
    struct remote_lease *lease = remote_lease_find(broker, get_of(item)->remote);
    struct fetch *fetch = calloc(1, sizeof *fetch);
    if (!fetch)
        return NULL;
    fetch->bytes = payload_bytes ? payload : NULL;
    fetch->broker = broker;
    fetch->transfer = ++broker->exchange->last_transfer;
    fetch->space = item->call->space;
    fetch->generation = reply->generation;
    fetch->peer = lease->peer;
    strcpy(fetch->sample_id, item->ref.sample_id);
    fetch->epoch = lease->epoch;
    fetch->region = reply->region;
    fetch->remote_offset = reply->extent_offset;
    fetch->extent_bytes = reply->extent_bytes;
    fetch->checksums_bytes = (uint32_t)reply->checksums.len;
    if (reply->checksums.len)
        memcpy(fetch->checksums, reply->checksums.data, reply->checksums.len);
    TAILQ_INIT(&fetch->items);
    TAILQ_INSERT_TAIL(&broker->exchange->fetches, fetch, link);
    fetch->space->uses++;
    return fetch;
}

/* Is the fetch under way of the very sample that this home has granted to the item? A generation
 * has one home and one size, so anything else is the word of a faulty broker. */
static bool fetch_is_same(const struct fetch *fetch, const struct item *item,
                          const struct peer *peer, const Fb__PeerLeaseReply *reply) {
    return fetch->peer == peer && fetch->extent_bytes == reply->extent_bytes &&
           !strcmp(fetch->sample_id, item->ref.sample_id);
}

void fetch_item(struct item *item, const Fb__PeerLeaseReply *reply, const uint8_t *payload,
                size_t payload_bytes) {
    struct broker *broker = item->call->broker;
    struct peer *peer = remote_lease_find(broker, get_of(item)->remote)->peer;
    struct layout layout;
    char sentence[SENTENCE_BYTES];
    const char *wrong = fetch_check_reply(broker, reply, payload_bytes, &layout);
    if (wrong)
        believe_not(peer, wrong);
    else if (!believe_copy(item, peer, reply, sentence))
        wrong = sentence;
    struct fetch *fetch = wrong ? NULL : fetch_find(broker, item->call->space, reply->generation);
    if (fetch && !fetch_is_same(fetch, item, peer, reply))
        believe_not(peer, wrong = "it says of one generation what another has said of it, or what "
                                  "it has said otherwise itself");
    if (wrong) {
        item_done(item, FB__STATUS__INTERNAL, "sample %s of store %s from node %s: %s",
                  item->ref.sample_id, item->call->space->name, item->ref.home, wrong);
        return;
    }
    if (fetch) {
        fetch_attach(fetch, item);
        return;
    }
    if (fetch_grant_copy(item))
        return;
    fetch = fetch_new(item, reply, payload, payload_bytes);
    if (!fetch) {
        item_done(item, FB__STATUS__UNAVAILABLE, "sample %s: the broker is out of memory",
                  item->ref.sample_id);
        return;
    }
    fetch_attach(fetch, item);
    fetch_land(fetch, item, reply, &layout);
}
