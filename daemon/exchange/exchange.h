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
 * - Circle: outbox.c, remote_lease.c: a lease takes the memory of its release from the outbox
 *   before the home is asked, and the outbox ends the lease when its release is on its way.
 */
#ifndef FEATURED_EXCHANGE_EXCHANGE_H
#define FEATURED_EXCHANGE_EXCHANGE_H

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

/* ---- gets of what lies elsewhere: remote.c, fetch.c, remote_lease.c, believe.c ---- */

/* A lease that a home granted to this node, or is asked for. Named by id, never by pointer; an
 * ended one stays known for a while, for a `consumed` that is said late. */
struct remote_lease {
    uint64_t id;
    bool granted, ended, corrupt;
    /* What its release takes, had before the home is asked: once the home has granted the lease, no
     * lack of memory may keep it from hearing of the end. NULL and NULL: used, or given back. */
    struct pending_end *end;
    struct account *user; /* of uid, held */
    uint32_t next_free;   /* the slot's, among those that were never granted: + 1, 0 = none */
    struct peer *peer;
    uint64_t epoch; /* of the link it came over: it ends with it */
    uint64_t hi, lo, generation;
    uid_t uid; /* for whom */
    char store[LAYOUT_NAME_BYTES_MAX + 1];
};
struct remote_leases {
    struct remote_lease *slots;
    uint32_t count, room, live;
    uint32_t *ended; /* ring of ended slots, oldest first */
    uint32_t ended_first, ended_count;
    uint32_t free_first; /* slot + 1 of one whose lease was not granted; 0 = none */
};

/* How what was found elsewhere is told to the kind of request that looks for it (requests/get.c).
 */
struct get_ops {
    /* There is a lease on a generation that is readable here: ends the item. */
    void (*grant)(struct item *item, const struct store_lease *lease);
    /* No node has the sample: ends the item, and says what this node knows of its end. */
    void (*absent)(struct item *item);
    /* What the index named is gone, and this is why: asks whether the index names another now. */
    void (*look_again)(struct item *item, const char *why);
};

/* An item of a get (requests/get.c, remote.c, fetch.c). */
struct get_item {
    struct item item;
    const struct get_ops *ops;
    bool want_spec, wants_landed, over_network;
    uint64_t extent_offset, extent_bytes, lease_hi, lease_lo;
    uint8_t *spec, *checksums; /* malloc'ed when want_spec */
    uint32_t spec_bytes, checksums_bytes;
    TAILQ_ENTRY(get_item) fetch_link;
    struct fetch *fetch;
    uint64_t remote;      /* remote_lease id, 0 = none */
    uint64_t transfer;    /* of the fetch that brought the bytes for it, 0 = they were here */
    struct peer *unheard; /* one that might have the id and could not be asked; NULL = none */
    bool located;         /* home and generation are what the index says of the id */
    uint64_t missed;      /* what it said before, and was gone when asked for; 0 = nothing */
};
TAILQ_HEAD(get_item_list, get_item);
static inline struct get_item *get_of(const struct item *item) {
    return container_of(item, struct get_item, item);
}

/* Brings one generation's bytes here, once, for all items that want them. */
struct fetch {
    TAILQ_ENTRY(fetch) link;
    struct waiter waiter; /* waits for landing space */
    struct broker *broker;
    struct space *space;
    uint64_t generation;
    char sample_id[LAYOUT_ID_BYTES_MAX + 1];
    struct peer *peer;
    uint64_t epoch;
    uint32_t region;
    uint64_t remote_offset, extent_bytes, landing_offset;
    bool waits_for_room;
    bool landed;                /* PLANNED landing copy exists */
    uint64_t transfer;          /* no other fetch of this broker has it */
    uint64_t notice_ns;         /* no progress notice before */
    uint64_t landed_next_bytes; /* no Landed notice before so many have landed */
    const uint8_t *bytes;       /* that came with the lease, while it is being looked at */
    uint8_t checksums[8 * LAYOUT_TENSORS_MAX];
    uint32_t checksums_bytes;
    struct get_item_list items;
};
TAILQ_HEAD(fetch_list, fetch);

/* ---- remote.c: asking the home ---- */
/* Leases the item's generation at its home, or by id at any peer, then lands it here. */
void remote_get(struct item *item);
void remote_get_anywhere(struct item *item);

/* ---- believe.c: is it an answer to what was asked? ---- */
/* Does the lease answer what this item asked the peer for? False: it does not, and the answer must
 * not be used; `why` is a sentence that names what was asked and what was said. The peer's count of
 * such answers has gone up. */
bool believe_lease(const struct item *item, struct peer *peer, uint64_t generation,
                   const Fb__PeerLeaseReply *lease, char why[SENTENCE_BYTES]);
/* Does the granted lease agree with what lies in this node's memory under that generation? False,
 * for example, when the peer claims to be the home of a generation whose home is this node. */
bool believe_copy(const struct item *item, struct peer *peer, const Fb__PeerLeaseReply *lease,
                  char why[SENTENCE_BYTES]);
bool believe_stat(const struct item *item, struct peer *peer, const Fb__StatResult *stat,
                  char why[SENTENCE_BYTES]);
/* Counts an answer that is none to what was asked, and logs the 1st, 2nd, 4th, 8th ... of a peer.
 */
void believe_not(struct peer *peer, const char *sentence);

/* ---- fetch.c ---- */
/* The home granted item->remote to this item: attach it to the landing copy, making one if there is
 * none. */
void fetch_item(struct item *item, const Fb__PeerLeaseReply *reply, const uint8_t *payload,
                size_t payload_bytes);
bool fetch_has_copy(struct broker *broker, struct space *space, uint64_t generation);
void fetch_detach(struct item *item);

/* ---- remote_lease.c ---- */
/* Takes all the memory that a lease and its release need, before the home is asked for it. 0 = out
 * of memory: it is not to be asked. */
uint64_t remote_lease_new(struct broker *broker, struct peer *peer, const char *store, uid_t uid);
/* The home has granted it, over the present connection. */
void remote_lease_granted(struct broker *broker, uint64_t id, uint64_t hi, uint64_t lo,
                          uint64_t generation);
/* It has not. */
void remote_lease_cancel(struct broker *broker, uint64_t id);
/* Frees all leases when the broker ends. Their homes end them by themselves when they hear that
 * this broker is gone. */
void remote_leases_free(struct broker *broker);
struct remote_lease *remote_lease_find(struct broker *broker, uint64_t id);
void remote_lease_end(struct broker *broker, struct remote_lease *lease);

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
    uint64_t generation; /* it is SEALED */
    struct store_op op;  /* {0}: nobody repeats it */
    struct account *charged;
};
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
/* How long ago the node left, if it is no member now; 0 = it is one, or never was. */
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
