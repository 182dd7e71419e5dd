/* SPDX-License-Identifier: Apache-2.0
 *
 * A pairing heap (Fredman, Sedgewick, Sleator, Tarjan: "The pairing heap: a new form of
 * self-adjusting heap", Algorithmica 1, 1986): a tree in which no thing is due before its parent.
 * Setting a deadline takes constant time; clearing one, the first included, takes logarithmic time
 * on average.
 *
 * Each thing has a list of its children. Invariants:
 *   - a thing that is not in the heap has queued == false and no links;
 *   - the root, deadlines->first, has no sibling;
 *   - `previous` of a first child is its parent, of every other child its elder sibling, so that a
 *     thing can be taken out without a search.
 */
#include "time/deadlines.h"

#include <stddef.h>

/* The order of the heap. Sequence numbers differ, so that no two are equal. */
static bool deadline_before(const struct deadline *a, const struct deadline *b) {
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->sequence < b->sequence;
}

/* Makes one heap of two, either of which may be NULL (empty): the later root becomes the first
 * child of the earlier one. */
static struct deadline *deadlines_meld(struct deadline *a, struct deadline *b) {
    if (!a || !b)
        return a ? a : b;
    if (deadline_before(b, a)) {
        struct deadline *later = a;
        a = b;
        b = later;
    }
    b->next = a->child;
    b->previous = a;
    if (a->child)
        a->child->previous = b;
    a->child = b;
    a->next = a->previous = NULL;
    return a;
}

/* Makes one heap of siblings that have lost their parent: first in pairs from left to right, then
 * the pairs from right to left. This order is what makes clearing logarithmic on average; melding
 * them one after the other would let a long list of siblings stay long. */
static struct deadline *deadlines_meld_siblings(struct deadline *first) {
    struct deadline *pairs = NULL, *melded = NULL;
    while (first) {
        struct deadline *second = first->next, *rest = second ? second->next : NULL;
        first->next = first->previous = NULL;
        if (second)
            second->next = second->previous = NULL;
        struct deadline *pair = deadlines_meld(first, second);
        pair->next = pairs;
        pairs = pair;
        first = rest;
    }
    while (pairs) {
        struct deadline *rest = pairs->next;
        pairs->next = NULL;
        melded = deadlines_meld(melded, pairs);
        pairs = rest;
    }
    return melded;
}

void deadlines_clear(struct deadlines *deadlines, struct deadline *deadline) {
    if (!deadline->queued)
        return;
    deadline->queued = false;
    struct deadline *below = deadlines_meld_siblings(deadline->child);
    deadline->child = NULL;
    if (deadline == deadlines->first) {
        deadlines->first = below;
        return;
    }
    if (deadline->previous->child == deadline)
        deadline->previous->child = deadline->next;
    else
        deadline->previous->next = deadline->next;
    if (deadline->next)
        deadline->next->previous = deadline->previous;
    deadline->next = deadline->previous = NULL;
    deadlines->first = deadlines_meld(deadlines->first, below);
}

void deadlines_set(struct deadlines *deadlines, struct deadline *deadline, uint64_t at_ns) {
    deadlines_clear(deadlines, deadline);
    /* A time before the last run would put the deadline in front of all that has waited since then,
     * and deadlines_run() could not tell where the new ones begin. */
    if (at_ns < deadlines->now_ns)
        at_ns = deadlines->now_ns;
    *deadline = (struct deadline){
        .due = deadline->due, .queued = true, .at_ns = at_ns, .sequence = ++deadlines->sequence};
    deadlines->first = deadlines_meld(deadlines->first, deadline);
}

void deadlines_set_earlier(struct deadlines *deadlines, struct deadline *deadline, uint64_t at_ns) {
    if (!deadline->queued || at_ns < deadline->at_ns)
        deadlines_set(deadlines, deadline, at_ns);
}

void deadlines_set_or_clear(struct deadlines *deadlines, struct deadline *deadline,
                            uint64_t at_ns) {
    if (at_ns == UINT64_MAX)
        deadlines_clear(deadlines, deadline);
    else if (!deadline->queued || deadline->at_ns != at_ns)
        deadlines_set(deadlines, deadline, at_ns);
}

uint32_t deadlines_run(struct deadlines *deadlines, uint64_t now_ns, uint32_t budget) {
    uint64_t last_sequence = deadlines->sequence;
    uint32_t called = 0;
    if (now_ns > deadlines->now_ns)
        deadlines->now_ns = now_ns;
    while (called < budget && deadlines_next_ns(deadlines) <= now_ns) {
        struct deadline *first = deadlines->first;
        /* Set during this run, and thus for now_ns at the earliest: whatever comes behind it in the
         * order of the heap is due at now_ns, too, and was set even later, or is not due. */
        if (first->sequence > last_sequence)
            break;
        deadlines_clear(deadlines, first);
        first->due(first, now_ns);
        called++;
    }
    return called;
}
