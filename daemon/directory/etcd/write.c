/* SPDX-License-Identifier: Apache-2.0
 *
 * Publishes and retires, group-committed (batch.h). A transaction compares our own record's
 * mod_revision, the *epoch*, and the history's name (history.c): when the record is
 * gone, or etcd has gone back in time, nothing is written.
 *
 *   ready -> taken, in a transaction -> answered
 *                 | the compare failed, or it never arrived: ready again
 *                 | no answer: `unsettled` (a retire: ready again, for it may be done twice)
 *
 * A transaction that was not answered may still be carried out later, for instance by an etcd
 * member that was frozen when it arrived. Sending it again would then let it overwrite what another
 * node has put in between. So the epoch is *settled* first: our record is written again, in a
 * transaction that compares its create_revision. From then on the old transaction's compare fails,
 * whenever it runs, and reading the samples' records tells what it has done:
 *   - the record names our generation: it is done. What it replaced is read, too, as of the
 * revision before that of the record; where that is compacted it is not known any more: ask_peers.
 *   - there is none, or one not touched since the sending: it is not done, and is sent again. (Had
 *     it been done and the record since removed, this node would have been asked to retire that
 *     generation; its broker knows.)
 *   - another node has written it since: whichever came first, that one stands: UNAVAILABLE, and
 *     ask_peers, for ours may have replaced one that nobody has been told of (a republish:
 *     NOT_FOUND).
 * A failed compare is settled in the same way: it shows whether our record is gone or was only
 * written again.
 *
 * A put of before a restart with memory is in doubt, too (write_add_again()).
 *
 * A write that is in doubt when this node is fenced stays so until the node is back, and is settled
 * under its new record: what is in the index becomes true, whatever it has replaced.
 *
 * A retire deletes a record that still names its generation. In a nested transaction that costs
 * etcd three times what a put does, so that retires would set the pace; those whose record's
 * revision is known compare it in the outer transaction instead, beside the epoch. If one of them
 * fails, all fail, nothing is written, and they go again *carefully*, nested: another node has put
 * that sample.
 *
 * Revision numbers: etcd's are never reused, so a compare with an old epoch never holds again.
 */
#include <stdlib.h>
#include <string.h>

#include "directory/etcd/condition.h"
#include "directory/etcd/history.h"
#include "directory/etcd/state.h"
#include "directory/etcd/trouble.h"
#include "directory/etcd/write.h"
#include "ops/log.h"
#include "proto/container.h"

#define PUT_OVERHEAD_BYTES 64u

struct flight {
    TAILQ_ENTRY(flight) link;
    struct directory_etcd *self;
    int64_t epoch, asked_at; /* asked_at: the index's revision as known then */
    size_t count;
    struct query *queries[BATCH_OPS_MAX];
};

static struct query *write_query_of(struct batch_op *op) {
    return container_of(op, struct query, op);
}

/* ---- in and out ---- */

static struct queries *write_list_of(struct directory_etcd *self, const struct query *query) {
    return query->kind == QUERY_RETIRE ? &self->retires : &self->publishes;
}

void write_add(struct directory_etcd *self, struct query *query) {
    query->op.key = query->key;
    query->op.bytes =
        strlen(query->key) + (query->value ? strlen(query->value) : 0) + PUT_OVERHEAD_BYTES;
    TAILQ_INSERT_TAIL(write_list_of(self, query), query, link);
    self->pending++;
    batch_add(&self->batch, &query->op, self->now_ns);
}

/* A taken query is done with: the next one of its key becomes ready by that. */
static void write_finish(struct directory_etcd *self, struct query *query,
                         enum directory_result result) {
    batch_finish(&self->batch, &query->op);
    TAILQ_REMOVE(write_list_of(self, query), query, link);
    answer_query(self, query, result);
}

/* Publishes that have not been sent: all of them (fenced), or those that have waited long enough.
 * The list is in the order of the asking but for those that came back to its head, so that the walk
 * may end at the first one that is young enough. Retires stay: they must come true some time, and
 * nobody waits for them. */
