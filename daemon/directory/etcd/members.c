/* SPDX-License-Identifier: Apache-2.0
 *
 * The other nodes: read once, then watched from the revision of that reading on. The view is what
 * etcd has said last (`now`); tick() tells the owner how it differs from what it was told last
 * (`announced`). A record created anew is a node that was away, even with the same incarnation.
 *
 * When a watch ends, the nodes are read again before it is begun where it ended: etcd may have been
 * restored from a backup, and would wait in silence for revisions that it had reached before. A
 * watch may also fall silent without ending (its etcd member is frozen or cut off): every
 * four lease TTLs the nodes are read beside it, and a difference begins the watch anew.
 */
#include <stdlib.h>
#include <string.h>

#include "directory/etcd/history.h"
#include "directory/etcd/members.h"
#include "directory/etcd/state.h"
#include "directory/etcd/trouble.h"
#include "ops/log.h"

/* ---- the view ---- */

/* A list is enough: there are as many members as nodes, some hundred at most, and they change when
 * nodes come and go. */
static struct member *members_find(const struct directory_etcd *self, const char *node) {
    struct member *member;
    TAILQ_FOREACH (member, &self->members, link)
        if (strcmp(member->now.node, node) == 0)
            return member;
    return NULL;
}

static struct member *members_find_or_add(struct directory_etcd *self, const char *node) {
    struct member *member = members_find(self, node);
    if (member || !(member = calloc(1, sizeof *member)))
        return member;
    strcpy(member->now.node, node);
    TAILQ_INSERT_TAIL(&self->members, member, link);
    return member;
}

bool members_has(const struct directory_etcd *self, const char *node, uint64_t incarnation) {
    const struct member *member = members_find(self, node);
    return member && member->now.incarnation == incarnation;
}

/* Known also of a node that has gone: entries stay in the list with incarnation 0 and keep what was
 * last known. */
int64_t members_registration(const struct directory_etcd *self, const char *node,
                             uint64_t incarnation) {
    const struct member *member = members_find(self, node);
    return member && member->last_incarnation == incarnation ? member->create_revision : 0;
}

void members_free(struct directory_etcd *self) {
    for (struct member *member; (member = TAILQ_FIRST(&self->members));) {
        TAILQ_REMOVE(&self->members, member, link);
        free(member);
    }
}

/* A new create_revision with the same incarnation and the same address is still a difference: the
 * record was gone in between, so that others may have taken the node for dead, and the owner must
 * hear "down" and then "up". */
static bool members_is_announced(const struct member *member) {
    return member->now.incarnation == member->announced.incarnation &&
           (!member->now.incarnation ||
            (member->create_revision == member->announced_revision &&
             strcmp(member->now.address, member->announced.address) == 0 &&
             strcmp(member->now.data_address, member->announced.data_address) == 0));
}

static void members_take_record(struct directory_etcd *self, const struct etcd_kv *kv) {
    struct node_record record;
    if (etcd_node_parse(kv->key, kv->value, &record) < 0) {
        log_warning("node %s: etcd has %.128s = %.128s, which is no record of featured: ignored",
                    self->self.node, kv->key, kv->value);
        return;
    }
    struct member *member = members_find_or_add(self, record.node);
    if (!member) {
        log_error("node %s: out of memory: node %s stays unknown", self->self.node, record.node);
        return;
    }
    member->now = record;
    member->create_revision = kv->create_revision;
    member->last_incarnation = record.incarnation;
    member->seen = true;
}

/* "down" always comes before "up" for a node that has changed. Our own record is kept in the list,
 * where its loss is noticed, but is never announced. */
static void members_announce(struct directory_etcd *self, struct member *member) {
    struct node_record before = member->announced;
    bool left = before.incarnation && (before.incarnation != member->now.incarnation ||
                                       member->announced_revision != member->create_revision);
    member->announced = member->now;
    member->announced_revision = member->create_revision;
    if (strcmp(member->now.node, self->self.node) == 0)
        return;
    if (left)
        self->events.node_down(self->owner, before.node, before.incarnation);
    if (member->now.incarnation && *member->now.address)
        self->events.node_up(self->owner, member->now.node, member->now.address,
                             member->now.data_address, member->now.incarnation);
}

/* What is missing in an index that has lost records is not dead yet. */
static bool members_lives_on(const struct directory_etcd *self) {
    return self->now_ns < self->history_lived_ns;
}

static void members_announce_all(struct directory_etcd *self) {
    struct member *member;
    TAILQ_FOREACH (member, &self->members, link) {
        if (!member->now.incarnation && members_lives_on(self))
            continue;
        if (!members_is_announced(member))
            members_announce(self, member);
    }
}

/* ---- reading ---- */

/* A reading that is older than our registration naturally does not show us. Only one that is newer
 * proves that our record is gone. */
static void members_check_self(struct directory_etcd *self, int64_t revision) {
    if (revision > self->create_revision &&
        !members_has(self, self->self.node, self->self.incarnation))
        note_lost(self, "etcd no longer has our record");
}

static void members_unwatch(struct directory_etcd *self) {
    if (self->watch)
        self->etcd->ops->unwatch(self->etcd, self->watch);
    self->watch = NULL;
}

/* A list replaces the view as a whole: who is not in it has gone. A difference that the watch
 * should have told means that the watch has fallen silent, so that it is begun anew after the
 * list's revision. */
