/* SPDX-License-Identifier: Apache-2.0
 *
 * Questions about the other nodes, and about this one: who lives under which incarnation
 * (cluster/roster.c), may this node serve and take puts (cluster/fencing.c), and what stands
 * between it and its directory, in the sentences that users read.
 *
 * Nothing is changed here. What the directory announces comes in by members.c; so every file of
 * this folder may ask, and this one calls only twin.c, which calls nobody of this folder.
 */
#include <string.h>

#include "exchange/nodes.h"
#include "exchange/twin.h"

struct peer *nodes_peer_recalled(struct broker *broker, const char *name) {
    struct peer *peer = peers_find(broker->peers, name);
    return peer ? peer : peers_add(broker->peers, name, "", "");
}

bool nodes_is_dead(const struct broker *broker, const char *name, uint64_t incarnation) {
    return roster_is_dead(broker->exchange->roster, name, incarnation);
}

uint64_t nodes_incarnation(const struct broker *broker, const char *name) {
    return roster_incarnation(broker->exchange->roster, name);
}

uint64_t nodes_gone_ns(const struct broker *broker, const char *name) {
    const struct roster *roster = broker->exchange->roster;
    const uint64_t gone_ns = roster_gone_ns(roster, name, broker->now_ns);
    /* Known from before a restart alone: the index has not named it since. */
    if (!gone_ns && broker->directory->ops->index && roster_is_absent(roster, name))
        return broker->now_ns - broker->started_ns;
    return gone_ns;
}

bool nodes_are_led_by_us(const struct broker *broker) {
    return roster_first_is(broker->exchange->roster, broker->config->node);
}

bool nodes_have_lost(const struct broker *broker, enum directory_result result,
                     const struct directory_record *record) {
    /* This node has restarted. The directory learns of it when the lease of the earlier incarnation
     * ends; until then it says that the home lives, but what that one held is gone. */
    bool was_ours = result == DIRECTORY_OK && !strcmp(record->home, broker->config->node) &&
                    record->incarnation != broker->options.incarnation;
    return result == DIRECTORY_E_LOST || was_ours;
}

bool nodes_is_earlier_us(const struct broker *broker, const char *home, uint64_t incarnation) {
    return incarnation && incarnation != broker->options.incarnation &&
           (!*home || !strcmp(home, broker->config->node));
}

/* DIRECTORY_E_LOST: there is a record, and its home is dead. */
enum cluster_reading nodes_reading(enum directory_result result) {
    return result == DIRECTORY_OK            ? READING_RECORD
           : result == DIRECTORY_E_LOST      ? READING_LOST
           : result == DIRECTORY_E_NOT_FOUND ? READING_NONE
                                             : READING_FAILED;
}

enum cluster_answer nodes_answer(enum directory_result result) {
    return result == DIRECTORY_OK              ? CLUSTER_DONE
           : result == DIRECTORY_E_UNAVAILABLE ? CLUSTER_UNREACHABLE
           : result == DIRECTORY_E_FENCED      ? CLUSTER_FENCED
                                               : CLUSTER_REFUSED;
}

/* The directory is asked each time: the lease may end at any moment, without an event. */
enum fencing_state nodes_fencing(const struct broker *broker) {
    const struct directory_ops *ops = broker->directory->ops;
    return fencing_state(&broker->exchange->fencing, ops->serves_until_ns(broker->directory),
                         broker->now_ns);
}

bool broker_serves(const struct broker *broker) {
    return fencing_may_serve(nodes_fencing(broker));
}

/* The sentence may be of the last time, when the lease has just ended and the directory has not
 * said so yet; before there was any, the node has never been a member. */
const char *broker_fenced_why(const struct broker *broker) {
    return *broker->exchange->fenced_why
               ? broker->exchange->fenced_why
               : "it may have been taken for dead: its record in the index is not "
                 "known to be alive";
}

/* What stands between this node and its directory, in `out`; "": nothing that is known. True: no
 * put can be done until somebody does something about it, or another node with our name is gone. */
static bool nodes_trouble_is_final(const struct broker *broker, char out[TROUBLE_BYTES]) {
    const struct directory_ops *ops = broker->directory->ops;
    *out = '\0';
    if (twin_say(broker, out, TROUBLE_BYTES))
        return true;
    return ops->trouble && ops->trouble(broker->directory, out, TROUBLE_BYTES);
}

/* For the end of a sentence about something that failed: the trouble that is known is a better
 * explanation than what the caller would say (`otherwise`). */
const char *broker_trouble(const struct broker *broker, const char *otherwise,
                           char out[TROUBLE_BYTES]) {
    nodes_trouble_is_final(broker, out);
    return *out ? out : otherwise;
}

const char *broker_refuses_why(const struct broker *broker) {
    switch (fencing_refuses(nodes_fencing(broker), broker->draining, twin_was_first(broker))) {
    case FENCING_STOPPING:
        return "it is stopping";
    case FENCING_TWIN:
        return peers_twin(broker->peers);
    case FENCING_NOT_SERVING:
        return broker_fenced_why(broker);
    case FENCING_TAKES:
        break;
    }
    return NULL;
}

const char *broker_not_ready_why(const struct broker *broker, char out[TROUBLE_BYTES]) {
    const char *refuses = broker_refuses_why(broker);
    return refuses ? refuses : nodes_trouble_is_final(broker, out) ? out : NULL;
}
