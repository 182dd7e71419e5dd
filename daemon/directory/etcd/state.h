/* SPDX-License-Identifier: Apache-2.0
 *
 * What the parts of directory_etcd share. Each part has a _tick() that acts when something is due
 * and callbacks that note what etcd has answered; they set `dirty`, so that a tick follows.
 */
#ifndef FEATURED_DIRECTORY_DIRECTORY_ETCD_STATE_H
#define FEATURED_DIRECTORY_DIRECTORY_ETCD_STATE_H

#include <sys/queue.h>

#include "directory/etcd/batch.h"
#include "directory/etcd/etcd.h"
#include "directory/etcd/fence.h"
#include "directory/etcd/gateway.h"
#include "directory/etcd/record.h"

#define NS_PER_MS             1000000ull
#define READS_PER_TXN         100u
#define READ_FLIGHTS_MAX      4u
#define WRITE_FLIGHTS_MAX     2u /* with four, batches under load were 70 instead of 100, no faster */
#define LIST_PAGE             1000
#define RELIST_TTLS           4ull /* lease TTLs between two readings of the nodes */
#define GENERATIONS_PER_BLOCK (1u << 20)

/* When the next attempt may be made after failures: 50 ms, doubled up to 1 s. */
struct backoff {
    uint64_t next_ns, pause_ns;
};

/* ---- questions ---- */

enum query_kind {
    QUERY_PUBLISH,
    QUERY_REPUBLISH,
    QUERY_RETIRE,
    QUERY_LOCATE,
    QUERY_MEMBERS,
    QUERY_END,
};

union query_done {
    directory_publish_fn publish;
    directory_retire_fn retire; /* and REPUBLISH, END */
    directory_locate_fn locate;
    directory_members_fn members;
};
struct query {
    struct batch_op op; /* publishes and retires until they are answered */
    TAILQ_ENTRY(query)
    link; /* in publishes, retires, unsettled, locates, reading, list_asks,
           * list_asked or answers */
    enum query_kind kind;
    union query_done done;
    void *context;
    uint64_t asked_ns, generation;
    int64_t sent_revision; /* of the index as known when the write was last sent */
    char *value;           /* PUBLISH, REPUBLISH: to be freed */
    uint64_t in_place_of;  /* REPUBLISH */
    bool careful;          /* RETIRE: the record was not the one we had written */
    bool confirming;       /* LOCATE: the record is known, its home is being looked up */
    /* The answer. */
    enum directory_result result;
    bool ask_peers, has_record;
    bool fenced_in_flight;  /* publishes: this node was fenced after the sending */
    int64_t prior_revision; /* PUBLISH, done: the revision before that of its record */
    bool is_void;           /* PUBLISH: asked for before the index went back in time */
    struct sample_record record;
    char key[ETCD_KEY_BYTES];
};
TAILQ_HEAD(queries, query);
/* Questions for when there is no memory, to be refused with them: more than a turn of the loop asks
 * (some 1000 effects and deadlines, and requests of 256 items each). Those never used take no
 * memory: the kernel gives out pages when they are written to. */
#define QUERIES_SPARE 16384u

/* However many questions fail at one moment, a tick ends and answers so many of them; the next one
 * goes on at once. */
#define ENDED_PER_TICK   1024u
#define ANSWERS_PER_TICK 256u

struct flight; /* write.c */
TAILQ_HEAD(flights, flight);

struct audit; /* audit.c */
TAILQ_HEAD(audits, audit);

/* ---- trouble with etcd ---- */

enum trouble_part {
    TROUBLE_LEASE = 0, /* asked for all the time: its words say how things are */
    TROUBLE_RECORD,
    TROUBLE_GENERATIONS,
    TROUBLE_MEMBERS,
    TROUBLE_WRITE,
    TROUBLE_READ,
    TROUBLE_PARTS
};

struct trouble {
    bool refused;      /* else it could not be reached, or there is none */
    uint64_t noted_ns; /* for the last time */
    char words[512];   /* "" = none */
};

