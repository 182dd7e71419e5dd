/* SPDX-License-Identifier: Apache-2.0
 *
 * What the broker's files share: its stores (spaces), sessions, calls, fetches and asking peers.
 *
 * A *call* is one client request, made of items; it is answered when its last item is done. An item
 * may wait in a store's waiter queue (in_store), for peers or the directory (asks), or in a fetch.
 * When it ends, for whatever reason, it leaves all of them: its asks are orphaned (item NULL), and
 * whoever brings a lease to an orphan gives it back. So calls never outlive their session.
 */
#ifndef FEATURED_BROKER_STATE_H
#define FEATURED_BROKER_STATE_H

#include <sys/queue.h>

#include "broker.h"
#include "exchange/held_walk.h"
#include "node/account_words.h"
#include "node/accounts.h"
#include "node/deadlines.h"
#include "node/scratch.h"
#include "node/turns.h"
#include "ops/log.h"
#include "planted.h"
#include "proto/auth.h"
#include "proto/frame.h"
#include "proto/layout.h"
#include "store/store.h"

#define SPACES_MAX          256u
#define SENTENCE_BYTES      640u
#define TROUBLE_BYTES       768u   /* of a sentence that ends in etcd's words */
#define SPEC_BYTES_PER_CALL 98304u /* so that the answer fits one frame */
#define LATE_KEPT           64u
#define ROUND_TRIP_LIMIT_NS                                                                        \
    (10ull * 1000 * 1000 * 1000) /* for requests without a deadline of their own */
#define NS_PER_MS                  1000000ull
#define LANDED_GRAIN_BYTES_DEFAULT (1ull << 20)

/* One store on this node. Slots are reused; a dropped store lingers until its last lease ends. */
struct space {
    bool used, dropped;
    uint32_t uses; /* asks and fetches that name it */
    bool has_secret;
    uint32_t index;
    char name[LAYOUT_NAME_BYTES_MAX + 1];
    Fb__StoreSettings settings;
    uint8_t key[AUTH_KEY_BYTES];
    struct config_ids allow_uids, writer_uids;
    struct arena arena;
    uint32_t region; /* with the transport, when has_region */
    bool has_region;
    uint64_t prefaulted_bytes;
    void *block;
    size_t block_bytes;
    struct store *store;
    uint64_t event_last; /* last event handed to subscribers */
    uint64_t reserves_ended_logged;
    uint64_t gc_freed;          /* in the pass under way */
    bool drop_walked, detached; /* dropped: all slots; no transport or prefault has it */
    uint64_t drop_cursor, given_back_bytes; /* dropped: how far its end has come */
    struct account *creator; /* the user who made it at run time; NULL: the configuration */
};

/* What an effect's tag points to. */
struct waiter {
    void (*granted)(struct waiter *waiter, const struct store_effect *effect);
};

/* ---- sessions ---- */
struct attachment { /* a store this session has opened; its index + 1 is the handle */
    struct space *space;
    uint32_t holder;
    bool write;
};
struct challenge { /* a store opening half done */
    struct space *space;
    bool write;
    uint8_t client_nonce[AUTH_NONCE_BYTES], server_nonce[AUTH_NONCE_BYTES];
};

struct call;
TAILQ_HEAD(call_list, call);

struct broker_session {
    struct broker *broker;
    TAILQ_ENTRY(broker_session) link;
    uint64_t id;
    const struct broker_client_ops *ops;
    void *client;
    struct broker_credentials credentials;
    char name[128], client_name[48];
    bool greeted, admin, wants_events;
    struct space *events_space; /* NULL = all */
    uint64_t client_id;
    uint64_t opened_ns, last_ns; /* last_ns: of the last request */
    struct account *account;     /* its parent is the user's */
    struct challenge challenge;
    struct attachment *attachments;
    uint32_t attachment_count;
    struct call_list calls;
};
TAILQ_HEAD(session_list, broker_session);

/* ---- calls ---- */
enum call_kind {
    CALL_PUT,
    CALL_GET,
    CALL_RETIRE,
    CALL_STAT,
    CALL_EXPLAIN,
    CALL_DRAIN,
    CALL_NODES, /* an item for each peer */
    CALL_LIST,  /* of another node's samples */
    CALL_INDEX_LIST,
    CALL_INDEX_CHECK,
    CALL_GC,
};

