/* SPDX-License-Identifier: Apache-2.0
 *
 * What goes on between this broker and others: gets of what lies elsewhere, answering others' gets,
 * ends on their way to a home, puts on their way to the index, and what is known of the other
 * nodes.
 *
 * This is what the rest of the broker may call. What the files of this folder share is in
 * exchange_internal.h (types), and what one of them calls of another is in a header of that other
 * file's name, for example held_check.h.
 *
 * Files that call each other:
 * - Circle: held_check.c, republish.c: a check that finds a record missing has it written, and a
 *   write that the index refuses begins another check.
 * - Circle: publish.c, publish_recall.c: a put that has been published is written down, and what
 * was written down is carried on after a restart.
 * - Circle: outbox.c, remote_lease.c: a lease takes the memory of its release from the outbox
 *   before the home is asked, and the outbox ends the lease when its release is on its way.
 */
#ifndef FEATURED_EXCHANGE_EXCHANGE_H
#define FEATURED_EXCHANGE_EXCHANGE_H

#include "cluster/cluster.h"
#include "node/call.h"
#include "proto/container.h"

/* ---- making and unmaking: exchange.c ---- */

/* NULL: out of memory. */
struct exchange *exchange_new(struct broker *broker);
/* From here on nothing is sent to peers. What was pending at them is forgotten, for it ends with
 * this node in any case. The directory may still answer. */
void exchange_release_peers(struct broker *broker);
/* Ends what is under way; the stores are still there. */
void exchange_end(struct broker *broker);
/* Once the stores are gone. */
void exchange_free(struct broker *broker);

/* ---- recall.c ---- */
/* Of a broker that was started again with its memory: what there was between it and others is made
 * known again. Once, when the stores have been attached, the directory and the peers are connected,
 * and before anything is asked. */
void exchange_recall(struct broker *broker);

/* ---- events of the directory, for struct directory_events. owner: the broker ---- */

/* members.c */
void members_on_up(void *owner, const char *name, const char *address, const char *data_address,
                   uint64_t incarnation);
void members_on_down(void *owner, const char *name, uint64_t incarnation);
void members_on_fenced(void *owner, bool fenced, const char *why);
/* reconcile.c */
bool reconcile(void *owner, const struct directory_records *records,
               const struct directory_records *ended, bool first, bool begins);
/* twin.c: another incarnation has our name in the index. */
void twin_on_name_taken(void *owner, const char *address, uint64_t incarnation);

/* ---- events of peers, for struct peers_events. owner: the broker ---- */

/* The peer can be reached again: what waits for it is sent now and not at the end of the back-off.
 */
void outbox_on_link_up(void *owner, struct peer *peer);
/* serve.c: another broker asks this one. */
void *serve_open(void *owner, struct asker *asker, const char *node, uint64_t incarnation);
void serve_request(void *owner, void *user, uint32_t request_id, bool wants_reply,
                   const Fb__PeerRequest *request);
void serve_closed(void *owner, void *user);

/* ---- what the broker itself brings about ---- */

/* In every turn of the loop (twin.c). */
void twin_pump(struct broker *broker);
/* The configuration was read again: the next look for old records may be due at another time
 * (index_sweep.c). */
void sweep_reconfigured(struct broker *broker);
/* A store that was dropped and is leased by nobody: no broker that asks us is a holder there. */
void serve_leave_space(struct broker *broker, struct space *space);
/* A generation has been retired here, for that reason: its record is removed from the index, unless
 * a later put has replaced it, or its own put is not over and will see to the record. */
void publish_retired(struct broker *broker, struct space *space, const char *sample_id,
                     uint64_t generation, enum store_reason reason);

/* ---- find.c: what a get asks for, here or on another node ---- */

struct fetch;
struct fetch_reader_ops;
/* Somebody who waits for a fetch: part of the waiter's own struct, which finds itself by
 * container_of() (fetch.h). */
