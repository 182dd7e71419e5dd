/* SPDX-License-Identifier: Apache-2.0
 *
 * Our own record: got, kept, lost, got again.
 *
 *   IDLE -> GRANTING -> READY -> REGISTERING -> MEMBER                 the first time
 *                                            -> COMPARING -> MEMBER     later
 *
 * MEMBER falls back to IDLE when the lease is no longer certain by our own clock (fence.h), when a
 * keep-alive says that it is gone, or when a transaction or the watch shows that the record is.
 * fenced(true) is said then, and fenced(false) with the next MEMBER; before the first MEMBER
 * nothing has been served that could be fenced.
 *
 * A record of the same name with another incarnation is waited out: it may be another broker's, or
 * our own from before a crash, whose last promises hold until its lease ends. One of our own
 * incarnation, from a lease we have given up, is taken over.
 *
 * On the way back our samples' records are read after our node's record was written: what was
 * superseded before that is seen in the list; whoever supersedes later finds us alive and asks.
 */
#include <stdio.h>
#include <string.h>

#include "directory/etcd/condition.h"
#include "directory/etcd/history.h"
#include "directory/etcd/join.h"
#include "directory/etcd/own.h"
#include "directory/etcd/state.h"
#include "directory/etcd/trouble.h"
#include "directory/etcd/write.h"
#include "ops/log.h"

/* ---- losing it ---- */

/* The lease is not revoked, for etcd may be out of reach: it ends by itself, and our record with
 * it. The epoch is forgotten, so that no write is sent before the next registration. */
static void join_give_up_lease(struct directory_etcd *self) {
    fence_drop(&self->fence);
    self->lease = 0;
    self->epoch = 0;
    self->join = JOIN_IDLE;
}

/* The owner is told once for each loss, and only if it was a member before: what has never been
 * served cannot be fenced. The sentence names the lease's time and etcd's last words, for a person
 * who reads the log wants to know whether etcd was away or said no. */
static void join_act_on_loss(struct directory_etcd *self) {
    if (!*self->lost_why && self->fence.ttl_ns && !fence_holds(&self->fence, self->now_ns))
        snprintf(self->lost_why, sizeof self->lost_why,
                 "etcd has acknowledged no keep-alive for %llu ms of the lease's %llu ms%s%s",
                 (unsigned long long)((self->now_ns - self->fence.renewed_ns) / NS_PER_MS),
                 (unsigned long long)(self->fence.ttl_ns / NS_PER_MS),
                 *self->troubles[TROUBLE_LEASE].words ? ": " : "",
                 self->troubles[TROUBLE_LEASE].words);
    if (!*self->lost_why)
        return;
    join_give_up_lease(self);
    if (self->was_member && !self->fenced) {
        self->fenced = true;
        self->events.fenced(self->owner, true, self->lost_why);
    }
    self->lost_why[0] = '\0';
}

/* ---- the lease ---- */

/* An answer that comes too late, after this lease was given up, is dropped: the lease ends unused.
 * Its time counts from when it was asked for (fence.c). */
static void join_on_granted(void *context, enum etcd_result result,
                            const struct etcd_answer *answer, const char *why) {
    struct directory_etcd *self = context;
    note(self, answer);
    trouble_note(self, TROUBLE_LEASE, result, why);
    if (self->join != JOIN_GRANTING)
        return;
    if (result == ETCD_OK && answer->ttl_s > 0) {
        self->lease = answer->lease;
        fence_granted(&self->fence, self->asked_ns, answer->ttl_s);
        self->join = JOIN_READY;
        return;
    }
    log_debug("node %s: no lease from etcd: %s", self->self.node, why);
    self->join = JOIN_IDLE;
    backoff_fail(&self->join_backoff, self->now_ns);
}

static void join_ask_lease(struct directory_etcd *self) {
    struct etcd_request request = {.kind = ETCD_LEASE_GRANT, .ttl_s = self->options.lease_ttl_s};
    self->asked_ns = self->now_ns;
    self->join = JOIN_GRANTING;
    self->etcd->ops->ask(self->etcd, &request, self->options.request_timeout_ms, join_on_granted,
                         self);
}

/* TTL 0 is etcd's way to say that there is no such lease. A failed keep-alive is no loss yet:
 * fence.c knows how long the last one that was acknowledged lasts. */
