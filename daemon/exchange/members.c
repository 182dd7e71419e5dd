/* SPDX-License-Identifier: Apache-2.0
 *
 * What the directory announces: a node has come, a node has left, this node is fenced or serves
 * again. Each is noted where nodes.c finds it, and begins the checks that it calls for.
 */
#include <stdio.h>

#include "exchange/held_check.h"

void members_on_up(void *owner, const char *name, const char *address, const char *data_address,
                   uint64_t incarnation) {
    struct broker *broker = owner;
    /* Without a peer it could not be asked anything, and must not count as a node that lives. */
    if (!peers_add(broker->peers, name, address, data_address) ||
        !roster_come(broker->exchange->roster, name, incarnation)) {
        log_error("node %s: out of memory", name);
        return;
    }
    if (incarnation)
        log_info("node %s is a member at %s, data at %s, incarnation %llu", name, address,
                 data_address, (unsigned long long)incarnation);
}

void members_on_down(void *owner, const char *name, uint64_t incarnation) {
    struct broker *broker = owner;
    log_warning("node %s, incarnation %llu, has left: what it held is lost", name,
                (unsigned long long)incarnation);
    /* A put of that node may have replaced what is held here, without having told us: it was never
     * answered then. The index says which of the two stands. */
    if (roster_leave(broker->exchange->roster, name, incarnation, broker->now_ns))
        held_due_all(broker);
}

void members_on_fenced(void *owner, bool fenced, const char *why) {
    struct broker *broker = owner;
    snprintf(broker->exchange->fenced_why, sizeof broker->exchange->fenced_why, "%s", why);
    broker->counts.fences += fenced;
    log_warning("node %s: %s: %s", broker->config->node, fenced ? "fenced" : "serving again", why);
    /* Checks that are due have waited, for nothing is certain while the node is fenced. */
    if (!fenced)
        held_due_wake(broker);
}
