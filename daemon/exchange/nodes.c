/* SPDX-License-Identifier: Apache-2.0
 *
 * What the directory has said of the other nodes, and of ourselves: who lives under which
 * incarnation, and until when we may serve. A directory that knows no incarnations (static)
 * declares nobody dead.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "exchange/exchange.h"

#define DEAD_KEPT 8u

struct node {
    TAILQ_ENTRY(node) link;
    char name[LAYOUT_NAME_BYTES_MAX + 1];
    uint64_t live; /* incarnation, 0 = none or not known */
    uint64_t left_ns;
    uint64_t
        dead[DEAD_KEPT]; /* those that died last; of an earlier one the node itself must tell */
    uint32_t dead_at;
};

static void nodes_bury(struct node *node, uint64_t incarnation) {
    node->dead[node->dead_at++ % DEAD_KEPT] = incarnation;
}

/* Taken for dead, it was only away. */
static void nodes_exhume(struct node *node, uint64_t incarnation) {
    for (uint32_t i = 0; i < DEAD_KEPT; i++)
        if (node->dead[i] == incarnation)
            node->dead[i] = 0;
}

static bool nodes_is_buried(const struct node *node, uint64_t incarnation) {
    for (uint32_t i = 0; i < DEAD_KEPT; i++)
        if (node->dead[i] == incarnation)
            return true;
    return false;
}

static struct node *nodes_find(const struct broker *broker, const char *name) {
    struct node *node;
    TAILQ_FOREACH (node, &broker->exchange->nodes, link)
        if (!strcmp(node->name, name))
            return node;
    return NULL;
}

static struct node *nodes_find_or_add(struct broker *broker, const char *name) {
    struct node *node = nodes_find(broker, name);
    if (node || !(node = calloc(1, sizeof *node)))
        return node;
    strncpy(node->name, name, sizeof node->name - 1);
    TAILQ_INSERT_TAIL(&broker->exchange->nodes, node, link);
    return node;
}

void nodes_on_up(void *owner, const char *name, const char *address, const char *data_address,
                 uint64_t incarnation) {
    struct broker *broker = owner;
    struct node *node = nodes_find_or_add(broker, name);
    if (!node || !peers_add(broker->peers, name, address, data_address)) {
        log_error("node %s: out of memory", name);
        return;
    }
    if (node->live && node->live != incarnation)
        nodes_bury(node, node->live);
    nodes_exhume(node, incarnation);
    node->live = incarnation;
    if (incarnation)
        log_info("node %s is a member at %s, data at %s, incarnation %016llx", name, address,
                 data_address, (unsigned long long)incarnation);
}

void nodes_on_down(void *owner, const char *name, uint64_t incarnation) {
    struct node *node = nodes_find_or_add(owner, name);
    log_warning("node %s, incarnation %016llx, has left: what it held is lost", name,
                (unsigned long long)incarnation);
    if (!node)
        return;
    if (node->live == incarnation)
        node->live = 0;
    node->left_ns = ((const struct broker *)owner)->now_ns;
    if (!nodes_is_buried(node, incarnation))
        nodes_bury(node, incarnation);
    held_check_all(owner);
}

bool nodes_is_absent(const struct broker *broker, const char *name) {
    const struct node *node = nodes_find(broker, name);
    return !node || !node->live;
}

bool nodes_is_dead(const struct broker *broker, const char *name, uint64_t incarnation) {
    const struct node *node = nodes_find(broker, name);
    if (!node)
        return false;
    if (!incarnation) /* whichever it was: it is no member now, and comes back reconciled or empty
                       */
        return node->dead_at && !node->live;
    return nodes_is_buried(node,
                           incarnation); /* one never heard of may be newer than what we know */
}

uint64_t nodes_incarnation(const struct broker *broker, const char *name) {
    const struct node *node = nodes_find(broker, name);
    if (!node || node->live || !node->dead_at)
        return node ? node->live : 0;
    return node->dead[(node->dead_at - 1) % DEAD_KEPT];
}

uint64_t nodes_gone_ns(const struct broker *broker, const char *name) {
    const struct node *node = nodes_find(broker, name);
    return node && !node->live && node->dead_at ? broker->now_ns - node->left_ns : 0;
}

bool nodes_are_led_by_us(const struct broker *broker) {
    const struct node *node;
    TAILQ_FOREACH (node, &broker->exchange->nodes, link)
        if (node->live && strcmp(node->name, broker->config->node) < 0)
            return false;
    return true;
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

void nodes_free(struct broker *broker) {
    struct node *node;
    while ((node = TAILQ_FIRST(&broker->exchange->nodes))) {
        TAILQ_REMOVE(&broker->exchange->nodes, node, link);
        free(node);
    }
}