struct fetch_reader {
    TAILQ_ENTRY(fetch_reader) link;
    struct fetch *fetch; /* NULL: it waits for none */
    const struct fetch_reader_ops *ops;
    uint64_t transfer;         /* of the fetch that has brought the bytes; 0 = they were here */
    uint64_t room_ns, wire_ns; /* that it has waited for room, and for the bytes */
};

/* The search of one item of a get. The kind of request has it in a struct of its own, as the first
 * member. */
struct find {
    struct item item;
    enum search_state state;
    /* Set by whoever begins it: called once, with a lease of the session on bytes that are here,
     * unless the item ends otherwise. Ends the item. */
    void (*granted)(struct find *find, const struct store_lease *lease);
    bool wants_landed; /* the client is told of bytes of a large sample as they land */
    /* What it found: */
    bool over_network; /* the bytes came from another node, now or earlier */
    uint64_t home_ns;  /* so long took the answer of the home; 0 = none was asked */
    struct fetch_reader reader;
    struct deadline again; /* a home that may be back is asked then; not set: none */
    uint32_t asked_again;
    bool by_ref; /* it began at the home that its ref names, and no other node can have it */
    /* Its own: */
    uint64_t remote;      /* id of the remote lease that it holds, 0 = none */
    struct peer *unheard; /* one that might have the id and could not be asked; NULL = none */
    uint64_t missed;      /* what the index named, and was gone when asked for; 0 = nothing */
};
static inline struct find *find_of(const struct item *item) {
    return container_of(item, struct find, item);
}
/* For what item->ref names. May end the item at once. */
void find_begin(struct find *find);
/* The item's deadline has passed: ends it, and says who kept it waiting. */
void find_expire(struct find *find);
/* The item is done or its session is gone: gives back what the search holds. */
void find_leave(struct find *find);

/* ---- remote_lease.c: leases that other homes have granted ---- */

/* A client has read other bytes than their producer's checksum says. The copy is not granted any
 * more, and the end of the lease tells its home. Returns the home's node and the generation; NULL:
 * there is no such lease. */
const char *remote_lease_is_corrupt(struct broker *broker, struct store *store,
                                    uint64_t remote_lease_id, uint64_t *generation_out);

/* ---- believe.c: is it an answer to what was asked? ---- */

/* Does the answer agree with what was asked? False: it does not, and must not be used; `why` is a
 * sentence that names both. The peer's count of such answers has gone up. */
bool believe_stat(const struct item *item, struct peer *peer, const Fb__StatResult *stat,
                  char why[SENTENCE_BYTES]);

/* ---- outbox.c: releases and acks on their way to a home ---- */

/* How a local lease on a landing copy ended. The second time only a late `consumed` counts. */
void outbox_release(struct broker *broker, uint64_t remote_lease_id, bool consumed);
/* Keeps the ack of a generation for a home that cannot be reached; false: it cannot be kept, and
 * the item has ended saying so. */
bool outbox_ack(struct broker *broker, struct peer *peer, struct item *item);
/* How many releases and acks are not confirmed: by any home, and by this one. */
uint64_t outbox_pending(const struct broker *broker);
uint64_t outbox_pending_at(const struct peer *peer);

/* ---- publish.c, publish_known.c: from a sealed generation to an answered put ---- */

/* Who waits for the end of a put, or of an end. Part of the waiter's own struct, which finds itself
 * by container_of(). */
struct publish_waiter {
    /* Called once, unless publish_leave() comes first. sentence: why not; NULL: it is done. */
    void (*ended)(struct publish_waiter *waiter, Fb__Status status, uint64_t generation,
                  const char *sentence);
    struct publishing *publishing; /* NULL: waits for none */
};
/* Nobody waits any more. The put goes on. */
void publish_leave(struct publish_waiter *waiter);

struct publish_put {
    uint64_t generation;     /* it is SEALED */
    struct store_op op;      /* {0}: nobody repeats it */
    struct account *charged; /* the user */
    uint32_t kept;           /* publish_prepare() sets it */
};
/* Writes down that the put is about to begin, before the seal. False: there is no room for it. If
 * the seal fails, publish_not() follows in place of publish(). */