/* One question under way for an item. Freed by its answer. */
struct ask {
    LIST_ENTRY(ask) link;
    struct item *item; /* NULL = nobody waits any more */
    struct broker *broker;
    struct space *space;
    struct peer *peer;
    struct account *user; /* whose question it is: it may outlive the session */
    uint64_t generation;
    struct store_op op;
};

struct inline_put;
struct fetch;
struct publishing;

struct item {
    struct waiter waiter; /* first: an effect's tag is a pointer to it */
    struct call *call;
    struct deadline timed; /* in broker->timed */
    bool done;
    bool in_store;   /* a store's waiter queue holds it */
    bool draining;   /* in broker->drains, by drain_link */
    bool collecting; /* in broker->gc_asked, by drain_link */
    bool gc_begun;
    uint64_t gc_hold_ns, gc_freed;
    LIST_HEAD(, ask) asks; /* questions to peers or the directory not answered yet */
    uint32_t ask_count;
    Fb__Status status;
    char *error; /* malloc'ed; NULL while OK. Of a get that looks again: why there was nothing */
    uint64_t deadline_ns; /* of a drain */
    TAILQ_ENTRY(item) fetch_link, drain_link;
    struct fetch *fetch;
    struct store_op op;
    char sample_id[LAYOUT_ID_BYTES_MAX + 1];
    uint64_t generation, incarnation;
    char home[LAYOUT_NAME_BYTES_MAX + 1];
    bool want_spec, over_network;
    /* put */
    uint64_t reservation, extent_offset, extent_bytes;
    struct inline_put *inline_put;
    struct publishing *publishing;
    /* get */
    uint64_t lease_hi, lease_lo;
    uint32_t slot;
    uint8_t *spec, *checksums; /* malloc'ed when want_spec */
    uint32_t spec_bytes, checksums_bytes;
    uint64_t remote;      /* remote_lease id, 0 = none */
    uint64_t transfer;    /* of the fetch that brought the bytes for it, 0 = they were here */
    struct peer *unheard; /* one that might have the id and could not be asked; NULL = none */
    bool located;         /* home and generation are what the index says of the id */
    uint64_t missed;      /* what it said before, and was gone when asked for; 0 = nothing */
    /* Packed, malloc'ed: the best Fb__StatResult or Fb__ExplainReply so far; Fb__HealthReply
     * (nodes), Fb__IndexFinding (index check), a whole Fb__ClientReply (list, index list). */
    uint8_t *answer;
    size_t answer_bytes;
    Fb__SampleState answer_state;
    Fb__ExplainReply *explained; /* explain.c */
};
TAILQ_HEAD(item_list, item);

struct call {
    TAILQ_ENTRY(call) link;
    struct broker *broker;
    struct broker_session *session; /* NULL once closed */
    struct space *space;            /* NULL where the request is about no store of this node */
    char store[LAYOUT_NAME_BYTES_MAX + 1]; /* its name then, if it has one */
    uint32_t holder;
    uint32_t request_id;
    bool wants_reply, write_ok;
    bool wants_landed; /* CALL_GET */
    bool wait_cut;     /* to max_wait of the store */
    enum call_kind kind;
    enum store_reason reason; /* CALL_RETIRE */
    uint64_t begun_ns, wait_ns, patience_ns;
    uint32_t count, open; /* items; those not done, + 1 while the call is being begun */
    size_t spec_bytes;    /* of its items' answers so far */
    struct item items[];
};

/* ---- remote leases, fetches, pending releases ---- */

/* A lease that a home granted to this node. Named by id, never by pointer; an ended one stays known
 * for a while, for a `consumed` that is said late. */
struct remote_lease {
    uint64_t id; /* 0 = free */
    bool ended, corrupt;
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
};

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
    struct item_list items;
};
TAILQ_HEAD(fetch_list, fetch);

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
        } lease;
        struct {
            uint64_t incarnation;
            struct store_op op;
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
    uint64_t retry_ns, backoff_ns;
};

/* Another broker that asks us. */
struct served; /* one lease it asked for, still waiting for the sample: serve.c */
struct asking {
    TAILQ_ENTRY(asking) link;
    struct broker *broker;
    struct asker *asker;
    struct account *account; /* of the node */
    uint64_t id;             /* owner number in the stores */
    char name[LAYOUT_NAME_BYTES_MAX + 8];
    uint32_t holders[SPACES_MAX]; /* STORE_NO_HOLDER where not opened */
    TAILQ_HEAD(, served) waiting;
};
TAILQ_HEAD(asking_list, asking);

