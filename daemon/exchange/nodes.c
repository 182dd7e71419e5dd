/* SPDX-License-Identifier: Apache-2.0
 *
 * What the directory has said of the other nodes, and of ourselves: who lives under which
 * incarnation, and until when we may serve. A directory that knows no incarnations (static)
 * declares nobody dead.
 */
#include <stdio.h>
#include <string.h>

#include "cluster/cluster.h"
#include "exchange/exchange.h"

void nodes_on_up(void *owner, const char *name, const char *address, const char *data_address,
                 uint64_t incarnation) {
    struct broker *broker = owner;
    /* Without a peer it could not be asked anything, and must not count as a node that lives. */
    if (!peers_add(broker->peers, name, address, data_address) ||
        !roster_come(broker->exchange->roster, name, incarnation)) {
        log_error("node %s: out of memory", name);
        return;
    }
    if (incarnation)
        log_info("node %s is a member at %s, data at %s, incarnation %016llx", name, address,
                 data_address, (unsigned long long)incarnation);
}

void nodes_on_down(void *owner, const char *name, uint64_t incarnation) {
    struct broker *broker = owner;
    log_warning("node %s, incarnation %016llx, has left: what it held is lost", name,
                (unsigned long long)incarnation);
    if (roster_leave(broker->exchange->roster, name, incarnation, broker->now_ns))
        held_check_all(broker);
}

bool nodes_is_absent(const struct broker *broker, const char *name) {
    return roster_is_absent(broker->exchange->roster, name);
}

bool nodes_is_dead(const struct broker *broker, const char *name, uint64_t incarnation) {
    return roster_is_dead(broker->exchange->roster, name, incarnation);
}

uint64_t nodes_incarnation(const struct broker *broker, const char *name) {
    return roster_incarnation(broker->exchange->roster, name);
}

uint64_t nodes_gone_ns(const struct broker *broker, const char *name) {
    return roster_gone_ns(broker->exchange->roster, name, broker->now_ns);
}

bool nodes_are_led_by_us(const struct broker *broker) {
    return roster_first_is(broker->exchange->roster, broker->config->node);
}

bool nodes_have_lost(const struct broker *broker, enum directory_result result,
                     const struct directory_record *record) {
    bool was_ours = result == DIRECTORY_OK && !strcmp(record->home, broker->config->node) &&
                    record->incarnation != broker->options.incarnation;
    return result == DIRECTORY_E_LOST || was_ours;
}

void nodes_on_fenced(void *owner, bool fenced, const char *why) {
    struct broker *broker = owner;
    snprintf(broker->exchange->fenced_why, sizeof broker->exchange->fenced_why, "%s", why);
    log_warning("node %s: %s: %s", broker->config->node, fenced ? "fenced" : "serving again", why);
    if (!fenced)
        held_checks_wake(broker);
}

bool broker_serves(const struct broker *broker) {
    const struct directory_ops *ops = broker->directory->ops;
    return !broker->exchange->held_walk.first &&
           broker->now_ns < ops->serves_until_ns(broker->directory);
}

const char *broker_fenced_why(const struct broker *broker) {
    return *broker->exchange->fenced_why
               ? broker->exchange->fenced_why
               : "it may have been taken for dead: its record in the index is not "
                 "known to be alive";
}

static bool nodes_trouble_is_final(const struct broker *broker, char out[TROUBLE_BYTES]) {
    const struct directory_ops *ops = broker->directory->ops;
    *out = '\0';
    if (twin_say(broker, out, TROUBLE_BYTES))
        return true;
    return ops->trouble && ops->trouble(broker->directory, out, TROUBLE_BYTES);
}

const char *broker_trouble(const struct broker *broker, const char *otherwise,
                           char out[TROUBLE_BYTES]) {
    nodes_trouble_is_final(broker, out);
    return *out ? out : otherwise;
}

const char *broker_refuses_why(const struct broker *broker) {
    if (broker->draining)
        return "it is stopping";
    if (twin_was_first(broker))
        return peers_twin(broker->peers);
    return broker_serves(broker) ? NULL : broker_fenced_why(broker);
}

const char *broker_not_ready_why(const struct broker *broker, char out[TROUBLE_BYTES]) {
    const char *refuses = broker_refuses_why(broker);
    return refuses ? refuses : nodes_trouble_is_final(broker, out) ? out : NULL;
}
