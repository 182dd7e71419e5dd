/* SPDX-License-Identifier: Apache-2.0
 *
 * Stat: what is known of one generation, from its home or, for a bare id, from whichever node knows
 * most. No probe takes a lease or changes anything.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "requests/kinds.h"

#define HOLDERS_MAX 64u

/* Both enums name the same states; a landing copy's PLANNED means its bytes are on their way. */
static Fb__SampleState probe_state_of(enum store_state state) {
    static const Fb__SampleState states[] = {
        [STORE_FREE] = FB__SAMPLE_STATE__NEVER_SEEN, [STORE_PLANNED] = FB__SAMPLE_STATE__PLANNED,
        [STORE_SEALED] = FB__SAMPLE_STATE__SEALED,   [STORE_RESIDENT] = FB__SAMPLE_STATE__RESIDENT,
        [STORE_RETIRED] = FB__SAMPLE_STATE__RETIRED, [STORE_GONE] = FB__SAMPLE_STATE__GONE,
    };
    return states[state];
}

static Fb__LeaseInfo *probe_lease_info(const struct broker *broker,
                                       const struct store_lease_info *from) {
    Fb__LeaseInfo *info = malloc(sizeof *info);
    char owner[160];
    if (!info)
        return NULL;
    fb__lease_info__init(info);
    info->session_id = from->owner;
    info->holder = strdup(broker_owner_name(broker, from->owner, owner));
    info->age_ms = (broker->now_ns - from->since_ns) / NS_PER_MS;
    info->generation = from->generation;
    return info;
}

static void probe_fill_holders(const struct broker *broker, const struct space *space,
                               uint32_t slot, Fb__SampleInfo *to) {
    struct store_lease_info lease;
    uint64_t cursor = 0;
    to->holders = calloc(HOLDERS_MAX, sizeof *to->holders);
    while (to->holders && to->n_holders < HOLDERS_MAX &&
           store_slot_lease_next(space->store, slot, &cursor, &lease)) {
        Fb__LeaseInfo *info = probe_lease_info(broker, &lease);
        if (!info)
            break;
        to->holders[to->n_holders++] = info;
    }
}

/* Whose reservation it is. */
static void probe_fill_writer(const struct broker *broker, const struct store_info *from,
                              Fb__SampleInfo *to) {
    struct store_lease_info writer = {.owner = from->owner, .since_ns = from->since_ns};
    to->holders = calloc(1, sizeof *to->holders);
    if (to->holders && (to->holders[0] = probe_lease_info(broker, &writer)))
        to->n_holders = 1;
}

void probe_fill_info(const struct broker *broker, const struct space *space,
                     const struct store_info *from, bool holders, Fb__SampleInfo *to) {
    fb__sample_info__init(to);
    to->sample_id = (char *)from->sample_id;
    to->generation = from->generation;
    to->state = probe_state_of(from->state);
    to->reason = (Fb__Reason)from->reason;
    to->extent_bytes = from->extent_bytes;
    to->age_ms = (broker->now_ns - from->since_ns) / NS_PER_MS;
    to->leases = from->leases;
    to->consumed = from->consumed;
    to->readers = space->settings.readers;
    to->landing = from->landing;
    to->home = (char *)(from->landing && from->origin
                            ? peer_node((const struct peer *)(uintptr_t)from->origin)
                            : broker->config->node);
    if (from->state == STORE_PLANNED && !from->landing)
        probe_fill_writer(broker, from, to);
    else if (holders && from->leases)
        probe_fill_holders(broker, space, from->slot, to);
}

void probe_free_info(Fb__SampleInfo *info) {
    for (size_t i = 0; i < info->n_holders; i++) {
        free(info->holders[i]->holder);
        free(info->holders[i]);
    }
    free(info->holders);
    info->holders = NULL;
    info->n_holders = 0;
}

/* ---- this node's own knowledge ---- */

bool probe_find(const struct space *space, const Fb__RetireItem *asked, struct store_info *info) {
    return store_stat(space->store, asked->sample_id, (uint32_t)strlen(asked->sample_id),
                      asked->generation, info);
}

bool probe_earlier_incarnation(const struct broker *broker, const Fb__RetireItem *asked) {
    return asked->incarnation && asked->incarnation != broker->options.incarnation &&
           !strcmp(asked->home, broker->config->node);
}