/* Who has this node's name in the index, if it is another incarnation (twin.c). */
enum name_state { NAME_FREE = 0, NAME_ASKED, NAME_RESTART, NAME_STANDS, NAME_TWIN };
struct name {
    enum name_state state;
    uint64_t incarnation;
    uint64_t outlived_ns; /* its record cannot stand for longer unless somebody keeps it alive */
    char address[256];
};

struct broker {
    struct broker_options options;
    const struct config *config;
    uint64_t now_ns, started_ns;
    struct store_account account; /* bytes of the homes' shares */
    struct charge_limits limits;
    struct account node_account;
    struct held_account_list accounts; /* of users and peers */
    uint32_t account_count;            /* sessions' included */
    struct space spaces[SPACES_MAX];
    uint32_t space_end; /* no used slot at or after it */
    struct peers *peers;
    struct transport *transport;
    struct directory *directory;
    struct session_list sessions;
    uint32_t session_count, admin_count; /* admin_count: of those the admins' */
    uint64_t next_owner;                 /* session and asking ids */
    struct asking_list askings;
    struct fetch_list fetches;
    struct deadlines timed;    /* items with a deadline that no store keeps for them */
    struct item_list gc_asked; /* asked for by clients, one after the other */
    struct item_list drains;   /* waiting for release_pending to reach 0 */
    struct remote_leases remote_leases;
    uint64_t release_pending, gc_ns, request_count;
    uint64_t last_transfer; /* of fetches */
    uint64_t items_ended, effects_done;
    uint64_t turn_work;   /* items ended and effects carried out in this turn */
    bool unfinished;      /* this turn has done its part, and more is due */
    uint32_t first_space; /* whose effects come first in the next turn */
    struct turns turns;
    TAILQ_HEAD(, leaving) leavings; /* spaces.c */
    bool draining;
    bool closing;                    /* the peers are going: the directory may still answer */
    char fenced_why[SENTENCE_BYTES]; /* of the last time */
    struct publish_set *publishings; /* publish_set.h */
    TAILQ_HEAD(, node) nodes;
    TAILQ_HEAD(, check) index_checks; /* index_check.c */
    struct sweep *sweep;
    TAILQ_HEAD(, held_check) held_checks;
    struct held_walk held_walk;
    struct reconciling reconciling;
    bool has_republished; /* ever */
    struct late {         /* puts that became resident long after their commit */
        uint64_t generation, ns;
    } late[LATE_KEPT];
    uint32_t late_count;
    struct name name;
    struct scratch scratch;
};

/* ---- call.c ---- */
/* NULL: no memory or one limit too many, and the request is answered so. */
struct call *call_new(struct broker_session *session, enum call_kind kind, size_t count,
                      uint32_t request_id, bool wants_reply);
/* Answers FULL: which limit, of whom, and what to do. */
void call_refuse(struct broker_session *session, uint32_t request_id, bool wants_reply,
                 const struct charge_refusal *full, const char *remedy);
/* The same for a request on a store that the session has opened. NULL: the request is answered (no
 * such handle, or opened read-only and read_only_refusal is not NULL), or *why is set: a breach. */
struct call *call_open(struct broker_session *session, enum call_kind kind, uint32_t handle,
                       size_t count, uint32_t request_id, bool wants_reply,
                       const char *read_only_refusal, const char **why);
/* Answers and frees the call if all its items are done. To be called once after the items were
 * begun. */
void call_begun(struct call *call);
struct ask *ask_new(struct item *item, struct peer *peer);
/* Takes the ask out of its item and frees it; returns the item, NULL if orphaned. */
struct item *ask_take(struct ask *ask);
/* Of a reply without the result that was asked for, NULL = none came: why, for a sentence. */
const char *ask_failure(const Fb__PeerReply *reply, const char *why);
/* Says which sample a ref means (home "" = this node or any). False: it is malformed and the item
 * ended. */
bool item_name(struct item *item, const char *sample_id, uint64_t generation, const char *home,
               uint64_t incarnation);
