/* SPDX-License-Identifier: Apache-2.0
 *
 * What one node is: its stores (spaces), its sessions, and what each is charged for. Everything
 * above node/ works on struct broker; the parts of it that belong to other folders are pointers.
 *
 * - Circle: sessions.c, sessions_kept.c: a session that changes has its record changed, and a record
 *   that is recalled becomes a session.
 * - Circle: spaces.c, spaces_kept.c: a store that is made has its record written, and a record that
 *   is recalled becomes a store.
 */
#ifndef FEATURED_NODE_NODE_H
#define FEATURED_NODE_NODE_H

#include <sys/queue.h>

#include "broker.h"
#include "node/account_words.h"
#include "node/accounts.h"
#include "node/counts.h"
#include "node/kept.h"
#include "node/turns.h"
#include "ops/log.h"
#include "proto/auth.h"
#include "proto/bump.h"
#include "proto/frame.h"
#include "proto/layout.h"
#include "store/store.h"
#include "time/deadlines.h"

#define SPACES_MAX           256u
#define SENTENCE_BYTES       640u
#define TROUBLE_BYTES        768u   /* of a sentence that ends in etcd's words */
#define SPEC_BYTES_PER_CALL  98304u /* so that the answer fits one frame */
#define RECALLED_HANDLES_MAX 65536u /* beyond that a record is damaged */
#define LATE_KEPT            64u
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
    struct deadline store_due; /* wakes the loop: the pump has the store carry out what is due */
    uint64_t event_last;       /* last event handed to subscribers */
    uint64_t reserves_ended_logged;
    uint64_t gc_freed;          /* in the pass under way */
    bool drop_walked, detached; /* dropped: all slots; no transport or prefault has it */
    uint64_t drop_cursor, given_back_bytes; /* dropped: how far its end has come */
    struct account *creator; /* the user who made it at run time; NULL: the configuration */
    uint32_t kept;           /* its record in the node's memory, + 1; 0 = none */
    struct space_counts counts;
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
    bool claimed;  /* by a client that has come back: see requests/claim.c */
    uint32_t kept; /* its record in the node's memory + 1; 0 = none */
};
struct challenge { /* a store opening half done */
    struct space *space;
    bool write;
    uint8_t client_nonce[AUTH_NONCE_BYTES], server_nonce[AUTH_NONCE_BYTES];
};

struct call;
TAILQ_HEAD(call_list, call);
struct exchange;
struct requests;

struct broker_session;
/* Who holds leases and reservations in the stores: a session, or another broker (serve.c). */
struct owner {
    LIST_ENTRY(owner) link;
    uint64_t id;                    /* by which the stores know it; never used again */
    const char *name;               /* for people; its owner's memory */
    struct broker_session *session; /* NULL: another broker */
};