static void join_on_kept(void *context, enum etcd_result result, const struct etcd_answer *answer,
                         const char *why) {
    struct directory_etcd *self = context;
    note(self, answer);
    trouble_note(self, TROUBLE_LEASE, result, why);
    if (!self->lease)
        return;
    if (result != ETCD_OK) {
        log_debug("node %s: keep-alive: %s", self->self.node, why);
        fence_keep_alive_failed(&self->fence, self->now_ns);
    } else if (answer->lease != self->lease) {
        return; /* given up meanwhile */
    } else if (answer->ttl_s > 0) {
        fence_kept(&self->fence, self->asked_ns, answer->ttl_s);
    } else {
        snprintf(self->lost_why, sizeof self->lost_why, "etcd says that our lease has ended");
    }
}

static void join_keep_alive(struct directory_etcd *self) {
    struct etcd_request request = {.kind = ETCD_LEASE_KEEP_ALIVE, .lease = self->lease};
    self->asked_ns = self->now_ns;
    fence_keep_alive_sent(&self->fence);
    self->etcd->ops->ask(self->etcd, &request, fence_timeout_ms(&self->fence), join_on_kept, self);
}

/* ---- the record ---- */

/* A lease that has ended meanwhile is no refusal: the next one will do. */
static void join_note_record(struct directory_etcd *self, enum etcd_result result,
                             const char *why) {
    bool lease_ended = result == ETCD_E_REFUSED && why && strstr(why, "lease not found");
    if (!lease_ended)
        trouble_note(self, TROUBLE_RECORD, result, why);
}

/* The revision is set and not only raised: if etcd was restored, its revisions are lower now, and
 * every later comparison has to be with these. The first registration has nothing to compare with
 * the index, for this incarnation has not put anything yet. */
static void join_registered(struct directory_etcd *self, int64_t create_revision,
                            int64_t mod_revision) {
    self->create_revision = create_revision;
    self->revision = mod_revision; /* lower than before, if etcd has lost what it knew */
    if (self->taken) {
        self->taken = self->taken_told = false;
        self->taken_over_due = true;
    }
    backoff_reset(&self->join_backoff);
    write_begin_epoch(self, mod_revision);
    note_nodes_due(self);
    if (!self->was_member) {
        self->was_member = true;
        own_note_compared(self, create_revision);
        if (self->options.kept)
            self->options.kept->was_member = true;
        self->join = JOIN_MEMBER;
        return;
    }
    self->join = JOIN_COMPARING;
    own_begin(self);
}

/* fenced(false) comes last: the owner serves as soon as it hears it. */
void join_compared(struct directory_etcd *self) {
    self->join = JOIN_MEMBER;
    if (self->fenced)
        self->events.fenced(self->owner, false, "registered in etcd again");
    self->fenced = false;
}

static void join_retry_later(struct directory_etcd *self) {
    self->join = JOIN_READY;
    backoff_fail(&self->join_backoff, self->now_ns);
}

static void join_on_taken_over(void *context, enum etcd_result result,
                               const struct etcd_answer *answer, const char *why);

/* The new record replaces the old one in one transaction, so that the others see one node all
 * along. The create_revision stays the old one's, for the key was never deleted; it is what the
 * epoch is settled by (write.c). */
static void join_take_over(struct directory_etcd *self, const struct etcd_kv *old) {
    struct etcd_compare unchanged = {
        .key = self->node_key, .target = ETCD_MOD_REVISION, .revision = old->mod_revision};
    struct condition unnamed;
    struct etcd_op ops[3] = {
        {.kind = ETCD_PUT, .key = self->node_key, .value = self->node_value, .lease = self->lease}};
    history_ops(self, &unnamed, &ops[1]);
    struct etcd_request request = {.kind = ETCD_TXN,
                                   .compares = &unchanged,
                                   .compare_count = 1,
                                   .success = ops,
                                   .success_count = 3};
    self->create_revision = old->create_revision;
    self->etcd->ops->ask(self->etcd, &request, self->options.request_timeout_ms, join_on_taken_over,
                         self);
}

/* The owner hears of it once for each incarnation and address, not with each attempt. It may find
 * out by the address whether that node lives; this part only waits until the record ends. */
static void join_name_is_taken(struct directory_etcd *self, const struct node_record *by) {
    bool news = !self->taken || by->incarnation != self->taken_by.incarnation ||
                strcmp(by->address, self->taken_by.address) != 0;
    self->taken = true;
    self->taken_told &= !news;
    self->taken_by = *by;
    join_retry_later(self);
}

static void join_tell_of_name(struct directory_etcd *self) {
    if (!self->events.name_taken)
        return;
    if (self->taken && !self->taken_told)
        self->events.name_taken(self->owner, self->taken_by.address, self->taken_by.incarnation);
    else if (self->taken_over_due)
        self->events.name_taken(self->owner, NULL, 0);
    self->taken_told = self->taken;
    self->taken_over_due = false;
}

