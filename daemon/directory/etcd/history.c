/* SPDX-License-Identifier: Apache-2.0
 *
 * Is this still the etcd that we knew? One key, `history`, names it at random. It is written by the
 * first who finds none, so that an etcd that was emptied, or got another cluster's data, has
 * another name; and it is written anew by the first who sees that the revisions have gone back, for
 * an etcd that was restored from a backup has its old name and soon reaches its old revisions
 * again: so each time that a watch has broken the last write of ours is read, too. Every write
 * compares the name, so that all learn of it before they write anything else.
 *
 * What was written in the old history may be missing now, so that "there was no older record"
 * proves nothing:
 *   - Puts that were on their way are refused.
 *   - A node that has no record may have had one, and serve until its lease would have ended: it is
 *     not called dead before.
 *   - Every node holds back until it has compared what it holds with the index. One that cannot
 *     reach etcd has been fenced; any other has read the history's name within the time between two
 *     readings of the nodes. For as long a put that has found no older record asks every node.
 */
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "directory/etcd/condition.h"
#include "directory/etcd/generations.h"
#include "directory/etcd/history.h"
#include "directory/etcd/own.h"
#include "directory/etcd/state.h"
#include "directory/etcd/write.h"
#include "ops/log.h"

/* splitmix64 (Steele, Lea, Flood 2014), of what no other naming shares */
static void history_draw(struct directory_etcd *self) {
    uint64_t z = self->self.incarnation + self->now_ns +
                 UINT64_C(0x9e3779b97f4a7c15) * ++self->history_drawn;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    snprintf(self->history_next, sizeof self->history_next, "%016" PRIx64, z ^ z >> 31);
}

/* From here on every write compares this name. What is due after a change of history is begun by
 * whoever calls this. */
static void history_adopt(struct directory_etcd *self, const char *value) {
    struct directory_kept *kept = self->options.kept;
    snprintf(self->history, sizeof self->history, "%s", value);
    self->history_due = false;
    if (!kept)
        return;
    kept->history_is = 0; /* half a name must not be taken for one */
    atomic_signal_fence(memory_order_seq_cst);
    strcpy(kept->history, self->history);
    atomic_signal_fence(memory_order_seq_cst);
    kept->history_is = 1;
}

/* ---- our last write ---- */

/* Only one write is remembered, the one with the highest revision. If etcd goes back at all, the
 * writes that it loses are the last ones, so that this one is always among them. */
void history_wrote(struct directory_etcd *self, const char *key, int64_t revision, bool deleted) {
    if (revision < self->last.revision)
        return;
    snprintf(self->last.key, sizeof self->last.key, "%s", key);
    self->last.revision = revision;
    self->last.deleted = deleted;
}

/* The write is copied, because ours may go on before the answer comes. With no write yet the node's
 * own record is read instead: the transaction then always has the same number of operations. */
struct etcd_op history_last_op(struct directory_etcd *self) {
    self->last_asked = self->last;
    return (struct etcd_op){.kind = ETCD_RANGE,
                            .key = self->last.revision ? self->last_asked.key : self->node_key};
}

/* An older version in place of our last write proves that etcd has gone back. An absent record
 * proves nothing by itself, since another node may have removed it; what the index says of us is
 * read then, which finds out. */
void history_last_found(struct directory_etcd *self, const struct etcd_answer *answer, size_t op) {
    const struct etcd_op_answer *read = &answer->ops[op];
    const struct etcd_kv *kv = read->kv_count ? &answer->kvs[read->kv_first] : NULL;
    const struct last_write *last = &self->last_asked;
    if (!last->revision || last->revision != self->last.revision)
        return; /* none, or there was a later one meanwhile */
    if (kv && kv->mod_revision < last->revision)
        history_went_back(self, last->revision, kv->mod_revision);
    else if (!kv && !last->deleted) /* gone back, or others have ended it */
        own_begin(self);
}

bool history_is_in_doubt(const struct directory_etcd *self) {
    return self->now_ns < self->history_whole_ns;
}

/* Everything that was true of the old history is given up at once: puts under way, the block of
 * generations, the view of the nodes. The two times say how long the doubts last: a node whose
 * record is missing may live on for one TTL, and after five all nodes have either read the new name
 * or been fenced. */
