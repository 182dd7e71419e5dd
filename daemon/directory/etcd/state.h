/* SPDX-License-Identifier: Apache-2.0
 *
 * What the parts of directory_etcd share. Each part has a _tick() that acts when something is due
 * and callbacks that note what etcd has answered; they set `dirty`, so that a tick follows.
 */
#ifndef FEATURED_DIRECTORY_DIRECTORY_ETCD_STATE_H
#define FEATURED_DIRECTORY_DIRECTORY_ETCD_STATE_H

#include <sys/queue.h>

#include "directory/etcd/batch.h"
#include "directory/etcd/directory_etcd.h"
#include "directory/etcd/fence.h"
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
void backoff_fail(struct backoff *backoff, uint64_t now_ns);
void backoff_reset(struct backoff *backoff);

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
    struct batch_op op; /* first; publishes and retires until they are answered */
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

struct flight; /* directory_etcd_write.c */
TAILQ_HEAD(flights, flight);

struct audit; /* directory_etcd_audit.c */
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
    JOIN_COMPARING, /* registered again; reads what the index says of us (directory_etcd_own.c) */
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

    /* directory_etcd_join.c */
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

    /* directory_etcd_history.c */
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

    /* directory_etcd_own.c */
    enum own_state own_state;
    bool own_void;                  /* begun anew since the reading under way was asked for */
    struct own_list own[OWN_LISTS]; /* our records, and the ends kept for us */
    unsigned own_at;                /* the list that is being read */
    char own_from[ETCD_KEY_BYTES];
    int64_t own_compared; /* when the registration began in which we have compared last */
    int64_t own_revision; /* that is being read; 0 = the first page is to come */
    uint64_t own_next_ns; /* the next reading without a cause */
    struct backoff own_backoff;

    /* directory_etcd_ended.c */
    struct queries ends, ending; /* waiting, under way */
    int64_t ended_lease;         /* what they hang on; 0 = none */
    uint64_t ended_lease_ns;     /* when it was asked for */
    bool ended_asked;
    struct backoff ended_backoff;

    /* directory_etcd_members.c */
    struct members members;
    bool listing, list_due;
    struct queries list_asks, list_asked; /* for the next reading, for the one under way */
    int64_t list_asked_at;                /* `revision` when that was asked for */
    uint64_t relist_ns;
    struct backoff members_backoff;
    struct etcd_watch *watch;
    int64_t watch_from; /* revision of the first event not seen yet */

    /* directory_etcd_write.c */
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

    /* directory_etcd_trouble.c */
    struct trouble troubles[TROUBLE_PARTS];
    bool write_trying;
    char refused_key[ETCD_KEY_BYTES]; /* of the last write that was refused */

    /* directory_etcd_locate.c */
    struct queries locates, reading; /* waiting, under way */
    uint32_t read_flights;
    struct backoff read_backoff;

    /* directory_etcd_generations.c */
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

/* ---- directory_etcd.c ---- */
/* Takes a query that is in no list any more to the answers. */
void answer_query(struct directory_etcd *self, struct query *query, enum directory_result result);
/* Notes that something has happened, with the revision an answer named (0 = none). */
void note(struct directory_etcd *self, const struct etcd_answer *answer);
uint64_t unix_ms(const struct directory_etcd *self);

/* The same, for an answer that shows all that had been written before its question was sent, with
 * `revision` as it was then: if it shows less, the index has gone back in time. */
void note_current(struct directory_etcd *self, const struct etcd_answer *answer, int64_t asked_at);
/* ---- directory_etcd_trouble.c ---- */
/* What became of a request; why: unless ETCD_OK. */
void trouble_note(struct directory_etcd *self, enum trouble_part part, enum etcd_result result,
                  const char *why);
bool trouble_say(const struct directory *d, char *out, size_t out_bytes);
void trouble_tick(struct directory_etcd *self);
uint64_t trouble_deadline_ns(const struct directory_etcd *self);

/* ---- directory_etcd_join.c ---- */
void join_tick(struct directory_etcd *self);
uint64_t join_deadline_ns(const struct directory_etcd *self);
/* Our record is gone or another's. */
void join_lost(struct directory_etcd *self, const char *why);
bool join_may_write(const struct directory_etcd *self);
/* What the index says of us has been read and told: goes on. */
void join_compared(struct directory_etcd *self);

