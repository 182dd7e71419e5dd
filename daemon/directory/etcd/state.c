/* SPDX-License-Identifier: Apache-2.0
 *
 * What several parts of the directory need. None of these functions acts: they change the state,
 * and the part whose matter it is acts with the next tick. So a callback of etcd's may call them at
 * any time, and the parts need not call each other.
 */
#include "directory/etcd/state.h"

#include <stdio.h>

/* A lone failure, such as a leader election, is over soon; an etcd that is away for hours is asked
 * once a second by each part of each node, which does not hurt it when it comes back. */
#define BACKOFF_MIN_NS (50 * NS_PER_MS)
#define BACKOFF_MAX_NS (1000 * NS_PER_MS)

void backoff_fail(struct backoff *backoff, uint64_t now_ns) {
    backoff->pause_ns = backoff->pause_ns ? 2 * backoff->pause_ns : BACKOFF_MIN_NS;
    if (backoff->pause_ns > BACKOFF_MAX_NS)
        backoff->pause_ns = BACKOFF_MAX_NS;
    backoff->next_ns = now_ns + backoff->pause_ns;
}

void backoff_reset(struct backoff *backoff) {
    *backoff = (struct backoff){0};
}

uint64_t unix_ms(const struct directory_etcd *self) {
    return (self->now_ns + (uint64_t)self->options.unix_offset_ns) / NS_PER_MS;
}

void note(struct directory_etcd *self, const struct etcd_answer *answer) {
    self->dirty = true;
    if (answer && answer->revision > self->revision)
        self->revision = answer->revision;
}

void answer_query(struct directory_etcd *self, struct query *query, enum directory_result result) {
    query->result = result;
    TAILQ_INSERT_TAIL(&self->answers, query, link);
}

void note_lost(struct directory_etcd *self, const char *why) {
    if (self->join >= JOIN_REGISTERING && !*self->lost_why)
        snprintf(self->lost_why, sizeof self->lost_why, "%s", why);
    self->dirty = true;
}

void note_nodes_due(struct directory_etcd *self) {
    self->list_due = true;
}

bool is_member(const struct directory_etcd *self) {
    return self->join == JOIN_MEMBER;
}
