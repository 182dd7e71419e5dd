/* SPDX-License-Identifier: Apache-2.0
 *
 * Questions about the index as a whole: pages of it, and the removal of records whose home is dead.
 * Asked of etcd once, with the next tick; what fails is answered UNAVAILABLE, for the caller to
 * repeat.
 *
 * A sweep takes two steps: the homes' own records are read, then each sample's record is deleted if
 * it names the same generation and its home's record is still what was read: absent, or of another
 * incarnation. So a home that registers again in between keeps its records, and one that registers
 * afterwards does not find them (and retires what they named). Guarded like that the deletion needs
 * no fencing of ours, and may be done twice.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "directory/etcd/audit.h"
#include "directory/etcd/condition.h"
#include "directory/etcd/members.h"
#include "directory/etcd/state.h"
#include "ops/log.h"
#include "proto/container.h"

/* Of those who look after the index there are few at a time: index_sweep.c, and admins. */
#define AUDITS_SPARE 16u

struct swept {
    struct sample_record record;
    char key[ETCD_KEY_BYTES], home_key[ETCD_KEY_BYTES];
    int64_t home_revision; /* mod_revision of its home's record; 0 = absent */
    bool alive;
};

struct audit {
    TAILQ_ENTRY(audit) link;
    struct directory_etcd *self;
    void *context;
    bool spare; /* to be used again */
    enum directory_result result;
    /* a list */
    directory_list_fn list_done;
    char begin[ETCD_KEY_BYTES], end[ETCD_KEY_BYTES], next[ETCD_KEY_BYTES];
    struct sample_record *records; /* DIRECTORY_PAGE_RECORDS of them */
    size_t count, unreadable;
    /* a sweep */
    directory_sweep_fn sweep_done;
    struct swept *swept;
    size_t swept_count, removed;
};

bool audit_make_spares(struct directory_etcd *self) {
    TAILQ_INIT(&self->spare_audits);
    for (unsigned i = 0; i < AUDITS_SPARE; i++) {
        struct audit *audit = calloc(1, sizeof *audit);
        if (!audit) {
            audit_free_spares(self);
            return false;
        }
        TAILQ_INSERT_HEAD(&self->spare_audits, audit, link);
    }
    return true;
}

void audit_free_spares(struct directory_etcd *self) {
    struct audit *audit;
    while ((audit = TAILQ_FIRST(&self->spare_audits))) {
        TAILQ_REMOVE(&self->spare_audits, audit, link);
        free(audit);
    }
}

static void audit_free(struct audit *audit) {
    free(audit->records);
    free(audit->swept);
    if (audit->spare)
        TAILQ_INSERT_HEAD(&audit->self->spare_audits, audit, link);
    else
        free(audit);
}

/* With no memory for it the question takes a spare one, and `refused` is set: it is to be answered
 * UNAVAILABLE. NULL: none is left, and the question is never answered. See directory_query_new().
 */
static struct audit *audit_new(struct directory *d, void *context, bool *refused) {
    struct directory_etcd *self = container_of(d, struct directory_etcd, base);
    struct audit *audit = calloc(1, sizeof *audit);
    *refused = !audit;
    if (!audit) {
        audit = TAILQ_FIRST(&self->spare_audits);
        log_limited(LOG_LEVEL_ERROR, 0, "node %s: out of memory: a question to etcd is %s",
                    self->self.node, audit ? "refused" : "dropped");
        if (!audit)
            return NULL;
        TAILQ_REMOVE(&self->spare_audits, audit, link);
        *audit = (struct audit){.spare = true};
    }
    audit->self = self;
    audit->context = context;
    if (!*refused)
        TAILQ_INSERT_TAIL(&self->audits_unasked, audit, link);
    return audit;
}

/* The answer is only queued: the owner is called from a tick, never from inside the call that asked
 * and never from a callback of etcd's. */
static void audit_answer(struct audit *audit, enum directory_result result) {
    audit->result = result;
    TAILQ_INSERT_TAIL(&audit->self->audit_answers, audit, link);
}

/* A page or a sweep is not tried again here. Whoever asked (a person with featurectl index check,
 * or the sweep that runs each quarter of an hour) repeats the question, and knows better than this
 * file when that is worth it. */
static void audit_fail(struct audit *audit, const char *why) {
    log_debug("node %s: the index was not looked through: %s", audit->self->self.node,
              why ? why : "short answer");
    audit_answer(audit, DIRECTORY_E_UNAVAILABLE);
}

/* ---- pages ---- */

void audit_list(struct directory *d, const char *store, const char *after, directory_list_fn done,
                void *context) {
    const struct directory_etcd *self = container_of(d, const struct directory_etcd, base);
    bool refused;
    struct audit *audit = audit_new(d, context, &refused);
    if (!audit)
        return;
    audit->list_done = done;
    if (refused) {
        audit_answer(audit, DIRECTORY_E_UNAVAILABLE);
        return;
    }
    etcd_range_of(audit->begin, audit->end, self->cluster, "samples");
    if (store)
        etcd_store_range_of(audit->begin, audit->end, self->cluster, store);
    if (strcmp(after, audit->begin) > 0 && strcmp(after, audit->end) < 0)
        snprintf(audit->begin, sizeof audit->begin, "%s", after);
}

