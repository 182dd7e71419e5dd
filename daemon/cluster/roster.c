/* SPDX-License-Identifier: Apache-2.0
 *
 * Who the other nodes are, as far as the directory has said: which incarnation of each lives, and
 * which have died. An incarnation is one start of a daemon: a node that restarts comes back under
 * another number and has nothing of what it held before.
 *
 * An incarnation that was declared dead may only have been cut off from the directory. It serves
 * nothing while it is cut off, and when it comes back it first reads what the others have ended
 * meanwhile. So "dead" means: whatever it held cannot be read now, and cannot be read later before
 * that node has caught up. For each node a few of the dead are remembered; about an older one only
 * the node itself can tell. A directory without incarnations (static) declares nobody dead.
 */
#include <stdlib.h>
#include <string.h>

#include "cluster/cluster.h"

/* A node that restarts more often than this while one question about it is open is asked itself. */
#define DEAD_KEPT 8u

struct member {
    TAILQ_ENTRY(member) link;
    char name[CLUSTER_NAME_BYTES];
    uint64_t live; /* incarnation, 0 = none or not known */
    uint64_t left_ns;
    uint64_t dead[DEAD_KEPT]; /* a ring: the last that died */
    uint32_t died_count;      /* how many have died */
};

struct roster {
    TAILQ_HEAD(, member) list;
};

struct roster *roster_new(void) {
    struct roster *roster = calloc(1, sizeof *roster);
    if (roster)
        TAILQ_INIT(&roster->list);
    return roster;
}

void roster_free(struct roster *roster) {
    struct member *member;
    while (roster && (member = TAILQ_FIRST(&roster->list))) {
        TAILQ_REMOVE(&roster->list, member, link);
        free(member);
    }
    free(roster);
}

/* Walks all nodes: a cluster has some hundreds at most, and this is asked once per older home. */
static struct member *roster_find(const struct roster *roster, const char *node) {
    struct member *member;
    TAILQ_FOREACH (member, &roster->list, link)
        if (!strcmp(member->name, node))
            return member;
    return NULL;
}

static struct member *roster_find_or_add(struct roster *roster, const char *node) {
    struct member *member = roster_find(roster, node);
    if (member || !(member = calloc(1, sizeof *member)))
        return member;
    strncpy(member->name, node, sizeof member->name - 1);
    TAILQ_INSERT_TAIL(&roster->list, member, link);
    return member;
}

static bool roster_has_died(const struct member *member, uint64_t incarnation) {
    for (uint32_t i = 0; i < DEAD_KEPT; i++)
        if (member->dead[i] == incarnation)
            return true;
    return false;
}

static void roster_note_death(struct member *member, uint64_t incarnation) {
    member->dead[member->died_count++ % DEAD_KEPT] = incarnation;
}

bool roster_come(struct roster *roster, const char *node, uint64_t incarnation) {
    struct member *member = roster_find_or_add(roster, node);
    if (!member)
        return false;
    /* The node has restarted, and nobody has said that the one before is gone. */
    if (member->live && member->live != incarnation)
        roster_note_death(member, member->live);
    /* It was declared dead and is back: it had only been cut off. */
    for (uint32_t i = 0; i < DEAD_KEPT; i++)
        if (member->dead[i] == incarnation)
            member->dead[i] = 0;
    member->live = incarnation;
    return true;
}

bool roster_leave(struct roster *roster, const char *node, uint64_t incarnation, uint64_t now_ns) {
    struct member *member = roster_find_or_add(roster, node);
    if (!member)
        return false;
    /* The death of an earlier incarnation may be told after the next one has come. */
    if (member->live == incarnation)
        member->live = 0;
    member->left_ns = now_ns;
    if (!roster_has_died(member, incarnation))
        roster_note_death(member, incarnation);
    return true;
}

bool roster_is_absent(const struct roster *roster, const char *node) {
    const struct member *member = roster_find(roster, node);
    return !member || !member->live;
}

bool roster_is_dead(const struct roster *roster, const char *node, uint64_t incarnation) {
    const struct member *member = roster_find(roster, node);
    if (!member)
        return false;
    /* Whichever it was: the node is no member now, and when it comes back it has caught up with
     * what was ended meanwhile, or holds nothing. */
    if (!incarnation)
        return member->died_count && !member->live;
    /* An incarnation that we never heard of may be newer than all that we know. */
    return roster_has_died(member, incarnation);
}

uint64_t roster_incarnation(const struct roster *roster, const char *node) {
    const struct member *member = roster_find(roster, node);
    if (!member || member->live || !member->died_count)
        return member ? member->live : 0;
    return member->dead[(member->died_count - 1) % DEAD_KEPT];
}

uint64_t roster_gone_ns(const struct roster *roster, const char *node, uint64_t now_ns) {
    const struct member *member = roster_find(roster, node);
    return member && !member->live && member->died_count ? now_ns - member->left_ns : 0;
}

bool roster_first_is(const struct roster *roster, const char *node) {
    const struct member *member;
    TAILQ_FOREACH (member, &roster->list, link)
        if (member->live && strcmp(member->name, node) < 0)
            return false;
    return true;
}
