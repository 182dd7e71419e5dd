/* SPDX-License-Identifier: Apache-2.0
 *
 * The directory's operations, and the order of its parts within a tick: first our own standing
 * (join), for the others act on it; then the rest; then the answers that are due. What a callback
 * of the owner asks anew is taken up with the next tick.
 *
 * The owner is called from tick() and destroy() alone.
 */
#include "directory/etcd/etcd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "directory/etcd/audit.h"
#include "directory/etcd/ended.h"
#include "directory/etcd/generations.h"
#include "directory/etcd/history.h"
#include "directory/etcd/join.h"
#include "directory/etcd/locate.h"
#include "directory/etcd/members.h"
#include "directory/etcd/own.h"
#include "directory/etcd/state.h"
#include "directory/etcd/trouble.h"
#include "directory/etcd/write.h"
#include "ops/log.h"
#include "proto/container.h"

static struct directory_etcd *directory_from_base(struct directory *d) {
    return container_of(d, struct directory_etcd, base);
}

/* ---- answers ---- */

static bool directory_query_is_spare(const struct directory_etcd *self, const struct query *query) {
    return query >= self->spare_queries && query < self->spare_queries + QUERIES_SPARE;
}

static void directory_query_free(struct directory_etcd *self, struct query *query) {
    if (directory_query_is_spare(self, query))
        TAILQ_INSERT_HEAD(&self->spares, query, link);
    else
        free(query);
}

/* `pending` counts publishes, republishes and retires, the first three kinds of the enum: it is
 * what a stopping broker waits for. The query ends here, after its callback. */
static void directory_deliver(struct directory_etcd *self, struct query *query) {
    struct directory_record view = etcd_sample_view(&query->record);
    const struct directory_record *record = query->has_record ? &view : NULL;
    self->pending -= query->kind <= QUERY_RETIRE;
    if (query->kind == QUERY_PUBLISH)
        query->done.publish(query->context, query->result, record, query->ask_peers);
    else if (query->kind == QUERY_RETIRE || query->kind == QUERY_REPUBLISH ||
             query->kind == QUERY_END)
        query->done.retire(query->context, query->result);
    else if (query->kind == QUERY_MEMBERS)
        query->done.members(query->context, query->result);
    else
        query->done.locate(query->context, query->result, record, false);
    free(query->value);
    directory_query_free(self, query);
}

/* At most `budget` of those that are due now; the rest, and what comes meanwhile, with the next
 * tick. */
static void directory_deliver_due(struct directory_etcd *self, uint32_t budget) {
    struct queries due = TAILQ_HEAD_INITIALIZER(due);
    TAILQ_CONCAT(&due, &self->answers, link);
    for (struct query *query; budget && (query = TAILQ_FIRST(&due)); budget--) {
        TAILQ_REMOVE(&due, query, link);
        directory_deliver(self, query);
    }
    TAILQ_CONCAT(&due, &self->answers, link);
    TAILQ_CONCAT(&self->answers, &due, link);
}

/* ---- operations ---- */

static struct query *directory_query_take_spare(struct directory_etcd *self) {
    struct query *query = TAILQ_FIRST(&self->spares);
    if (query)
        TAILQ_REMOVE(&self->spares, query, link);
    else if (self->spare_used < QUERIES_SPARE)
        query = &self->spare_queries[self->spare_used++];
    else
        return NULL;
    memset(query, 0, sizeof *query);
    return query;
}

/* The interface owes an answer to every question and has no way to refuse one. When there is no
 * memory for a question, it takes one of those that were made with the directory and is answered
 * UNAVAILABLE with the next tick; so a spare one is in use for a turn of the loop at most. NULL: it
 * was refused so; or more than QUERIES_SPARE were in one turn, and such a one is never answered:
 * who has asked waits until his own time is over, which is better than to end the daemon. */
static struct query *directory_query_new(struct directory_etcd *self, enum query_kind kind,
                                         union query_done done, void *context) {
    struct query *query = calloc(1, sizeof *query);
    struct query *spare = query ? NULL : directory_query_take_spare(self);
    if (spare)
        query = spare;
    if (!query || spare)
        log_limited(LOG_LEVEL_ERROR, 0, "node %s: out of memory: a question to etcd is %s",
                    self->self.node, spare ? "refused" : "dropped");
    if (!query)
        return NULL;
    query->kind = kind;
    query->done = done;
    query->context = context;
    query->asked_ns = self->now_ns;
    self->dirty = true;
    if (!spare)
        return query;
    self->no_memory_ns = self->now_ns;
    self->pending += kind <= QUERY_RETIRE;
    answer_query(self, query, DIRECTORY_E_UNAVAILABLE);
    return NULL;
}

static int directory_start(struct directory *d) {
    directory_from_base(d)->started = directory_from_base(d)->dirty = true;
    return 0;
}

