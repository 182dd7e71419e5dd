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

#include "proto/histogram.h"

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
    bool again; /* written by republish(): later than the put, and than others after it perhaps */
};

/* What a directory must know again after its broker was killed and started again with its memory,
 * under the same incarnation. The owner has it in memory that outlives the process, all zeros at
 * first; the directory alone writes to it, one field at a time. Each of its states is right at
 * every instruction. */
struct directory_kept {
    uint64_t generation; /* no number up to this one is given again */
    uint64_t was_member; /* not 0: samples of ours may be in the index */
    int64_t compared;    /* own_compared of etcd/state.h */
    uint64_t history_is; /* not 0: the name that follows is whole */
    char history[32];    /* of the index, as this node knew it last */
};

struct directory_records {
    const struct directory_record *records;
    size_t count;
};

struct directory_events {
    /* A node may be reached from now on: by messages at one address, and its bytes read at the
     * other, often the same. incarnation 0 = not known. */
    void (*node_up)(void *owner, const char *node, const char *address, const char *data_address,
                    uint64_t incarnation);
    /* A node has left or its incarnation is dead. */
    void (*node_down)(void *owner, const char *node, uint64_t incarnation);
    /* We are fenced (true) or may serve again (false); why: one sentence. */
    void (*fenced)(void *owner, bool fenced, const char *why);
    /* Another incarnation is registered under our name, at that address ("": none): we wait until
     * its lease has ended. address NULL: not any more. May be NULL. */
    void (*name_taken)(void *owner, const char *address, uint64_t incarnation);
    /* What the index says of us, all of it: every record that names our node and incarnation, and
     * every end that end() has kept for us. Comes between
     * fenced(true) and fenced(false), and at other times: now and then, and when the index turns
     * out to have gone back in time (restored from a backup, emptied). It is as old as its reading:
     * writes of ours that came in between are not in it.
     * first: nothing that differs may be served before it is put right, for others may have put
     * what they could not know to be newer than ours.
     * False: called again with the next tick, with the same lists, and nothing is served before it
     * is true. begins: this is the first call for these lists; what was unfinished of others is
     * void. */
    bool (*reconcile)(void *owner, const struct directory_records *records,
                      const struct directory_records *ended, bool first, bool begins);
};

/* older: the record this one replaced, NULL if none. ask_peers: what was replaced, if anything, is
 * not known, for the answer to an earlier attempt was lost, or the index has lost records: every
 * node must check what it holds of this sample against the index. */
typedef void (*directory_publish_fn)(void *context, enum directory_result result,
                                     const struct directory_record *older, bool ask_peers);
typedef void (*directory_retire_fn)(void *context, enum directory_result result);
/* record NULL unless DIRECTORY_OK or _LOST. A directory without a cluster-wide index (static)
 * answers DIRECTORY_E_NOT_FOUND with ask_peers: the caller then asks each node itself. */
typedef void (*directory_locate_fn)(void *context, enum directory_result result,
                                    const struct directory_record *record, bool ask_peers);

/* The members that there were when it was asked, at least, have been announced by node_up(). */
typedef void (*directory_members_fn)(void *context, enum directory_result result);

/* ---- looking after the index as a whole ---- */

#define DIRECTORY_PAGE_RECORDS 100u

struct directory_listed {
    struct directory_record record;
    uint64_t unix_ms;    /* when it was put */
    bool home_is_member; /* as far as this node knows */
};
/* unreadable: keys among them that are no records of featured; next: where the page after this one
 * begins, "" = there is none. Nothing but the result unless DIRECTORY_OK. */
typedef void (*directory_list_fn)(void *context, enum directory_result result,
                                  const struct directory_listed *listed, size_t count,
                                  size_t unreadable, const char *next);
typedef void (*directory_sweep_fn)(void *context, enum directory_result result, size_t removed);

struct directory_audit_ops {
    /* The records of a store (NULL = all), a page of at most DIRECTORY_PAGE_RECORDS, by store and
     * sample. after: "" to begin, then what the page before said; anything else begins anew. What
     * changes between two pages is seen or not. */
    void (*list)(struct directory *d, const char *store, const char *after, directory_list_fn done,
                 void *context);
    /* Removes those of these records, at most DIRECTORY_PAGE_RECORDS, that still name the same
     * generation and whose home's incarnation is not registered at the moment of the removal. */
    void (*sweep)(struct directory *d, const struct directory_record *records, size_t count,
                  directory_sweep_fn done, void *context);
    /* The index has not gone back in time since so long ago: of two records written after that, the
     * later one stands. */
    bool (*remembers)(const struct directory *d, uint64_t age_us);
    /* A write of this sample's record has been asked for and is not answered yet. */
    bool (*is_writing)(const struct directory *d, const char *store, const char *sample_id);
};