static void write_answer_unsent(struct directory_etcd *self, enum directory_result result,
                                uint64_t asked_before_ns) {
    struct query *query, *next;
    uint32_t ended = 0;
    self->more_to_end = false;
    for (query = TAILQ_FIRST(&self->publishes); query; query = next) {
        next = TAILQ_NEXT(query, link);
        if (query->asked_ns > asked_before_ns)
            return;
        if (query->op.taken)
            continue;
        if (ended++ == ENDED_PER_TICK) {
            self->more_to_end = true;
            return;
        }
        batch_remove(&self->batch, &query->op);
        TAILQ_REMOVE(&self->publishes, query, link);
        answer_query(self, query, result);
    }
}

/* Puts of a time that is gone, and not under way. */
static void write_answer_void(struct directory_etcd *self) {
    struct query *query, *next;
    if (!self->has_void)
        return;
    self->has_void = false;
    for (query = TAILQ_FIRST(&self->publishes); query; query = next) {
        next = TAILQ_NEXT(query, link);
        self->has_void |= query->is_void && query->op.taken;
        if (!query->is_void || query->op.taken)
            continue;
        batch_remove(&self->batch, &query->op);
        TAILQ_REMOVE(&self->publishes, query, link);
        answer_query(self, query, DIRECTORY_E_UNAVAILABLE);
    }
}

/* What was sent before the fence may have been done, and then undone by another node while this one
 * counted as dead: an answer that comes after the next registration says nothing any more. */
static void write_void_answers(struct directory_etcd *self) {
    struct flight *flight;
    TAILQ_FOREACH (flight, &self->flights, link)
        for (size_t i = 0; i < flight->count; i++)
            flight->queries[i]->fenced_in_flight |= flight->queries[i]->kind != QUERY_RETIRE;
    self->settle_void = self->settle_asked;
}

/* What is unsettled needs a new epoch before it can be read back: see the top of this file. */
static void write_put_aside(struct directory_etcd *self, struct query *query) {
    query->fenced_in_flight = false;
    TAILQ_REMOVE(&self->publishes, query, link);
    TAILQ_INSERT_TAIL(&self->unsettled, query, link);
    self->write = WRITE_EPOCH_DUE;
}

/* Takes up a put that was under way when this broker was killed. Nobody knows whether its
 * transaction reached etcd. A put whose transaction was never answered is in the same doubt, and
 * both are settled in one way: by reading the record. The old transaction cannot take effect later,
 * because it compares the epoch of that time, and this broker has begun a new one. A put that stood
 * behind another put of the same key had not been sent. */
void write_add_again(struct directory_etcd *self, struct query *query, int64_t moment) {
    write_add(self, query);
    query->sent_revision = moment;
    if (batch_take_alone(&self->batch, &query->op))
        write_put_aside(self, query);
}

/* Those whose replaced record was being looked up (`unprior`) are read back again: the answer under
 * way belongs to the epoch before. */
void write_begin_epoch(struct directory_etcd *self, int64_t mod_revision) {
    self->epoch = mod_revision;
    TAILQ_CONCAT(&self->unsettled, &self->unprior, link);
    self->write = TAILQ_EMPTY(&self->unsettled) ? WRITE_OPEN : WRITE_READ_DUE;
    backoff_reset(&self->write_backoff);
}

/* ---- revisions of what we have published ---- */

/* A table without collisions resolved: a later generation takes the place of one that is
 * written_kept numbers older. For that one a retire costs the nested transaction. */
static void write_note_written(struct directory_etcd *self, uint64_t generation, int64_t revision) {
    self->written[generation % self->options.written_kept] = (struct written){generation, revision};
}

/* `publishes` holds republishes as well, which are not voided: they compare what they replace, so
 * that they do no harm in any history. */
void write_void_puts(struct directory_etcd *self) {
    struct query *query;
    self->has_void = true;
    memset(self->written, 0, self->options.written_kept * sizeof *self->written);
    TAILQ_FOREACH (query, &self->publishes, link)
        query->is_void |= query->kind == QUERY_PUBLISH;
    TAILQ_CONCAT(&self->unsettled, &self->unprior, link);
    TAILQ_FOREACH (query, &self->unsettled, link)
        query->is_void |= query->kind == QUERY_PUBLISH;
}

/* 0 = not known. */
static int64_t write_written_at(const struct directory_etcd *self, const struct query *query) {
    const struct written *written = &self->written[query->generation % self->options.written_kept];
    return written->generation == query->generation && !query->careful ? written->revision : 0;
}

/* ---- transactions ---- */

/* After a lost answer a put may find its own record as the older one. That is none that it has
 * replaced. */