static void history_has_changed(struct directory_etcd *self, const char *why) {
    self->history_new = true;
    self->history_changed_ns = self->now_ns;
    self->last.revision = 0;
    uint64_t ttl_ns = self->options.lease_ttl_s * 1000ull * NS_PER_MS;
    self->history_lived_ns = self->now_ns + ttl_ns;
    self->history_whole_ns = self->now_ns + (RELIST_TTLS + 1) * ttl_ns;
    log_warning("node %s: %s: what it has lost is published again", self->self.node, why);
    write_void_puts(self);
    generations_renew(self);
    note_nodes_due(self);
    own_begin(self);
}

void history_ops(struct directory_etcd *self, struct condition *absent, struct etcd_op ops[2]) {
    history_draw(self);
    condition_set(absent, self->history_key, 0);
    ops[0] = (struct etcd_op){.kind = ETCD_PUT_IF,
                              .key = self->history_key,
                              .value = self->history_next,
                              .compares = absent->compares,
                              .compare_count = absent->count};
    ops[1] = (struct etcd_op){.kind = ETCD_RANGE, .key = self->history_key};
}

/* Three cases differ from what is known: a first name after the start (adopted, nothing has
 * changed), another name, and none at all where there was one. In the last case our own record is
 * gone with the rest, so that this node registers again, and whoever is first gives the new name.
 */
void history_found(struct directory_etcd *self, const struct etcd_answer *answer, size_t op) {
    const struct etcd_op_answer *read = &answer->ops[op];
    const char *value = read->kv_count ? answer->kvs[read->kv_first].value : "";
    if (!strcmp(value, self->history))
        return;
    bool known = *self->history;
    if (*value) {
        history_adopt(self, value);
        if (known)
            history_has_changed(self, "etcd was emptied, or restored from a backup");
    } else if (known) {
        note_lost(self, "etcd was emptied"); /* named again by who registers first */
    }
}

/* The old name is still there, with older data. It has to be replaced before anything is written:
 * the other nodes would see nothing unusual as soon as the revisions have caught up. If etcd is
 * older than our own record, that record is gone, too. */
void history_went_back(struct directory_etcd *self, int64_t from, int64_t to) {
    char why[128];
    snprintf(why, sizeof why, "etcd has gone back from revision %" PRId64 " to %" PRId64, from, to);
    self->revision = to < self->revision ? to : self->revision;
    self->history_due = true;
    history_has_changed(self, why);
    if (to < self->create_revision)
        note_lost(self, "etcd is older than our record");
}

void history_note_current(struct directory_etcd *self, const struct etcd_answer *answer,
                          int64_t asked_at) {
    if (answer && answer->revision && answer->revision < asked_at)
        history_went_back(self, asked_at, answer->revision);
    note(self, answer);
}

/* ---- naming it anew ---- */

/* The compare has failed when another node was faster, or when this is another etcd; reading the
 * name tells which of the two, and either way it is not our turn to write it. */
static void history_on_named(void *context, enum etcd_result result,
                             const struct etcd_answer *answer, const char *why) {
    struct directory_etcd *self = context;
    note(self, answer);
    self->history_asked = false;
    if (result != ETCD_OK) {
        log_debug("node %s: etcd's history not named: %s", self->self.node, why);
        backoff_fail(&self->history_backoff, self->now_ns);
    } else if (answer->succeeded) {
        history_adopt(self, self->history_next);
    } else { /* another was faster, or it is another etcd altogether */
        self->history_due = false;
        history_found(self, answer, 0);
    }
}

static void history_name(struct directory_etcd *self) {
    struct etcd_compare known = {
        .key = self->history_key, .target = ETCD_VALUE, .value = self->history};
    history_draw(self);
    struct etcd_op put = {.kind = ETCD_PUT, .key = self->history_key, .value = self->history_next};
    struct etcd_op look = {.kind = ETCD_RANGE, .key = self->history_key};
    struct etcd_request request = {.kind = ETCD_TXN,
                                   .compares = &known,
                                   .compare_count = 1,
                                   .success = &put,
                                   .success_count = 1,
                                   .failure = &look,
                                   .failure_count = 1};
    self->history_asked = true;
    self->etcd->ops->ask(self->etcd, &request, self->options.request_timeout_ms, history_on_named,
                         self);
}

static bool history_is_due(const struct directory_etcd *self) {
    return self->history_due && !self->history_asked;
}

void history_tick(struct directory_etcd *self) {
    if (history_is_due(self) && self->now_ns >= self->history_backoff.next_ns)
        history_name(self);
}

uint64_t history_deadline_ns(const struct directory_etcd *self) {
    return history_is_due(self) ? self->history_backoff.next_ns : UINT64_MAX;
}