/* What was asked of the index, since the start. */
struct directory_counts {
    uint64_t txns, reads, leases; /* requests; leases: granted, kept alive, given back */
    uint64_t failures;            /* of all of them: not answered, or refused */
    struct histogram txn, lease;  /* how long those took that were answered */
};

struct directory_ops {
    const char *name;
    bool index; /* knows who has which sample */
    const struct directory_audit_ops
        *audit; /* NULL: cannot look through its index, if it has one */
    /* Begins membership: node_up events may follow from the next tick on. */
    int (*start)(struct directory *d);
    /* A generation number unique in the cluster for ever; 0 = none left now
     * (DIRECTORY_E_UNAVAILABLE). */
    uint64_t (*next_generation)(struct directory *d);
    void (*publish)(struct directory *d, const struct directory_record *record,
                    directory_publish_fn done, void *context);
    /* A publish that was under way when this broker was killed: its record may have been written,
     * and may have been replaced since. moment: what moment() said before it was asked for. What it
     * has replaced may not be known any more: ask_peers. */
    void (*publish_again)(struct directory *d, const struct directory_record *record,
                          int64_t moment, directory_publish_fn done, void *context);
    /* The point in the history of the index up to which this node knows it, for publish_again(). */
    int64_t (*moment)(const struct directory *d);
    /* Writes the record only in place of the one that names this generation (0: of none);
     * DIRECTORY_E_NOT_FOUND: that one does not stand any more. */
    void (*republish)(struct directory *d, const struct directory_record *record,
                      uint64_t in_place_of, directory_retire_fn done, void *context);
    /* Removes the record if it still names this generation. Absent = DIRECTORY_OK. */
    void (*retire)(struct directory *d, const struct directory_record *record,
                   directory_retire_fn done, void *context);
    /* Keeps for the record's home, which cannot be told now, that this generation and whatever it
     * has put before of the sample have ended; 0: whatever it held of it when it was last a member.
     * It hears of it by reconcile() before it serves again. Kept for two days. */
    void (*end)(struct directory *d, const struct directory_record *record,
                directory_retire_fn done, void *context);
    void (*locate)(struct directory *d, const char *store, const char *sample_id,
                   directory_locate_fn done, void *context);
    /* node_up() and node_down() come when they come: what they have said lags behind. This asks for
     * the members as of now. */
    void (*members)(struct directory *d, directory_members_fn done, void *context);
    /* From this time on nothing may be served that another node could have superseded, whether
     * fenced() has said so yet or not; UINT64_MAX = no such limit, 0 = now. To be compared with the
     * clock of this moment, for the whole process may just have been stopped for a while. */
    uint64_t (*serves_until_ns)(const struct directory *d);
    /* Publishes, republishes and retires not yet answered. */
    uint64_t (*pending)(const struct directory *d);
    /* What stands between this node and its directory, in words; "": nothing that is known of.
     * True: nothing can be put until that is over. May be NULL: nothing ever does. */
    bool (*trouble)(const struct directory *d, char *out, size_t out_bytes);
    /* May be NULL: there is no index. */
    void (*counts)(const struct directory *d, struct directory_counts *out);
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
    const char *node, *address, *data_address; /* data_address: NULL or "" = the same */
};
/* A fixed list of peers and no index: publish succeeds at once, locate says ask_peers. `unix_ms` at
 * start and `node` make generations unique: 16 bits of node hash, 48 bits counting up from unix_ms
 * * 128. peers: copied. */
int directory_static_new(const char *node, const struct directory_peer *peers, size_t peer_count,
                         uint64_t unix_ms, const struct directory_events *events, void *owner,
                         struct directory **out);
/* Of a directory that directory_static_new() has made: numbers are given above those in `kept`, and
 * are noted there. Before the first number is given. */
void directory_static_keep(struct directory *directory, struct directory_kept *kept);
/* Of a directory that directory_static_new() has made: one more peer, or another address of one
 * that is there. node_up() comes with the next tick. 0, or -ENOMEM, and nothing has changed. */
int directory_static_know(struct directory *directory, const struct directory_peer *peer);

#endif