/* ---- membership ---- */

enum join_state {
    JOIN_IDLE = 0, /* without a lease; asks for one when `join_backoff` allows */
    JOIN_GRANTING,
    JOIN_READY, /* has a lease; registers when `join_backoff` allows */
    JOIN_REGISTERING,
    JOIN_COMPARING, /* registered again; reads what the index says of us (own.c) */
    JOIN_MEMBER,
};

struct member {
    TAILQ_ENTRY(member) link;
    struct node_record now;       /* incarnation 0 = gone */
    int64_t create_revision;      /* of its record, or the last; a new one: it has been away */
    uint64_t last_incarnation;    /* of that */
    struct node_record announced; /* incarnation 0 = not */
    int64_t announced_revision;
    bool seen; /* in the list being read */
};
TAILQ_HEAD(members, member);

/* The revision at which a generation of ours was published; those published last are known. */
struct written {
    uint64_t generation;
    int64_t revision;
};

/* The reading of what the index says of us. */
enum own_state {
    OWN_IDLE = 0,
    OWN_DUE, /* the next page is to be asked for */
    OWN_ASKED,
    OWN_TELLING, /* all is read; the owner compares it, some with each tick */
};
enum { OWN_RECORDS, OWN_ENDED, OWN_LISTS };
struct own_list {
    struct sample_record *records;
    size_t count, room;
    struct directory_record *views; /* while the owner is being told */
};

enum write_state {
    WRITE_OPEN = 0,
    WRITE_EPOCH_DUE, /* no new transactions; the epoch is moved on when none is under way */
    WRITE_READ_DUE,  /* it is: what the unanswered transactions have done is read back */
};

struct directory_etcd {
    struct directory base;
    struct directory_etcd_options options;
    char cluster[ETCD_CLUSTER_BYTES_MAX + 1];
    struct node_record self;
    char node_key[ETCD_KEY_BYTES], node_value[ETCD_VALUE_BYTES], generation_key[ETCD_KEY_BYTES];
    char history_key[ETCD_KEY_BYTES];
    struct directory_events events;
    void *owner;
    struct etcd *etcd;
    uint64_t now_ns; /* of the tick under way, or the last */
    bool started, dirty;
    int64_t revision; /* the latest of the index that an answer has named */

    /* join.c */
    enum join_state join;
    struct fence fence;
    int64_t lease;
    uint64_t asked_ns; /* the grant or keep-alive under way was sent */
    struct backoff join_backoff;
    int64_t create_revision; /* of our record; what tells it from a later one of the same name */
    bool was_member, fenced;
    bool taken_over_due;    /* the owner is to be told that it is over */
    bool taken, taken_told; /* another incarnation is registered under our name */
    struct node_record taken_by;
    char lost_why[300]; /* not empty: membership was lost for this reason, tick() acts on it */

    /* history.c */
    char history[32], history_next[32]; /* as known ("" = not yet); the one being written */
    uint64_t history_drawn;
    bool history_due, history_asked; /* it is to be named anew: nothing is written before */
    bool history_new;                /* not compared yet: nothing may be served before */
    uint64_t history_changed_ns;     /* 0 = never */
    uint64_t history_lived_ns;       /* until then nodes live on by leases of the one before */
    uint64_t history_whole_ns;       /* when all nodes have seen that it is new */
    struct backoff history_backoff;
    struct last_write {
        char key[ETCD_KEY_BYTES];
        int64_t revision; /* 0 = none */
        bool deleted;
    } last, last_asked; /* our last write; the one being read */

    /* own.c */
    enum own_state own_state;
    bool own_void;                  /* begun anew since the reading under way was asked for */
    struct own_list own[OWN_LISTS]; /* our records, and the ends kept for us */
    unsigned own_at;                /* the list that is being read */
    char own_from[ETCD_KEY_BYTES];
    int64_t own_compared; /* when the registration began in which we have compared last */
    int64_t own_revision; /* that is being read; 0 = the first page is to come */
    uint64_t own_next_ns; /* the next reading without a cause */
    struct backoff own_backoff;

