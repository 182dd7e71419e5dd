/* SPDX-License-Identifier: Apache-2.0
 *
 * A request is SENT until it arrives (and takes effect), then ANSWERED until the answer is
 * delivered, or the client's patience ends first: then it is told ETCD_E_UNKNOWN, and the request
 * goes on alone. Versions of keys stand in one log, oldest first; the state at a revision is each
 * key's last version up to it.
 */
#include "etcd_fake.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#define NS_PER_MS   1000000ull
#define NS_PER_S    1000000000ull
#define KEPT        8 /* revisions that a compaction leaves */
#define LATE_NS_MAX (4 * NS_PER_S)
#define BLOCK_WORDS 256u

#define NONE SIZE_MAX

struct version {
    const char *key; /* of `keys` */
    char *value;     /* NULL = deleted */
    size_t previous; /* of the same key; NONE */
    int64_t create_revision, mod_revision, lease;
};

struct key {
    char *name;
    size_t last; /* version */
};

struct lease {
    LIST_ENTRY(lease) link;
    int64_t id, ttl_s;
    uint64_t expires_ns;
};

struct block { /* of memory that lives as long as its request */
    struct block *next;
    size_t used, room;
    uint64_t words[];
};

struct fake;
struct pending {
    TAILQ_ENTRY(pending) link;
    struct fake *fake; /* NULL: nobody waits for the answer */
    struct etcd_request request;
    struct block *blocks;
    uint64_t arrives_ns, delivers_ns, patience_ns; /* UINT64_MAX = never */
    bool arrived;
    enum etcd_result result;
    struct etcd_answer answer;
    etcd_done_fn done;
    void *context;
};

struct etcd_watch {
    LIST_ENTRY(etcd_watch) link;
    struct fake *fake;
    char *key, *range_end;
    int64_t next_revision;
    uint64_t due_ns;
    bool broken;
    etcd_watch_fn fn;
    void *context;
};

struct fake {
    struct etcd base;
    LIST_ENTRY(fake) link;
    struct fake_etcd *server;
    void (*woken)(void *owner);
    void *owner;
    bool cut, frozen, killed;
};

struct fake_etcd {
    uint64_t random, delay_ns_min, delay_ns_max, now_ns;
    unsigned vague_percent;
    int64_t revision, compact_revision, last_lease;
    struct version *log;
    size_t log_count, log_room;
    struct key *keys;
    size_t key_count, key_room;
    LIST_HEAD(, lease) leases;
    TAILQ_HEAD(, pending) pendings;
    LIST_HEAD(, etcd_watch) watches;
    LIST_HEAD(, fake) fakes;
};

static void *must(void *memory) {
    if (!memory)
        abort();
    return memory;
}

