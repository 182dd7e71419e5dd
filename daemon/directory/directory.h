/* SPDX-License-Identifier: Apache-2.0
 *
 * What the cluster knows beyond this node: who the nodes are, who has which sample, and which
 * generation numbers are ours to give. Answers come by callback, never from inside the call that
 * asked; a callback runs exactly once. No socket, libcurl or libuv type appears here.
 */
#ifndef FEATURED_DIRECTORY_DIRECTORY_H
#define FEATURED_DIRECTORY_DIRECTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct directory;

enum directory_result {
    DIRECTORY_OK = 0,
    DIRECTORY_E_NOT_FOUND,
    DIRECTORY_E_FENCED,      /* our own record is gone: we may not publish */
    DIRECTORY_E_UNAVAILABLE, /* cannot be reached; retrying may help */
    DIRECTORY_E_LOST,        /* the record's home incarnation is dead */
};

/* One sample's record. Strings need not outlive the call they are passed to. */
struct directory_record {
    const char *store, *sample_id, *home;
    uint64_t generation, incarnation, bytes;
};

struct directory_events {
    /* A node may be reached at this address from now on; incarnation 0 = not known. */
    void (*node_up)(void *owner, const char *node, const char *address, uint64_t incarnation);
    /* A node has left or its incarnation is dead. */
    void (*node_down)(void *owner, const char *node, uint64_t incarnation);
    /* We are fenced (true) or may serve again (false); why: one sentence. */
    void (*fenced)(void *owner, bool fenced, const char *why);
};

/* older: the record this one replaced, NULL if none. */
typedef void (*directory_publish_fn)(void *context, enum directory_result result,
                                     const struct directory_record *older);
typedef void (*directory_retire_fn)(void *context, enum directory_result result);
/* record NULL unless DIRECTORY_OK or _LOST. A directory without a cluster-wide index (static)
 * answers DIRECTORY_E_NOT_FOUND with ask_peers: the caller then asks each node itself. */
typedef void (*directory_locate_fn)(void *context, enum directory_result result,
                                    const struct directory_record *record, bool ask_peers);

struct directory_ops {
    const char *name;
    /* Begins membership: node_up events may follow from the next tick on. */
    int (*start)(struct directory *d);
    /* A generation number unique in the cluster for ever; 0 = none left now
     * (DIRECTORY_E_UNAVAILABLE). */
    uint64_t (*next_generation)(struct directory *d);
    void (*publish)(struct directory *d, const struct directory_record *record,
                    directory_publish_fn done, void *context);
    /* Removes the record if it still names this generation. Absent = DIRECTORY_OK. */
    void (*retire)(struct directory *d, const struct directory_record *record,
                   directory_retire_fn done, void *context);
    void (*locate)(struct directory *d, const char *store, const char *sample_id,
                   directory_locate_fn done, void *context);
    /* Publishes and retires not yet answered. */
    uint64_t (*pending)(const struct directory *d);
    /* Runs what is due: callbacks queued by the calls above, retries, keep-alives. */
    void (*tick)(struct directory *d, uint64_t now_ns);
    /* Absolute time of the next tick that has something to do; UINT64_MAX = none, 0 = at once. */
    uint64_t (*next_deadline_ns)(const struct directory *d);
    /* Callbacks not yet run are answered DIRECTORY_E_UNAVAILABLE first. */
    void (*destroy)(struct directory *d);
};

struct directory {
    const struct directory_ops *ops;
};

struct directory_peer {
    const char *node, *address;
};
/* A fixed list of peers and no index: publish succeeds at once, locate says ask_peers. `unix_ms` at
 * start and `node` make generations unique: 16 bits of node hash, 48 bits counting up from unix_ms
 * * 128. peers: copied. */
int directory_static_new(const char *node, const struct directory_peer *peers, size_t peer_count,
                         uint64_t unix_ms, const struct directory_events *events, void *owner,
                         struct directory **out);

#endif
