/* SPDX-License-Identifier: Apache-2.0
 *
 * The one mechanism for everything that is to happen at a time. A thing with a deadline embeds a
 * `struct deadline` and says once which function is to be called when the time has come; the owner
 * of the heap calls what is due once or twice in each turn of the loop. Nothing else is needed: no
 * scan that looks for the earliest time, no list that is walked. For example:
 *
 *     struct question {
 *         struct deadline retry;
 *         ...
 *     };
 *     static void question_on_retry(struct deadline *retry, uint64_t now_ns) {
 *         struct question *question = container_of(retry, struct question, retry);
 *         ...
 *     }
 *     deadline_init(&question->retry, question_on_retry);
 *     deadlines_set(&broker->deadlines, &question->retry, now_ns + RETRY_NS);
 *     deadlines_clear(&broker->deadlines, &question->retry); // before the question is freed
 *
 * The links are inside the things, so that setting a deadline allocates nothing and cannot fail.
 * This folder reads no clock: the time is always an argument, which lets the simulator and the
 * tests say what time it is.
 */
#ifndef FEATURED_TIME_DEADLINES_H
#define FEATURED_TIME_DEADLINES_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/container.h"

struct deadline;
/* Called with the deadline cleared: the function may set it again, and may free the thing. */
typedef void (*deadline_fn)(struct deadline *deadline, uint64_t now_ns);

struct deadline {
    deadline_fn due;
    bool queued; /* is in the heap */
    uint64_t at_ns, sequence;
    struct deadline *child, *next, *previous; /* previous: elder sibling, or parent of the first */
};

/* All bytes 0 = empty. */
struct deadlines {
    struct deadline *first; /* the earliest, NULL = none */
    uint64_t sequence;      /* of the last that was set */
    uint64_t now_ns;        /* of the last run: nothing is set for an earlier time */
};

static inline void deadline_init(struct deadline *deadline, deadline_fn due) {
    *deadline = (struct deadline){.due = due};
}

/* Sets it for a new time if it is set already. A time that has passed, such as 0, means the next
 * run. Of those that are due at the same time, the one that was set first comes first. */
void deadlines_set(struct deadlines *deadlines, struct deadline *deadline, uint64_t at_ns);
/* Sets it unless it is set for an earlier time. */
void deadlines_set_earlier(struct deadlines *deadlines, struct deadline *deadline, uint64_t at_ns);
/* The same as deadlines_set(), but UINT64_MAX means never: it is cleared. */
void deadlines_set_or_clear(struct deadlines *deadlines, struct deadline *deadline, uint64_t at_ns);
/* Does nothing if it is not set. */
void deadlines_clear(struct deadlines *deadlines, struct deadline *deadline);

/* Calls what is due at now_ns, the earliest first, and at most `budget` of it, so that the turn of
 * the loop stays short. What is set meanwhile waits for the next run, even when its time has come
 * already: a function that sets its own deadline to `now_ns` is called once in each run and cannot
 * keep this one from ending. Returns how many were called. */
uint32_t deadlines_run(struct deadlines *deadlines, uint64_t now_ns, uint32_t budget);

/* When the next run has something to do; UINT64_MAX = never. */
static inline uint64_t deadlines_next_ns(const struct deadlines *deadlines) {
    return deadlines->first ? deadlines->first->at_ns : UINT64_MAX;
}

#endif
