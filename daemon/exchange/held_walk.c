/* SPDX-License-Identifier: Apache-2.0
 *
 * Takes up what held_due.c has noted: begins the checks of single generations, and walks over all
 * that this node holds. There may be a million of them. So a turn of the loop begins some, as long
 * as few enough are under way; an answer of the index wakes the deadline `go_on` again.
 *
 *   noted --go_on is due--> begun, up to the limits below --an answer--> go_on is due ...
 */
#include "exchange/held_check.h"
#include "exchange/nodes.h"

/* Of the walk: questions to the index that are under way, and samples looked at in one turn. */
#define WALK_IN_FLIGHT_MAX 64u
#define WALK_STEPS_A_TURN  1024u
/* Of the list: checks begun in one turn; questions under way, and of records that are being written
 * again. While the node is fenced the list is looked at again after so long. */
#define DUE_A_TURN        256u
#define DUE_IN_FLIGHT_MAX 512u
#define DUE_RETRY_NS      (10 * NS_PER_MS)

/* Not while this node is fenced: nothing that the index says is certain then. */
static bool held_walk_may_take_due(const struct broker *broker) {
    const struct held_walk *walk = &broker->exchange->held_walk;
    return walk->due_count && walk->in_flight < DUE_IN_FLIGHT_MAX &&
           walk->republishing < DUE_IN_FLIGHT_MAX && fencing_may_mend(nodes_fencing(broker));
}

static void held_walk_take_due(struct broker *broker) {
    struct held_walk *walk = &broker->exchange->held_walk;
    for (uint32_t i = 0; i < DUE_A_TURN && held_walk_may_take_due(broker); i++) {
        const struct held_due due = walk->due[--walk->due_count];
        struct space *space = &broker->spaces[due.space];
        struct store_info info;
        const bool held = space->used && !space->dropped &&
                          store_stat(space->store, NULL, 0, due.generation, &info) &&
                          info.state == STORE_RESIDENT;
        if (held && due.first)
            held_check_first(broker, space, info.sample_id);
        else if (held)
            held_check_own(broker, space, info.sample_id);
        fencing_let_go(&broker->exchange->fencing, due.first);
    }
    if (!walk->due_count)
        held_due_drop(broker);
}

/* ---- all that is held ---- */

/* False: all stores have been walked. */
static bool held_walk_step(struct broker *broker, struct held_walk *walk) {
    if (walk->space >= broker->space_end)
        return false;
    struct store_info info;
    struct space *space = &broker->spaces[walk->space];
    if (!space->used || space->dropped || !store_list_next(space->store, &walk->cursor, &info)) {
        walk->space++;
        walk->cursor = 0;
        return true;
    }
    if (info.state == STORE_RESIDENT && !info.landing)
        held_check_own(broker, space, info.sample_id);
    return true;
}

/* There is more to do now, of the walk or of what is due. Each of them is taken up to a limit of
 * questions that are under way at once; the answers wake it again. */
static bool held_walk_may_go_on(const struct broker *broker) {
    const struct held_walk *walk = &broker->exchange->held_walk;
    return (walk->walking && walk->in_flight < WALK_IN_FLIGHT_MAX) ||
           held_walk_may_take_due(broker);
}

/* One part of the work, in one turn of the loop. The list comes first, because what keeps the node
 * from serving is on it. */
static void held_walk_on_go_on(struct deadline *go_on, uint64_t now_ns) {
    struct exchange *exchange = container_of(go_on, struct exchange, held_walk.go_on);
    struct broker *broker = exchange->broker;
    struct held_walk *walk = &exchange->held_walk;
    if (walk->due_count)
        held_walk_take_due(broker);
    if (!walk->walking && walk->again && walk->next_ns <= now_ns) {
        walk->walking = true;
        walk->again = false;
        walk->next_ns = walk->cursor = walk->space = 0;
    }
    for (uint32_t i = 0;
         walk->walking && i < WALK_STEPS_A_TURN && walk->in_flight < WALK_IN_FLIGHT_MAX; i++)
        walk->walking = held_walk_step(broker, walk);
    if (held_walk_may_go_on(broker))
        held_due_wake(broker); /* in the next turn */
    else if (walk->due_count)  /* the node is fenced, or answers wake it before */
        deadlines_set_earlier(&broker->deadlines, go_on, now_ns + DUE_RETRY_NS);
    if (walk->again && !walk->walking)
        deadlines_set_earlier(&broker->deadlines, go_on, walk->next_ns);
}

void held_walk_init(struct exchange *exchange) {
    deadline_init(&exchange->held_walk.go_on, held_walk_on_go_on);
}
