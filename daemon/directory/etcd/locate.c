/* SPDX-License-Identifier: Apache-2.0
 *
 * Records read by sample id, up to a hundred in one transaction, always from etcd's majority. The
 * view of the nodes may lag behind a record just read: a home that is not in it is looked up in
 * etcd before the record is called LOST.
 */
#include <stdlib.h>
#include <string.h>

#include "directory/etcd/locate.h"
#include "directory/etcd/members.h"
#include "directory/etcd/state.h"
#include "directory/etcd/trouble.h"
#include "ops/log.h"

struct read_flight {
    struct directory_etcd *self;
    size_t count;
    struct query *queries[READS_PER_TXN];
};

/* The home lives if its record names the very incarnation that has put the sample. After a restart
 * the memory is empty, and the sample is lost. */
static bool locate_is_home(const struct query *query, const struct etcd_kv *kv) {
    struct node_record node;
    return kv && etcd_node_parse(kv->key, kv->value, &node) == 0 &&
           node.incarnation == query->record.incarnation;
}

/* Three steps for each query: is there a record; is its home a member in our view, in which case
 * the answer is OK at once; if not, the home's own record is read from etcd, because a node that
 * has just joined may have put samples before our watch has heard of it. */
static void locate_take(struct directory_etcd *self, struct query *query,
                        const struct etcd_kv *kv) {
    if (query->confirming) {
        answer_query(self, query, locate_is_home(query, kv) ? DIRECTORY_OK : DIRECTORY_E_LOST);
        return;
    }
    if (!kv) { /* who has never been a member does not know yet what an index without it means */
        answer_query(self, query,
                     self->was_member ? DIRECTORY_E_NOT_FOUND : DIRECTORY_E_UNAVAILABLE);
        return;
    }
    if (etcd_sample_parse(kv->key, kv->value, &query->record) < 0) {
        log_warning("node %s: etcd has %.128s = %.128s, which is no record of featured: ignored",
                    self->self.node, kv->key, kv->value);
        answer_query(self, query, DIRECTORY_E_NOT_FOUND);
        return;
    }
    query->has_record = true;
    if (members_has(self, query->record.home, query->record.incarnation)) {
        answer_query(self, query, DIRECTORY_OK);
        return;
    }
    query->confirming = true;
    etcd_node_key(query->key, self->cluster, query->record.home);
    TAILQ_INSERT_HEAD(&self->locates, query, link);
}

/* In the order that they had, before those that have come since; the age of each query counts from
 * when it was asked, so that none is tried for ever. */
static void locate_read_again(struct directory_etcd *self, const struct read_flight *flight,
                              const char *why) {
    for (size_t i = flight->count; i-- > 0;)
        TAILQ_INSERT_HEAD(&self->locates, flight->queries[i], link);
    backoff_fail(&self->read_backoff, self->now_ns);
    log_debug("node %s: records not read: %s", self->self.node, why);
}

/* Either all of a flight's queries are answered or none: a transaction that reads is carried out as
 * a whole. */
static void locate_on_read(void *context, enum etcd_result result, const struct etcd_answer *answer,
                           const char *why) {
    struct read_flight *flight = context;
    struct directory_etcd *self = flight->self;
    note(self, answer);
    trouble_note(self, TROUBLE_READ, result, why);
    self->read_flights--;
    bool good = result == ETCD_OK && answer->op_count == flight->count;
    for (size_t i = 0; i < flight->count; i++)
        TAILQ_REMOVE(&self->reading, flight->queries[i], link);
    for (size_t i = 0; good && i < flight->count; i++) {
        const struct etcd_op_answer *op = &answer->ops[i];
        locate_take(self, flight->queries[i], op->kv_count ? &answer->kvs[op->kv_first] : NULL);
    }
    if (good)
        backoff_reset(&self->read_backoff);
    else
        locate_read_again(self, flight, why ? why : "short answer");
    free(flight);
}

/* Reads need no lease and no epoch: they are also sent while this node is fenced, for a wrong
 * answer cannot come of them. They are not "serializable" reads of etcd's, which a member that is
 * cut off would answer from old data. */
static bool locate_send_reads(struct directory_etcd *self) {
    struct etcd_op ops[READS_PER_TXN];
    struct etcd_request request = {.kind = ETCD_TXN, .success = ops};
    struct read_flight *flight = calloc(1, sizeof *flight);
    if (!flight) {
        backoff_fail(&self->read_backoff, self->now_ns);
        return false;
    }
    flight->self = self;
    for (struct query *query;
         flight->count < READS_PER_TXN && (query = TAILQ_FIRST(&self->locates));) {
        TAILQ_REMOVE(&self->locates, query, link);
        TAILQ_INSERT_TAIL(&self->reading, query, link);
        ops[flight->count] = (struct etcd_op){.kind = ETCD_RANGE, .key = query->key};
        flight->queries[flight->count++] = query;
    }
    request.success_count = flight->count;
    self->read_flights++;
    self->etcd->ops->ask(self->etcd, &request, self->options.request_timeout_ms, locate_on_read,
                         flight);
    return true;
}

/* The oldest stand first: what comes back from a reading is put before those that wait for one. */
static void locate_expire(struct directory_etcd *self) {
    struct query *query;
    for (uint32_t ended = 0; ended < ENDED_PER_TICK; ended++) {
        query = TAILQ_FIRST(&self->locates);
        if (!query || query->asked_ns + self->options.give_up_ns > self->now_ns)
            return;
        TAILQ_REMOVE(&self->locates, query, link);
        query->has_record = false;
        answer_query(self, query, DIRECTORY_E_UNAVAILABLE);
    }
}

/* A few flights at a time: with more, etcd does not answer faster, and each of them holds its
 * answer in memory. */
static bool locate_may_read(const struct directory_etcd *self) {
    return self->started && !TAILQ_EMPTY(&self->locates) && self->read_flights < READ_FLIGHTS_MAX;
}

void locate_tick(struct directory_etcd *self) {
    locate_expire(self);
    while (locate_may_read(self) && self->now_ns >= self->read_backoff.next_ns &&
           locate_send_reads(self))
        ;
}

uint64_t locate_deadline_ns(const struct directory_etcd *self) {
    const struct query *oldest = TAILQ_FIRST(&self->locates);
    if (!oldest)
        return UINT64_MAX;
    uint64_t expiry_ns = oldest->asked_ns + self->options.give_up_ns;
    uint64_t due_ns = locate_may_read(self) ? self->read_backoff.next_ns : UINT64_MAX;
    return due_ns < expiry_ns ? due_ns : expiry_ns;
}
