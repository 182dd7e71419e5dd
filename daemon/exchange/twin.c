/* SPDX-License-Identifier: Apache-2.0
 *
 * Our name in the index belongs to another incarnation: the shell around cluster/own_name.c, which
 * has the states and says what each event means. This file has the broker at the address of that
 * record asked (peer/twins.c), gives the answers to the machine, and says in words what it decides.
 */
#include <inttypes.h>
#include <stdio.h>

#include "exchange/twin.h"

/* Only wakes the loop when the record should have ended. */
static void twin_on_outlived(struct deadline *outlived, uint64_t now_ns) {
    (void)outlived, (void)now_ns; /* twin_pump() follows in the same turn */
}

void twin_init(struct exchange *exchange) {
    deadline_init(&exchange->name_outlived, twin_on_outlived);
}

/* For sentences: what stands in place of an address that the record does not have. That broker
 * cannot be asked, and counts as one that does not answer. */
static const char *twin_address(const struct own_name *name) {
    return *name->address ? name->address : "no address";
}

/* The record that had our name is gone. */
static void twin_take_freed(struct broker *broker) {
    struct own_name *name = &broker->exchange->name;
    if (own_name_freed(name) == OWN_NAME_DO_TELL_FREED)
        log_info("node %s: the record of incarnation %" PRIu64
                 " has ended: this node is a member now",
                 broker->config->node, name->incarnation);
    deadlines_clear(&broker->deadlines, &broker->exchange->name_outlived);
    peers_seek_end(broker->peers);
}

/* Called by the directory as often as it sees that record; address NULL: it is gone. */
void twin_on_name_taken(void *owner, const char *address, uint64_t incarnation) {
    struct broker *broker = owner;
    struct own_name *name = &broker->exchange->name;
    if (!address) {
        twin_take_freed(broker);
        return;
    }
    if (own_name_taken(name, address, incarnation, broker->now_ns,
                       broker->config->lease_ttl_ms * NS_PER_MS) != OWN_NAME_DO_ASK)
        return;
    deadlines_set(&broker->deadlines, &broker->exchange->name_outlived, name->outlived_ns + 1);
    log_info("node %s: etcd has a record of this name, incarnation %" PRIu64
             " at %s, that is not this broker's: asking there whether that one lives; this one "
             "joins when its lease has ended",
             broker->config->node, incarnation, twin_address(name));
    if (*address)
        peers_seek(broker->peers, address);
}

/* why: nobody of that incarnation answers. */
static void twin_say_restart(const struct broker *broker, const char *why) {
    const struct own_name *name = &broker->exchange->name;
    log_info("node %s: nobody of incarnation %" PRIu64
             " answers at %s (%s): taken for this node before a restart",
             broker->config->node, name->incarnation, name->address, why);
}

/* The one case in which an operator has to do something. */
static void twin_say_that_it_stands(const struct broker *broker) {
    const struct own_name *name = &broker->exchange->name;
    log_warning("node %s: its name is still registered in etcd for incarnation %" PRIu64
                " at %s, where nobody answers, though a lease should have ended by now: either "
                "another broker of this name lives that cannot be reached from here, or the record "
                "/featured/%s/nodes/%s is to be deleted",
                broker->config->node, name->incarnation, twin_address(name),
                broker->config->etcd_cluster, broker->config->node);
}

/* The sentence is told to peers as well: an operator may see it on any node. */
static void twin_say_twin(struct broker *broker) {
    const struct own_name *name = &broker->exchange->name;
    char words[SENTENCE_BYTES];
    snprintf(words, sizeof words,
             "another broker has this name in etcd, and both live: incarnation %" PRIu64
             " at %s was there first; this one, incarnation %" PRIu64
             ", takes no part until that one is gone",
             name->incarnation, name->address, broker->options.incarnation);
    peers_twin_seen(broker->peers, words);
}

/* The peers say nothing by themselves when the broker at that address has answered: they are asked
 * in every turn, as long as the name is not free. */
void twin_pump(struct broker *broker) {
    struct own_name *name = &broker->exchange->name;
    uint64_t incarnation = 0;
    const char *why = "it has none";
    if (name->state == OWN_NAME_FREE)
        return;
    enum peers_found found =
        *name->address ? peers_found(broker->peers, &incarnation, &why) : PEERS_FOUND_NOBODY;
    enum own_name_answer answer = found == PEERS_FOUND_ONE      ? OWN_NAME_ONE
                                  : found == PEERS_FOUND_NOBODY ? OWN_NAME_NOBODY
                                                                : OWN_NAME_UNKNOWN;
    switch (own_name_answered(name, answer, incarnation, broker->now_ns)) {
    case OWN_NAME_DO_TELL_RESTART:
        twin_say_restart(broker, answer == OWN_NAME_ONE ? "another one does" : why);
        break;
    case OWN_NAME_DO_TELL_STANDS:
        twin_say_that_it_stands(broker);
        break;
    case OWN_NAME_DO_TELL_TWIN:
        twin_say_twin(broker);
        break;
    case OWN_NAME_DO_NOTHING:
    case OWN_NAME_DO_ASK:
    case OWN_NAME_DO_TELL_FREED:
        break;
    }
}

/* Asked wherever this node would take or serve something. */
bool twin_was_first(const struct broker *broker) {
    return broker->exchange->name.state == OWN_NAME_TWIN;
}

/* For whoever is refused, and for the node's health. Also a node that only waits for the record to
 * end has something to say: it is no member yet. */
bool twin_say(const struct broker *broker, char *out, size_t out_bytes) {
    const struct own_name *name = &broker->exchange->name;
    if (name->state == OWN_NAME_TWIN)
        snprintf(out, out_bytes, "node %s: %s", broker->config->node, peers_twin(broker->peers));
    else if (name->state != OWN_NAME_FREE)
        snprintf(out, out_bytes,
                 "node %s is not a member yet: etcd still has its name for incarnation %" PRIu64
                 " at %s; it joins when that one's lease has ended",
                 broker->config->node, name->incarnation, name->address);
    return name->state != OWN_NAME_FREE;
}
