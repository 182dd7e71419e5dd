/* SPDX-License-Identifier: Apache-2.0
 *
 * Brings a generation's bytes from a source into a landing extent, once for all who want them.
 *
 *   begun --room--> reading --done--> landing copy RESIDENT, every reader told
 *     \--no room--> failed   \--error--> failed: every reader told, landing extent freed
 *
 * The source is another broker today (source_peer.c); what this file needs of one is a name and a
 * read. The readers are the gets that wait for the bytes (find.c).
 *
 * Each reader holds a lease at the home. If all readers leave while the read runs, their leases go
 * back and the bytes are discarded when it ends, unless another reader has joined by then: its own
 * lease proves that the generation was RESIDENT all along, so the bytes are good. The landing
 * extent is never freed before the source has let go of it.
 *
 * While the bytes of a large sample come in, clients that asked for it are told how many have
 * (Landed), so that they check them meanwhile. Each fetch has a number of its own, `transfer`: a
 * get that it granted carries it in its answer, and only then do the notices count for anything.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "exchange/fetch.h"
#include "proto/cleanup.h"

#define NOTICE_INTERVAL_NS (100 * NS_PER_MS)
/* Of a sample that is told of: below, the notices cost more than the checking saves. */
#define LANDED_GRAINS_MIN  4u
#define LANDED_NOTICES_MAX 64u /* for one sample */

struct fetch {
    TAILQ_ENTRY(fetch) link;
    struct waiter waiter; /* waits for landing space */
    struct broker *broker;
    struct space *space;
    uint64_t generation;
    char sample_id[LAYOUT_ID_BYTES_MAX + 1];
    struct source source;
    struct place from, to;
    bool waits_for_room;        /* in the store's queue; the landing copy exists after that */
    bool has_copy;              /* a PLANNED landing copy exists */
    uint64_t begun_ns, read_ns; /* read_ns: its bytes were asked for; 0 = not yet */
    uint64_t transfer;          /* no other fetch of this broker has it */
    uint64_t notice_ns;         /* no progress notice before */
    uint64_t landed_next_bytes; /* no Landed notice before so many have landed */
    const uint8_t *bytes;       /* that came with the lease, while it is being looked at */
    uint8_t checksums[8 * LAYOUT_TENSORS_MAX];
    uint32_t checksums_bytes;
    TAILQ_HEAD(, fetch_reader) readers;
};

/* Two gets of one generation share one transfer, so this is looked up for every remote get. There
 * are as many fetches as transfers under way, which the transports limit. */
struct fetch *fetch_find(struct broker *broker, const struct space *space, uint64_t generation) {
    struct fetch *fetch;
    TAILQ_FOREACH (fetch, &broker->exchange->fetches, link)
        if (fetch->space == space && fetch->generation == generation)
            return fetch;
    return NULL;
}

bool fetch_has_copy(struct broker *broker, struct space *space, uint64_t generation) {
    return fetch_find(broker, space, generation) || store_has_landing(space->store, generation);
}

/* A generation has one home and one size, so anything else is the word of a faulty broker. */
bool fetch_is_of(const struct fetch *fetch, const struct source *source, const char *sample_id,
                 uint64_t bytes) {
    return fetch->source.of == source->of && fetch->from.bytes == bytes &&
           !strcmp(fetch->sample_id, sample_id);
}

bool fetch_waits_for_room(const struct fetch *fetch) {
    return !fetch->has_copy;
}

static void fetch_free(struct fetch *fetch) {
    TAILQ_REMOVE(&fetch->broker->exchange->fetches, fetch, link);
    fetch->space->uses--;
    free(fetch);
}

/* ---- readers ---- */

static struct fetch *fetch_detach(struct fetch_reader *reader) {
    struct fetch *fetch = steal_pointer(&reader->fetch);
    TAILQ_REMOVE(&fetch->readers, reader, link);
    return fetch;
}

void fetch_join(struct fetch *fetch, struct fetch_reader *reader) {
    reader->fetch = fetch;
    TAILQ_INSERT_TAIL(&fetch->readers, reader, link);
}

/* When nobody wants the bytes any more while the fetch still stands in the store's queue for room,
 * it leaves the queue and does not keep others waiting, unless the store has given it the room
 * already: then fetch_on_room() comes. */
