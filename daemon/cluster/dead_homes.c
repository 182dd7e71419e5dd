/* SPDX-License-Identifier: Apache-2.0
 *
 * Which homes have been dead for so long that their records may be removed from the index. One node
 * looks through the index now and then; a home counts as long dead when every look has come upon it
 * dead, for as long as records are kept by this node's own clock.
 *
 *   begin_look -> come_upon, come_upon, ... -> end_look: those not come upon are forgotten
 *
 * A home of which a look finds nothing lives again, or has no records left: if it is come upon
 * later, its time begins anew. When another node takes over the looking, it also counts anew. So
 * the clocks of two machines are never compared, and what is removed has been dead for at least
 * that long.
 */
#include <stdlib.h>
#include <string.h>

#include "cluster/cluster.h"

struct dead_home {
    TAILQ_ENTRY(dead_home) link;
    char node[CLUSTER_NAME_BYTES];
    uint64_t incarnation, since_ns; /* since_ns: when a look came upon it first */
    uint64_t look;                  /* the last one that came upon it */
};

void dead_homes_init(struct dead_homes *homes) {
    *homes = (struct dead_homes){0};
    TAILQ_INIT(&homes->list);
}

void dead_homes_begin_look(struct dead_homes *homes) {
    homes->look++;
}

/* A home that there is no memory for is come upon again by the next look. */
bool dead_homes_come_upon(struct dead_homes *homes, const char *node, uint64_t incarnation,
                          uint64_t now_ns, uint64_t keep_ns) {
    struct dead_home *home;
    TAILQ_FOREACH (home, &homes->list, link)
        if (home->incarnation == incarnation && !strcmp(home->node, node))
            break;
    if (!home && (home = calloc(1, sizeof *home))) {
        strncpy(home->node, node, sizeof home->node - 1);
        home->incarnation = incarnation;
        home->since_ns = now_ns;
        TAILQ_INSERT_TAIL(&homes->list, home, link);
    }
    if (!home)
        return false;
    home->look = homes->look;
    return now_ns - home->since_ns >= keep_ns;
}

static void dead_homes_forget_before(struct dead_homes *homes, uint64_t look) {
    struct dead_home *home, *next;
    for (home = TAILQ_FIRST(&homes->list); home; home = next) {
        next = TAILQ_NEXT(home, link);
        if (home->look >= look)
            continue;
        TAILQ_REMOVE(&homes->list, home, link);
        free(home);
    }
}

void dead_homes_end_look(struct dead_homes *homes) {
    dead_homes_forget_before(homes, homes->look);
}

void dead_homes_forget(struct dead_homes *homes) {
    dead_homes_forget_before(homes, UINT64_MAX);
}