static void members_take_list(struct directory_etcd *self, const struct etcd_answer *answer) {
    struct member *member;
    bool changed = false;
    TAILQ_FOREACH (member, &self->members, link)
        member->seen = false;
    for (size_t i = 0; i < answer->ops[0].kv_count; i++)
        members_take_record(self, &answer->kvs[answer->ops[0].kv_first + i]);
    TAILQ_FOREACH (member, &self->members, link) {
        if (!member->seen)
            member->now.incarnation = 0;
        changed |= !members_is_announced(member);
    }
    members_check_self(self, answer->revision);
    if (changed || !self->watch || self->watch_from > answer->revision + 1) {
        members_unwatch(self);
        self->watch_from = answer->revision + 1;
    }
}

/* With the tick to come, which announces what was read first. */
static void members_answer_asked(struct directory_etcd *self) {
    for (struct query *query; (query = TAILQ_FIRST(&self->list_asked));) {
        TAILQ_REMOVE(&self->list_asked, query, link);
        answer_query(self, query, DIRECTORY_OK);
    }
}

/* What is asked for while a reading is under way waits for the next one: the answer must show the
 * members as they were at the time of the question or later. */
static void members_on_list(void *context, enum etcd_result result,
                            const struct etcd_answer *answer, const char *why) {
    struct directory_etcd *self = context;
    self->listing = false;
    history_note_current(self, answer, self->list_asked_at);
    trouble_note(self, TROUBLE_MEMBERS, result, why);
    if (result != ETCD_OK || answer->op_count != 3) {
        log_debug("node %s: nodes not read from etcd: %s", self->self.node,
                  why ? why : "short answer");
        backoff_fail(&self->members_backoff, self->now_ns);
        TAILQ_CONCAT(&self->list_asks, &self->list_asked, link);
        return;
    }
    self->list_due = !TAILQ_EMPTY(&self->list_asks);
    self->relist_ns = self->now_ns + RELIST_TTLS * self->options.lease_ttl_s * 1000 * NS_PER_MS;
    backoff_reset(&self->members_backoff);
    members_take_list(self, answer);
    history_found(self, answer, 1);
    history_last_found(self, answer, 2);
    members_answer_asked(self);
}

/* Three readings in one transaction, and so of one moment: the nodes, the name of the history, and
 * our own last write (history.c). */
static void members_ask_list(struct directory_etcd *self) {
    char begin[ETCD_KEY_BYTES], end[ETCD_KEY_BYTES];
    etcd_range_of(begin, end, self->cluster, "nodes");
    struct etcd_op ops[] = {{.kind = ETCD_RANGE, .key = begin, .range_end = end},
                            {.kind = ETCD_RANGE, .key = self->history_key},
                            history_last_op(self)};
    struct etcd_request request = {.kind = ETCD_TXN, .success = ops, .success_count = 3};
    self->listing = true;
    self->list_asked_at = self->revision;
    TAILQ_CONCAT(&self->list_asked, &self->list_asks, link);
    self->etcd->ops->ask(self->etcd, &request, self->options.request_timeout_ms, members_on_list,
                         self);
}

/* ---- watching ---- */

/* A deletion has the key only; the node's name is its last part. */
static void members_take_event(struct directory_etcd *self, const struct etcd_event *event) {
    const char *node = strrchr(event->kv.key, '/');
    if (!event->deleted) {
        members_take_record(self, &event->kv);
        return;
    }
    struct member *member = node ? members_find(self, node + 1) : NULL;
    if (!member)
        return;
    member->now.incarnation = 0;
    if (strcmp(member->now.node, self->self.node) == 0)
        members_check_self(self, event->kv.mod_revision);
}

/* watch_from moves on with each event, so that a watch that breaks is begun behind what was seen.
 * The ended watch is freed by the client. */
static void members_on_watch(void *context, const struct etcd_watch_message *message) {
    struct directory_etcd *self = context;
    self->dirty = true;
    for (size_t i = 0; i < message->event_count; i++) {
        const struct etcd_event *event = &message->events[i];
        members_take_event(self, event);
        if (event->kv.mod_revision >= self->watch_from)
            self->watch_from = event->kv.mod_revision + 1;
    }
    if (!message->ended) {
        backoff_reset(&self->members_backoff);
        return;
    }
    self->watch = NULL;
    self->list_due = true;
    backoff_fail(&self->members_backoff, self->now_ns);
}

static void members_begin_watch(struct directory_etcd *self) {
    char begin[ETCD_KEY_BYTES], end[ETCD_KEY_BYTES];
    etcd_range_of(begin, end, self->cluster, "nodes");
    self->watch =
        self->etcd->ops->watch(self->etcd, begin, end, self->watch_from, members_on_watch, self);
    if (!self->watch)
        backoff_fail(&self->members_backoff, self->now_ns);
}

/* ---- the part as a whole ---- */

/* The view is told first: queries for the members are answered by the same tick, later on, and
 * their answer promises that node_up() was called for each of them. */
void members_tick(struct directory_etcd *self) {
    if (!self->started || !self->was_member)
        return;
    members_announce_all(self);
    if (self->now_ns < self->members_backoff.next_ns)
        return;
    if (!self->listing && (self->list_due || self->now_ns >= self->relist_ns))
        members_ask_list(self);
    if (!self->watch && !self->listing && !self->list_due)
        members_begin_watch(self);
}

uint64_t members_deadline_ns(const struct directory_etcd *self) {
    if (!self->started || !self->was_member || self->listing)
        return UINT64_MAX;
    if (self->list_due || !self->watch)
        return self->members_backoff.next_ns;
    if (members_lives_on(self) && self->history_lived_ns < self->relist_ns)
        return self->history_lived_ns;
    return self->relist_ns > self->members_backoff.next_ns ? self->relist_ns
                                                           : self->members_backoff.next_ns;
}