static void write_take_older(struct query *query, const struct etcd_answer *answer,
                             const struct etcd_op_answer *op) {
    if (!op->kv_count)
        return;
    const struct etcd_kv *older = &answer->kvs[op->kv_first];
    if (etcd_sample_parse(older->key, older->value, &query->record) < 0)
        log_warning("etcd had %.128s = %.128s, which is no record of featured: overwritten",
                    older->key, older->value);
    else
        query->has_record = query->record.generation != query->generation;
}

/* Backwards, because each one goes to the head of the ready list: so they end up in the order that
 * they had. */
static void write_put_back(struct flight *flight) {
    for (size_t i = flight->count; i-- > 0;) {
        flight->queries[i]->fenced_in_flight = false;
        batch_return(&flight->self->batch, &flight->queries[i]->op);
    }
}

/* The transaction was carried out. An answer that came after a fence, or is of another history, is
 * not believed by itself: its puts are settled like those without an answer. All others are
 * finished, each with what its own operation says. */
static void write_on_committed(struct flight *flight, const struct etcd_answer *answer) {
    for (size_t i = 0; i < flight->count; i++) {
        struct query *query = flight->queries[i];
        if (query->fenced_in_flight || query->is_void) {
            write_put_aside(flight->self, query);
            continue;
        }
        if (query->kind == QUERY_PUBLISH)
            write_take_older(query, answer, &answer->ops[i]);
        query->ask_peers = !query->has_record && history_is_in_doubt(flight->self);
        bool refused = query->kind == QUERY_REPUBLISH && !answer->ops[i].succeeded;
        if (!refused && (query->kind != QUERY_RETIRE || answer->ops[i].deleted))
            history_wrote(flight->self, query->key, answer->revision, query->kind == QUERY_RETIRE);
        if (query->kind != QUERY_RETIRE && !refused)
            write_note_written(flight->self, query->generation, answer->revision);
        write_finish(flight->self, query, refused ? DIRECTORY_E_NOT_FOUND : DIRECTORY_OK);
    }
    backoff_reset(&flight->self->write_backoff);
    trouble_note(flight->self, TROUBLE_WRITE, ETCD_OK, NULL);
}

/* Refused, and so not done: those who put are told at once, with etcd's words. What must come true
 * some time (retires, republishes) goes again. */
static void write_answer_refused(struct flight *flight) {
    struct directory_etcd *self = flight->self;
    strcpy(self->refused_key, flight->queries[0]->key);
    for (size_t i = 0; i < flight->count; i++) {
        struct query *query = flight->queries[i];
        if (query->kind != QUERY_PUBLISH)
            continue;
        batch_remove(&self->batch, &query->op);
        TAILQ_REMOVE(&self->publishes, query, link);
        answer_query(self, query, DIRECTORY_E_UNAVAILABLE);
    }
}

/* Nobody knows whether it was carried out. Retires may be done twice and simply go again; publishes
 * and republishes are put aside, until a new epoch makes sure that the old transaction can come
 * true no more. */
static void write_on_unknown(struct flight *flight) {
    struct directory_etcd *self = flight->self;
    for (size_t i = flight->count; i-- > 0;) {
        struct query *query = flight->queries[i];
        if (query->kind == QUERY_RETIRE) {
            batch_return(&self->batch, &query->op);
            continue;
        }
        write_put_aside(self, query);
    }
    self->write = WRITE_EPOCH_DUE;
}

/* A compare failed, and what was read in place of writing shows that it was not the epoch's. */
static bool write_epoch_held(const struct flight *flight, const struct etcd_answer *answer) {
    const struct etcd_op_answer *own = &answer->ops[0];
    return own->kv_count == 1 && answer->kvs[own->kv_first].mod_revision == flight->epoch;
}

/* A compare failed, so nothing was written; the other branch has read our record and the history's
 * name, which show whose compare it was. If both are as expected it was one of the retires'
 * compares in the outer transaction: all go again, nested this time. */
static void write_on_refused(struct flight *flight, const struct etcd_answer *answer) {
    struct directory_etcd *self = flight->self;
    char history[sizeof self->history];
    strcpy(history, self->history);
    history_found(self, answer, 1);
    bool held = write_epoch_held(flight, answer) && !strcmp(history, self->history);
    for (size_t i = 0; i < flight->count; i++)
        flight->queries[i]->careful |= held;
    write_put_back(flight);
    if (!held)
        self->write = WRITE_EPOCH_DUE;
}