static uint64_t directory_next_generation(struct directory *d) {
    return generations_next(directory_from_base(d));
}

/* The value is made now and not when it is sent: its time is when the sample was put, and a retry
 * must write the very same bytes. False: no memory; the query is answered. */
static bool directory_make_record(struct directory_etcd *self, struct query *query,
                                  const struct directory_record *record) {
    char value[ETCD_VALUE_BYTES];
    query->generation = record->generation;
    etcd_sample_key(query->key, self->cluster, record->store, record->sample_id);
    etcd_sample_value(value, record, unix_ms(self));
    query->value = strdup(value);
    if (!query->value) {
        self->no_memory_ns = self->now_ns;
        self->pending++;
        answer_query(self, query, DIRECTORY_E_UNAVAILABLE);
        return false;
    }
    return true;
}

static void directory_write_record(struct directory_etcd *self, struct query *query,
                                   const struct directory_record *record) {
    if (directory_make_record(self, query, record))
        write_add(self, query);
}

static void directory_publish(struct directory *d, const struct directory_record *record,
                              directory_publish_fn done, void *context) {
    struct directory_etcd *self = directory_from_base(d);
    struct query *query =
        directory_query_new(self, QUERY_PUBLISH, (union query_done){.publish = done}, context);
    if (!query)
        return;
    directory_write_record(self, query, record);
}

static void directory_publish_again(struct directory *d, const struct directory_record *record,
                                    int64_t moment, directory_publish_fn done, void *context) {
    struct directory_etcd *self = directory_from_base(d);
    struct query *query =
        directory_query_new(self, QUERY_PUBLISH, (union query_done){.publish = done}, context);
    if (query && directory_make_record(self, query, record))
        write_add_again(self, query, moment);
}

static int64_t directory_moment(const struct directory *d) {
    return container_of(d, const struct directory_etcd, base)->revision;
}

static void directory_republish(struct directory *d, const struct directory_record *record,
                                uint64_t in_place_of, directory_retire_fn done, void *context) {
    struct directory_etcd *self = directory_from_base(d);
    struct query *query =
        directory_query_new(self, QUERY_REPUBLISH, (union query_done){.retire = done}, context);
    if (!query)
        return;
    query->in_place_of = in_place_of;
    struct directory_record again = *record;
    again.again = true;
    directory_write_record(self, query, &again);
}

/* Ages come from the owner's clock as differences, so that only durations are compared and no clock
 * of another node. */
static bool directory_remembers(const struct directory *d, uint64_t age_us) {
    const struct directory_etcd *self = container_of(d, const struct directory_etcd, base);
    return self->now_ns > self->history_changed_ns + age_us * 1000;
}

/* Finds queued and taken operations of any kind, also retires. Ends kept for others (ended.c) are
 * other keys and do not count. */
static bool directory_is_writing(const struct directory *d, const char *store,
                                 const char *sample_id) {
    const struct directory_etcd *self = container_of(d, const struct directory_etcd, base);
    char key[ETCD_KEY_BYTES];
    etcd_sample_key(key, self->cluster, store, sample_id);
    return batch_has_key(&self->batch, key);
}

static void directory_retire(struct directory *d, const struct directory_record *record,
                             directory_retire_fn done, void *context) {
    struct directory_etcd *self = directory_from_base(d);
    struct query *query =
        directory_query_new(self, QUERY_RETIRE, (union query_done){.retire = done}, context);
    if (!query)
        return;
    query->generation = record->generation;
    etcd_sample_key(query->key, self->cluster, record->store, record->sample_id);
    write_add(self, query);
}

/* A generation of 0 stands for "whatever the home held when its last registration ended". That is
 * only written when this node has seen such a registration; without one there is nothing that the
 * home could read, and OK is the true answer. */
static void directory_end(struct directory *d, const struct directory_record *record,
                          directory_retire_fn done, void *context) {
    struct directory_etcd *self = directory_from_base(d);
    struct query *query =
        directory_query_new(self, QUERY_END, (union query_done){.retire = done}, context);
    if (!query)
        return;
    int64_t registration = members_registration(self, record->home, record->incarnation);
    bool is_member = members_has(self, record->home, record->incarnation);
    /* Never a member as far as this node knows; or one again, which can be told. */
    if (!record->generation && (!registration || is_member)) {
        answer_query(self, query, DIRECTORY_OK);
        return;
    }
    etcd_ended_key(query->key, self->cluster, record, registration);
    TAILQ_INSERT_TAIL(&self->ends, query, link);
}

static void directory_locate(struct directory *d, const char *store, const char *sample_id,
                             directory_locate_fn done, void *context) {
    struct directory_etcd *self = directory_from_base(d);
    struct query *query =
        directory_query_new(self, QUERY_LOCATE, (union query_done){.locate = done}, context);
    if (!query)
        return;
    etcd_sample_key(query->key, self->cluster, store, sample_id);
    TAILQ_INSERT_TAIL(&self->locates, query, link);
}

