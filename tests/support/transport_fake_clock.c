/* SPDX-License-Identifier: Apache-2.0
 *
 * One heap of events, ordered by (due, number), so that a history depends on the seed and the
 * caller alone. An event whose way is cut, or whose receiver is frozen, waits in `held` when its
 * time comes, and is posted again, in order, at the heal or the thaw.
 */
#include <stdlib.h>

#include "support/transport_fake_internal.h"

void *fake_must(void *memory) {
    if (memory == NULL)
        abort(); /* a test's machine without memory has no history worth keeping */
    return memory;
}

/* ---- the heap ---- */

static bool earlier(const struct event *a, const struct event *b) {
    return a->due_ns != b->due_ns ? a->due_ns < b->due_ns : a->number < b->number;
}

static void append(struct event ***array, size_t *count, size_t *capacity, struct event *event) {
    if (*count == *capacity) {
        *capacity = *capacity * 2 + 64;
        *array = fake_must(reallocarray(*array, *capacity, sizeof(struct event *)));
    }
    (*array)[(*count)++] = event;
}

static void heap_push(struct fake_network *n, struct event *event) {
    append(&n->heap, &n->heap_count, &n->heap_capacity, event);
    size_t at = n->heap_count - 1;
    while (at > 0 && earlier(event, n->heap[(at - 1) / 2])) {
        n->heap[at] = n->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    n->heap[at] = event;
}

static struct event *heap_pop(struct fake_network *n) {
    struct event *first = n->heap[0], *last = n->heap[--n->heap_count];
    size_t at = 0, child;
    while ((child = at * 2 + 1) < n->heap_count) {
        if (child + 1 < n->heap_count && earlier(n->heap[child + 1], n->heap[child]))
            child++;
        if (!earlier(n->heap[child], last))
            break;
        n->heap[at] = n->heap[child];
        at = child;
    }
    n->heap[at] = last;
    return first;
}

/* ---- events ---- */

/* splitmix64 (Steele, Lea, Flood 2014) */
uint64_t fake_random(struct fake_network *n) {
    uint64_t z = n->random += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

uint64_t fake_random_delay(struct fake_network *n) {
    uint64_t span = n->delay_ns_max - n->delay_ns_min;
    return n->delay_ns_min + (span > 0 ? fake_random(n) % (span + 1) : 0);
}

struct event *fake_event_new(struct fake *fake, enum event_type type, struct end *end,
                             size_t data_bytes) {
    struct event *event = fake_must(calloc(1, sizeof *event + data_bytes));
    event->type = type;
    event->to = fake;
    event->end = end;
    event->data_bytes = data_bytes;
    if (end != NULL)
        end->refs++;
    return event;
}

void fake_end_unref(struct end *end) {
    if (--end->refs == 0)
        free(end);
}

static void event_free(struct event *event) {
    if (event->end != NULL)
        fake_end_unref(event->end);
    if (event->home != NULL)
        fake_end_unref(event->home);
    free(event);
}

void fake_post(struct fake_network *n, struct event *event, uint64_t due_ns) {
    event->due_ns = due_ns;
    event->number = n->next_number++;
    heap_push(n, event);
}

void fake_post_own(struct end *end, enum event_type type, uint64_t delay_ns) {
    struct fake_network *n = end->fake->network;
    struct event *event = fake_event_new(end->fake, type, end, 0);
    event->from = end->fake->number;
    fake_post(n, event, n->now_ns + delay_ns);
}

void fake_post_other(struct end *end, enum lane lane, struct event *event) {
    struct fake_network *n = end->fake->network;
    uint64_t due_ns = n->now_ns + fake_random_delay(n);
    if (due_ns < end->lane_due_ns[lane])
        due_ns = end->lane_due_ns[lane];
    end->lane_due_ns[lane] = due_ns;
    event->from = end->fake->number;
    fake_post(n, event, due_ns);
}

struct event *fake_to_other(struct end *end, enum event_type type, size_t data_bytes) {
    /* A dead side's transport may be gone; what is sent to it will not happen. */
    struct fake *fake = end->other->dead ? NULL : end->other->fake;
    return fake_event_new(fake, type, end->other, data_bytes);
}
/* ---- the clock ---- */

static bool is_void(const struct event *event) {
    const struct end *end = event->end;
    if (end == NULL)
        return false;
    if (event->type == TIMEOUT && end->up)
        return true;
    if (event->type == END)
        return end->dead; /* killed meanwhile */
    return end->dead || (end->ending && event->type != CONNECT);
}

static bool is_blocked(const struct fake_network *n, const struct event *event) {
    const struct fake *to = event->to;
    if (event->type == CONNECT)
        to = fake_find_listener((struct fake_network *)n, event->end->address);
    return to != NULL && (to->frozen || n->cut[event->from] >> to->number & 1);
}

/* Takes void and blocked events off the top of the heap. */
uint64_t fake_network_next_ns(struct fake_network *n) {
    while (n->heap_count > 0) {
        struct event *first = n->heap[0];
        bool gone = is_void(first);
        if (!gone && !is_blocked(n, first))
            return first->due_ns;
        heap_pop(n);
        if (gone)
            event_free(first);
        else
            append(&n->held, &n->held_count, &n->held_capacity, first);
    }
    return UINT64_MAX;
}

static void release_held(struct fake_network *n) {
    struct event **held = n->held;
    size_t count = n->held_count;
    n->held = NULL;
    n->held_count = n->held_capacity = 0;
    for (size_t i = 0; i < count; i++)
        fake_post(n, held[i], n->now_ns);
    free(held);
}

bool fake_network_step(struct fake_network *n) {
    uint64_t due_ns = fake_network_next_ns(n);
    if (due_ns == UINT64_MAX)
        return false;
    struct event *event = heap_pop(n);
    if (due_ns > n->now_ns)
        n->now_ns = due_ns;
    fake_happen(n, event);
    event_free(event);
    return true;
}

uint64_t fake_network_now_ns(const struct fake_network *n) {
    return n->now_ns;
}

void fake_network_advance(struct fake_network *n, uint64_t now_ns) {
    uint64_t next_ns = fake_network_next_ns(n);
    now_ns = now_ns < next_ns ? now_ns : next_ns;
    if (now_ns > n->now_ns)
        n->now_ns = now_ns;
}
/* ---- faults ---- */

void fake_network_cut(struct transport *from, struct transport *to, bool cut) {
    struct fake_network *n = fake_from_base(from)->network;
    uint64_t bit = UINT64_C(1) << fake_from_base(to)->number,
             *bits = &n->cut[fake_from_base(from)->number];
    *bits = cut ? *bits | bit : *bits & ~bit;
    release_held(n);
}

void fake_network_freeze(struct transport *t, bool frozen) {
    fake_from_base(t)->frozen = frozen;
    release_held(fake_from_base(t)->network);
}

void fake_network_set_delay(struct fake_network *n, uint64_t delay_ns_min, uint64_t delay_ns_max) {
    n->delay_ns_min = delay_ns_min;
    n->delay_ns_max = delay_ns_max;
}

/* ---- birth and end ---- */

struct fake_network *fake_network_new(uint64_t seed, uint64_t delay_ns_min, uint64_t delay_ns_max) {
    struct fake_network *n = calloc(1, sizeof *n);
    if (n == NULL)
        return NULL;
    n->random = seed;
    n->delay_ns_min = delay_ns_min;
    n->delay_ns_max = delay_ns_max;
    return n;
}

void fake_network_free(struct fake_network *n) {
    release_held(n);
    while (n->heap_count > 0)
        event_free(heap_pop(n));
    free(n->heap);
    free(n->held);
    free(n);
}