static void write_on_txn(void *context, enum etcd_result result, const struct etcd_answer *answer,
                         const char *why) {
    struct flight *flight = context;
    struct directory_etcd *self = flight->self;
    history_note_current(self, answer, flight->asked_at);
    TAILQ_REMOVE(&self->flights, flight, link);
    batch_land(&self->batch);
    if (result == ETCD_OK && answer->succeeded && answer->op_count == flight->count) {
        write_on_committed(flight, answer);
    } else if (result == ETCD_OK && !answer->succeeded && answer->op_count == 2) {
        write_on_refused(flight, answer);
    } else if (result == ETCD_OK || result == ETCD_E_UNKNOWN) {
        write_on_unknown(flight);
    } else {
        write_put_back(flight);
        trouble_note(self, TROUBLE_WRITE, result, why);
        if (result == ETCD_E_REFUSED)
            write_answer_refused(flight);
        backoff_fail(&self->write_backoff, self->now_ns);
    }
    free(flight);
}

/* The operation, and what it adds to the outer transaction's compares. */
static struct etcd_op write_op_of(const struct directory_etcd *self, const struct query *query,
                                  struct condition *condition, struct etcd_compare *compares,
                                  size_t *compare_count) {
    struct etcd_op op = {.kind = ETCD_PUT, .key = query->key, .value = query->value};
    if (query->kind == QUERY_PUBLISH) {
        op.prev_kv = true;
        return op;
    }
    bool retires = query->kind == QUERY_RETIRE;
    int64_t written = retires ? write_written_at(self, query) : 0;
    if (written) {
        compares[(*compare_count)++] = (struct etcd_compare){
            .key = query->key, .target = ETCD_MOD_REVISION, .revision = written};
        op.kind = ETCD_DELETE;
        return op;
    }
    op.kind = retires ? ETCD_DELETE_IF : ETCD_PUT_IF;
    condition_set(condition, query->key, retires ? query->generation : query->in_place_of);
    op.compares = condition->compares;
    op.compare_count = condition->count;
    return op;
}

static void write_send_flight(struct directory_etcd *self, struct flight *flight) {
    struct etcd_op ops[BATCH_OPS_MAX], look[] = {{.kind = ETCD_RANGE, .key = self->node_key},
                                                 {.kind = ETCD_RANGE, .key = self->history_key}};
    struct condition conditions[BATCH_OPS_MAX];
    struct etcd_compare compares[BATCH_OPS_MAX + 2] = {
        {.key = self->history_key, .target = ETCD_VALUE, .value = self->history},
        {.key = self->node_key, .target = ETCD_MOD_REVISION, .revision = self->epoch}};
    struct etcd_request request = {.kind = ETCD_TXN,
                                   .compares = compares,
                                   .compare_count = 2,
                                   .success = ops,
                                   .success_count = flight->count,
                                   .failure = look,
                                   .failure_count = 2};
    for (size_t i = 0; i < flight->count; i++) {
        flight->queries[i]->sent_revision = self->revision;
        ops[i] =
            write_op_of(self, flight->queries[i], &conditions[i], compares, &request.compare_count);
    }
    flight->epoch = self->epoch;
    flight->asked_at = self->revision;
    TAILQ_INSERT_TAIL(&self->flights, flight, link);
    self->etcd->ops->ask(self->etcd, &request, self->options.request_timeout_ms, write_on_txn,
                         flight);
}

/* Without memory they stay queued, for another tick. */
static void write_send_due(struct directory_etcd *self) {
    struct batch_op *ops[BATCH_OPS_MAX];
    struct flight *flight;
    while ((flight = malloc(sizeof *flight))) {
        *flight = (struct flight){.self = self};
        flight->count = batch_take(&self->batch, self->now_ns, ops);
        if (!flight->count) {
            free(flight);
            return;
        }
        for (size_t i = 0; i < flight->count; i++)
            flight->queries[i] = write_query_of(ops[i]);
        write_send_flight(self, flight);
    }
    log_error("node %s: writes of the index wait: out of memory", self->self.node);
}

/* ---- settling ---- */

/* Decides one query by the record that stands now, in the order of the cases at the top of this
 * file. */