/* What cannot be read as a record is counted and left alone: it may have been written by a later
 * version of featured, or by hand. The count reaches the person who runs the check. */
static void audit_take_page(struct audit *audit, const struct etcd_answer *page) {
    for (size_t i = 0; i < page->kv_count && audit->count < DIRECTORY_PAGE_RECORDS; i++) {
        const struct etcd_kv *kv = &page->kvs[i];
        if (etcd_sample_parse(kv->key, kv->value, &audit->records[audit->count]) == 0) {
            audit->count++;
            continue;
        }
        audit->unreadable++;
        log_warning("node %s: etcd has %.128s = %.128s, which is no record of featured: ignored",
                    audit->self->self.node, kv->key, kv->value);
    }
    if (page->more && page->kv_count) /* the smallest key after the last */
        snprintf(audit->next, sizeof audit->next, "%s\x01", page->kvs[page->kv_count - 1].key);
}

static void audit_on_page(void *context, enum etcd_result result, const struct etcd_answer *page,
                          const char *why) {
    struct audit *audit = context;
    note(audit->self, page);
    if (result == ETCD_OK)
        audit->records = calloc(DIRECTORY_PAGE_RECORDS, sizeof *audit->records);
    if (!audit->records) {
        audit_fail(audit, result == ETCD_OK ? "out of memory" : why);
        return;
    }
    audit_take_page(audit, page);
    audit_answer(audit, DIRECTORY_OK);
}

/* A page is read at the revision of the moment, not at that of the first page. A long look through
 * a large index would otherwise fail with each compaction of etcd, and the caller judges each
 * record by itself in any case. */
static void audit_ask_page(struct audit *audit) {
    struct directory_etcd *self = audit->self;
    struct etcd_request request = {.kind = ETCD_READ,
                                   .read = {.kind = ETCD_RANGE,
                                            .key = audit->begin,
                                            .range_end = audit->end,
                                            .limit = DIRECTORY_PAGE_RECORDS}};
    self->etcd->ops->ask(self->etcd, &request, self->options.request_timeout_ms, audit_on_page,
                         audit);
}

/* Whether a home is a member is decided here, at the last moment, and not when the page was read:
 * the view of the nodes may have changed since. */
static void audit_deliver_page(const struct audit *audit) {
    struct directory_listed listed[DIRECTORY_PAGE_RECORDS];
    for (size_t i = 0; i < audit->count; i++) {
        const struct sample_record *record = &audit->records[i];
        listed[i] = (struct directory_listed){
            .record = etcd_sample_view(record),
            .unix_ms = record->unix_ms,
            .home_is_member = members_has(audit->self, record->home, record->incarnation),
        };
    }
    audit->list_done(audit->context, audit->result, listed, audit->count, audit->unreadable,
                     audit->next);
}

/* ---- sweeps ---- */

void audit_sweep(struct directory *d, const struct directory_record *records, size_t count,
                 directory_sweep_fn done, void *context) {
    const struct directory_etcd *self = container_of(d, const struct directory_etcd, base);
    bool refused;
    struct audit *audit = audit_new(d, context, &refused);
    if (!audit)
        return;
    audit->sweep_done = done;
    if (refused) {
        audit_answer(audit, DIRECTORY_E_UNAVAILABLE);
        return;
    }
    audit->swept = calloc(count + 1, sizeof *audit->swept);
    for (size_t i = 0; audit->swept && i < count && i < DIRECTORY_PAGE_RECORDS; i++) {
        struct swept *swept = &audit->swept[audit->swept_count++];
        swept->record.generation = records[i].generation;
        swept->record.incarnation = records[i].incarnation;
        etcd_sample_key(swept->key, self->cluster, records[i].store, records[i].sample_id);
        etcd_node_key(swept->home_key, self->cluster, records[i].home);
    }
}

/* `succeeded` of an operation says that its guards held, that is: that this record was there, was
 * the expected one, and is removed now. Records that somebody else has removed or replaced in
 * between are not counted. */
static void audit_on_swept(void *context, enum etcd_result result, const struct etcd_answer *done,
                           const char *why) {
    struct audit *audit = context;
    note(audit->self, done);
    if (result != ETCD_OK) {
        audit_fail(audit, why);
        return;
    }
    for (size_t i = 0; i < done->op_count; i++)
        audit->removed += done->ops[i].succeeded;
    audit_answer(audit, DIRECTORY_OK);
}

/* Three compares guard each deletion: two say that the record still names the generation, and the
 * third that the home's own record is unchanged since it was read. mod_revision 0 stands for
 * "absent", so that one compare covers both cases. The deletions are nested transactions: one whose
 * guard fails does not keep the others from being carried out. */
