/* SPDX-License-Identifier: Apache-2.0
 *
 * Ends kept for homes that cannot be told: a key each, which the home reads when it is back
 * (own.c). Written only when a home is dead, so that a sample's life takes two
 * writes of etcd all the same. The keys hang on a lease of our own that nobody keeps alive: after
 * two days etcd removes them by itself. A new lease is taken when half of the old one has passed.
 *
 * Needs no fencing: that these generations have ended is true for ever, whoever says it, and when
 * it is said twice or late.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "directory/etcd/ended.h"
#include "directory/etcd/state.h"
#include "ops/log.h"

#define ENDS_PER_TXN   64u
#define ENDED_TTL_S    172800ll
#define ENDED_RENEW_NS (ENDED_TTL_S / 2 * 1000ull * NS_PER_MS)

/* No answer is given to those who asked: an end is true for ever, and is written as soon as etcd
 * takes it. The pause grows with each failure. */
static void ended_failed(struct directory_etcd *self, const char *why) {
    log_debug("node %s: ends not written: %s", self->self.node, why ? why : "short answer");
    backoff_fail(&self->ended_backoff, self->now_ns);
}

static void ended_on_lease(void *context, enum etcd_result result, const struct etcd_answer *answer,
                           const char *why) {
    struct directory_etcd *self = context;
    note(self, answer);
    self->ended_asked = false;
    if (result == ETCD_OK && answer->ttl_s > 0)
        self->ended_lease = answer->lease;
    else
        ended_failed(self, why);
}

/* The time is noted before the answer comes: counted from the asking, a lease is taken for older
 * than it is, never for younger. */
static void ended_ask_lease(struct directory_etcd *self) {
    struct etcd_request request = {.kind = ETCD_LEASE_GRANT, .ttl_s = ENDED_TTL_S};
    self->ended_asked = true;
    self->ended_lease_ns = self->now_ns;
    self->etcd->ops->ask(self->etcd, &request, self->options.request_timeout_ms, ended_on_lease,
                         self);
}

/* Not written, or perhaps written: either way the same ends are written again, in the same order,
 * ahead of those that have come since. Writing the same key twice changes nothing. */
static void ended_on_written(void *context, enum etcd_result result,
                             const struct etcd_answer *answer, const char *why) {
    struct directory_etcd *self = context;
    note(self, answer);
    self->ended_asked = false;
    if (result != ETCD_OK) {
        if (result == ETCD_E_REFUSED)
            self->ended_lease = 0; /* most likely it is gone */
        TAILQ_CONCAT(&self->ending, &self->ends, link);
        TAILQ_CONCAT(&self->ends, &self->ending, link);
        ended_failed(self, why);
        return;
    }
    backoff_reset(&self->ended_backoff);
    for (struct query *query; (query = TAILQ_FIRST(&self->ending));) {
        TAILQ_REMOVE(&self->ending, query, link);
        answer_query(self, query, DIRECTORY_OK);
    }
}

/* The value is for people with etcdctl; the key says all that featured reads. etcd refuses a
 * transaction that puts one key twice, so such an end waits for the next one. */
static void ended_write(struct directory_etcd *self) {
    struct etcd_op ops[ENDS_PER_TXN];
    struct etcd_request request = {.kind = ETCD_TXN, .success = ops};
    char value[ETCD_VALUE_BYTES];
    snprintf(value, sizeof value, "{\"by\":\"%s\",\"time\":%" PRIu64 "}", self->self.node,
             unix_ms(self));
    for (struct query *query;
         request.success_count < ENDS_PER_TXN && (query = TAILQ_FIRST(&self->ends));) {
        bool twice = false;
        for (size_t i = 0; i < request.success_count; i++)
            twice |= !strcmp(ops[i].key, query->key);
        if (twice) /* etcd takes no key twice: with the next */
            break;
        TAILQ_REMOVE(&self->ends, query, link);
        TAILQ_INSERT_TAIL(&self->ending, query, link);
        ops[request.success_count++] = (struct etcd_op){
            .kind = ETCD_PUT, .key = query->key, .value = value, .lease = self->ended_lease};
    }
    self->ended_asked = true;
    self->etcd->ops->ask(self->etcd, &request, self->options.request_timeout_ms, ended_on_written,
                         self);
}

static bool ended_are_due(const struct directory_etcd *self) {
    return self->started && !self->ended_asked && !TAILQ_EMPTY(&self->ends);
}

void ended_tick(struct directory_etcd *self) {
    if (!ended_are_due(self) || self->now_ns < self->ended_backoff.next_ns)
        return;
    if (!self->ended_lease || self->now_ns - self->ended_lease_ns > ENDED_RENEW_NS)
        ended_ask_lease(self);
    else
        ended_write(self);
}

uint64_t ended_deadline_ns(const struct directory_etcd *self) {
    return ended_are_due(self) ? self->ended_backoff.next_ns : UINT64_MAX;
}
