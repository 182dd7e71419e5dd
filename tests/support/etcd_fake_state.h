/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside the etcd that is no etcd (etcd_fake.h):
 *
 *   etcd_fake_state.c    keys, their versions, leases
 *   etcd_fake_request.c  what is asked, kept until it arrives, and what it does then
 *   etcd_fake.c          time, clients, faults
 *   etcd_fake_forget.c   the faults that change what it knows
 *
 * A request is SENT until it arrives (and takes effect), then ANSWERED until the answer is
 * delivered, or the client's patience ends first: then it is told ETCD_E_UNKNOWN, and the request
 * goes on alone. Versions of keys stand in one log, oldest first; the state at a revision is each
 * key's last version up to it.
 */
#ifndef FEATURED_TESTS_ETCD_FAKE_STATE_H
#define FEATURED_TESTS_ETCD_FAKE_STATE_H

#include "support/etcd_fake.h"

#include <sys/queue.h>

#define NS_PER_MS 1000000ull
#define NS_PER_S  1000000000ull

#define FAKE_NONE SIZE_MAX

struct version {
    const char *key; /* of `keys` */
    char *value;     /* NULL = deleted */
    size_t previous; /* of the same key; FAKE_NONE */
    int64_t create_revision, mod_revision, lease;
};

struct key {
    char *name;
    size_t last; /* version */
};

struct lease {
    LIST_ENTRY(lease) link;
    int64_t id, ttl_s, granted_revision;
    uint64_t expires_ns;
};

struct block;

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

/* ---- etcd_fake_state.c ---- */

/* Aborts when there is no memory. */
void *fake_etcd_must(void *memory);
uint64_t fake_etcd_random(struct fake_etcd *server);
/* Any that is allowed. */
uint64_t fake_etcd_delay_ns(struct fake_etcd *server);
/* range_end NULL: that key alone. */
bool fake_etcd_covers(const char *key, const char *range_end, const char *asked);
/* What stood at that revision; NULL = nothing. key may be NULL. */
const struct version *fake_etcd_version(const struct fake_etcd *server, const struct key *key,
                                        int64_t revision);
const struct version *fake_etcd_current(const struct fake_etcd *server, const char *key);
/* value NULL: deletes. */
void fake_etcd_append(struct fake_etcd *server, const char *name, const char *value,
                      int64_t revision, int64_t lease);
/* Where the versions from that revision on begin in the log. */
size_t fake_etcd_first_since(const struct fake_etcd *server, int64_t revision);
/* Something was written: watches that wait are due after a while. */
void fake_etcd_tell_watches(struct fake_etcd *server);
struct lease *fake_etcd_lease_find(const struct fake_etcd *server, int64_t id);
/* Its keys go with it. */
void fake_etcd_lease_end(struct fake_etcd *server, struct lease *lease);

/* ---- etcd_fake_request.c ---- */

/* Copies it with all that it points to. */
void fake_etcd_keep_request(struct pending *pending, const struct etcd_request *request);
/* It takes effect; its answer is under way, or lost, and it freed when nobody waits for it. */
void fake_etcd_arrive(struct fake_etcd *server, struct pending *pending);
void fake_etcd_pending_free(struct fake_etcd *server, struct pending *pending);

#endif