uint8_t *probe_stat_here(const struct broker *broker, const struct space *space,
                         const Fb__RetireItem *asked, size_t *bytes_out,
                         Fb__SampleState *state_out) {
    struct store_info info;
    Fb__SampleInfo sample = FB__SAMPLE_INFO__INIT;
    Fb__StatResult result = FB__STAT_RESULT__INIT;
    uint8_t spec[STORE_SPEC_BYTES_MAX], checksums[8 * STORE_TENSORS_MAX];
    uint32_t spec_bytes = 0, checksums_bytes = 0;
    char sentence[SENTENCE_BYTES];
    *state_out = FB__SAMPLE_STATE__NEVER_SEEN;
    if (probe_earlier_incarnation(broker, asked)) {
        result.status = FB__STATUS__LOST;
        snprintf(sentence, sizeof sentence,
                 "sample %s: node %s has restarted without its memory since this ref was made",
                 asked->sample_id, broker->config->node);
        result.error = sentence;
    } else if (!probe_find(space, asked, &info)) {
        result.status = FB__STATUS__NOT_FOUND;
        status_not_found(sentence, broker, space, asked->sample_id, asked->generation);
        result.error = sentence;
    } else if (info.state == STORE_RESIDENT && !broker_serves(broker)) { /* as far as we know */
        result.status = FB__STATUS__UNAVAILABLE;
        result.error = (char *)broker_fenced_why(broker);
    } else {
        probe_fill_info(broker, space, &info, false, &sample);
        result.info = &sample;
        result.home = (char *)broker->config->node;
        result.incarnation = broker->options.incarnation;
        *state_out = sample.state;
        if (store_spec(space->store, info.slot, spec, sizeof spec, &spec_bytes, checksums,
                       sizeof checksums, &checksums_bytes)) {
            result.spec = (ProtobufCBinaryData){spec_bytes, spec};
            result.checksums = (ProtobufCBinaryData){checksums_bytes, checksums};
        }
    }
    *bytes_out = fb__stat_result__get_packed_size(&result);
    uint8_t *packed = malloc(*bytes_out ? *bytes_out : 1);
    if (packed)
        fb__stat_result__pack(&result, packed);
    probe_free_info(&sample);
    return packed;
}

/* ---- asking others ---- */

struct stat_item {
    struct item item;      /* its answer: the best Fb__StatResult so far, packed */
    Fb__SampleState state; /* that it tells of */
};

static struct stat_item *stat_of(const struct item *item) {
    return container_of(item, struct stat_item, item);
}

int probe_rank(Fb__SampleState state) {
    static const int ranks[] = {0, 3, 4,
                                5, 2, 1}; /* never seen, planned, sealed, resident, retired, gone */
    return (unsigned)state < sizeof ranks / sizeof *ranks ? ranks[state] : 0;
}

static uint8_t *probe_too_much_for_one(size_t *bytes_out) {
    Fb__StatResult result = FB__STAT_RESULT__INIT;
    result.status = FB__STATUS__FULL;
    result.error = (char *)"the specs of this batch do not fit one answer; ask for fewer at once";
    *bytes_out = fb__stat_result__get_packed_size(&result);
    uint8_t *packed = malloc(*bytes_out);
    if (packed)
        fb__stat_result__pack(&result, packed);
    return packed;
}

/* Takes over packed if it tells more than what is there. What a call keeps until its last item is
 * answered must fit one answer anyway. */
static void probe_offer(struct item *item, uint8_t *packed, size_t bytes, Fb__SampleState state) {
    struct call *call = item->call;
    if (!packed || (item->answer && probe_rank(state) <= probe_rank(stat_of(item)->state))) {
        free(packed);
        return;
    }
    call->spec_bytes -= item->answer_bytes;
    free(item->answer);
    item->answer_bytes = 0;
    if (call->spec_bytes + bytes > SPEC_BYTES_PER_CALL) {
        free(packed);
        packed = probe_too_much_for_one(&bytes);
    }
    item->no_memory |= !packed;
    item->answer = packed;
    item->answer_bytes = packed ? bytes : 0;
    stat_of(item)->state = state;
    call->spec_bytes += item->answer_bytes;
}

static void probe_offer_reply(struct item *item, const Fb__PeerReply *reply) {
    size_t bytes = 0;
    uint8_t *packed = NULL;
    Fb__SampleState state = FB__SAMPLE_STATE__NEVER_SEEN;
    if (reply->result_case == FB__PEER_REPLY__RESULT_STAT) {
        bytes = fb__stat_result__get_packed_size(reply->stat);
        state = reply->stat->info ? reply->stat->info->state : state;
        if ((packed = malloc(bytes ? bytes : 1)))
            fb__stat_result__pack(reply->stat, packed);
        else
            item->no_memory = true;
    }
    probe_offer(item, packed, bytes, state);
}

static void probe_on_answer(void *context, const Fb__PeerReply *reply, const uint8_t *payload,
                            size_t payload_bytes, const char *why) {
    (void)payload, (void)payload_bytes;
    struct ask *ask = context;
    struct peer *peer = ask->peer;
    struct item *item = ask_take(ask);
    if (!item)
        return;
    char wrong[SENTENCE_BYTES];
    bool odd = reply && reply->result_case == FB__PEER_REPLY__RESULT_STAT &&
               !believe_stat(item, peer, reply->stat, wrong);
    if (reply && reply->status == FB__STATUS__OK && !odd)
        probe_offer_reply(item, reply);
    if (item->ask_count)
        return;
    if (item->answer && !item->no_memory)
        item_done(item, FB__STATUS__OK, NULL);
    else if (odd)
        item_done(item, FB__STATUS__INTERNAL, "sample %s of store %s: node %s: %s",
                  item->ref.sample_id, item->call->space->name, peer_node(peer), wrong);
    else
        item_done(item, reply ? reply->status : FB__STATUS__UNAVAILABLE,
                  "sample %s of store %s: node %s: %s", item->ref.sample_id,
                  item->call->space->name, peer_node(peer), reply ? reply->error : why);
}