/* A record that cannot be parsed is treated as another's, of incarnation 0: it is not ours to
 * overwrite. */
static void join_on_record_found(struct directory_etcd *self, const struct etcd_kv *kv) {
    struct node_record found = {0};
    if (etcd_node_parse(kv->key, kv->value, &found) < 0)
        found = (struct node_record){0};
    if (found.incarnation != self->self.incarnation)
        join_name_is_taken(self, &found);
    else
        join_take_over(self, kv); /* also when it has our lease, from an attempt not answered */
}

/* Three answers: registered; not registered, with the record that stands in the way; or no answer
 * that helps, after which the same is tried again. An answer that was lost may have registered us:
 * the next attempt then finds our own record and takes it over. */
static void join_on_registered(void *context, enum etcd_result result,
                               const struct etcd_answer *answer, const char *why) {
    struct directory_etcd *self = context;
    note(self, answer);
    join_note_record(self, result, why);
    if (self->join != JOIN_REGISTERING)
        return;
    if (result == ETCD_OK && answer->succeeded && answer->op_count == 3) {
        join_registered(self, answer->revision, answer->revision);
        history_found(self, answer, 2);
    } else if (result == ETCD_OK && !answer->succeeded && answer->kv_count) {
        join_on_record_found(self, &answer->kvs[0]);
    } else {
        log_debug("node %s: not registered in etcd: %s", self->self.node, why ? why : "no record");
        join_retry_later(self);
    }
    if (result == ETCD_E_REFUSED)
        join_give_up_lease(self); /* most likely it is gone */
}

static void join_on_taken_over(void *context, enum etcd_result result,
                               const struct etcd_answer *answer, const char *why) {
    struct directory_etcd *self = context;
    note(self, answer);
    join_note_record(self, result, why);
    if (self->join != JOIN_REGISTERING)
        return;
    if (result == ETCD_OK && answer->succeeded && answer->op_count == 3) {
        join_registered(self, self->create_revision, answer->revision);
        history_found(self, answer, 2);
    } else {
        log_debug("node %s: record not taken over: %s", self->self.node, why ? why : "it changed");
        join_retry_later(self);
    }
    if (result == ETCD_E_REFUSED)
        join_give_up_lease(self);
}

/* The compare says "no record under our name"; the other branch reads the one that there is. The
 * history is named in the same transaction, so that a registered node always knows a name to
 * compare. */
static void join_ask_registration(struct directory_etcd *self) {
    struct etcd_compare absent = {
        .key = self->node_key, .target = ETCD_CREATE_REVISION, .revision = 0};
    struct condition unnamed;
    struct etcd_op ops[3] = {
        {.kind = ETCD_PUT, .key = self->node_key, .value = self->node_value, .lease = self->lease}};
    history_ops(self, &unnamed, &ops[1]);
    struct etcd_op look = {.kind = ETCD_RANGE, .key = self->node_key};
    struct etcd_request request = {.kind = ETCD_TXN,
                                   .compares = &absent,
                                   .compare_count = 1,
                                   .success = ops,
                                   .success_count = 3,
                                   .failure = &look,
                                   .failure_count = 1};
    self->join = JOIN_REGISTERING;
    self->etcd->ops->ask(self->etcd, &request, self->options.request_timeout_ms, join_on_registered,
                         self);
}

/* ---- the part as a whole ---- */

/* A loss is acted on before anything is asked for, so that a keep-alive is not sent for a lease
 * that was given up. */
void join_tick(struct directory_etcd *self) {
    join_act_on_loss(self);
    join_tell_of_name(self);
    if (!self->started)
        return;
    if (fence_keep_alive_due(&self->fence, self->now_ns))
        join_keep_alive(self);
    if (self->now_ns < self->join_backoff.next_ns)
        return;
    if (self->join == JOIN_IDLE)
        join_ask_lease(self);
    else if (self->join == JOIN_READY)
        join_ask_registration(self);
}

uint64_t join_deadline_ns(const struct directory_etcd *self) {
    if (!self->started)
        return UINT64_MAX;
    uint64_t next_ns = fence_expiry_ns(&self->fence);
    if (self->fence.ttl_ns && self->fence.next_ns < next_ns)
        next_ns = self->fence.next_ns;
    bool waits = self->join == JOIN_IDLE || self->join == JOIN_READY;
    if (waits && self->join_backoff.next_ns < next_ns)
        next_ns = self->join_backoff.next_ns;
    return next_ns;
}