struct broker_session {
    struct broker *broker;
    TAILQ_ENTRY(broker_session) link;
    struct owner owner;
    const struct broker_client_ops *ops;
    void *client;                      /* NULL: parked */
    uint8_t token[BROKER_TOKEN_BYTES]; /* whoever comes back to it says it */
    bool over_limit;                   /* not admitted, and counted nowhere: see sessions.c */
    bool lasts;                        /* its client comes back when its connection breaks */
    bool resumed;                      /* it has come back, and Hello is about to be answered */
    bool claiming;                     /* ... and is saying what it holds (requests/claim.c) */
    uint64_t parked_ns;                /* since when; 0 = connected */
    uint32_t kept;                     /* its record in the node's memory + 1; 0 = none */
    bool recalled;         /* of an earlier broker, and nobody watches its process yet */
    bool attachments_lost; /* ... and not all that it had open is there */
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

struct broker {
    struct broker_options options;
    const struct config *config;
    uint64_t now_ns, started_ns;
    struct kept_memory *kept;     /* what is known again after a crash; see kept.h */
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
    LIST_HEAD(, owner) owners;
    uint64_t next_owner;        /* the last id of an owner */
    struct deadlines deadlines; /* of all that this broker does at a time */
    uint64_t request_count;
    struct deadline collect;       /* gc, and the end of stores that were dropped */
    bool collect_due;              /* its time has come: the pump does it, in its order */
    uint64_t collected_ns;         /* the last time; 0 = never */
    struct deadline directory_due; /* wakes the loop: the pump calls the directory's tick() */
    uint64_t items_ended, effects_done;
    uint64_t turn_work;   /* items ended and effects carried out in this turn */
    bool unfinished;      /* this turn has done its part, and more is due */
    uint32_t first_space; /* whose effects come first in the next turn */
    struct turns turns;
    struct node_counts counts;
    TAILQ_HEAD(, leaving) leavings; /* spaces.c */
    bool draining;
    struct bump bump;          /* for the one spec that is being looked at */
    struct exchange *exchange; /* what is under way between this broker and others */
    struct requests *requests; /* what waits in no store, and for no peer (requests.h) */
};

/* ---- status.c ---- */
Fb__Status status_of(enum store_result result);
/* A sentence for a refusal: "store run0 full: 3.2 GiB of 4.0 GiB resident, 64 MiB asked; ...". */
void status_sentence(char out[SENTENCE_BYTES], const struct space *space, enum store_result result,
                     const struct store_refusal *refusal, const char *sample_id);
/* Who holds the room of the store, and who is first among those who wait for it, in a few words:
 * appended to a sentence. */
void status_add_room(char out[SENTENCE_BYTES], const struct broker *broker,
                     const struct space *space, const struct store_refusal *refusal);
/* "; the wait was cut to max_wait = 10min of the store", appended. */
void status_add_cut(char out[SENTENCE_BYTES], const struct space *space);
const char *status_reason_word(enum store_reason reason);
/* Why a get of this found nothing: "... was retired 12 s ago: consumed". */
void status_not_found(char out[SENTENCE_BYTES], const struct broker *broker,
                      const struct space *space, const char *sample_id, uint64_t generation);

/* The time of this moment, for measuring: broker->now_ns is that of the last message or turn. */
static inline uint64_t broker_moment_ns(const struct broker *broker) {
    return broker->options.clock_ns ? broker->options.clock_ns(broker->options.owner)
                                    : broker->now_ns;
}

/* The store has refused something, and whoever asked is told so. */
static inline void space_count_refusal(struct space *space, const struct store_refusal *refusal) {
    space->counts.refused[refusal->cause]++;
}

/* ---- spaces.c ---- */
struct space *space_find(struct broker *broker, const char *name);
int space_create(struct broker *broker, const struct config_store *config, const uint8_t *key,
                 struct space **out, char *why, size_t why_bytes);
void space_drop(struct broker *broker, struct space *space, uint64_t now_ns);
/* It was made at run time, for this user, who is charged. */
void space_set_creator(struct broker *broker, struct space *space, struct account *user);

/* ---- spaces_kept.c ---- */
/* The record of a store of that name which an earlier broker left; NULL: there is none. */
const struct kept_store *space_kept_find(const struct broker *broker, const char *name,
                                         uint32_t *index_out);
/* An earlier broker left a store in that slot. */
bool space_kept_in_slot(const struct broker *broker, uint32_t slot);
/* Takes a record for a store that is being made. False: there is no room for one. */
bool space_keep_begin(struct broker *broker, struct space *space, const struct config_store *config,
                      const struct store_options *options);
/* Its memory is made: from here on the next broker finds it. block_fd: of its index. */
int space_keep_commit(struct broker *broker, struct space *space, int block_fd, char *why,
                      size_t why_bytes);
/* What an earlier broker left of it: its arena, and *block_fd_out, the caller's. */
int space_kept_take(struct broker *broker, struct space *space, int *block_fd_out, char *why,
                    size_t why_bytes);
/* It is being dropped; its memory is given back. */
void space_keep_dropped(struct broker *broker, const struct space *space);
void space_keep_end(struct broker *broker, struct space *space);
/* After the stores of the configuration: those that were made at run time. */
int spaces_recall(struct broker *broker, char *why, size_t why_bytes);
/* ---- spaces.c ---- */
/* What may stand, wait and pass, and for how long: of a store that is there, too. */
void space_set_bounds(struct space *space, const struct config_store *config);
/* The time asked for, or max_wait of the store where that is shorter: *cut then. */
uint64_t space_cut_wait_ns(const struct space *space, uint64_t asked_ns, bool *cut);
/* Goes on with dropping, and frees dropped stores that nobody holds any more. True: there is more
 * to do at once. leave: makes the brokers that ask us leave such a store, if nothing is leased in
 * it. */
typedef void space_leave_fn(struct broker *broker, struct space *space);
bool spaces_reap(struct broker *broker, space_leave_fn *leave);
/* Ends what a session or peer that is gone held: some of it now, the rest in turns to come, and its
 * account is kept for so long. True: it is all over. */
bool space_leave(struct broker *broker, struct space *space, uint32_t holder,
                 struct account *account);
/* Goes on with that. True: there is more. */
bool spaces_leave_on(struct broker *broker);
void spaces_leavings_free(struct broker *broker);
void space_free(struct broker *broker, struct space *space);
/* ---- sessions.c ---- */
/* The store that the session has opened under that handle; NULL: none. */
static inline struct attachment *session_attachment(struct broker_session *session,
                                                    uint32_t handle) {
    if (!handle || handle > session->attachment_count || !session->attachments[handle - 1].space)
        return NULL;
    return &session->attachments[handle - 1];
}
/* Ends what the session holds under that handle. False: some of it in turns to come. */
bool session_detach(struct broker_session *session, struct attachment *attachment);
/* Admits a session that was over a limit when it connected, if there is room for it now. False with
 * a sentence that names the limit. True for one that was admitted before. */
bool session_admit(struct broker_session *session, char *why, size_t why_bytes);

/* A session that an earlier broker left: parked, with nothing open yet. NULL: no memory. */
struct broker_session *session_new_recalled(struct broker *broker, uint64_t id,
                                            const struct broker_credentials *credentials,
                                            uint64_t opened_ns);
/* Its name for people, from what is known of it. */
void session_rename(struct broker_session *session);
/* ---- sessions_kept.c ---- */
/* Of a store that the session has just opened; false: there is no place for it. */
bool session_keep_attachment(struct broker_session *session, uint32_t attachment);
void session_forget_attachment(const struct broker_session *session, struct attachment *attachment);
void session_forget(struct broker_session *session);
/* After a restart, once the stores are there: sessions are parked, with all that they hold and are
 * charged for; what is nobody's in the stores ends. 0 or -ENOMEM. */
int sessions_recall(struct broker *broker);

/* ---- sessions.c ---- */
/* Gives it a number. name: must stay where it is. */
void owner_add(struct broker *broker, struct owner *owner, const char *name);
void owner_remove(struct owner *owner);
/* Of a session that is connected; false: it is none. */
bool broker_owner_uid(const struct broker *broker, uint64_t owner, uint32_t *uid_out);
const char *broker_owner_name(const struct broker *broker, uint64_t owner, char out[160]);

#endif
