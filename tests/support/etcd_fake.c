/* SPDX-License-Identifier: Apache-2.0
 *
 * Time, clients and faults of the etcd that is no etcd; how it works inside: etcd_fake_state.h.
 */
#include <stdlib.h>
#include <string.h>

#include "support/etcd_fake_state.h"

#define KEPT        8 /* revisions that a compaction leaves */
#define LATE_NS_MAX (4 * NS_PER_S)

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
        fake_etcd_pending_free(server, pending);
}

static bool step_pending(struct fake_etcd *server, struct pending *pending) {
    uint64_t now_ns = server->now_ns;
    if (pending_next_ns(pending) > now_ns)
        return false;
    if (!pending->arrived && pending->arrives_ns <= now_ns)
        fake_etcd_arrive(server, pending);
    else if (pending->delivers_ns <= now_ns)
        deliver(server, pending, pending->result, "etcd refused it");
    else
        deliver(server, pending,
                pending->arrives_ns == UINT64_MAX && pending->result ? pending->result
                                                                     : ETCD_E_UNKNOWN,
                "no answer in time");
    return true;
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
    for (size_t i = fake_etcd_first_since(server, watch->next_revision); i < server->log_count;
         i++) {
        const struct version *version = &server->log[i];
        if (!fake_etcd_covers(watch->key, watch->range_end, version->key))
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
            fake_etcd_lease_end(server, lease);
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
    bool late = fake_etcd_random(server) % 100 < server->vague_percent / 2;
    pending->arrives_ns = server->now_ns + fake_etcd_delay_ns(server);
    if (late)
        pending->arrives_ns += fake_etcd_random(server) % LATE_NS_MAX;
    if (pending->fake->killed)
        pending->arrives_ns = UINT64_MAX;
    if (!pending->fake->cut)
        return;
    pending->arrives_ns = UINT64_MAX;
    if (fake_etcd_random(server) % 2) {
        pending->result = ETCD_E_UNREACHABLE;
        pending->patience_ns =
            min_of(pending->patience_ns, server->now_ns + fake_etcd_delay_ns(server));
    }
}

static void fake_ask(struct etcd *etcd, const struct etcd_request *request, uint32_t timeout_ms,
                     etcd_done_fn done, void *context) {
    struct fake *fake = (struct fake *)etcd;
    struct fake_etcd *server = fake->server;
    struct pending *pending = fake_etcd_must(calloc(1, sizeof *pending));
    pending->fake = fake;
    fake_etcd_keep_request(pending, request);
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
    struct etcd_watch *watch = fake_etcd_must(calloc(1, sizeof *watch));
    watch->fake = fake;
    watch->key = fake_etcd_must(strdup(key));
    watch->range_end = range_end ? fake_etcd_must(strdup(range_end)) : NULL;
    watch->next_revision = start_revision;
    watch->due_ns = fake->server->now_ns + fake_etcd_delay_ns(fake->server);
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
    if (revoke && !fake->killed && !fake->cut && (lease = fake_etcd_lease_find(server, revoke)))
        fake_etcd_lease_end(server, lease);
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
    struct fake *fake = fake_etcd_must(calloc(1, sizeof *fake));
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
            watch->broken = watch->broken || fake_etcd_random(server) % 2;
        else if (watch->fake == fake)
            watch->due_ns = server->now_ns + fake_etcd_delay_ns(server);
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

struct fake_etcd *fake_etcd_new(uint64_t seed, uint64_t delay_ns_min, uint64_t delay_ns_max) {
    struct fake_etcd *server = fake_etcd_must(calloc(1, sizeof *server));
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
        fake_etcd_pending_free(server, TAILQ_FIRST(&server->pendings));
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