static void directory_members(struct directory *d, directory_members_fn done, void *context) {
    struct directory_etcd *self = directory_from_base(d);
    struct query *query =
        directory_query_new(self, QUERY_MEMBERS, (union query_done){.members = done}, context);
    if (!query)
        return;
    TAILQ_INSERT_TAIL(&self->list_asks, query, link);
    note_nodes_due(self);
}

/* The stricter of two limits. Nothing may be served (0) while this node is fenced, has lost its
 * record without having acted on it yet, or has to compare its samples with a new history;
 * otherwise the limit is when our lease may end. */
static uint64_t directory_serves_until_ns(const struct directory *d) {
    const struct directory_etcd *self = container_of(d, const struct directory_etcd, base);
    if (!self->was_member)
        return UINT64_MAX; /* nothing was published that another could have superseded */
    return self->fenced || self->history_new || *self->lost_why ? 0 : fence_expiry_ns(&self->fence);
}

static uint64_t directory_pending(const struct directory *d) {
    return container_of(d, const struct directory_etcd, base)->pending;
}

static void directory_counts(const struct directory *d, struct directory_counts *out) {
    *out = container_of(d, const struct directory_etcd, base)->etcd->counts;
}

static void directory_compare(struct directory_etcd *self) {
    if (own_tick(self))
        join_compared(self);
}

/* What is due of a part is always asked for beside the part itself: a new part, or a deadline that
 * one did not have before, is a line here and nothing else. A part keeps no list of its times. When
 * it acts next follows from its state, which callbacks change at any moment, so that a time that
 * was noted down would have to be noted anew in each of them.
 *
 * The order matters. join.c comes first: a lost lease fences this node before any other part acts.
 * history.c and own.c come next, since a change of history voids what write.c would send. */
static const struct {
    void (*tick)(struct directory_etcd *self);
    uint64_t (*deadline_ns)(const struct directory_etcd *self); /* UINT64_MAX: not by itself */
} directory_parts[] = {
    {join_tick, join_deadline_ns},
    {history_tick, history_deadline_ns},
    {directory_compare, own_deadline_ns},
    {members_tick, members_deadline_ns},
    {write_tick, write_deadline_ns},
    {locate_tick, locate_deadline_ns},
    {generations_tick, generations_deadline_ns},
    {ended_tick, ended_deadline_ns},
    {audit_tick, audit_deadline_ns},
    {trouble_tick, trouble_deadline_ns},
};
#define PARTS (sizeof directory_parts / sizeof *directory_parts)

/* Answers come last, so that what this tick has decided is delivered with it; their number is
 * limited, so that one tick never keeps the loop from its other work. */
static void directory_tick(struct directory *d, uint64_t now_ns) {
    struct directory_etcd *self = directory_from_base(d);
    self->now_ns = now_ns;
    self->dirty = false;
    for (size_t i = 0; i < PARTS; i++)
        directory_parts[i].tick(self);
    directory_deliver_due(self, ANSWERS_PER_TICK);
    audit_deliver(self);
}

/* `dirty` stands for "a callback has noted something": the parts have not looked at it yet, so
 * their deadlines say nothing. */
static uint64_t directory_next_deadline_ns(const struct directory *d) {
    const struct directory_etcd *self = container_of(d, const struct directory_etcd, base);
    uint64_t next_ns = self->dirty || !TAILQ_EMPTY(&self->answers) ? 0 : UINT64_MAX;
    for (size_t i = 0; i < PARTS && next_ns; i++) {
        uint64_t at_ns = directory_parts[i].deadline_ns(self);
        next_ns = at_ns < next_ns ? at_ns : next_ns;
    }
    return next_ns;
}

/* This incarnation was a member before its broker was killed: it stands as one that has been
 * fenced, until it has compared what it holds with the index. */
static void directory_recall(struct directory_etcd *self) {
    const struct directory_kept *kept = self->options.kept;
    if (!kept)
        return;
    self->highest = kept->generation;
    if (kept->history_is)
        snprintf(self->history, sizeof self->history, "%.31s", kept->history);
    if (!kept->was_member)
        return;
    self->was_member = true;
    self->own_compared = kept->compared;
    snprintf(self->lost_why, sizeof self->lost_why,
             "it was started again with its memory, and compares that with etcd first");
}

/* False: nothing is owed. What has been answered and not delivered is given up, too: who hears OK
 * goes on to peers, which may be gone. */
