/* SPDX-License-Identifier: Apache-2.0
 *
 * Whether what a home answers is an answer to what it was asked: the same generation, sample and
 * incarnation, and of sizes that agree. A broker that answers otherwise is faulty, of another
 * version, or lies; nothing that it said is used, and the sentence names both sides.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "exchange/believe.h"

void believe_not(struct peer *peer, const char *sentence) {
    /* A peer can cause this at will, so that the log must not grow with it. */
    uint64_t count = peer_note_odd_answer(peer);
    if ((count & (count - 1)) == 0) /* the 1st, 2nd, 4th, 8th ... */
        log_limited(LOG_LEVEL_WARNING, log_source(peer_node(peer)),
                    "node %s has given %" PRIu64 " answers that are not what it was asked for: %s",
                    peer_node(peer), count, sentence);
}

/* An answer to a question by generation may leave the sample's id out, for the generation names it;
 * an answer to a question by id may not. */
static bool believe_is_other_sample(const char *said, const char *asked, uint64_t generation) {
    return strcmp(said, asked) != 0 && (*said || !generation);
}

bool believe_lease(const struct item *item, struct peer *peer, uint64_t generation,
                   const Fb__PeerLeaseReply *lease, char why[SENTENCE_BYTES]) {
    if (!lease->generation || (generation && lease->generation != generation))
        snprintf(why, SENTENCE_BYTES,
                 "asked for generation %" PRIu64 ", and it answered with generation %" PRIu64,
                 generation, lease->generation);
    else if (believe_is_other_sample(lease->sample_id, item->ref.sample_id, generation))
        snprintf(why, SENTENCE_BYTES, "asked for this sample, and it answered with sample %s",
                 layout_check_sample_id(lease->sample_id) ? "(no sample id)" : lease->sample_id);
    else if (generation && item->ref.incarnation && peer_incarnation(peer) != item->ref.incarnation)
        snprintf(why, SENTENCE_BYTES,
                 "asked of incarnation %" PRIu64 ", and it was granted by incarnation %" PRIu64,
                 item->ref.incarnation, peer_incarnation(peer));
    else
        return true;
    believe_not(peer, why);
    return false;
}

/* The store knows, of each generation that is here, whether it is at home here or a landing copy,
 * and then from which peer. A second peer that claims the same generation is wrong, for a
 * generation is unique in the cluster. */
bool believe_copy(const struct item *item, struct peer *peer, const Fb__PeerLeaseReply *lease,
                  char why[SENTENCE_BYTES]) {
    struct store_info info;
    const struct space *space = item->call->space;
    if (!store_stat(space->store, NULL, 0, lease->generation, &info) || info.state == STORE_GONE ||
        info.state == STORE_FREE)
        return true;
    const struct peer *origin = peers_of_number(item->call->broker->peers, info.origin);
    if (!info.landing)
        snprintf(why, SENTENCE_BYTES,
                 "it says that it is the home of generation %" PRIu64 ", whose home is this node",
                 lease->generation);
    else if (origin != peer || strcmp(info.sample_id, item->ref.sample_id) != 0)
        snprintf(why, SENTENCE_BYTES,
                 "it says that generation %" PRIu64
                 " is this sample, and what has landed here is sample %s from node %s",
                 lease->generation, info.sample_id, origin ? peer_node(origin) : "?");
    else
        return true;
    believe_not(peer, why);
    return false;
}

/* Checks the home's answer: its spec, sizes and checksums. Returns NULL, or a sentence that says
 * what is wrong. The size of the sample is computed here, from the spec, and is not taken from the
 * answer, because so many bytes will be written into this node's memory. */
const char *believe_spec(struct broker *broker, const Fb__PeerLeaseReply *reply,
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

/* A stat without info says that the peer knows nothing, which needs no belief. */
bool believe_stat(const struct item *item, struct peer *peer, const Fb__StatResult *stat,
                  char why[SENTENCE_BYTES]) {
    const Fb__SampleInfo *info = stat->info;
    if (!info)
        return true;
    bool other =
        item->ref.generation && info->generation && info->generation != item->ref.generation;
    if (other)
        snprintf(why, SENTENCE_BYTES,
                 "asked for generation %" PRIu64 ", and it answered with generation %" PRIu64,
                 item->ref.generation, info->generation);
    else if (believe_is_other_sample(info->sample_id, item->ref.sample_id, item->ref.generation))
        snprintf(why, SENTENCE_BYTES, "asked for this sample, and it answered with another");
    else
        return true;
    believe_not(peer, why);
    return false;
}