bool publish_prepare(struct broker *broker, const struct space *space, struct publish_put *put);
void publish_not(struct broker *broker, const struct publish_put *put);
void publish(struct broker *broker, struct space *space, const struct publish_put *put,
             struct publish_waiter *waiter);
/* A repeat of an operation that is still under way waits for its answer, in place of whoever did
 * before. False: there is none. */
bool publish_adopt(struct broker *broker, const struct space *space, struct store_op op,
                   struct publish_waiter *waiter);
/* Older generations of this sample may still be read on other nodes, because a put here has not yet
 * made sure that they are gone. Until it has, an end of the sample must not be answered with
 * success: for example, a client aborts generation 8 here while node a still serves generation 7,
 * and would then find the sample at a. generation 0: any put of the sample that the directory has
 * answered. */
bool publish_pursues(const struct broker *broker, const struct space *space, const char *sample_id,
                     uint64_t generation);
/* Ends a generation whose home is dead, or may be: word of it is kept for that home, in case it
 * was only cut off, and its record is removed. by_id: whatever else others hold of the sample ends
 * as well. charged: the user or peer who caused it; NULL = ourselves. waiter: told OK when that is
 * done; NULL = nobody. */
void publish_end_lost(struct broker *broker, struct space *space,
                      const struct directory_record *lost, enum store_reason reason, bool by_id,
                      struct account *charged, struct publish_waiter *waiter);

/* ---- nodes.c: the other nodes, and may this one serve? ---- */

/* That incarnation serves no more, for certain. */
bool nodes_is_dead(const struct broker *broker, const char *name, uint64_t incarnation);
/* The one that lives, or the last that died; 0 = not known. */
uint64_t nodes_incarnation(const struct broker *broker, const char *name);
/* How long ago the node left, if it is no member now (of one that has been none since a restart of
 * this broker: how long ago that was); 0 = it is one, or there is no index. */
uint64_t nodes_gone_ns(const struct broker *broker, const char *name);
/* What the directory located is at a dead home, or at this node before it restarted, of which the
 * directory may not have heard yet. */
bool nodes_have_lost(const struct broker *broker, enum directory_result result,
                     const struct directory_record *record);
/* May we serve, as of now_ns, what another node could have superseded? */
bool broker_serves(const struct broker *broker);
const char *broker_fenced_why(const struct broker *broker);
/* What stands between this broker and its directory, in words; without such: `otherwise`. */
const char *broker_trouble(const struct broker *broker, const char *otherwise,
                           char out[TROUBLE_BYTES]);
/* NULL: it takes puts, as of now_ns; else why not, of a form to follow "node a: ". */
const char *broker_refuses_why(const struct broker *broker);
/* The same, and also why puts that are taken would not end well: for example, etcd refuses this
 * broker's password, which no waiting mends. */
const char *broker_not_ready_why(const struct broker *broker, char out[TROUBLE_BYTES]);

/* ---- health.c ---- */
#define HEALTH_COUNTERS_MAX 32u
/* `reply` points into the rest, and into the broker. */
struct health {
    Fb__HealthReply reply;
    char *stores[SPACES_MAX];
    char trouble[TROUBLE_BYTES], not_ready[TROUBLE_BYTES];
    Fb__Counter counters[HEALTH_COUNTERS_MAX], *counter_pointers[HEALTH_COUNTERS_MAX];
};
void health_fill(const struct broker *broker, struct health *health);

/* ---- index_check.c: one sample's record in the index against what this node holds ---- */
/* finding: valid during the call. */
typedef void index_checked_fn(void *context, const Fb__IndexFinding *finding);
/* Calls done exactly once, now or later. repair: what is wrong is mended. record_only: only whether
 * the home that the record names lives. False: out of memory, and done is not called. */
bool index_check_here(struct broker *broker, const char *store, const char *sample_id, bool repair,
                      bool record_only, index_checked_fn *done, void *context);

#endif