static void audit_ask_deletion(struct audit *audit) {
    struct directory_etcd *self = audit->self;
    struct etcd_op ops[DIRECTORY_PAGE_RECORDS];
    struct condition guards[DIRECTORY_PAGE_RECORDS];
    struct etcd_request request = {.kind = ETCD_TXN, .success = ops};
    for (size_t i = 0; i < audit->swept_count; i++) {
        const struct swept *swept = &audit->swept[i];
        struct condition *guard = &guards[request.success_count];
        if (swept->alive)
            continue;
        condition_set(guard, swept->key, swept->record.generation);
        guard->compares[guard->count++] = (struct etcd_compare){
            .key = swept->home_key, .target = ETCD_MOD_REVISION, .revision = swept->home_revision};
        ops[request.success_count++] = (struct etcd_op){.kind = ETCD_DELETE_IF,
                                                        .key = swept->key,
                                                        .compares = guard->compares,
                                                        .compare_count = guard->count};
    }
    if (request.success_count)
        self->etcd->ops->ask(self->etcd, &request, self->options.request_timeout_ms, audit_on_swept,
                             audit);
    else
        audit_answer(audit, DIRECTORY_OK);
}

/* A home counts as alive only under the incarnation that the sample's record names. The same node
 * after a restart is another incarnation, whose memory holds nothing of the samples of the one
 * before. */
static void audit_take_home(struct swept *swept, const struct etcd_kv *kv) {
    struct node_record home;
    swept->home_revision = kv->mod_revision;
    swept->alive = etcd_node_parse(kv->key, kv->value, &home) == 0 &&
                   home.incarnation == swept->record.incarnation;
}

static void audit_on_homes(void *context, enum etcd_result result, const struct etcd_answer *homes,
                           const char *why) {
    struct audit *audit = context;
    note(audit->self, homes);
    if (result != ETCD_OK || homes->op_count != audit->swept_count) {
        audit_fail(audit, why);
        return;
    }
    for (size_t i = 0; i < homes->op_count; i++)
        if (homes->ops[i].kv_count)
            audit_take_home(&audit->swept[i], &homes->kvs[homes->ops[i].kv_first]);
    audit_ask_deletion(audit);
}

/* The homes are read in one transaction, in the order of the samples, so that answer number i
 * belongs to sample number i. A home that several samples share is read several times, which is
 * cheap and keeps that order. */
static void audit_ask_homes(struct audit *audit) {
    struct directory_etcd *self = audit->self;
    struct etcd_op ops[DIRECTORY_PAGE_RECORDS];
    struct etcd_request request = {
        .kind = ETCD_TXN, .success = ops, .success_count = audit->swept_count};
    for (size_t i = 0; i < audit->swept_count; i++)
        ops[i] = (struct etcd_op){.kind = ETCD_RANGE, .key = audit->swept[i].home_key};
    if (audit->swept_count)
        self->etcd->ops->ask(self->etcd, &request, self->options.request_timeout_ms, audit_on_homes,
                             audit);
    else
        audit_answer(audit, audit->swept ? DIRECTORY_OK : DIRECTORY_E_UNAVAILABLE);
}

/* ---- the part as a whole ---- */

/* Questions wait for a tick, so that asking from a callback of the owner never reaches etcd from
 * inside another answer. */
void audit_tick(struct directory_etcd *self) {
    for (struct audit *audit; (audit = TAILQ_FIRST(&self->audits_unasked));) {
        TAILQ_REMOVE(&self->audits_unasked, audit, link);
        if (audit->list_done)
            audit_ask_page(audit);
        else
            audit_ask_homes(audit);
    }
}

/* The list is taken as it is now: a callback may ask again, and what comes of that is for the next
 * tick. */
void audit_deliver(struct directory_etcd *self) {
    struct audits due = TAILQ_HEAD_INITIALIZER(due);
    TAILQ_CONCAT(&due, &self->audit_answers, link);
    for (struct audit *audit; (audit = TAILQ_FIRST(&due));) {
        TAILQ_REMOVE(&due, audit, link);
        if (audit->list_done)
            audit_deliver_page(audit);
        else
            audit->sweep_done(audit->context, audit->result, audit->removed);
        audit_free(audit);
    }
}

/* Audits that etcd has not answered are not in one of the two lists. The client answers them
 * (ETCD_E_UNKNOWN) while it is destroyed, which is done before this is called, so that by now all
 * are here. */
bool audit_give_up(struct directory_etcd *self) {
    struct audit *audit;
    TAILQ_CONCAT(&self->audit_answers, &self->audits_unasked, link);
    TAILQ_FOREACH (audit, &self->audit_answers, link)
        audit->result = DIRECTORY_E_UNAVAILABLE;
    return !TAILQ_EMPTY(&self->audit_answers);
}

uint64_t audit_deadline_ns(const struct directory_etcd *self) {
    bool due = !TAILQ_EMPTY(&self->audits_unasked) || !TAILQ_EMPTY(&self->audit_answers);
    return due ? 0 : UINT64_MAX;
}