void fetch_leave(struct fetch_reader *reader) {
    struct fetch *fetch = fetch_detach(reader);
    if (fetch->waits_for_room && TAILQ_EMPTY(&fetch->readers) &&
        store_cancel_wait(fetch->space->store, STORE_NO_HOLDER,
                          (uint64_t)(uintptr_t)&fetch->waiter))
        fetch_free(fetch);
}

/* ---- endings ---- */

/* The readers queue for the copy before it is RESIDENT, so that it is never without a reader: a
 * resident copy that nobody reads would be dropped. */
static void fetch_finish(struct fetch *fetch) {
    struct store *store = fetch->space->store;
    bool wanted = !TAILQ_EMPTY(&fetch->readers);
    uint64_t now_ns = broker_moment_ns(fetch->broker);
    histogram_add_span(&fetch->broker->counts.wire, fetch->read_ns, now_ns);
    struct fetch_reader *reader;
    while ((reader = TAILQ_FIRST(&fetch->readers))) {
        fetch_detach(reader);
        reader->transfer = fetch->transfer;
        reader->room_ns = fetch->read_ns - fetch->begun_ns;
        reader->wire_ns = now_ns - fetch->read_ns;
        reader->ops->landed(reader);
    }
    if (wanted)
        store_land_done(store, fetch->generation, fetch->checksums, fetch->checksums_bytes,
                        fetch->space->settings.policy == FB__POLICY__RETAIN, fetch->broker->now_ns);
    else
        store_land_failed(store, fetch->generation, fetch->broker->now_ns);
    fetch_free(fetch);
}