static void probe_ask_peer(struct item *item, struct peer *peer, Fb__RetireItem *asked) {
    struct call *call = item->call;
    Fb__PeerStat stat = FB__PEER_STAT__INIT;
    Fb__PeerRequest request = FB__PEER_REQUEST__INIT;
    stat.store = call->space->name;
    stat.item = asked;
    request.op_case = FB__PEER_REQUEST__OP_STAT;
    request.stat = &stat;
    if (!ask_send(ask_new(item, peer), &request, probe_on_answer))
        item_set_deadline(item, call->broker->now_ns + call->patience_ns);
}

static void probe_here(struct item *item, const Fb__RetireItem *asked) {
    size_t bytes = 0;
    Fb__SampleState state;
    uint8_t *packed = probe_stat_here(item->call->broker, item->call->space, asked, &bytes, &state);
    item->no_memory |= !packed;
    probe_offer(item, packed, bytes, packed ? state : FB__SAMPLE_STATE__NEVER_SEEN);
}

static void probe_one(struct item *item, Fb__RetireItem *asked) {
    struct broker *broker = item->call->broker;
    if (!item_name(item, asked->sample_id, asked->generation, asked->home, asked->incarnation))
        return;
    if (*asked->home && strcmp(asked->home, broker->config->node)) {
        struct peer *peer = peers_find(broker->peers, asked->home);
        if (peer)
            probe_ask_peer(item, peer, asked);
    } else {
        probe_here(item, asked);
        if (!asked->generation && stat_of(item)->state != FB__SAMPLE_STATE__RESIDENT)
            for (struct peer *peer = peers_next(broker->peers, NULL); peer;
                 peer = peers_next(broker->peers, peer))
                probe_ask_peer(item, peer, asked);
    }
    if (item->ask_count)
        return;
    if (item->answer && !item->no_memory)
        item_done(item, FB__STATUS__OK, NULL);
    else
        item_done(item, FB__STATUS__UNAVAILABLE,
                  "sample %s of store %s is at node %s, which is no peer of node %s or cannot be "
                  "asked now",
                  item->ref.sample_id, item->call->space->name, item->ref.home,
                  broker->config->node);
}

/* ---- requests ---- */

struct space *request_space(const struct request *request, uint32_t handle, const char *name) {
    struct broker_session *session = request->session;
    struct attachment *attachment = session_attachment(session, handle);
    if (attachment)
        return attachment->space;
    struct space *space = session->admin ? space_find(session->broker, name) : NULL;
    char sentence[SENTENCE_BYTES];
    if (space)
        return space;
    if (session->admin && *name)
        snprintf(sentence, sizeof sentence, "store %.64s does not exist on node %s", name,
                 session->broker->config->node);
    else
        snprintf(
            sentence, sizeof sentence,
            "store %.64s: open it first (only admins may look into a store they have not opened)",
            name);
    request_reply(request, session->admin && *name ? FB__STATUS__NOT_FOUND : FB__STATUS__DENIED,
                  sentence);
    return NULL;
}

static void probe_stat(struct request *request) {
    const Fb__Stat *asked = request->message->stat;
    if (asked->n_items > FRAME_BATCH_ITEMS_MAX) {
        request->breach = "a batch of more than 256 items";
        return;
    }
    struct space *space = request_space(request, asked->handle, "");
    struct call *call = space ? call_new(request, space, asked->n_items) : NULL;
    if (!call)
        return;
    call->patience_ns = asked->deadline_ms ? asked->deadline_ms * NS_PER_MS : ROUND_TRIP_LIMIT_NS;
    for (size_t i = 0; i < asked->n_items; i++)
        probe_one(call_item(call, i), asked->items[i]);
    call_begun(call);
}

static void stat_answer(const struct call *call) {
    Fb__StatResult failed[FRAME_BATCH_ITEMS_MAX], *pointers[FRAME_BATCH_ITEMS_MAX];
    for (uint32_t i = 0; i < call->count; i++) {
        const struct item *item = call_item(call, i);
        pointers[i] = item->answer && item->status == FB__STATUS__OK
                          ? fb__stat_result__unpack(NULL, item->answer_bytes, item->answer)
                          : NULL;
        if (pointers[i])
            continue;
        fb__stat_result__init(&failed[i]);
        bool lost = item->status == FB__STATUS__OK; /* no memory to unpack it */
        failed[i].status = lost ? FB__STATUS__UNAVAILABLE : item->status;
        failed[i].error = lost ? (char *)NO_MEMORY_FOR_ANSWER : item_error(item);
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

const struct request_kind stat_kind = {
    .begin = probe_stat,
    .item_bytes = sizeof(struct stat_item),
    .answer = stat_answer,
};
