/* SPDX-License-Identifier: Apache-2.0
 *
 * An etcd that forgets: emptied, restored from an earlier moment, a key gone or written by
 * strangers. Its log of versions is its history, so that going back is cutting it short. Leases
 * come back with the keys that hang on them, with all their time before them, as etcd's do; those
 * granted since are unknown. The server was down meanwhile: watches end, and what was on its way is
 * not answered.
 */
#include <stdlib.h>
#include <string.h>

#include "support/etcd_fake_state.h"

#define LEASE_TTL_S 2 /* of a lease that comes back and has ended meanwhile */

static void cut_log(struct fake_etcd *server, int64_t revision) {
    size_t kept = fake_etcd_first_since(server, revision + 1);
    for (size_t i = 0; i < server->key_count; i++)
        while (server->keys[i].last != FAKE_NONE && server->keys[i].last >= kept)
            server->keys[i].last = server->log[server->keys[i].last].previous;
    for (size_t i = kept; i < server->log_count; i++)
        free(server->log[i].value);
    server->log_count = kept;
    server->revision = revision;
    if (server->compact_revision > revision)
        server->compact_revision = revision;
}

static void bring_back_lease(struct fake_etcd *server, int64_t id) {
    struct lease *lease = fake_etcd_lease_find(server, id);
    if (!lease) {
        lease = fake_etcd_must(calloc(1, sizeof *lease));
        *lease = (struct lease){.id = id, .ttl_s = LEASE_TTL_S};
        LIST_INSERT_HEAD(&server->leases, lease, link);
    }
    lease->expires_ns = server->now_ns + (uint64_t)lease->ttl_s * NS_PER_S;
}

static void restore_leases(struct fake_etcd *server, int64_t revision) {
    struct lease *lease, *next;
    for (lease = LIST_FIRST(&server->leases); lease; lease = next) {
        next = LIST_NEXT(lease, link);
        if (lease->granted_revision <= revision)
            continue;
        LIST_REMOVE(lease, link);
        free(lease);
    }
    for (size_t i = 0; i < server->key_count; i++) {
        const struct version *version = fake_etcd_version(server, &server->keys[i], INT64_MAX);
        if (version && version->lease)
            bring_back_lease(server, version->lease);
    }
}

static void lose_what_is_under_way(struct fake_etcd *server) {
    struct pending *pending, *next;
    for (pending = TAILQ_FIRST(&server->pendings); pending; pending = next) {
        next = TAILQ_NEXT(pending, link);
        pending->arrives_ns = pending->delivers_ns = UINT64_MAX;
        if (!pending->fake)
            fake_etcd_pending_free(server, pending);
    }
    struct etcd_watch *watch;
    LIST_FOREACH (watch, &server->watches, link) {
        watch->broken = true;
        watch->due_ns = server->now_ns + fake_etcd_delay_ns(server);
    }
}

void fake_etcd_restore(struct fake_etcd *server, int64_t revision) {
    if (revision > server->revision)
        return;
    cut_log(server, revision);
    restore_leases(server, revision);
    lose_what_is_under_way(server);
}

void fake_etcd_write(struct fake_etcd *server, const char *key, const char *value) {
    if (!value && !fake_etcd_current(server, key))
        return;
    fake_etcd_append(server, key, value, server->revision + 1, 0);
    server->revision++;
    fake_etcd_tell_watches(server);
}

const char *fake_etcd_any(const struct fake_etcd *server, const char *prefix, unsigned pick) {
    size_t count = fake_etcd_count(server, prefix), at = count ? pick % count : 0;
    for (size_t i = 0; count && i < server->key_count; i++)
        if (!strncmp(server->keys[i].name, prefix, strlen(prefix)) &&
            fake_etcd_version(server, &server->keys[i], INT64_MAX) && !at--)
            return server->keys[i].name;
    return NULL;
}
