/* SPDX-License-Identifier: Apache-2.0
 *
 * What this node knows of one sample: its state, who reads or writes it, and its spec.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/knowledge.h"
#include "peer/peer.h"
#include "proto/cleanup.h"

/* Of one sample's readers so many are told, so that the answer fits one frame. */
#define HOLDERS_MAX 64u

bool text_set(char **text, const char *to) {
    char *copy = strdup(to);
    if (*text != protobuf_c_empty_string) /* what protobuf-c sets at first is not malloc'ed */
        free(*text);
    *text = copy ? copy : (char *)protobuf_c_empty_string;
    return copy;
}

/* Both enums name the same states. A landing copy that is PLANNED has its bytes on their way. */
static Fb__SampleState stat_state_of(enum store_state state) {
    static const Fb__SampleState states[] = {
        [STORE_FREE] = FB__SAMPLE_STATE__NEVER_SEEN, [STORE_PLANNED] = FB__SAMPLE_STATE__PLANNED,
        [STORE_SEALED] = FB__SAMPLE_STATE__SEALED,   [STORE_RESIDENT] = FB__SAMPLE_STATE__RESIDENT,
        [STORE_RETIRED] = FB__SAMPLE_STATE__RETIRED, [STORE_GONE] = FB__SAMPLE_STATE__GONE,
    };
    return states[state];
}

int sample_rank(Fb__SampleState state) {
    /* Resident can be got; sealed and planned will be; of what is over, the retired still has its
     * memory. */
    static const int ranks[] = {
        [FB__SAMPLE_STATE__NEVER_SEEN] = 0, [FB__SAMPLE_STATE__PLANNED] = 3,
        [FB__SAMPLE_STATE__SEALED] = 4,     [FB__SAMPLE_STATE__RESIDENT] = 5,
        [FB__SAMPLE_STATE__RETIRED] = 2,    [FB__SAMPLE_STATE__GONE] = 1,
    };
    return (unsigned)state < sizeof ranks / sizeof *ranks ? ranks[state] : 0;
}

/* Found by its generation, or else whatever stands under the id, or last stood there. */
bool sample_find(const struct space *space, const struct ref *ref, struct store_info *info) {
    return store_stat(space->store, ref->sample_id, (uint32_t)strlen(ref->sample_id),
                      ref->generation, info);
}

/* A ref without an incarnation may be of any: only the store knows then whether it has the
 * generation. */
bool ref_is_of_earlier_incarnation(const struct broker *broker, const struct ref *ref) {
    return ref->incarnation && ref->incarnation != broker->options.incarnation &&
           ref_is_at(ref, broker->config->node);
}

/* ---- one sample ---- */

/* The owner is told by name; one that has gone meanwhile, whose leases are still being ended, by
 * its number. */
static Fb__LeaseInfo *stat_lease_info(const struct broker *broker,
                                      const struct store_lease_info *from) {
    Fb__LeaseInfo *info = malloc(sizeof *info);
    char owner[160];
    if (!info)
        return NULL;
    fb__lease_info__init(info);
    info->session_id = from->owner;
    if (!text_set(&info->holder, broker_owner_name(broker, from->owner, owner))) {
        fb__lease_info__free_unpacked(info, NULL);
        return NULL;
    }
    info->age_ms = (broker->now_ns - from->since_ns) / NS_PER_MS;
    info->generation = from->generation;
    return info;
}

/* False: out of memory. The list is bounded, for a sample may have thousands of readers, and one
 * answer has to fit a frame. */
static bool stat_fill_holders(const struct broker *broker, const struct space *space, uint32_t slot,
                              Fb__SampleInfo *to) {
    struct store_lease_info lease;
    uint64_t cursor = 0;
    to->holders = calloc(HOLDERS_MAX, sizeof *to->holders);
    while (to->holders && to->n_holders < HOLDERS_MAX &&
           store_slot_lease_next(space->store, slot, &cursor, &lease)) {
        Fb__LeaseInfo *info = stat_lease_info(broker, &lease);
        if (!info)
            return false;
        to->holders[to->n_holders++] = info;
    }
    return to->holders;
}

/* Whose reservation it is: told as its one holder. False: out of memory. */
static bool stat_fill_writer(const struct broker *broker, const struct store_info *from,
                             Fb__SampleInfo *to) {
    struct store_lease_info writer = {.owner = from->owner, .since_ns = from->since_ns};
    to->holders = calloc(1, sizeof *to->holders);
    if (!to->holders || !(to->holders[0] = stat_lease_info(broker, &writer)))
        return false;
    to->n_holders = 1;
    return true;
}