static void fetch_fail(struct fetch *fetch, Fb__Status status, const char *why) {
    char sentence[2 * SENTENCE_BYTES];
    snprintf(sentence, sizeof sentence, "sample %s of store %s: reading it from node %s: %s",
             fetch->sample_id, fetch->space->name, fetch->source.ops->name(&fetch->source), why);
    if (fetch->has_copy)
        store_land_failed(fetch->space->store, fetch->generation, fetch->broker->now_ns);
    struct fetch_reader *reader;
    while ((reader = TAILQ_FIRST(&fetch->readers))) {
        fetch_detach(reader);
        reader->ops->failed(reader, status, sentence);
    }
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

/* Should clients be told that the first prefix_bytes have landed? Each notice costs a message, so
 * they come a grain apart, LANDED_NOTICES_MAX of them at most; true: sets where the next is due. */
static bool fetch_landed_step(struct fetch *fetch, uint64_t prefix_bytes) {
    uint64_t grain_bytes = fetch->broker->options.landed_grain_bytes;
    if (fetch->to.bytes < LANDED_GRAINS_MIN * grain_bytes ||
        prefix_bytes < fetch->landed_next_bytes || !prefix_bytes)
        return false;
    if (grain_bytes < fetch->to.bytes / LANDED_NOTICES_MAX)
        grain_bytes = fetch->to.bytes / LANDED_NOTICES_MAX;
    fetch->landed_next_bytes = prefix_bytes + grain_bytes;
    return true;
}

static void fetch_on_progress(void *context, uint64_t bytes_done, uint64_t prefix_bytes,
                              uint64_t now_ns) {
    struct fetch *fetch = context;
    const struct fetch_moved moved = {.to = fetch->to,
                                      .bytes_done = bytes_done,
                                      .prefix_bytes = prefix_bytes,
                                      .transfer = fetch->transfer,
                                      .tell_progress = now_ns >= fetch->notice_ns,
                                      .tell_landed = fetch_landed_step(fetch, prefix_bytes),
                                      .now_ns = now_ns};
    if (moved.tell_progress)
        fetch->notice_ns = now_ns + NOTICE_INTERVAL_NS;
    struct fetch_reader *reader;
    TAILQ_FOREACH (reader, &fetch->readers, link)
        reader->ops->moved(reader, &moved);
}

/* The landing copy exists now, PLANNED, at fetch->to. */
static void fetch_read_bytes(struct fetch *fetch) {
    uint8_t *local = (uint8_t *)fetch->space->arena.base + fetch->to.offset;
    fetch->has_copy = true;
    fetch->read_ns = broker_moment_ns(fetch->broker);
    histogram_add_span(&fetch->broker->counts.wait_room, fetch->begun_ns, fetch->read_ns);
    if (fetch->bytes) {
        memcpy(local, fetch->bytes, fetch->from.bytes);
        fetch_finish(fetch);
        return;
    }
    const struct source_read read = {
        .from = fetch->from,
        .local = local,
        .done = fetch_on_read,
        .progress = fetch_on_progress,
        .context = fetch,
    };
    if (fetch->source.ops->read(&fetch->source, &read, fetch->broker->now_ns) < 0)
        fetch_fail(fetch, FB__STATUS__UNAVAILABLE, "the link was lost before the read began");
}

static void fetch_refuse(struct fetch *fetch, enum store_result result,
                         const struct store_refusal *refusal) {
    char sentence[SENTENCE_BYTES];
    space_count_refusal(fetch->space, refusal);
    status_sentence(sentence, fetch->space, result, refusal, fetch->sample_id);
    fetch_fail(fetch, status_of(result), sentence);
}

static void fetch_on_room(struct waiter *waiter, const struct store_effect *effect) {
    struct fetch *fetch = container_of(waiter, struct fetch, waiter);
    fetch->waits_for_room = false;
    if (effect->result == STORE_OK) {
        fetch->to = effect->reservation.place;
        fetch_read_bytes(fetch);
    } else {
        fetch_refuse(fetch, STORE_E_FULL, &effect->refusal);
    }
}

static void fetch_land(struct fetch *fetch, const struct fetch_order *order) {
    const struct store_land asked = {
        .put =
            {
                .sample_id = fetch->sample_id,
                .sample_id_bytes = (uint32_t)strlen(fetch->sample_id),
                .spec = order->spec.data,
                .spec_bytes = (uint32_t)order->spec.len,
                .tensor_count = order->layout->tensor_count,
                .extent_bytes = order->layout->extent_bytes,
                .align_bytes = order->layout->align_bytes,
                .deadline_ns = order->room_deadline_ns,
                .tag = (uint64_t)(uintptr_t)&fetch->waiter,
            },
        .generation = fetch->generation,
        .origin = fetch->source.number,
    };
    struct store_refusal refusal = {0};
    enum store_result result =
        store_land(fetch->space->store, &asked, fetch->broker->now_ns, &fetch->to, &refusal);
    if (result == STORE_OK) {
        fetch_read_bytes(fetch);
    } else if (result == STORE_WAIT) {
        /* The bytes that came with the answer are gone after it. They are not kept, because many
         * fetches may wait for room: they are read. */
        fetch->bytes = NULL;
        fetch->waiter.granted = fetch_on_room;
        fetch->waits_for_room = true;
    } else {
        fetch_refuse(fetch, result, &refusal);
    }
}

void fetch_begin(struct broker *broker, struct space *space, const struct fetch_order *order,
                 struct fetch_reader *reader) {
    struct fetch *fetch = calloc(1, sizeof *fetch);
    if (!fetch) {
        char sentence[SENTENCE_BYTES];
        snprintf(sentence, sizeof sentence, "sample %s: the broker is out of memory",
                 order->sample_id);
        reader->ops->failed(reader, FB__STATUS__UNAVAILABLE, sentence);
        return;
    }
    fetch->broker = broker;
    fetch->space = space;
    fetch->begun_ns = broker_moment_ns(broker);
    fetch->generation = order->generation;
    strncpy(fetch->sample_id, order->sample_id, sizeof fetch->sample_id - 1);
    fetch->source = order->source;
    fetch->from = order->from;
    fetch->transfer = ++broker->exchange->last_transfer;
    fetch->bytes = order->bytes;
    fetch->checksums_bytes = (uint32_t)order->checksums.len;
    if (order->checksums.len)
        memcpy(fetch->checksums, order->checksums.data, order->checksums.len);
    TAILQ_INIT(&fetch->readers);
    TAILQ_INSERT_TAIL(&broker->exchange->fetches, fetch, link);
    space->uses++;
    fetch_join(fetch, reader);
    fetch_land(fetch, order);
}