static void write_settle(struct directory_etcd *self, struct query *query,
                         const struct etcd_kv *kv) {
    struct sample_record record;
    bool ours = kv && etcd_sample_parse(kv->key, kv->value, &record) == 0 &&
                record.generation == query->generation;
    TAILQ_REMOVE(&self->unsettled, query, link);
    TAILQ_INSERT_HEAD(&self->publishes, query, link);
    if (!query->is_void && !ours && (!kv || kv->mod_revision <= query->sent_revision)) {
        batch_return(&self->batch, &query->op);
        return;
    }
    if (ours && query->kind == QUERY_PUBLISH && !query->is_void) {
        query->prior_revision = kv->mod_revision - 1;
        TAILQ_REMOVE(&self->publishes, query, link);
        TAILQ_INSERT_TAIL(&self->unprior, query, link);
        return;
    }
    query->ask_peers = true;
    write_finish(self, query,
                 query->is_void                   ? DIRECTORY_E_UNAVAILABLE
                 : ours                           ? DIRECTORY_OK
                 : query->kind == QUERY_REPUBLISH ? DIRECTORY_E_NOT_FOUND
                                                  : DIRECTORY_E_UNAVAILABLE);
}

/* False: this node has been fenced since it was asked, and the answer says nothing of the epoch
 * that is to come. */
static bool write_take_settlement(struct directory_etcd *self) {
    bool void_now = self->settle_void;
    self->settle_asked = self->settle_void = false;
    return !void_now;
}

/* The records of the first so many unsettled queries, in their order. */
static void write_on_read_back(void *context, enum etcd_result result,
                               const struct etcd_answer *answer, const char *why) {
    struct directory_etcd *self = context;
    note(self, answer);
    if (!write_take_settlement(self))
        return;
    if (result != ETCD_OK) {
        log_debug("node %s: records not read back: %s", self->self.node, why);
        backoff_fail(&self->write_backoff, self->now_ns);
        return;
    }
    for (size_t i = 0; i < answer->op_count && !TAILQ_EMPTY(&self->unsettled); i++) {
        const struct etcd_op_answer *op = &answer->ops[i];
        write_settle(self, TAILQ_FIRST(&self->unsettled),
                     op->kv_count ? &answer->kvs[op->kv_first] : NULL);
    }
    if (TAILQ_EMPTY(&self->unsettled) && TAILQ_EMPTY(&self->unprior))
        self->write = WRITE_OPEN;
}

/* What the first of those that are done have replaced, in their order; unknown: that is not to be
 * had any more. */
static void write_answer_prior(struct directory_etcd *self, const struct etcd_answer *answer,
                               size_t count) {
    for (size_t i = 0; i < count && !TAILQ_EMPTY(&self->unprior); i++) {
        struct query *query = TAILQ_FIRST(&self->unprior);
        TAILQ_REMOVE(&self->unprior, query, link);
        TAILQ_INSERT_HEAD(&self->publishes, query, link);
        query->ask_peers = !answer;
        if (answer)
            write_take_older(query, answer, &answer->ops[i]);
        if (answer && !query->has_record)
            query->ask_peers = history_is_in_doubt(self);
        write_finish(self, query, DIRECTORY_OK);
    }
    if (TAILQ_EMPTY(&self->unsettled) && TAILQ_EMPTY(&self->unprior))
        self->write = WRITE_OPEN;
}

static void write_on_prior(void *context, enum etcd_result result, const struct etcd_answer *answer,
                           const char *why) {
    struct directory_etcd *self = context;
    note(self, answer);
    if (!write_take_settlement(self))
        return;
    if (result == ETCD_OK) {
        write_answer_prior(self, answer, answer->op_count);
    } else if (result == ETCD_E_COMPACTED || result == ETCD_E_REFUSED) {
        write_answer_prior(self, NULL, SIZE_MAX);
    } else {
        log_debug("node %s: replaced records not read: %s", self->self.node, why);
        backoff_fail(&self->write_backoff, self->now_ns);
    }
}

static void write_read_prior(struct directory_etcd *self) {
    struct etcd_op ops[READS_PER_TXN];
    struct etcd_request request = {.kind = ETCD_TXN, .success = ops};
    const struct query *query;
    TAILQ_FOREACH (query, &self->unprior, link) {
        if (request.success_count == READS_PER_TXN)
            break;
        ops[request.success_count++] = (struct etcd_op){
            .kind = ETCD_RANGE, .key = query->key, .revision = query->prior_revision};
    }
    self->settle_asked = true;
    self->etcd->ops->ask(self->etcd, &request, self->options.request_timeout_ms, write_on_prior,
                         self);
}