/* splitmix64 (Steele, Lea, Flood 2014) */
static uint64_t random_of(struct fake_etcd *server) {
    uint64_t z = server->random += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static uint64_t delay_ns(struct fake_etcd *server) {
    uint64_t span = server->delay_ns_max - server->delay_ns_min;
    return server->delay_ns_min + (span ? random_of(server) % span : 0);
}

/* ---- keys ---- */

static bool covers(const char *key, const char *range_end, const char *asked) {
    if (!range_end)
        return !strcmp(key, asked);
    return strcmp(asked, key) >= 0 && strcmp(asked, range_end) < 0;
}

static struct key *key_find(const struct fake_etcd *server, const char *name) {
    for (size_t i = 0; i < server->key_count; i++)
        if (!strcmp(server->keys[i].name, name))
            return &server->keys[i];
    return NULL;
}

static struct key *key_add(struct fake_etcd *server, const char *name) {
    if (server->key_count == server->key_room) {
        server->key_room = server->key_room ? server->key_room * 2 : 32;
        server->keys = must(realloc(server->keys, server->key_room * sizeof *server->keys));
    }
    server->keys[server->key_count] = (struct key){.name = must(strdup(name)), .last = NONE};
    return &server->keys[server->key_count++];
}

static const struct version *key_version(const struct fake_etcd *server, const struct key *key,
                                         int64_t revision) {
    for (size_t at = key ? key->last : NONE; at != NONE; at = server->log[at].previous)
        if (server->log[at].mod_revision <= revision)
            return server->log[at].value ? &server->log[at] : NULL;
    return NULL;
}

static const struct version *current(const struct fake_etcd *server, const char *key) {
    return key_version(server, key_find(server, key), INT64_MAX);
}

static void append(struct fake_etcd *server, const char *name, const char *value, int64_t revision,
                   int64_t lease) {
    struct key *key = key_find(server, name);
    if (!key)
        key = key_add(server, name);
    const struct version *before = key_version(server, key, INT64_MAX);
    int64_t created = before ? before->create_revision : revision;
    if (server->log_count == server->log_room) {
        server->log_room = server->log_room ? server->log_room * 2 : 256;
        server->log = must(realloc(server->log, server->log_room * sizeof *server->log));
    }
    server->log[server->log_count] = (struct version){.key = key->name,
                                                      .previous = key->last,
                                                      .value = value ? must(strdup(value)) : NULL,
                                                      .create_revision = created,
                                                      .mod_revision = revision,
                                                      .lease = lease};
    key->last = server->log_count++;
}

static void tell_watches(struct fake_etcd *server) {
    struct etcd_watch *watch;
    LIST_FOREACH (watch, &server->watches, link)
        if (watch->due_ns == UINT64_MAX && watch->next_revision <= server->revision)
            watch->due_ns = server->now_ns + delay_ns(server);
}

static struct lease *lease_find(const struct fake_etcd *server, int64_t id) {
    struct lease *lease;
    LIST_FOREACH (lease, &server->leases, link)
        if (lease->id == id)
            return lease;
    return NULL;
}

static void lease_end(struct fake_etcd *server, struct lease *lease) {
    int64_t revision = server->revision + 1;
    for (size_t i = 0; i < server->key_count; i++) {
        const struct version *version = key_version(server, &server->keys[i], INT64_MAX);
        if (version && version->lease == lease->id) {
            append(server, server->keys[i].name, NULL, revision, 0);
            server->revision = revision;
        }
    }
    LIST_REMOVE(lease, link);
    free(lease);
    tell_watches(server);
}

/* ---- requests, copied ---- */

static struct block *block_new(struct pending *pending, size_t words) {
    size_t room = words > BLOCK_WORDS ? words : BLOCK_WORDS;
    struct block *block = must(malloc(sizeof *block + room * sizeof block->words[0]));
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

static void pending_free(struct fake_etcd *server, struct pending *pending) {
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
    const struct version *version = current(server, compare->key);
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
        if (!covers(op->key, op->range_end, key->name) ||
            (after && strcmp(key->name, after) <= 0) || (best && strcmp(key->name, best->key) >= 0))
            continue;
        const struct version *live = key_version(server, key, revision);
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
    const struct version *before = op->kind == ETCD_RANGE ? NULL : current(server, op->key);
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
        append(server, op->key, op->value, revision, op->lease);
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
        append(server, op->key, NULL, revision, 0);
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
        if (ops[i].kind == ETCD_PUT && ops[i].lease && !lease_find(server, ops[i].lease)) {
            pending->result = ETCD_E_REFUSED;
            return;
        }
    int64_t revision = server->revision + 1;
    for (size_t i = 0; i < answer->op_count; i++)
        run_op(server, pending, &ops[i], &answer->ops[i], revision);
    tell_watches(server);
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
    struct lease *lease = must(calloc(1, sizeof *lease));
    lease->id = ++server->last_lease * 1000 + 7;
    lease->ttl_s = pending->request.ttl_s;
    lease->expires_ns = server->now_ns + (uint64_t)lease->ttl_s * NS_PER_S;
    LIST_INSERT_HEAD(&server->leases, lease, link);
    pending->answer.lease = lease->id;
    pending->answer.ttl_s = lease->ttl_s;
}

static void keep_alive(struct fake_etcd *server, struct pending *pending) {
    struct lease *lease = lease_find(server, pending->request.lease);
    pending->answer.lease = pending->request.lease;
    if (!lease)
        return;
    lease->expires_ns = server->now_ns + (uint64_t)lease->ttl_s * NS_PER_S;
    pending->answer.ttl_s = lease->ttl_s;
}

static void arrive(struct fake_etcd *server, struct pending *pending) {
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
        if ((lease = lease_find(server, pending->request.lease)))
            lease_end(server, lease);
        break;
    case ETCD_AUTHENTICATE:
        pending->answer.token = "token";
        break;
    }
    pending->answer.revision = server->revision;
    bool lost = random_of(server) % 100 < server->vague_percent;
    if (!pending->fake)
        pending_free(server, pending);
    else if (!lost && !pending->fake->cut)
        pending->delivers_ns = server->now_ns + delay_ns(server);
}

/* ---- time ---- */

static bool deaf(const struct fake *fake) {
    return fake->frozen || fake->killed;
}

static uint64_t min_of(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

static uint64_t pending_next_ns(const struct pending *pending) {
    uint64_t next_ns = pending->arrived ? UINT64_MAX : pending->arrives_ns;
    if (pending->fake && !deaf(pending->fake))
        next_ns = min_of(next_ns, min_of(pending->delivers_ns, pending->patience_ns));
    return next_ns;
}

static uint64_t watch_next_ns(const struct etcd_watch *watch) {
    return watch->fake->cut || deaf(watch->fake) ? UINT64_MAX : watch->due_ns;
}

uint64_t fake_etcd_next_ns(const struct fake_etcd *server) {
    uint64_t next_ns = UINT64_MAX;
    const struct pending *pending;
    const struct etcd_watch *watch;
    const struct lease *lease;
    TAILQ_FOREACH (pending, &server->pendings, link)
        next_ns = min_of(next_ns, pending_next_ns(pending));
    LIST_FOREACH (watch, &server->watches, link)
        next_ns = min_of(next_ns, watch_next_ns(watch));
    LIST_FOREACH (lease, &server->leases, link)
        next_ns = min_of(next_ns, lease->expires_ns);
    return next_ns;
}

/* The client is told, or gives up; what is still on its way goes on alone. */
static void deliver(struct fake_etcd *server, struct pending *pending, enum etcd_result result,
                    const char *why) {
    struct fake *fake = pending->fake;
    etcd_done_fn done = pending->done;
    bool over = pending->arrived || pending->arrives_ns == UINT64_MAX;
    fake->woken(fake->owner);
    pending->fake = NULL;
    done(pending->context, result, result == ETCD_OK ? &pending->answer : NULL,
         result == ETCD_OK ? NULL : why);
    if (over)
        pending_free(server, pending);
}

static bool step_pending(struct fake_etcd *server, struct pending *pending) {
    uint64_t now_ns = server->now_ns;
    if (pending_next_ns(pending) > now_ns)
        return false;
    if (!pending->arrived && pending->arrives_ns <= now_ns)
        arrive(server, pending);
    else if (pending->delivers_ns <= now_ns)
        deliver(server, pending, pending->result, "etcd refused it");
    else
        deliver(server, pending,
                pending->arrives_ns == UINT64_MAX && pending->result ? pending->result
                                                                     : ETCD_E_UNKNOWN,
                "no answer in time");
    return true;
}

static size_t first_since(const struct fake_etcd *server, int64_t revision) {
    size_t at = server->log_count;
    while (at > 0 && server->log[at - 1].mod_revision >= revision)
        at--;
    return at;
}

static void step_watch(struct fake_etcd *server, struct etcd_watch *watch) {
    struct etcd_event events[64];
    struct etcd_watch_message message = {.revision = server->revision, .events = events};
    watch->due_ns = UINT64_MAX;
    watch->fake->woken(watch->fake->owner);
    if (watch->broken || watch->next_revision < server->compact_revision) {
        message.ended = true;
        message.compact_revision = watch->broken ? 0 : server->compact_revision;
        LIST_REMOVE(watch, link);
        watch->fn(watch->context, &message);
        free(watch->key);
        free(watch->range_end);
        free(watch);
        return;
    }
    for (size_t i = first_since(server, watch->next_revision); i < server->log_count; i++) {
        const struct version *version = &server->log[i];
        if (!covers(watch->key, watch->range_end, version->key))
            continue;
        if (message.event_count == 64) {
            message.revision = version->mod_revision - 1;
            watch->due_ns = server->now_ns;
            break;
        }
        events[message.event_count++] =
            (struct etcd_event){.deleted = !version->value,
                                .kv = {version->key, version->value, version->create_revision,
                                       version->mod_revision, version->lease}};
    }
    watch->next_revision = message.revision + 1;
    if (message.event_count)
        watch->fn(watch->context, &message);
}

void fake_etcd_set_time(struct fake_etcd *server, uint64_t now_ns) {
    server->now_ns = now_ns > server->now_ns ? now_ns : server->now_ns;
}

void fake_etcd_step(struct fake_etcd *server, uint64_t now_ns) {
    struct pending *pending;
    struct etcd_watch *watch;
    struct lease *lease;
    fake_etcd_set_time(server, now_ns);
    LIST_FOREACH (lease, &server->leases, link)
        if (lease->expires_ns <= now_ns) {
            lease_end(server, lease);
            return;
        }
    TAILQ_FOREACH (pending, &server->pendings, link)
        if (step_pending(server, pending))
            return;
    LIST_FOREACH (watch, &server->watches, link)
        if (watch_next_ns(watch) <= now_ns) {
            step_watch(server, watch);
            return;
        }
}

/* ---- operations ---- */

/* When the request arrives, if ever, and what is known of it otherwise. */
static void choose_fate(struct fake_etcd *server, struct pending *pending) {
    bool late = random_of(server) % 100 < server->vague_percent / 2;
    pending->arrives_ns = server->now_ns + delay_ns(server);
    if (late)
        pending->arrives_ns += random_of(server) % LATE_NS_MAX;
    if (pending->fake->killed)
        pending->arrives_ns = UINT64_MAX;
    if (!pending->fake->cut)
        return;
    pending->arrives_ns = UINT64_MAX;
    if (random_of(server) % 2) {
        pending->result = ETCD_E_UNREACHABLE;
        pending->patience_ns = min_of(pending->patience_ns, server->now_ns + delay_ns(server));
    }
}

static void fake_ask(struct etcd *etcd, const struct etcd_request *request, uint32_t timeout_ms,
                     etcd_done_fn done, void *context) {
    struct fake *fake = (struct fake *)etcd;
    struct fake_etcd *server = fake->server;
    struct pending *pending = must(calloc(1, sizeof *pending));
    pending->fake = fake;
    pending->request = *request;
    pending->request.compares = keep_compares(pending, request->compares, request->compare_count);
    pending->request.success = keep_ops(pending, request->success, request->success_count);
    pending->request.failure = keep_ops(pending, request->failure, request->failure_count);
    keep_op(pending, &pending->request.read);
    pending->delivers_ns = UINT64_MAX;
    pending->patience_ns = server->now_ns + timeout_ms * NS_PER_MS;
    pending->done = done;
    pending->context = context;
    choose_fate(server, pending);
    TAILQ_INSERT_TAIL(&server->pendings, pending, link);
}

static struct etcd_watch *fake_watch(struct etcd *etcd, const char *key, const char *range_end,
                                     int64_t start_revision, etcd_watch_fn fn, void *context) {
    struct fake *fake = (struct fake *)etcd;
    struct etcd_watch *watch = must(calloc(1, sizeof *watch));
    watch->fake = fake;
    watch->key = must(strdup(key));
    watch->range_end = range_end ? must(strdup(range_end)) : NULL;
    watch->next_revision = start_revision;
    watch->due_ns = fake->server->now_ns + delay_ns(fake->server);
    watch->fn = fn;
    watch->context = context;
    LIST_INSERT_HEAD(&fake->server->watches, watch, link);
    return watch;
}

static void fake_unwatch(struct etcd *etcd, struct etcd_watch *watch) {
    (void)etcd;
    LIST_REMOVE(watch, link);
    free(watch->key);
    free(watch->range_end);
    free(watch);
}

static void forget_watches(struct fake *fake) {
    struct etcd_watch *watch, *next;
    for (watch = LIST_FIRST(&fake->server->watches); watch; watch = next) {
        next = LIST_NEXT(watch, link);
        if (watch->fake == fake)
            fake_unwatch(&fake->base, watch);
    }
}

static void fake_destroy(struct etcd *etcd, int64_t revoke) {
    struct fake *fake = (struct fake *)etcd;
    struct fake_etcd *server = fake->server;
    struct pending *pending, *next;
    struct lease *lease;
    for (pending = TAILQ_FIRST(&server->pendings); pending; pending = next) {
        next = TAILQ_NEXT(pending, link);
        if (pending->fake == fake)
            deliver(server, pending, ETCD_E_UNKNOWN, "this node is stopping");
    }
    if (revoke && !fake->killed && !fake->cut && (lease = lease_find(server, revoke)))
        lease_end(server, lease);
    forget_watches(fake);
    LIST_REMOVE(fake, link);
    free(fake);
}

static const struct etcd_ops fake_ops = {
    .ask = fake_ask,
    .watch = fake_watch,
    .unwatch = fake_unwatch,
    .destroy = fake_destroy,
};

struct etcd *etcd_fake_new(struct fake_etcd *server, void (*woken)(void *owner), void *owner) {
    struct fake *fake = must(calloc(1, sizeof *fake));
    fake->base.ops = &fake_ops;
    fake->server = server;
    fake->woken = woken;
    fake->owner = owner;
    LIST_INSERT_HEAD(&server->fakes, fake, link);
    return &fake->base;
}

/* ---- faults ---- */

void etcd_fake_cut(struct etcd *etcd, bool cut) {
    struct fake *fake = (struct fake *)etcd;
    struct fake_etcd *server = fake->server;
    struct pending *pending;
    struct etcd_watch *watch;
    fake->cut = cut;
    TAILQ_FOREACH (pending, &server->pendings, link)
        if (cut && pending->fake == fake)
            pending->delivers_ns = UINT64_MAX;
    LIST_FOREACH (watch, &server->watches, link)
        if (watch->fake == fake && cut)
            watch->broken = watch->broken || random_of(server) % 2;
        else if (watch->fake == fake)
            watch->due_ns = server->now_ns + delay_ns(server);
}

void etcd_fake_freeze(struct etcd *etcd, bool frozen) {
    ((struct fake *)etcd)->frozen = frozen;
}

void etcd_fake_kill(struct etcd *etcd) {
    ((struct fake *)etcd)->killed = true;
}

void fake_etcd_set_vague(struct fake_etcd *server, unsigned percent) {
    server->vague_percent = percent;
}

void fake_etcd_compact(struct fake_etcd *server) {
    if (server->revision > KEPT)
        server->compact_revision = server->revision - KEPT;
}

/* ---- birth and end ---- */

int64_t fake_etcd_revision(const struct fake_etcd *server) {
    return server->revision;
}

void fake_etcd_each(const struct fake_etcd *server, int64_t revision, fake_etcd_write_fn fn,
                    void *context) {
    for (size_t i = first_since(server, revision + 1); i < server->log_count; i++) {
        const struct version *version = &server->log[i];
        struct etcd_kv kv = {version->key, version->value, version->create_revision,
                             version->mod_revision, version->lease};
        fn(context, &kv, current(server, version->key) == version);
    }
}

size_t fake_etcd_count(const struct fake_etcd *server, const char *prefix) {
    size_t count = 0;
    for (size_t i = 0; i < server->key_count; i++)
        count += !strncmp(server->keys[i].name, prefix, strlen(prefix)) &&
                 key_version(server, &server->keys[i], INT64_MAX);
    return count;
}

struct fake_etcd *fake_etcd_new(uint64_t seed, uint64_t delay_ns_min, uint64_t delay_ns_max) {
    struct fake_etcd *server = must(calloc(1, sizeof *server));
    server->random = seed;
    server->delay_ns_min = delay_ns_min;
    server->delay_ns_max = delay_ns_max;
    server->revision = 1;
    LIST_INIT(&server->leases);
    TAILQ_INIT(&server->pendings);
    LIST_INIT(&server->watches);
    LIST_INIT(&server->fakes);
    return server;
}

void fake_etcd_free(struct fake_etcd *server) {
    struct lease *lease;
    while (!TAILQ_EMPTY(&server->pendings))
        pending_free(server, TAILQ_FIRST(&server->pendings));
    while ((lease = LIST_FIRST(&server->leases))) {
        LIST_REMOVE(lease, link);
        free(lease);
    }
    for (size_t i = 0; i < server->log_count; i++)
        free(server->log[i].value);
    for (size_t i = 0; i < server->key_count; i++)
        free(server->keys[i].name);
    free(server->log);
    free(server->keys);
    free(server);
}
