/* SPDX-License-Identifier: Apache-2.0
 *
 * What of all that this node holds is still to be checked against the index, and when: a list of
 * single generations, and a walk over all that is held. This file only takes notes and sets the
 * deadline on which held_walk.c takes them up; so whoever notices that something is to be checked
 * may call it, also a check that is under way.
 */
#include <stdlib.h>

#include "exchange/held_check.h"

/* After so long all that is held is walked over, because there was no memory to note one sample. */
#define RETRY_NS (1000 * NS_PER_MS)

/* A walk that is under way goes on; the next one begins at the earliest time that anybody wants. */
void held_due_all_at(struct broker *broker, uint64_t at_ns) {
    struct held_walk *walk = &broker->exchange->held_walk;
    if (!walk->again || at_ns < walk->next_ns)
        walk->next_ns = at_ns;
    walk->again = true;
    deadlines_set_earlier(&broker->deadlines, &walk->go_on, at_ns);
}

void held_due_all(struct broker *broker) {
    if (broker->directory->ops->index)
        held_due_all_at(broker, broker->now_ns);
}

/* For tests: a node is not at rest while something is noted. */
bool held_due_any(const struct broker *broker) {
    const struct held_walk *walk = &broker->exchange->held_walk;
    return walk->walking || walk->again || walk->due_count;
}

/* Without memory for one more note, all that is held is walked over a little later: that finds this
 * generation, too. */
void held_due_one(struct broker *broker, const struct space *space, uint64_t generation,
                  bool first) {
    struct held_walk *walk = &broker->exchange->held_walk;
    if (walk->due_count == walk->due_room) {
        size_t room = walk->due_room ? 2 * walk->due_room : 1024;
        struct held_due *due = reallocarray(walk->due, room, sizeof *due);
        if (!due) {
            held_due_all_at(broker, broker->now_ns + RETRY_NS);
            return;
        }
        walk->due = due;
        walk->due_room = room;
    }
    walk->due[walk->due_count++] = (struct held_due){generation, space->index, first};
    fencing_hold(&broker->exchange->fencing, first);
    held_due_wake(broker);
}

/* Each note of a `first` one keeps the node from serving (fencing_hold()), and lets go of that
 * here. */
void held_due_drop(struct broker *broker) {
    struct held_walk *walk = &broker->exchange->held_walk;
    for (size_t i = 0; i < walk->due_count; i++)
        fencing_let_go(&broker->exchange->fencing, walk->due[i].first);
    free(walk->due);
    walk->due = NULL;
    walk->due_count = walk->due_room = 0;
}

void held_due_wake(struct broker *broker) {
    deadlines_set_earlier(&broker->deadlines, &broker->exchange->held_walk.go_on, broker->now_ns);
}