    /* ended.c */
    struct queries ends, ending; /* waiting, under way */
    int64_t ended_lease;         /* what they hang on; 0 = none */
    uint64_t ended_lease_ns;     /* when it was asked for */
    bool ended_asked;
    struct backoff ended_backoff;

    /* members.c */
    struct members members;
    bool listing, list_due;
    struct queries list_asks, list_asked; /* for the next reading, for the one under way */
    int64_t list_asked_at;                /* `revision` when that was asked for */
    uint64_t relist_ns;
    struct backoff members_backoff;
    struct etcd_watch *watch;
    int64_t watch_from; /* revision of the first event not seen yet */

    /* write.c */
    struct batch batch;
    struct queries publishes,
        retires; /* publishes: also republishes; ready, behind another of their key, or taken */
    struct queries unsettled; /* publishes taken, sent and not answered by etcd */
    struct queries unprior;   /* of these, done: what they have replaced is to be read */
    struct flights flights;   /* transactions under way */
    bool more_to_end;         /* publishes that have waited too long, or are fenced off */
    enum write_state write;
    bool has_void;           /* of the puts, some are of a time that is gone */
    struct written *written; /* [options.written_kept], by generation */
    int64_t epoch;           /* mod_revision of our record: what every write compares */
    bool settle_asked;
    bool settle_void; /* fenced since it was asked */
    struct backoff write_backoff;
    uint64_t pending;

    /* trouble.c */
    struct trouble troubles[TROUBLE_PARTS];
    bool write_trying;
    char refused_key[ETCD_KEY_BYTES]; /* of the last write that was refused */

    /* locate.c */
    struct queries locates, reading; /* waiting, under way */
    uint32_t read_flights;
    struct backoff read_backoff;

    /* generations.c */
    uint64_t generation, generation_end; /* next to give, one past the last */
    uint64_t spare, spare_end;           /* the block after that; equal = none */
    uint64_t highest;                    /* ever reserved for us */
    bool generation_asked, counter_known;
    uint64_t counter;         /* as read */
    int64_t counter_revision; /* its mod_revision; 0 = it does not exist */
    struct backoff generation_backoff;

    struct query *spare_queries; /* QUERIES_SPARE of them, of which spare_used were ever used */
    size_t spare_used;
    uint64_t no_memory_ns;      /* when a question was last refused for lack of memory; 0 = never */
    struct queries spares;      /* those of them that were used and are free again */
    struct audits spare_audits; /* the same for questions about the index as a whole */
    struct queries answers;     /* due with this tick or the next */
    struct audits audit_answers;  /* the same */
    struct audits audits_unasked; /* asked of us before the next tick */
};

/* ---- what several parts need (state.c) ---- */

/* The next attempt may be made after a pause, which doubles with each failure in a row. */
void backoff_fail(struct backoff *backoff, uint64_t now_ns);
void backoff_reset(struct backoff *backoff);

/* Takes a query that is in no list any more to the answers, which a tick delivers. */
void answer_query(struct directory_etcd *self, struct query *query, enum directory_result result);
/* Notes that something has happened, with the revision that an answer named (0 = none), so that a
 * tick follows. Each callback of a request begins with it, or with history_note_current(). */
void note(struct directory_etcd *self, const struct etcd_answer *answer);
/* Our record in etcd is gone or another's: join.c acts on it with the next tick. */
void note_lost(struct directory_etcd *self, const char *why);
/* The nodes are to be read again: members.c asks for them with a tick. */
void note_nodes_due(struct directory_etcd *self);
/* Our record is in etcd, and what the index says of us is compared: samples may be written. */
bool is_member(const struct directory_etcd *self);
uint64_t unix_ms(const struct directory_etcd *self);

#endif
