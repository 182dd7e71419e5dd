/* SPDX-License-Identifier: Apache-2.0
 *
 * What this node knows of one sample, as a sentence for people: "resident on node a for 3.2 s,
 * ...".
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "node/knowledge.h"

/* The first holder stands for all: whoever wants the others asks `featurectl leases`. */
static void explain_say_leases(const Fb__SampleInfo *info, char *out, size_t out_bytes) {
    if (!info->leases)
        snprintf(out, out_bytes, "nobody reads it");
    else
        snprintf(out, out_bytes, "%u lease%s, the first held by %s for %.1f s", info->leases,
                 info->leases == 1 ? "" : "s", info->n_holders ? info->holders[0]->holder : "?",
                 info->n_holders ? (double)info->holders[0]->age_ms / 1e3 : 0.0);
}

/* What a resident sample still needs in order to be freed depends on the policy of its store. */
static void explain_say_resident(const struct space *space, const Fb__SampleInfo *info,
                                 const char *leases, char *out, size_t out_bytes) {
    static const char *const waits[] = {"consumed releases", "an ack",
                                        "an abort, a supersede or gc"};
    char need[64];
    if (space->settings.policy == FB__POLICY__ON_RELEASE)
        snprintf(need, sizeof need, "%u of %u consumed releases so far", info->consumed,
                 info->readers);
    else
        snprintf(need, sizeof need, "kept until %s", waits[space->settings.policy]);
    snprintf(out, out_bytes, "resident on node %s for %.1f s, %" PRIu64 " bytes; %s; %s",
             info->home, (double)info->age_ms / 1e3, info->extent_bytes, leases, need);
}

/* One sentence for each state. Who writes or reads the sample is named, because that is whom to ask
 * why it is still there. */
static void explain_say(const struct broker *broker, const struct space *space,
                        const struct store_info *from, const Fb__SampleInfo *info, char *out,
                        size_t out_bytes) {
    char leases[256], owner[160];
    double age_s = (double)info->age_ms / 1e3;
    explain_say_leases(info, leases, sizeof leases);
    switch (info->state) {
    case FB__SAMPLE_STATE__PLANNED:
        if (info->landing)
            snprintf(out, out_bytes, "a landing copy on its way from node %s for %.1f s",
                     info->home, age_s);
        else
            snprintf(out, out_bytes,
                     "planned for %.1f s by %s: reserved, being written, not committed", age_s,
                     broker_owner_name(broker, from->owner, owner));
        break;
    case FB__SAMPLE_STATE__SEALED:
        snprintf(out, out_bytes, "committed %.1f s ago, not yet published by the directory", age_s);
        break;
    case FB__SAMPLE_STATE__RESIDENT:
        if (info->landing)
            snprintf(out, out_bytes, "a landing copy of node %s's sample; %s", info->home, leases);
        else
            explain_say_resident(space, info, leases, out, out_bytes);
        break;
    case FB__SAMPLE_STATE__RETIRED:
        snprintf(out, out_bytes, "retired %.1f s ago: %s; its memory is kept: %s", age_s,
                 status_reason_word(from->reason), leases);
        break;
    case FB__SAMPLE_STATE__GONE:
        snprintf(out, out_bytes, "retired %.1f s ago: %s; its memory is free again", age_s,
                 status_reason_word(from->reason));
        break;
    default:
        snprintf(out, out_bytes, "never seen on node %s", broker->config->node);
    }
}

/* Told also while this node is fenced: it says what this node knows, and whoever puts the answers
 * together weighs them. */
Fb__ExplainReply *explain_here(const struct broker *broker, const struct space *space,
                               const struct ref *ref) {
    Fb__ExplainReply *reply = malloc(sizeof *reply);
    struct store_info info;
    char about[SENTENCE_BYTES * 2], sentence[SENTENCE_BYTES * 3];
    if (!reply)
        return NULL;
    fb__explain_reply__init(reply);
    bool whole = true;
    if (ref_is_of_earlier_incarnation(broker, ref)) {
        snprintf(about, sizeof about,
                 "home gone: node %s has restarted without its memory since this ref was made",
                 broker->config->node);
    } else if (sample_find(space, ref, &info)) {
        reply->info = sample_info_new(broker, space, &info, true);
        whole = reply->info;
        *about = '\0';
        if (whole) {
            reply->state = reply->info->state;
            explain_say(broker, space, &info, reply->info, about, sizeof about);
        }
    } else {
        snprintf(about, sizeof about, "never seen on node %s (or so long ago that it is forgotten)",
                 broker->config->node);
    }
    snprintf(sentence, sizeof sentence, "sample %s of store %s: %s", ref->sample_id, space->name,
             about);
    if (whole && text_set(&reply->sentence, sentence) &&
        text_set(&reply->node, broker->config->node))
        return reply;
    fb__explain_reply__free_unpacked(reply, NULL);
    return NULL;
}
