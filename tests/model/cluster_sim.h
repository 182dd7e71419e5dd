/* SPDX-License-Identifier: Apache-2.0
 *
 * A cluster in one process: real brokers, stores and peers over the fake network, with clocks,
 * crashes and clients made up here. One history is a list of steps (what clients ask for and what
 * goes wrong, each with its time) and a seed for everything else; the same two give the same
 * history.
 *
 *   cluster_world.c    nodes: building, pumping, faults, time
 *   cluster_clients.c  clients: their requests, the answers, the bytes
 *   cluster_history.c  steps: choosing them, running them
 *   cluster_rest.c     the end: coming to rest, and what must hold then
 *   cluster_drop.c     a store that is dropped after the end
 *   cluster_memory.c   their memory, and what is left of it after a kill
 *   cluster_contract.c the judge
 *   cluster_model.c    many histories, and the shrinking of one that fails
 */
#ifndef FEATURED_TESTS_CLUSTER_SIM_H
#define FEATURED_TESTS_CLUSTER_SIM_H

#include "directory/etcd/etcd.h"
#include "model/cluster_contract.h"
#include "requests/requests.h"
#include "support/etcd_fake.h"
#include "support/keep_fake.h"
#include "support/transport_fake.h"

#define NODES_MAX        5u
#define CLIENTS_PER_NODE 3u
#define SAMPLE_IDS       6u
#define SIZES            5u
#define LEASES_MAX       4096u
#define ASKED_MAX        8192u
#define STEPS_MAX        4096u
/* A step that nobody can take is no event. */
#define STEPS_PER_EVENT 4u
#define DEFERRED_MAX    64u
#define US              1000ull
#define MS              1000000ull

enum step_kind {
    STEP_PUT,
    STEP_RESERVE,
    STEP_COMMIT,
    STEP_CANCEL,
    STEP_GET_REF,
    STEP_GET_ID,
    STEP_RELEASE,
    STEP_RELEASE_LATE,
    STEP_ACK,
    STEP_ABORT,
    STEP_STAT,
    STEP_GC,
    STEP_LEAVE,
    STEP_REPEAT,
    STEP_CUT,
    STEP_DROP_LINK,
    STEP_PAUSE,
    STEP_CRASH,
    STEP_KILL,
    STEP_SLOW,
    STEP_DIRECTORY_CUT,
    STEP_DIRECTORY_VAGUE,
    STEP_DIRECTORY_EMPTIED,
    STEP_DIRECTORY_RESTORED,
    STEP_RECORD_LOST,
    STEP_RECORD_FOREIGN,
    STEP_KINDS
};

struct step {
    uint64_t at_ns;
    enum step_kind kind;
    unsigned node, client;
    uint32_t a, b, c; /* at random; what they choose depends on what there is by then */
};

struct history {
    uint64_t seed;
    bool index;
    unsigned nodes;
    enum contract_policy policy;
    unsigned readers;
    unsigned ids;          /* sample_ids in use: the fewer, the more puts meet */
    bool fences;           /* with an index: faults outlast leases, time is long */
    bool forgets;          /* with an index: etcd loses or gets back what it had */
    bool kills;            /* brokers are killed and start again with their memory */
    unsigned events_least; /* so many steps, and more until as many events have been */
    unsigned step_count;   /* and no more than these */
    struct step steps[STEPS_MAX];
};

struct world;
struct node;

struct client {
    struct node *node;
    struct broker_session *session; /* NULL = not connected */
    uint64_t serial;                /* of the connection */
    uint64_t client_id, op_id;
    uint32_t handle;
    uint64_t session_id;               /* with its token: by which it comes back ... */
    uint8_t token[BROKER_TOKEN_BYTES]; /* ... to its session */
    bool returns;                      /* its broker was killed: it has yet to come back */
    unsigned last_asked;               /* its last operation with an op_id; 0 = none */
};

/* A request that a client made. */
struct asked {
    enum step_kind kind;
    struct client *client;
    uint64_t serial, begun, op_id, at_ns;
    bool answered, checked; /* checked: names an incarnation */
    unsigned id;
    struct claim *claim; /* put: its own; by ref: the one meant */
    unsigned home;       /* where a retirement by id acts; EVERYWHERE */
    uint64_t incarnation;
    unsigned repeats; /* the asked that this one says again; 0 = none */
    struct landed {   /* what it was last told of its bytes while they came in */
        uint64_t transfer, offset, bytes;
        uint64_t nonce; /* of the put that those bytes were of; 0 = of none */
    } landed;
};

enum lease_state { LEASE_HELD, LEASE_SAID_CONSUMED, LEASE_SAID_RETURNED, LEASE_DIED };
struct held {
    enum lease_state state;
    struct client *client;
    uint64_t serial;
    unsigned node;
    uint64_t incarnation; /* of the node that granted it to the client */
    struct claim *claim;
    uint64_t hi, lo, offset;
};

struct reserved {
    struct claim *claim;
    struct client *client;
    uint64_t serial, reservation, offset;
    bool open;
};