static bool directory_give_up(struct directory_etcd *self) {
    struct queries *const lists[] = {
        &self->publishes, &self->unsettled,  &self->retires, &self->locates, &self->reading,
        &self->list_asks, &self->list_asked, &self->unprior, &self->ends,    &self->ending};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        TAILQ_CONCAT(&self->answers, lists[i], link);
    batch_init(&self->batch, self->options.batch_max, ETCD_TXN_BYTES_MAX,
               self->options.batch_delay_ns,
               WRITE_FLIGHTS_MAX); /* it names none of them any more */
    struct query *query;
    TAILQ_FOREACH (query, &self->answers, link) {
        query->result = DIRECTORY_E_UNAVAILABLE;
        query->has_record = false;
    }
    bool audits_owed = audit_give_up(self);
    return audits_owed || !TAILQ_EMPTY(&self->answers);
}

static void directory_destroy(struct directory *d) {
    struct directory_etcd *self = directory_from_base(d);
    self->etcd->ops->destroy(self->etcd, self->lease);
    while (directory_give_up(self)) { /* who is answered may ask again */
        directory_deliver_due(self, UINT32_MAX);
        audit_deliver(self);
    }
    members_free(self);
    own_free(self);
    audit_free_spares(self);
    free(self->spare_queries);
    free(self->written);
    free(self);
}

static const struct directory_audit_ops etcd_audit_ops = {
    .list = audit_list,
    .sweep = audit_sweep,
    .remembers = directory_remembers,
    .is_writing = directory_is_writing,
};

static const struct directory_ops etcd_ops = {
    .name = "etcd",
    .index = true,
    .audit = &etcd_audit_ops,
    .start = directory_start,
    .next_generation = directory_next_generation,
    .publish = directory_publish,
    .publish_again = directory_publish_again,
    .moment = directory_moment,
    .republish = directory_republish,
    .retire = directory_retire,
    .end = directory_end,
    .locate = directory_locate,
    .members = directory_members,
    .serves_until_ns = directory_serves_until_ns,
    .pending = directory_pending,
    .trouble = trouble_say,
    .counts = directory_counts,
    .tick = directory_tick,
    .next_deadline_ns = directory_next_deadline_ns,
    .destroy = directory_destroy,
};

void directory_etcd_set_address(struct directory *d, const char *address,
                                const char *data_address) {
    struct directory_etcd *self = directory_from_base(d);
    snprintf(self->self.address, sizeof self->self.address, "%s", address);
    snprintf(self->self.data_address, sizeof self->self.data_address, "%s",
             *data_address ? data_address : address);
    etcd_node_value(self->node_value, &self->self);
}

static void directory_init_lists(struct directory_etcd *self) {
    TAILQ_INIT(&self->members);
    TAILQ_INIT(&self->publishes);
    TAILQ_INIT(&self->retires);
    TAILQ_INIT(&self->unsettled);
    TAILQ_INIT(&self->unprior);
    TAILQ_INIT(&self->flights);
    TAILQ_INIT(&self->locates);
    TAILQ_INIT(&self->reading);
    TAILQ_INIT(&self->list_asks);
    TAILQ_INIT(&self->list_asked);
    TAILQ_INIT(&self->ends);
    TAILQ_INIT(&self->ending);
    TAILQ_INIT(&self->answers);
    TAILQ_INIT(&self->spares);
    TAILQ_INIT(&self->audit_answers);
    TAILQ_INIT(&self->audits_unasked);
}

int directory_etcd_new(const struct directory_etcd_options *options, struct etcd *etcd,
                       const struct directory_events *events, void *owner, struct directory **out) {
    struct directory_etcd *self = calloc(1, sizeof *self);
    struct written *written = calloc(options->written_kept, sizeof *written);
    struct query *spare = calloc(QUERIES_SPARE, sizeof *spare);
    if (!self || !written || !spare || !audit_make_spares(self)) { /* the spares come last */
        etcd->ops->destroy(etcd, 0);
        free(self);
        free(written);
        free(spare);
        return -ENOMEM;
    }
    self->spare_queries = spare;
    self->base.ops = &etcd_ops;
    self->written = written;
    self->options = *options;
    self->events = *events;
    self->owner = owner;
    self->etcd = etcd;
    snprintf(self->cluster, sizeof self->cluster, "%s", options->cluster);
    snprintf(self->self.node, sizeof self->self.node, "%s", options->node);
    self->self.incarnation = options->incarnation;
    self->self.capacity_bytes = options->capacity_bytes;
    etcd_node_key(self->node_key, self->cluster, self->self.node);
    etcd_generation_key(self->generation_key, self->cluster);
    etcd_history_key(self->history_key, self->cluster);
    directory_etcd_set_address(&self->base, "", "");
    batch_init(&self->batch, options->batch_max, ETCD_TXN_BYTES_MAX, options->batch_delay_ns,
               WRITE_FLIGHTS_MAX);
    fence_drop(&self->fence);
    directory_init_lists(self);
    directory_recall(self);
    *out = &self->base;
    return 0;
}
