/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests: copied, for they arrive after the call that asked has returned, and carried out.
 */
#include "support/etcd_fake_state.h"

#include <stdlib.h>
#include <string.h>

#define BLOCK_WORDS 256u

struct block { /* of memory that lives as long as its request */
    struct block *next;
    size_t used, room;
    uint64_t words[];
};

/* ---- requests, copied ---- */

static struct block *block_new(struct pending *pending, size_t words) {
    size_t room = words > BLOCK_WORDS ? words : BLOCK_WORDS;
    struct block *block = fake_etcd_must(malloc(sizeof *block + room * sizeof block->words[0]));
    *block = (struct block){.next = pending->blocks, .room = room};
    pending->blocks = block;
    return block;
}

static void *keep(struct pending *pending, const void *data, size_t bytes) {
    size_t words = bytes / 8 + 1;
    struct block *block = pending->blocks;
    if (!block || block->room - block->used < words)
        block = block_new(pending, words);
    void *at = &block->words[block->used];
    block->used += words;
    memset(at, 0, words * 8);
    if (data && bytes)
        memcpy(at, data, bytes);
    return at;
}

static const char *keep_text(struct pending *pending, const char *text) {
    return text ? keep(pending, text, strlen(text) + 1) : NULL;
}

static const struct etcd_compare *keep_compares(struct pending *pending,
                                                const struct etcd_compare *from, size_t count) {
    struct etcd_compare *to = keep(pending, from, count * sizeof *to);
    for (size_t i = 0; i < count; i++) {
        to[i].key = keep_text(pending, to[i].key);
        to[i].value = keep_text(pending, to[i].value);
    }
    return to;
}

static void keep_op(struct pending *pending, struct etcd_op *op) {
    op->key = keep_text(pending, op->key);
    op->range_end = keep_text(pending, op->range_end);
    op->value = keep_text(pending, op->value);
    op->compares = keep_compares(pending, op->compares, op->compare_count);
}

static const struct etcd_op *keep_ops(struct pending *pending, const struct etcd_op *from,
                                      size_t count) {
    struct etcd_op *to = keep(pending, from, count * sizeof *to);
    for (size_t i = 0; i < count; i++)
        keep_op(pending, &to[i]);
    return to;
}

void fake_etcd_keep_request(struct pending *pending, const struct etcd_request *request) {
    pending->request = *request;
    pending->request.compares = keep_compares(pending, request->compares, request->compare_count);
    pending->request.success = keep_ops(pending, request->success, request->success_count);
    pending->request.failure = keep_ops(pending, request->failure, request->failure_count);
    keep_op(pending, &pending->request.read);
}

void fake_etcd_pending_free(struct fake_etcd *server, struct pending *pending) {
    TAILQ_REMOVE(&server->pendings, pending, link);
    while (pending->blocks) {
        struct block *block = pending->blocks;
        pending->blocks = block->next;
        free(block);
    }
    free(pending);
}

/* ---- what requests do ---- */

static bool holds(const struct fake_etcd *server, const struct etcd_compare *compare) {
    const struct version *version = fake_etcd_current(server, compare->key);
    int64_t left = !version                                  ? 0
                   : compare->target == ETCD_CREATE_REVISION ? version->create_revision
                                                             : version->mod_revision;
    int64_t order = left - compare->revision;
    if (compare->target == ETCD_VALUE) {
        if (!version)
            return false;
        order = strcmp(version->value, compare->value);
    }
    return compare->relation == ETCD_EQUAL     ? order == 0
           : compare->relation == ETCD_GREATER ? order > 0
                                               : order < 0;
}

static bool all_hold(const struct fake_etcd *server, const struct etcd_compare *compares,
                     size_t count) {
    for (size_t i = 0; i < count; i++)
        if (!holds(server, &compares[i]))
            return false;
    return true;
}

static void add_kv(struct pending *pending, const struct version *version) {
    struct etcd_answer *answer = &pending->answer;
    struct etcd_kv *kvs = keep(pending, NULL, (answer->kv_count + 1) * sizeof *kvs);
    if (answer->kv_count)
        memcpy(kvs, answer->kvs, answer->kv_count * sizeof *kvs);
    kvs[answer->kv_count++] = (struct etcd_kv){.key = keep_text(pending, version->key),
                                               .value = keep_text(pending, version->value),
                                               .create_revision = version->create_revision,
                                               .mod_revision = version->mod_revision,
                                               .lease = version->lease};
    answer->kvs = kvs;
}

/* The live key behind `after` (NULL = from the beginning) in the range, in order; NULL = none. */
static const struct version *next_in_range(const struct fake_etcd *server, const struct etcd_op *op,
                                           int64_t revision, const char *after) {
    const struct version *best = NULL;
    for (size_t i = 0; i < server->key_count; i++) {
        const struct key *key = &server->keys[i];
        if (!fake_etcd_covers(op->key, op->range_end, key->name) ||
            (after && strcmp(key->name, after) <= 0) || (best && strcmp(key->name, best->key) >= 0))
            continue;
        const struct version *live = fake_etcd_version(server, key, revision);
        best = live ? live : best;
    }
    return best;
}