/* All its parts are malloc'ed, even the names, so that it can be kept in a call until that is
 * answered, and freed like a message that came from a peer. */
Fb__SampleInfo *sample_info_new(const struct broker *broker, const struct space *space,
                                const struct store_info *from, bool holders) {
    Fb__SampleInfo *to = malloc(sizeof *to);
    if (!to)
        return NULL;
    fb__sample_info__init(to);
    bool whole = text_set(&to->sample_id, from->sample_id);
    to->generation = from->generation;
    to->state = stat_state_of(from->state);
    to->reason = (Fb__Reason)from->reason;
    to->extent_bytes = from->place.bytes;
    to->age_ms = (broker->now_ns - from->since_ns) / NS_PER_MS;
    to->leases = from->leases;
    to->consumed = from->consumed;
    to->readers = space->settings.readers;
    to->landing = from->landing;
    const struct peer *origin = from->landing ? peers_of_number(broker->peers, from->origin) : NULL;
    whole &= text_set(&to->home, origin          ? peer_node(origin)
                                 : from->landing ? "?" /* no peer since a restart */
                                                 : broker->config->node);
    if (from->state == STORE_PLANNED && !from->landing)
        whole &= stat_fill_writer(broker, from, to);
    else if (holders && from->leases)
        whole &= stat_fill_holders(broker, space, from->slot, to);
    if (whole)
        return to;
    fb__sample_info__free_unpacked(to, NULL);
    return NULL;
}

/* ---- stat ---- */

/* False: out of memory. */
static bool stat_set_bytes(ProtobufCBinaryData *to, const uint8_t *from, size_t bytes) {
    uint8_t *copy = bytes ? malloc(bytes) : NULL;
    if (!copy)
        return !bytes;
    memcpy(copy, from, bytes);
    *to = (ProtobufCBinaryData){bytes, copy};
    return true;
}

/* The store copies both out of its index in one step, so that they belong together. The buffers of
 * the largest size are on the stack; what is kept is as small as the spec is. */
static bool stat_fill_spec(const struct space *space, uint32_t slot, Fb__StatResult *to) {
    uint8_t spec[STORE_SPEC_BYTES_MAX], checksums[8 * STORE_TENSORS_MAX];
    uint32_t spec_bytes = 0, checksums_bytes = 0;
    return !store_spec(space->store, slot, spec, sizeof spec, &spec_bytes, checksums,
                       sizeof checksums, &checksums_bytes) ||
           (stat_set_bytes(&to->spec, spec, spec_bytes) &&
            stat_set_bytes(&to->checksums, checksums, checksums_bytes));
}

/* A resident sample of a node that is fenced is not told of: while this node is out of touch with
 * the index, another may have put the sample anew. */
Fb__StatResult *stat_here(const struct broker *broker, const struct space *space,
                          const struct ref *ref, const char *fenced_why) {
    Fb__StatResult *result = malloc(sizeof *result);
    struct store_info info;
    char sentence[SENTENCE_BYTES];
    bool whole;
    if (!result)
        return NULL;
    fb__stat_result__init(result);
    if (ref_is_of_earlier_incarnation(broker, ref)) {
        result->status = FB__STATUS__LOST;
        snprintf(sentence, sizeof sentence,
                 "sample %s: node %s has restarted without its memory since this ref was made",
                 ref->sample_id, broker->config->node);
        whole = text_set(&result->error, sentence);
    } else if (!sample_find(space, ref, &info)) {
        result->status = FB__STATUS__NOT_FOUND;
        status_not_found(sentence, broker, space, ref->sample_id, ref->generation);
        whole = text_set(&result->error, sentence);
    } else if (info.state == STORE_RESIDENT && fenced_why) {
        result->status = FB__STATUS__UNAVAILABLE;
        whole = text_set(&result->error, fenced_why);
    } else {
        result->info = sample_info_new(broker, space, &info, false);
        result->incarnation = broker->options.incarnation;
        whole = result->info && text_set(&result->home, broker->config->node) &&
                stat_fill_spec(space, info.slot, result);
    }
    if (whole)
        return result;
    fb__stat_result__free_unpacked(result, NULL);
    return NULL;
}

uint64_t sample_wait_ns(const struct space *space, uint64_t generation, uint64_t wait_ns) {
    struct store_info info;
    bool on_its_way = generation && store_stat(space->store, NULL, 0, generation, &info) &&
                      info.state == STORE_SEALED;
    return on_its_way && wait_ns < ROUND_TRIP_LIMIT_NS ? ROUND_TRIP_LIMIT_NS : wait_ns;
}