static void write_read_back(struct directory_etcd *self) {
    struct etcd_op ops[READS_PER_TXN];
    struct etcd_request request = {.kind = ETCD_TXN, .success = ops};
    const struct query *query;
    TAILQ_FOREACH (query, &self->unsettled, link) {
        if (request.success_count == READS_PER_TXN)
            break;
        ops[request.success_count++] = (struct etcd_op){.kind = ETCD_RANGE, .key = query->key};
    }
    self->settle_asked = true;
    self->etcd->ops->ask(self->etcd, &request, self->options.request_timeout_ms, write_on_read_back,
                         self);
}

static void write_on_settled(void *context, enum etcd_result result,
                             const struct etcd_answer *answer, const char *why) {
    struct directory_etcd *self = context;
    note(self, answer);
    if (!write_take_settlement(self))
        return;
    if (result != ETCD_OK) {
        log_debug("node %s: epoch not settled: %s", self->self.node, why);
        backoff_fail(&self->write_backoff, self->now_ns);
    } else if (!answer->succeeded) {
        note_lost(self, "etcd no longer has our record");
    } else {
        write_begin_epoch(self, answer->revision);
    }
}

/* Our record is put again with the same value: that alone gives it a new mod_revision, the new
 * epoch. The compare is on its create_revision, which stays as long as it is the same registration.
 */
static void write_ask_settlement(struct directory_etcd *self) {
    struct etcd_compare ours = {
        .key = self->node_key, .target = ETCD_CREATE_REVISION, .revision = self->create_revision};
    struct etcd_op put = {
        .kind = ETCD_PUT, .key = self->node_key, .value = self->node_value, .lease = self->lease};
    struct etcd_request request = {.kind = ETCD_TXN,
                                   .compares = &ours,
                                   .compare_count = 1,
                                   .success = &put,
                                   .success_count = 1};
    self->settle_asked = true;
    self->etcd->ops->ask(self->etcd, &request, self->options.request_timeout_ms, write_on_settled,
                         self);
}

/* ---- the part as a whole ---- */

static uint64_t write_give_up_before_ns(const struct directory_etcd *self) {
    return self->now_ns > self->options.give_up_ns ? self->now_ns - self->options.give_up_ns : 0;
}

/* First the queries that end without etcd. Then one of four things: send what is due, settle the
 * epoch, read back, or read what was replaced; the last three one at a time, and only when no
 * transaction is under way. */
void write_tick(struct directory_etcd *self) {
    if (self->fenced) {
        write_answer_unsent(self, DIRECTORY_E_FENCED, UINT64_MAX);
        write_void_answers(self);
    } else {
        write_answer_unsent(self, DIRECTORY_E_UNAVAILABLE, write_give_up_before_ns(self));
    }
    write_answer_void(self);
    if (!is_member(self) || self->history_due || self->now_ns < self->write_backoff.next_ns)
        return;
    if (self->write == WRITE_OPEN)
        write_send_due(self);
    else if (self->settle_asked || self->batch.flights)
        return;
    else if (self->write == WRITE_EPOCH_DUE)
        write_ask_settlement(self);
    else if (!TAILQ_EMPTY(&self->unsettled))
        write_read_back(self);
    else
        write_read_prior(self);
}

/* The oldest publish has a deadline of its own even when nothing may be sent, for it is answered
 * UNAVAILABLE then. */
uint64_t write_deadline_ns(const struct directory_etcd *self) {
    const struct query *oldest = TAILQ_FIRST(&self->publishes);
    uint64_t expiry_ns =
        oldest && !oldest->op.taken ? oldest->asked_ns + self->options.give_up_ns : UINT64_MAX;
    bool waits = self->write != WRITE_OPEN && (self->settle_asked || self->batch.flights);
    if (self->more_to_end)
        return 0;
    if (!is_member(self) || self->history_due || waits)
        return expiry_ns;
    uint64_t due_ns = self->write == WRITE_OPEN ? batch_deadline_ns(&self->batch) : 0;
    if (due_ns < self->write_backoff.next_ns)
        due_ns = self->write_backoff.next_ns;
    return due_ns < expiry_ns ? due_ns : expiry_ns;
}