static void read_range(struct fake_etcd *server, struct pending *pending,
                       const struct etcd_op *op) {
    int64_t revision = op->revision ? op->revision : INT64_MAX, count = 0;
    const struct version *version = NULL;
    while ((version = next_in_range(server, op, revision, version ? version->key : NULL))) {
        if (op->limit && count == op->limit) {
            pending->answer.more = true;
            return;
        }
        add_kv(pending, version);
        count++;
    }
}

static void run_op(struct fake_etcd *server, struct pending *pending, const struct etcd_op *op,
                   struct etcd_op_answer *answer, int64_t revision) {
    const struct version *before =
        op->kind == ETCD_RANGE ? NULL : fake_etcd_current(server, op->key);
    answer->kv_first = pending->answer.kv_count;
    switch (op->kind) {
    case ETCD_PUT_IF:
        answer->succeeded = all_hold(server, op->compares, op->compare_count);
        if (!answer->succeeded)
            break;
        /* fall through */
    case ETCD_PUT:
        if (op->prev_kv && before)
            add_kv(pending, before);
        fake_etcd_append(server, op->key, op->value, revision, op->lease);
        server->revision = revision;
        break;
    case ETCD_RANGE:
        read_range(server, pending, op);
        break;
    case ETCD_DELETE_IF:
        answer->succeeded = all_hold(server, op->compares, op->compare_count);
        if (!answer->succeeded)
            break;
        /* fall through */
    case ETCD_DELETE:
        if (!before)
            break;
        fake_etcd_append(server, op->key, NULL, revision, 0);
        server->revision = revision;
        answer->deleted = 1;
        break;
    }
    answer->kv_count = pending->answer.kv_count - answer->kv_first;
}

static void run_txn(struct fake_etcd *server, struct pending *pending) {
    const struct etcd_request *request = &pending->request;
    struct etcd_answer *answer = &pending->answer;
    answer->succeeded = all_hold(server, request->compares, request->compare_count);
    const struct etcd_op *ops = answer->succeeded ? request->success : request->failure;
    answer->op_count = answer->succeeded ? request->success_count : request->failure_count;
    answer->ops = keep(pending, NULL, answer->op_count * sizeof *answer->ops);
    for (size_t i = 0; i < answer->op_count; i++)
        if (ops[i].kind == ETCD_RANGE && ops[i].revision &&
            ops[i].revision < server->compact_revision) {
            pending->result = ETCD_E_COMPACTED;
            return;
        }
    for (size_t i = 0; i < answer->op_count; i++)
        if (ops[i].kind == ETCD_PUT && ops[i].lease &&
            !fake_etcd_lease_find(server, ops[i].lease)) {
            pending->result = ETCD_E_REFUSED;
            return;
        }
    int64_t revision = server->revision + 1;
    for (size_t i = 0; i < answer->op_count; i++)
        run_op(server, pending, &ops[i], &answer->ops[i], revision);
    fake_etcd_tell_watches(server);
}

static void run_read(struct fake_etcd *server, struct pending *pending) {
    const struct etcd_op *read = &pending->request.read;
    if (read->revision && read->revision < server->compact_revision) {
        pending->result = ETCD_E_COMPACTED;
        return;
    }
    pending->answer.ops = keep(pending, NULL, sizeof *pending->answer.ops);
    pending->answer.op_count = 1;
    run_op(server, pending, read, &pending->answer.ops[0], 0);
}

static void grant(struct fake_etcd *server, struct pending *pending) {
    struct lease *lease = fake_etcd_must(calloc(1, sizeof *lease));
    lease->id = ++server->last_lease * 1000 + 7;
    lease->ttl_s = pending->request.ttl_s;
    lease->granted_revision = server->revision;
    lease->expires_ns = server->now_ns + (uint64_t)lease->ttl_s * NS_PER_S;
    LIST_INSERT_HEAD(&server->leases, lease, link);
    pending->answer.lease = lease->id;
    pending->answer.ttl_s = lease->ttl_s;
}

static void keep_alive(struct fake_etcd *server, struct pending *pending) {
    struct lease *lease = fake_etcd_lease_find(server, pending->request.lease);
    pending->answer.lease = pending->request.lease;
    if (!lease)
        return;
    lease->expires_ns = server->now_ns + (uint64_t)lease->ttl_s * NS_PER_S;
    pending->answer.ttl_s = lease->ttl_s;
}

void fake_etcd_arrive(struct fake_etcd *server, struct pending *pending) {
    struct lease *lease;
    pending->arrived = true;
    switch (pending->request.kind) {
    case ETCD_TXN:
        run_txn(server, pending);
        break;
    case ETCD_READ:
        run_read(server, pending);
        break;
    case ETCD_LEASE_GRANT:
        grant(server, pending);
        break;
    case ETCD_LEASE_KEEP_ALIVE:
        keep_alive(server, pending);
        break;
    case ETCD_LEASE_REVOKE:
        if ((lease = fake_etcd_lease_find(server, pending->request.lease)))
            fake_etcd_lease_end(server, lease);
        break;
    case ETCD_AUTHENTICATE:
        pending->answer.token = "token";
        break;
    }
    pending->answer.revision = server->revision;
    bool lost = fake_etcd_random(server) % 100 < server->vague_percent;
    if (!pending->fake)
        fake_etcd_pending_free(server, pending);
    else if (!lost && !pending->fake->cut)
        pending->delivers_ns = server->now_ns + fake_etcd_delay_ns(server);
}