/* ---- directory_etcd_history.c ---- */
struct condition;
/* Two operations for a transaction that registers us: name the history if it has no name, read it.
 */
void history_ops(struct directory_etcd *self, struct condition *absent, struct etcd_op ops[2]);
/* Our last write, to be read beside the nodes: is it still there? */
void history_wrote(struct directory_etcd *self, const char *key, int64_t revision, bool deleted);
struct etcd_op history_last_op(struct directory_etcd *self);
void history_last_found(struct directory_etcd *self, const struct etcd_answer *answer, size_t op);
/* What this operation of an answer has read: another name than before? */
void history_found(struct directory_etcd *self, const struct etcd_answer *answer, size_t op);
/* Records may be missing of what other nodes hold. */
bool history_is_in_doubt(const struct directory_etcd *self);
/* The index's revision has gone back. */
void history_went_back(struct directory_etcd *self, int64_t from, int64_t to);
void history_tick(struct directory_etcd *self);
uint64_t history_deadline_ns(const struct directory_etcd *self);

/* ---- directory_etcd_own.c ---- */
/* Reads everything that the index says of us, and tells the owner. */
void own_begin(struct directory_etcd *self);
void own_tick(struct directory_etcd *self);
uint64_t own_deadline_ns(const struct directory_etcd *self);
void own_free(struct directory_etcd *self);

/* ---- directory_etcd_ended.c ---- */
void ended_tick(struct directory_etcd *self);
uint64_t ended_deadline_ns(const struct directory_etcd *self);

/* ---- directory_etcd_members.c ---- */
void members_tick(struct directory_etcd *self);
uint64_t members_deadline_ns(const struct directory_etcd *self);
void members_relist(struct directory_etcd *self);
/* When the node's last registration began, if it was of this incarnation; 0 = not known. */
int64_t members_registration(const struct directory_etcd *self, const char *node,
                             uint64_t incarnation);
bool members_has(const struct directory_etcd *self, const char *node, uint64_t incarnation);
void members_free(struct directory_etcd *self);

/* ---- directory_etcd_write.c ---- */
void write_add(struct directory_etcd *self, struct query *query);
void write_tick(struct directory_etcd *self);
uint64_t write_deadline_ns(const struct directory_etcd *self);
/* Registered: our record has this mod_revision. */
void write_begin_epoch(struct directory_etcd *self, int64_t mod_revision);
/* The index has gone back in time: what is known of it says nothing any more, and the puts under
 * way are refused. */
void write_void_puts(struct directory_etcd *self);

/* Compares that hold while the record of `key` names a generation, or (0) while there is none. */
struct condition {
    char above[32], below[32];
    struct etcd_compare compares[3]; /* the third is for the caller */
    size_t count;
};
void condition_set(struct condition *condition, const char *key, uint64_t generation);

/* ---- directory_etcd_locate.c ---- */
void locate_tick(struct directory_etcd *self);
uint64_t locate_deadline_ns(const struct directory_etcd *self);

/* ---- directory_etcd_audit.c ---- */
/* False: out of memory. */
bool audit_make_spares(struct directory_etcd *self);
void audit_free_spares(struct directory_etcd *self);
void audit_list(struct directory *d, const char *store, const char *after, directory_list_fn done,
                void *context);
void audit_sweep(struct directory *d, const struct directory_record *records, size_t count,
                 directory_sweep_fn done, void *context);
void audit_tick(struct directory_etcd *self);
void audit_deliver(struct directory_etcd *self);
bool audit_is_due(const struct directory_etcd *self);
/* Makes all that is owed an answer due, as UNAVAILABLE. False: nothing is. */
bool audit_give_up(struct directory_etcd *self);

/* ---- directory_etcd_generations.c ---- */
uint64_t generations_next(struct directory_etcd *self);
void generations_tick(struct directory_etcd *self);
uint64_t generations_deadline_ns(const struct directory_etcd *self);
/* The numbers left are given up: the next are above all that this node knows of. */
void generations_renew(struct directory_etcd *self);

#endif
