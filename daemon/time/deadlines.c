/* SPDX-License-Identifier: Apache-2.0
 *
 * A pairing heap (Fredman, Sedgewick, Sleator, Tarjan 1986): setting takes constant time, clearing
 * a logarithmic one on average.
 */
#include "time/deadlines.h"

#include <stddef.h>

static bool deadline_before(const struct deadline *a, const struct deadline *b) {
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->sequence < b->sequence;
}

/* Two heaps, or NULL, become one. */
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

/* Siblings are melded in pairs from the left, the pairs from the right. */
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
    *deadline =
        (struct deadline){.queued = true, .at_ns = at_ns, .sequence = ++deadlines->sequence};
    deadlines->first = deadlines_meld(deadlines->first, deadline);
}