struct node {
    struct world *world;
    unsigned index;
    char name[8], address[16];
    struct config config;
    struct config_store store;
    uint64_t incarnation, clock_offset_ns;
    uint64_t began_unix_ms; /* what its wall clock said when its broker began, */
    bool clock_set_back;    /* and says again now: it was set back while its broker was away */
    struct broker *broker;  /* NULL = crashed */
    struct peers *peers;
    struct transport *transport;
    struct directory *directory;
    struct etcd *etcd;      /* with an index */
    struct keep_fake *keep; /* what outlives its broker; NULL: nothing */
    bool killed;            /* its memory is there, and waits for the next broker */
    bool away;              /* the others may have taken it for dead */
    bool paused, dying;
    uint64_t pump_ns; /* when its loop turns next */
    uint64_t paused_until_ns, crashed_until_ns;
    struct client clients[CLIENTS_PER_NODE];
    struct step deferred[DEFERRED_MAX]; /* asked while it was paused */
    uint64_t deferred_begun[DEFERRED_MAX];
    unsigned deferred_count;
};

struct world {
    const struct history *history;
    struct contract contract;
    struct fake_network *network;
    struct fake_etcd *etcd; /* NULL without an index */
    struct node nodes[NODES_MAX];
    unsigned node_count;
    uint64_t random, now_ns;
    uint64_t cut_until_ns[NODES_MAX][NODES_MAX], slow_until_ns, vague_until_ns;
    uint64_t directory_cut_until_ns[NODES_MAX];
    uint64_t begun; /* not 0: the turn at which a deferred request began */
    struct asked asked[ASKED_MAX];
    unsigned asked_count;
    struct held held[LEASES_MAX];
    unsigned held_count;
    struct reserved reserved[CLAIMS_MAX];
    unsigned reserved_count;
    /* events: */
    uint64_t delivered; /* by the network and by etcd, so far */
    uint64_t done;      /* steps that did something: requests made, faults made */
    bool settling;
    bool forgot;        /* etcd has lost, or got back, what it had */
    uint64_t forgot_ns; /* when it did, the last time */
    bool trace;
};

uint64_t cluster_random(uint64_t *state);

/* ---- cluster_world.c ---- */
void world_init(struct world *w, const struct history *history, bool trace);
void world_free(struct world *w);
/* Lets everything happen that is due by then. */
void world_go(struct world *w, uint64_t until_ns);
void world_pump(struct node *node);
uint64_t node_clock_ns(const struct node *node);
void world_crash(struct node *node, bool silent, uint64_t until_ns);
/* As SIGKILL: the broker is gone between two events, and another one starts with its memory. */
void world_kill(struct node *node, bool silent, uint64_t until_ns);
void world_pause(struct node *node, uint64_t until_ns);
void world_cut(struct world *w, unsigned from, unsigned to, uint64_t until_ns);
void world_slow(struct world *w, uint64_t until_ns);
void world_directory_cut(struct world *w, unsigned node, uint64_t until_ns);
void world_directory_vague(struct world *w, uint64_t until_ns);
/* etcd is emptied, restored, loses a record or gets one of strangers, with nodes cut off from it
 * until then. */
void world_directory_forgets(struct world *w, const struct step *step, uint64_t until_ns);
/* This sample is put, or ended by its id, at a node that may not know all that it concerns: etcd
 * has forgotten not long ago and nobody may have noticed, or the node has just started and has
 * never heard of one that is away. */
void world_may_not_know(const struct node *node, unsigned id);
void world_heal(struct world *w);
struct space *node_space(const struct node *node);
void world_say(const struct world *w, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* ---- cluster_clients.c ---- */
void clients_once(void);
void client_connect(struct client *client);
void client_leave(struct client *client);
void clients_die(struct node *node);
/* Their broker is being killed: they live, and come back when it does. */
void clients_lose_broker(struct node *node);
void client_step(struct world *w, const struct step *step);
/* Reads a lease's bytes: are they the ones that were put? */
void held_check(struct world *w, const struct held *held, const char *when);
/* Says consumed of what this client holds, or of so many less. */
void clients_consume(struct client *client, unsigned less);
/* Gives back what its clients hold. */
void clients_let_go(struct node *node);
unsigned clients_unanswered(const struct world *w, const struct asked **first);
/* Fetches a claim from its home to this node and checks its bytes. */
void client_get(struct client *client, struct claim *claim);
uint64_t payload_nonce(const uint8_t *at);
bool payload_matches(const uint8_t *at, uint64_t nonce, uint64_t bytes);

/* ---- cluster_history.c ---- */
void history_choose(struct history *h, uint64_t seed, bool index, unsigned events);
/* NULL, or what was broken, in short; why: in full. */
const char *history_run(struct world *w, const struct history *h, bool trace);
void history_print(const struct history *h);

/* ---- cluster_rest.c ---- */
void world_rest(struct world *w);

/* ---- cluster_drop.c ---- */
void world_drop(struct world *w);

#endif
