/* SPDX-License-Identifier: Apache-2.0
 *
 * Keys and leases. A key's versions are linked from the last back, through the log of all.
 */
#include "support/etcd_fake_state.h"

#include <stdlib.h>
#include <string.h>

void *fake_etcd_must(void *memory) {
    if (!memory)
        abort();
    return memory;
}

/* splitmix64 (Steele, Lea, Flood 2014) */
uint64_t fake_etcd_random(struct fake_etcd *server) {
    uint64_t z = server->random += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

uint64_t fake_etcd_delay_ns(struct fake_etcd *server) {
    uint64_t span = server->delay_ns_max - server->delay_ns_min;
    return server->delay_ns_min + (span ? fake_etcd_random(server) % span : 0);
}

/* ---- keys ---- */

bool fake_etcd_covers(const char *key, const char *range_end, const char *asked) {
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
        server->keys =
            fake_etcd_must(realloc(server->keys, server->key_room * sizeof *server->keys));
    }
    server->keys[server->key_count] =
        (struct key){.name = fake_etcd_must(strdup(name)), .last = FAKE_NONE};
    return &server->keys[server->key_count++];
}

const struct version *fake_etcd_version(const struct fake_etcd *server, const struct key *key,
                                        int64_t revision) {
    for (size_t at = key ? key->last : FAKE_NONE; at != FAKE_NONE; at = server->log[at].previous)
        if (server->log[at].mod_revision <= revision)
            return server->log[at].value ? &server->log[at] : NULL;
    return NULL;
}

const struct version *fake_etcd_current(const struct fake_etcd *server, const char *key) {
    return fake_etcd_version(server, key_find(server, key), INT64_MAX);
}

void fake_etcd_append(struct fake_etcd *server, const char *name, const char *value,
                      int64_t revision, int64_t lease) {
    struct key *key = key_find(server, name);
    if (!key)
        key = key_add(server, name);
    const struct version *before = fake_etcd_version(server, key, INT64_MAX);
    int64_t created = before ? before->create_revision : revision;
    if (server->log_count == server->log_room) {
        server->log_room = server->log_room ? server->log_room * 2 : 256;
        server->log = fake_etcd_must(realloc(server->log, server->log_room * sizeof *server->log));
    }
    server->log[server->log_count] =
        (struct version){.key = key->name,
                         .previous = key->last,
                         .value = value ? fake_etcd_must(strdup(value)) : NULL,
                         .create_revision = created,
                         .mod_revision = revision,
                         .lease = lease};
    key->last = server->log_count++;
}

void fake_etcd_tell_watches(struct fake_etcd *server) {
    struct etcd_watch *watch;
    LIST_FOREACH (watch, &server->watches, link)
        if (watch->due_ns == UINT64_MAX && watch->next_revision <= server->revision)
            watch->due_ns = server->now_ns + fake_etcd_delay_ns(server);
}

struct lease *fake_etcd_lease_find(const struct fake_etcd *server, int64_t id) {
    struct lease *lease;
    LIST_FOREACH (lease, &server->leases, link)
        if (lease->id == id)
            return lease;
    return NULL;
}

void fake_etcd_lease_end(struct fake_etcd *server, struct lease *lease) {
    int64_t revision = server->revision + 1;
    for (size_t i = 0; i < server->key_count; i++) {
        const struct version *version = fake_etcd_version(server, &server->keys[i], INT64_MAX);
        if (version && version->lease == lease->id) {
            fake_etcd_append(server, server->keys[i].name, NULL, revision, 0);
            server->revision = revision;
        }
    }
    LIST_REMOVE(lease, link);
    free(lease);
    fake_etcd_tell_watches(server);
}

size_t fake_etcd_first_since(const struct fake_etcd *server, int64_t revision) {
    size_t at = server->log_count;
    while (at > 0 && server->log[at - 1].mod_revision >= revision)
        at--;
    return at;
}

int64_t fake_etcd_revision(const struct fake_etcd *server) {
    return server->revision;
}

void fake_etcd_each(const struct fake_etcd *server, int64_t revision, fake_etcd_write_fn fn,
                    void *context) {
    for (size_t i = fake_etcd_first_since(server, revision + 1); i < server->log_count; i++) {
        const struct version *version = &server->log[i];
        struct etcd_kv kv = {version->key, version->value, version->create_revision,
                             version->mod_revision, version->lease};
        fn(context, &kv, fake_etcd_current(server, version->key) == version);
    }
}

size_t fake_etcd_count(const struct fake_etcd *server, const char *prefix) {
    size_t count = 0;
    for (size_t i = 0; i < server->key_count; i++)
        count += !strncmp(server->keys[i].name, prefix, strlen(prefix)) &&
                 fake_etcd_version(server, &server->keys[i], INT64_MAX);
    return count;
}