/* One of the places where it was looked for has it: leaves the others, so that it never waits in
 * two fetches or twice in a store's queue. */
void item_found(struct item *item);
/* The item's one end. error: printf-style; NULL with OK. May free the call. */
void item_done(struct item *item, Fb__Status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Gives the item a deadline that the broker watches. */
void item_set_deadline(struct item *item, uint64_t deadline_ns);
void calls_expire(struct broker *broker, uint64_t now_ns);
uint64_t calls_next_deadline_ns(const struct broker *broker);
void calls_abandon(struct broker_session *session);
/* Ends the item well, with this for the answer (packed into item->answer). */
void item_answer(struct item *item, const ProtobufCMessage *message);
/* The one answer to a call, by what composes it. */
void call_send(const struct call *call, const Fb__ClientReply *reply);
void call_reply_simple(struct broker_session *session, uint32_t request_id, bool wants_reply,
                       Fb__Status status, const char *sentence);

/* ---- status.c ---- */
Fb__Status status_of(enum store_result result);
/* A sentence for a refusal: "store run0 full: 3.2 GiB of 4.0 GiB resident, 64 MiB asked; ...". */
void status_sentence(char out[SENTENCE_BYTES], const struct space *space, enum store_result result,
                     const struct store_refusal *refusal, const char *sample_id);
/* Who holds the room of the store, and who is first among those who wait for it, in a few words:
 * appended to a sentence. */
void status_add_room(char out[SENTENCE_BYTES], const struct broker *broker,
                     const struct space *space, const struct store_refusal *refusal);
/* "; the wait was cut to max_wait = 10min of the store", appended, if it was. */
void status_add_cut(char out[SENTENCE_BYTES], const struct call *call);
const char *status_reason_word(enum store_reason reason);
/* Why a get of this found nothing: "... was retired 12 s ago: consumed". */
void status_not_found(char out[SENTENCE_BYTES], const struct broker *broker,
                      const struct space *space, const char *sample_id, uint64_t generation);

/* ---- spaces.c ---- */
struct space *space_find(struct broker *broker, const char *name);
int space_create(struct broker *broker, const struct config_store *config, const uint8_t *key,
                 struct space **out, char *why, size_t why_bytes);
void space_drop(struct broker *broker, struct space *space, uint64_t now_ns);
/* What may stand, wait and pass, and for how long: of a store that is there, too. */
void space_set_bounds(struct space *space, const struct config_store *config);
/* The time asked for, or max_wait of the store where that is shorter: *cut then. */
uint64_t space_cut_wait_ns(const struct space *space, uint64_t asked_ns, bool *cut);
/* Goes on with dropping, and frees dropped stores that nobody holds any more. True: there is more
 * to do at once. */
bool spaces_reap(struct broker *broker);
/* Ends what a session or peer that is gone held: some of it now, the rest in turns to come, and its
 * account is kept for so long. True: it is all over. */
bool space_leave(struct broker *broker, struct space *space, uint32_t holder,
                 struct account *account);
/* Goes on with that. True: there is more. */
bool spaces_leave_on(struct broker *broker);
void spaces_leavings_free(struct broker *broker);
void space_free(struct broker *broker, struct space *space);
struct attachment *session_attachment(struct broker_session *session, uint32_t handle);
/* Ends what the session holds under that handle. False: some of it in turns to come. */
bool session_detach(struct broker_session *session, struct attachment *attachment);

/* ---- one per group of requests ---- */
typedef bool request_fn(struct broker_session *session, uint32_t request_id, bool wants_reply,
                        const Fb__ClientRequest *request, const uint8_t *payload,
                        size_t payload_bytes, const char **why);
request_fn access_hello, access_store_open, access_store_prove, access_store_create,
    access_store_drop, access_store_close;                  /* access.c */
request_fn put_reserve, put_commit, put_cancel, put_inline; /* put.c */
request_fn get_get, get_release;                            /* get.c */
request_fn retire_ack, retire_abort;                        /* retire.c */
request_fn probe_stat;                                      /* probe.c */
request_fn explain_sample;                                  /* explain.c */
request_fn list_samples, list_leases, list_stores;          /* list.c */
request_fn list_nodes, list_health;                         /* list_nodes.c */
request_fn list_sessions;                                   /* list_sessions.c */
request_fn steer_gc, steer_drain, steer_events;             /* steer.c */
request_fn index_list, index_check;                         /* index_check.c */

/* ---- get.c ---- */
void put_forget_payload(struct item *item); /* put.c */
void get_release_batch(struct broker_session *session, const Fb__Release *release);
/* Grants a local lease on a generation that is readable here; ends the item. */
void get_grant(struct item *item, const struct store_lease *lease);
/* The lease could not be used: give it back, at home or here. */
void get_local_not_found(struct item *item);
/* What the index named is gone, for that reason: does it name another by now? */
void get_look_again(struct item *item, const char *why);
/* How long a get of this generation waits at its home: longer while it is on its way to the index,
 * for whoever asks may have heard of it from there. */
uint64_t get_wait_ns(const struct space *space, uint64_t generation, uint64_t wait_ns);

/* ---- remote.c: asking the home ---- */
/* Leases the item's generation at its home, or by id at any peer, then lands it here. */
void remote_get(struct item *item);
void remote_get_anywhere(struct item *item);

/* ---- twin.c: another incarnation has our name in the index ---- */
void twin_on_name_taken(void *owner, const char *address, uint64_t incarnation);
void twin_pump(struct broker *broker);
uint64_t twin_next_deadline_ns(const struct broker *broker);
/* It lives, and was there first: nothing is taken or served here. */
bool twin_was_first(const struct broker *broker);
/* False: it has not. */
bool twin_say(const struct broker *broker, char *out, size_t out_bytes);

/* ---- believe.c: is it an answer to what was asked? ---- */
/* False: not this one's answer; why: a sentence that names both sides. It has been counted. */
bool believe_lease(const struct item *item, struct peer *peer, uint64_t generation,
                   const Fb__PeerLeaseReply *lease, char why[SENTENCE_BYTES]);
/* The same of what lies here under the generation that was granted. */
bool believe_copy(const struct item *item, struct peer *peer, const Fb__PeerLeaseReply *lease,
                  char why[SENTENCE_BYTES]);
bool believe_stat(const struct item *item, struct peer *peer, const Fb__StatResult *stat,
                  char why[SENTENCE_BYTES]);
/* Counts such an answer, and logs some of them. */
void believe_not(struct peer *peer, const char *sentence);

/* ---- fetch.c ---- */
/* The home granted item->remote to this item: attach it to the landing copy, making one if there is
 * none. */
void fetch_item(struct item *item, const Fb__PeerLeaseReply *reply, const uint8_t *payload,
                size_t payload_bytes);
bool fetch_has_copy(struct broker *broker, struct space *space, uint64_t generation);
void fetch_detach(struct item *item);

/* ---- outbox.c: releases and acks on their way to a home ---- */
/* How a local lease on a landing copy ended. The second time only a late `consumed` counts. */
void outbox_release(struct broker *broker, uint64_t remote_lease_id, bool consumed);
/* Keeps the ack of a generation for a home that cannot be reached; false: it cannot be kept, and
 * the item has ended saying so. */
bool outbox_ack(struct broker *broker, struct peer *peer, struct item *item);
void outbox_flush(struct broker *broker, struct peer *peer, uint64_t now_ns);
void outboxes_flush(struct broker *broker, uint64_t now_ns);
uint64_t outboxes_next_deadline_ns(const struct broker *broker);
struct outbox *outbox_of(struct broker *broker, struct peer *peer);
void outbox_free(struct peer *peer);

/* ---- publish.c, publish_known.c: from a sealed generation to an answered put ---- */
void publish(struct item *item, uint64_t generation);
/* A repeat of an operation still under way whose first asker is gone waits for its answer. */
bool publish_adopt(struct item *item);
/* Older generations of this sample may still be served elsewhere, because this generation (0 = some
 * generation here, and it is in the index) has not yet seen their end: what ends it has not ended
 * them. */
bool publish_pursues(const struct broker *broker, const struct space *space, const char *sample_id,
                     uint64_t generation);
/* A generation of this sample is SEALED here: whether the index has or had it is not known yet. */
bool publish_is_on_the_way(const struct broker *broker, const struct space *space,
                           const char *sample_id);
/* This generation's put is not over yet. */
bool publish_is_of(const struct broker *broker, const struct space *space, uint64_t generation);
/* Its record stays until they are over, so that whoever looks finds this node. */
bool publish_keeps_record(struct broker *broker, const struct space *space, uint64_t generation);
/* Did the put of this generation get as far as its answer, so that nothing older lives? To be asked
 * before it is retired. */
bool publish_was_done(const struct broker *broker, const struct space *space, uint64_t generation);
/* The index has a record of a put of ours of which nothing is left. It is removed; if that put
 * failed, it may have replaced another node's record, and everyone sees to its own. */
void publish_clear(struct broker *broker, struct space *space, const char *sample_id,
                   uint64_t generation);
/* Ends a generation whose home is dead, or may be: word of it is kept for that home, in case it
 * was only cut off, and its record is removed. by_id: whatever else others hold of the sample ends
 * as well. charged: the user or peer who caused it; NULL = ourselves. waits: answered OK when that
 * is done; NULL = nobody. */
void publish_end_lost(struct broker *broker, struct space *space,
                      const struct directory_record *lost, enum store_reason reason, bool by_id,
                      struct account *charged, struct item *waits);
/* Word of an end that was kept for us: of a put that is not over. */
void publish_has_ended(struct broker *broker, const struct directory_record *ended);
/* Since the commit of a generation that is held here. */
uint64_t publish_age_us(const struct broker *broker, const struct space *space,
                        uint64_t generation);
void publish_detach(struct item *item);
void publishings_pump(struct broker *broker, uint64_t now_ns);
uint64_t publishings_next_deadline_ns(const struct broker *broker);
void publishings_free(struct broker *broker);

/* ---- nodes.c ---- */
void nodes_on_up(void *owner, const char *name, const char *address, const char *data_address,
                 uint64_t incarnation);
void nodes_on_down(void *owner, const char *name, uint64_t incarnation);
void nodes_on_fenced(void *owner, bool fenced, const char *why);
/* It is no member as far as this node has heard. */
bool nodes_is_absent(const struct broker *broker, const char *name);
/* That incarnation serves no more, for certain. */
bool nodes_is_dead(const struct broker *broker, const char *name, uint64_t incarnation);
/* The one that lives, or the last that died; 0 = not known. */
uint64_t nodes_incarnation(const struct broker *broker, const char *name);
/* How long ago the node left, if it is no member now; 0 = it is one, or never was. */
uint64_t nodes_gone_ns(const struct broker *broker, const char *name);
/* Of the members that live, this node has the first name. */
bool nodes_are_led_by_us(const struct broker *broker);
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
/* The same, and they can be done: nothing stands between this broker and its directory for good. */
const char *broker_not_ready_why(const struct broker *broker, char out[TROUBLE_BYTES]);
void nodes_free(struct broker *broker);

/* ---- reconcile.c ---- */
bool reconcile(void *owner, const struct directory_records *records,
               const struct directory_records *ended, bool first, bool begins);
void reconcile_free(struct broker *broker);

/* ---- republish.c ---- */
/* Writes the record of a generation held here in place of the one that names in_place_of (0: of
 * none). */
void republish(struct broker *broker, struct space *space, const char *sample_id,
               uint64_t generation, uint64_t in_place_of, bool first);

/* ---- remote_lease.c ---- */
/* 0 = out of memory. */
uint64_t remote_lease_new(struct broker *broker, struct peer *peer, const char *store, uint64_t hi,
                          uint64_t lo, uint64_t generation, uid_t uid);
struct remote_lease *remote_lease_find(struct broker *broker, uint64_t id);
void remote_lease_end(struct broker *broker, struct remote_lease *lease);

/* ---- serve.c: answering other brokers ---- */
void *serve_open(void *owner, struct asker *asker, const char *node, uint64_t incarnation);
void serve_request(void *owner, void *user, uint32_t request_id, bool wants_reply,
                   const Fb__PeerRequest *request);
void serve_closed(void *owner, void *user);
void serve_refuse(struct asking *asking, uint32_t request_id, Fb__Status status,
                  const char *sentence);
/* FULL: which limit of that node. */
void serve_refuse_full(struct asking *asking, uint32_t request_id,
                       const struct charge_refusal *full);
/* The ref was made by an earlier incarnation of this node (home: ours or empty). */
bool serve_wrong_incarnation(const struct broker *broker, const char *home, uint64_t incarnation);
/* serve_retire.c: true when it answers by itself, now or later. */
bool serve_retire(struct asking *asking, uint32_t request_id, const Fb__PeerRetire *asked);

/* ---- held_check.c: what this node holds against the index ---- */
/* For another node, that is answered now or later; false: nothing to check, the answer is yes. */
bool held_check_serve(struct asking *asking, uint32_t request_id, struct space *space,
                      const char *sample_id, const Fb__PeerRetire *asked);
void held_checks_forget(struct broker *broker, const struct asking *asking);
/* On our own behalf: one sample, or all that this node holds. What is missing is put right. */
void held_check_own(struct broker *broker, struct space *space, const char *sample_id);
/* The same, and nothing is served until it has been found out what is right. */
void held_check_first(struct broker *broker, struct space *space, const char *sample_id);
/* The same for that generation, when its turn comes. */
void held_check_due(struct broker *broker, const struct space *space, uint64_t generation,
                    bool first);
void held_checks_drop_due(struct broker *broker);
/* What is held of a sample as its home. */
bool held_find(const struct space *space, const char *sample_id, struct store_info *info);
void held_check_all(struct broker *broker);
bool held_checks_are_due(const struct broker *broker);
void held_checks_pump(struct broker *broker, uint64_t now_ns);
uint64_t held_checks_next_deadline_ns(const struct broker *broker);

/* Of a session that is connected; false: it is none. */
bool broker_owner_uid(const struct broker *broker, uint64_t owner, uint32_t *uid_out);
const char *broker_owner_name(const struct broker *broker, uint64_t owner, char out[160]);

/* ---- probe.c: shared with serve.c and list.c ---- */
/* Holders are listed in info->holders, malloc'ed; free with probe_free_info(). */
void probe_fill_info(const struct broker *broker, const struct space *space,
                     const struct store_info *from, bool holders, Fb__SampleInfo *to);
void probe_free_info(Fb__SampleInfo *info);
bool probe_find(const struct space *space, const Fb__RetireItem *asked, struct store_info *info);
/* The ref was made before this node last restarted. */
bool probe_earlier_incarnation(const struct broker *broker, const Fb__RetireItem *asked);
/* The more useful of two states to report has the higher rank. */
int probe_rank(Fb__SampleState state);
/* What this node itself knows, packed (malloc'ed): a Fb__StatResult or a Fb__ExplainReply. NULL =
 * no memory. explain: space may be NULL. */
uint8_t *probe_stat_here(const struct broker *broker, const struct space *space,
                         const Fb__RetireItem *asked, size_t *bytes_out,
                         Fb__SampleState *state_out);
uint8_t *explain_here(const struct broker *broker, const struct space *space,
                      const Fb__RetireItem *asked, size_t *bytes_out, Fb__SampleState *state_out);
/* The store that an admin names or a session has opened; answers the request itself when there is
 * none. */
struct space *probe_space(struct broker_session *session, uint32_t handle, const char *name,
                          uint32_t request_id, bool wants_reply);

/* ---- list.c, list_nodes.c ---- */
void list_serve(struct asking *asking, uint32_t request_id, const Fb__List *asked);
void list_serve_health(struct asking *asking, uint32_t request_id);
void list_answer_nodes(struct call *call);

/* ---- explain.c ---- */
void explain_expired(struct item *item);
void explain_answer(struct call *call);
void explain_free(Fb__ExplainReply *explained);

/* ---- index_check.c ---- */
void index_serve_check(struct asking *asking, uint32_t request_id, const Fb__PeerIndexCheck *asked);
void index_forget_checks(struct broker *broker, const struct asking *asking);
void index_answer(struct call *call);

/* ---- index_sweep.c: records of homes that have long been dead ---- */
int sweep_new(struct broker *broker); /* 0 or -1: out of memory */
void sweep_free(struct broker *broker);
void sweep_pump(struct broker *broker, uint64_t now_ns);
uint64_t sweep_next_deadline_ns(const struct broker *broker);

/* ---- steer.c ---- */
void steer_pump_events(struct broker *broker);
/* Goes on with what clients asked to be freed. True: there is more. */
bool steer_gc_on(struct broker *broker);
void steer_check_drains(struct broker *broker, uint64_t now_ns);
uint64_t steer_next_deadline_ns(const struct broker *broker);

#endif
