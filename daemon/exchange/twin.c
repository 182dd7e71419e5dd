/* SPDX-License-Identifier: Apache-2.0
 *
 * Our name in the index belongs to another incarnation: a twin's, or our own from before a restart.
 * The broker at the address of that record is asked.
 *
 *   FREE -> ASKED -> RESTART -> STANDS  nobody of that incarnation answers there; and the record
 *                 |                     outlives its lease: somebody whom we cannot reach keeps it
 *                 |                     alive, or etcd has it from a backup
 *                 \-> TWIN              it answers
 *
 * In any case this node joins when that record's lease has ended, and not before: whoever made
 * it may still serve until then. A twin is not served beside: nothing is put here, and no peer gets
 * anything, for the name stands for the other one.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "exchange/twin.h"

static bool twin_has_outlived(const struct broker *broker) {
    return broker->now_ns > broker->exchange->name.outlived_ns;
}

static void twin_on_outlived(struct deadline *outlived, uint64_t now_ns) {
    (void)outlived, (void)now_ns; /* twin_pump() follows in the same turn */
}

void twin_init(struct exchange *exchange) {
    deadline_init(&exchange->name_outlived, twin_on_outlived);
}

void twin_on_name_taken(void *owner, const char *address, uint64_t incarnation) {
    struct broker *broker = owner;
    struct name *name = &broker->exchange->name;
    if (!address) {
        if (name->state != NAME_FREE)
            log_info("node %s: the record of incarnation %016" PRIx64
                     " has ended: this node is a member now",
                     broker->config->node, name->incarnation);
        *name = (struct name){0};
        deadlines_clear(&broker->deadlines, &broker->exchange->name_outlived);
        peers_seek_end(broker->peers);
        return;
    }
    if (name->state != NAME_FREE && name->incarnation == incarnation &&
        !strcmp(name->address, address))
        return;
    *name = (struct name){.state = NAME_ASKED, .incarnation = incarnation};
    snprintf(name->address, sizeof name->address, "%s", address);
    name->outlived_ns = broker->now_ns + 3 * broker->config->lease_ttl_ms * NS_PER_MS;
    deadlines_set(&broker->deadlines, &broker->exchange->name_outlived, name->outlived_ns + 1);
    log_info("node %s: etcd has a record of this name, incarnation %016" PRIx64
             " at %s, that is not this broker's: asking there whether that one lives; this one "
             "joins when its lease has ended",
             broker->config->node, incarnation, *address ? address : "no address");
    if (*address)
        peers_seek(broker->peers, address);
}

static void twin_is_restart(struct broker *broker, const char *why) {
    struct name *name = &broker->exchange->name;
    name->state = NAME_RESTART;
    log_info("node %s: nobody of incarnation %016" PRIx64
             " answers at %s (%s): taken for this node before a restart",
             broker->config->node, name->incarnation, name->address, why);
}

static void twin_say_that_it_stands(struct broker *broker) {
    struct name *name = &broker->exchange->name;
    name->state = NAME_STANDS;
    log_warning("node %s: its name is still registered in etcd for incarnation %016" PRIx64
                " at %s, where nobody answers, though a lease should have ended by now: either "
                "another broker of this name lives that cannot be reached from here, or the record "
                "/featured/%s/nodes/%s is to be deleted",
                broker->config->node, name->incarnation,
                *name->address ? name->address : "no address", broker->config->etcd_cluster,
                broker->config->node);
}

static void twin_say_twin(struct broker *broker) {
    const struct name *name = &broker->exchange->name;
    char words[SENTENCE_BYTES];
    snprintf(words, sizeof words,
             "another broker has this name in etcd, and both live: incarnation %016" PRIx64
             " at %s was there first; this one, incarnation %016" PRIx64
             ", takes no part until that one is gone",
             name->incarnation, name->address, broker->options.incarnation);
    peers_twin_seen(broker->peers, words);
}

void twin_pump(struct broker *broker) {
    struct name *name = &broker->exchange->name;
    uint64_t incarnation = 0;
    const char *why = "it has none";
    if (name->state == NAME_FREE)
        return;
    enum peers_found found =
        *name->address ? peers_found(broker->peers, &incarnation, &why) : PEERS_FOUND_NOBODY;
    bool lives = found == PEERS_FOUND_ONE && incarnation == name->incarnation;
    if (lives)
        name->state = NAME_TWIN;
    else if (found != PEERS_SEEKING && (name->state == NAME_ASKED || name->state == NAME_TWIN))
        twin_is_restart(broker, found == PEERS_FOUND_ONE ? "another one does" : why);
    else if (name->state == NAME_RESTART && twin_has_outlived(broker))
        twin_say_that_it_stands(broker);
    if (name->state == NAME_TWIN)
        twin_say_twin(broker);
}

bool twin_was_first(const struct broker *broker) {
    return broker->exchange->name.state == NAME_TWIN;
}

bool twin_say(const struct broker *broker, char *out, size_t out_bytes) {
    const struct name *name = &broker->exchange->name;
    if (name->state == NAME_TWIN)
        snprintf(out, out_bytes, "node %s: %s", broker->config->node, peers_twin(broker->peers));
    else if (name->state != NAME_FREE)
        snprintf(out, out_bytes,
                 "node %s is not a member yet: etcd still has its name for incarnation %016" PRIx64
                 " at %s; it joins when that one's lease has ended",
                 broker->config->node, name->incarnation, name->address);
    return name->state != NAME_FREE;
}
