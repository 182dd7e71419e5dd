/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of this folder keep in the broker, and the types that more than one of them works
 * on. The functions that they call of each other are in a header for each file.
 */
#ifndef FEATURED_EXCHANGE_EXCHANGE_INTERNAL_H
#define FEATURED_EXCHANGE_EXCHANGE_INTERNAL_H

#include <sys/queue.h>

#include "cluster/cluster.h"
#include "exchange/exchange.h"
#include "time/deadlines.h"

/* ---- outbox.c ---- */

/* A release or an ack that its home has not confirmed yet. Never lost: retried until confirmed.
 * There may be many: they are small. */
struct pending_end {
    TAILQ_ENTRY(pending_end) link;
    LIST_ENTRY(pending_end) same_hash; /* of an ack */
    struct account *account;
    uint64_t generation;
    union {
        struct {
            uint64_t hi, lo, epoch;
            uint64_t id; /* of the remote lease */
        } lease;
        struct {
            uint64_t incarnation;
            struct store_op op;
            uint32_t kept; /* its record in the node's memory, + 1; 0 = none */
        } ack;
    };
    bool is_ack, consumed, corrupt;
    uint8_t store_bytes;
    char names[]; /* the store's, then the sample's */
};
TAILQ_HEAD(pending_end_list, pending_end);
LIST_HEAD(pending_end_hash, pending_end);

/* Kept with each peer (peer_user). */
struct outbox {
    struct broker *broker;
    struct peer *peer;
    struct pending_end_list waiting, sent; /* sent: in the request under way */
    uint64_t count;
    struct pending_end_hash *acks; /* by generation; NULL before the first */
    bool busy, giving_up;
    struct deadline flush; /* set while something waits and no message is under way */
    uint64_t retry_ns, backoff_ns;
};

/* ---- serve.c ---- */

/* Another broker that asks us. */
struct served; /* one lease it asked for, still waiting for the sample: serve_lease.c */
struct asking {
    TAILQ_ENTRY(asking) link;
    struct broker *broker;
    struct asker *asker;
    struct account *account; /* of the node */
    struct owner owner;      /* of what it holds in the stores */
    char name[LAYOUT_NAME_BYTES_MAX + 8];
    uint32_t holders[SPACES_MAX]; /* STORE_NO_HOLDER where not opened */
    TAILQ_HEAD(, served) waiting;
};
TAILQ_HEAD(asking_list, asking);

/* One request of another broker. It is valid while the function of its row in the table (serve.c)
 * runs; whoever answers later keeps `asking` and `request_id`. */
struct serve_asked {
    const char *name; /* what is asked for, for people: "a lease" */
    struct asking *asking;
    uint32_t request_id;
    bool wants_reply;
    struct space *space; /* of operations that need one (serve.c), else NULL */
    const Fb__PeerRequest *message;
};

/* ---- held_check.c, reconcile.c ---- */

/* Of our own checks, by generation. There are some 1600 at most (held_check.c), so that a bucket
 * has two or so. */
#define HELD_CHECK_BUCKETS 1024u

/* The check of all that this node holds (held_check.c). */
struct held_walk {
    struct deadline go_on; /* held_due_wake() */
    bool walking, again;   /* again: from the beginning, at next_ns */
    uint64_t next_ns, cursor;
    uint32_t space, in_flight;
    uint32_t waiting; /* checks that are begun again after a while */
    uint32_t republishing;
    struct held_due { /* to be checked, some at a time */
        uint64_t generation;
        uint32_t space;
        bool first; /* counted in exchange->fencing */
    } * due;
    size_t due_count, due_room;
    LIST_HEAD(held_check_list, held_check) own[HELD_CHECK_BUCKETS];
};

/* How far reconcile() has come in what this node holds. */
struct reconcile_walk {
    uint32_t space;
    uint64_t cursor;
};

/* ---- remote_lease.c ---- */

/* A lease that a home granted to this node, or is asked for. Named by id, never by pointer; an
 * ended one stays known for a while, for a `consumed` that is said late. */
struct remote_lease {
    uint64_t id;
    bool granted, ended, corrupt;
    bool consumed; /* a reader has said so */
    bool seen;     /* after a restart: the store here has a lease for it */
    bool telling;  /* ... and the home has not confirmed it: the slot stays */
    uint32_t kept; /* its record in the node's memory, + 1; 0 = none */
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
    uint32_t free_first;  /* slot + 1 of one whose lease was not granted; 0 = none */
    uint32_t uses_before; /* a slot's first use count in this process is one more */
};

/* ---- all of it ---- */

struct exchange {
    struct broker *broker;
    struct asking_list askings;
    TAILQ_HEAD(, fetch) fetches;
    struct remote_leases remote_leases;
    uint64_t last_transfer;            /* of fetches */
    bool closing;                      /* the peers are going: the directory may still answer */
    struct fencing fencing;            /* may we serve? */
    char fenced_why[SENTENCE_BYTES];   /* of the last time */
    struct supersede_set *publishings; /* puts and ends that are under way */
    struct roster *roster;             /* who the other nodes are */
    struct sweep *sweep;
    TAILQ_HEAD(, held_check) held_checks;
    TAILQ_HEAD(, index_check) index_checks; /* index_check.c */
    struct held_walk held_walk;
    struct reconciling reconciling;
    struct reconcile_walk reconcile_walk;
    bool has_republished;          /* ever */
    struct own_name name;          /* twin.c */
    struct deadline name_outlived; /* wakes the loop for twin_pump(), after name.outlived_ns */
    uint64_t release_pending, end_sequence; /* end_sequence: of the last ack that was kept */
    struct late {                           /* puts that became resident long after their commit */
        uint64_t generation, ns;
    } late[LATE_KEPT];
    uint32_t late_count;
};

/* The parts of it, for exchange.c. The makers answer NULL where there is no memory. */
struct supersede_set *publishings_new(void);
void publishings_free(struct broker *broker);
struct sweep *sweep_new(struct broker *broker);
void sweep_free(struct broker *broker);
void held_walk_init(struct exchange *exchange);
/* The directory is gone, so what was still to be checked is dropped. */
void held_checks_free(struct broker *broker);
void reconcile_free(struct broker *broker);
void twin_init(struct exchange *exchange);
void outbox_free(struct peer *peer);
/* Frees all leases. Their homes end them by themselves when they hear that this broker is gone. */
void remote_leases_free(struct broker *broker);

#endif
