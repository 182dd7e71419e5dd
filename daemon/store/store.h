/* SPDX-License-Identifier: Apache-2.0
 *
 * One store on one node: which samples are planned, resident, retired; who leases them; who waits;
 * and where in the arena they lie. PURE: no clock, no sockets, no protobuf, no I/O, no malloc after
 * init. now_ns (CLOCK_BOOTTIME, handed in) never runs backwards. Effects are pulled with
 * store_next_effect(), never performed here.
 *
 * All state lies in one block of memory that the caller provides (store_block_bytes()), as
 * fixed-size slots addressed by 32-bit index, and each transition is committed by a single 8-byte
 * store to the slot's state word. Everything else in the block (hash chains, free lists, age lists,
 * counters, accounts) is derived from the slots. So the block outlives the process: when that has
 * died, at any instruction, another one takes the block over with store_attach().
 * proto/MEMORY.md describes it byte by byte.
 *
 *   PLANNED --seal--> SEALED --publish--> RESIDENT --retire--> RETIRED --last lease--> GONE
 *      \------------- cancel -----------------------------------------------------------^
 *
 * A landing copy (bytes of a generation whose home is another node) takes the same road:
 * land -> PLANNED, land_done -> RESIDENT, last lease -> RETIRED -> GONE, and lies in its own region
 * of the arena: [0, max_resident_bytes) holds home generations, [max_resident_bytes,
 * +landing_bytes) holds landing copies. Neither can starve the other.
 *
 * GONE slots stay findable by generation as tombstones (reason kept) until reused, oldest first.
 */
#ifndef FEATURED_STORE_STORE_H
#define FEATURED_STORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/histogram.h"
#include "proto/place.h"
#include "store/charges.h"

#define STORE_ID_BYTES_MAX   128u
#define STORE_SPEC_BYTES_MAX 8192u
#define STORE_TENSORS_MAX    64u
#define STORE_NO_HOLDER      UINT32_MAX

/* Expected outcomes. Numbers are internal; broker/status.c maps them to wire statuses. */
enum store_result {
    STORE_OK = 0,
    STORE_WAIT,        /* queued; the answer comes as an effect with the same tag */
    STORE_E_NOT_FOUND, /* retired, superseded, gone or never seen */
    STORE_E_FULL,      /* see struct store_refusal */
    STORE_E_LIMIT,     /* a per-session limit, see struct store_refusal */
    STORE_E_TIMEOUT,   /* a waiter's deadline passed */
    STORE_E_INVALID,   /* reservation not this holder's, checksum count wrong, ... */
    STORE_E_TOO_LARGE, /* could never fit, however long one waits */
    STORE_E_EXISTS,    /* a landing copy of that generation is there already */
};

enum store_state {
    STORE_FREE = 0,
    STORE_PLANNED,
    STORE_SEALED,
    STORE_RESIDENT,
    STORE_RETIRED,
    STORE_GONE
};

/* Same numbers as Fb__Reason. */
enum store_reason {
    STORE_REASON_NONE = 0,
    STORE_CONSUMED,
    STORE_ACKED,
    STORE_ABORTED,
    STORE_SUPERSEDED,
    STORE_MAX_HOLD,
    STORE_DROPPED,
    STORE_CANCELLED,
    STORE_PRODUCER_DIED,
    STORE_UNCACHED,
    STORE_FETCH_FAILED,
    STORE_RESERVE_ENDED, /* PLANNED for longer than max_reserve */
    STORE_REASONS,       /* how many there are */
};

enum store_policy { STORE_ON_RELEASE = 0, STORE_ON_ACK, STORE_RETAIN };

/* Which limit refused, with its numbers, so that the caller can say a sentence. */
enum store_cause {
    STORE_CAUSE_NONE = 0,
    STORE_CAUSE_QUOTA,          /* bytes: max_resident_bytes of this store */
    STORE_CAUSE_NODE_QUOTA,     /* bytes: the node's account */
    STORE_CAUSE_FRAGMENTED,     /* bytes: largest free extent (limit) is smaller than asked */
    STORE_CAUSE_LANDING,        /* bytes: landing share */
    STORE_CAUSE_SAMPLES,        /* slots: max_samples */
    STORE_CAUSE_SPECS,          /* slots: spec chunks */
    STORE_CAUSE_LEASES,         /* slots: max_leases of this store */
    STORE_CAUSE_WAITERS,        /* slots: max_waiters of this store */
    STORE_CAUSE_SESSION_LEASES, /* of the holder's account, or a parent of it: see `account` */
    STORE_CAUSE_SESSION_RESERVATIONS,
    STORE_CAUSE_SESSION_QUEUED, /* bytes asked by its waiting puts */
    STORE_CAUSE_QUEUE,          /* others wait already, and this one may not pass them */
    STORE_CAUSES,               /* how many there are */
};
struct store_refusal {
    enum store_cause cause;
    uint64_t limit, used, asked;   /* in the cause's unit */
    const struct account *account; /* whose limit, of STORE_CAUSE_SESSION_...; else NULL */
};

/* Bytes held on the whole node by home generations; shared by all stores of a node. */
struct store_account {
    uint64_t used_bytes, limit_bytes;
};

struct store_options {
    uint64_t max_resident_bytes; /* multiple of 4096 */
    uint64_t landing_bytes;      /* multiple of 4096; 0 = this node reads nothing remote */
    uint32_t max_samples;        /* PLANNED + SEALED + RESIDENT + RETIRED, landing included */
    uint32_t max_tombstones;     /* GONE slots kept beside them */
    uint32_t max_leases;         /* live ones */
    uint32_t max_ended_leases;   /* ended ones remembered; at least 65536 are */
    uint32_t max_holders, max_waiters;
    uint32_t max_replays; /* remembered answers of operations */
    uint32_t max_events;  /* size of the event ring */
    enum store_policy policy;
    uint32_t readers;        /* >= 1 */
    uint64_t max_hold_ns;    /* 0 = for ever */
    uint64_t max_reserve_ns; /* a reservation may stay PLANNED so long; 0 = for ever */
    uint64_t max_pass_ns;    /* see store_reserve() */
    uint64_t seed;           /* random: hash keys and lease tokens derive from it */
    struct store_account *account;
};

struct store; /* opaque; its first bytes lie in the block */

/* Bytes of the block (virtual: pages are touched only as slots come into use), or 0 if the options
 * are out of range; *why then names the option. */
size_t store_block_bytes(const struct store_options *options, const char **why);
/* block: zeroed (fresh mmap), 64-byte aligned, kept by the caller until after store_deinit. */
struct store *store_init(void *block, size_t block_bytes, const struct store_options *options);
enum store_attached {
    STORE_ATTACHED = 0,
    STORE_ATTACH_EMPTY,   /* no store was ever finished there: zero it and call store_init() */
    STORE_ATTACH_REFUSED, /* *why says what is wrong; nothing in the block was changed */
};
/* Takes over a block that the process before left at any instruction, even in the middle of this
 * function. Checks all of it first; then finishes what was half done and derives the rest anew.
 * O(slots ever used), with memory of its own while it lasts. The time is now_ns for what ends here.
 *
 * Same as before: all generations, leases, reservations (PLANNED, under their holders), tombstones,
 * answers, events and tokens, the order of all lists, and the effects that were not pulled. Those
 * are told again when the process died while it pulled them. Gone: whoever waited, and what was
 * granted to a waiter that had not heard of it. PLANNED landing copies have ended as FETCH_FAILED,
 * for their transfers died.
 *
 * options: seed is not looked at, the one of the block counts. max_resident_bytes, landing_bytes
 * and all max_... counts fix the layout and must be those that the block was made with. The others
 * may be new. The bytes of home generations are added to options->account.
 *
 * The caller then walks the holders: those whose owners live it adopts, the others it closes. */
enum store_attached store_attach(void *block, size_t block_bytes,
                                 const struct store_options *options, uint64_t now_ns,
                                 struct store **store_out, char *why, size_t why_bytes);
/* Settings that may change while running: limits the future, never evicts. */
void store_set_policy(struct store *store, enum store_policy policy, uint32_t readers,
                      uint64_t max_hold_ns);
/* A reservation ends max_reserve_ns after it was made; where max_hold_ns is set and smaller, that
 * long. Counts for reservations that stand, too. */
void store_set_bounds(struct store *store, uint64_t max_reserve_ns, uint64_t max_pass_ns);
/* Gives the account back what this store holds. The block can be attached again. */
void store_deinit(struct store *store);

/* ---- holders: one per session and store, one per peer connection and store ---- */
/* owner: the caller's number for it, reported by probes. account: leases, reservations, reserved
 * and queued bytes of the holder are charged to it; it may serve many holders, in many stores, and
 * must outlive them. STORE_E_LIMIT: max_holders. */
enum store_result store_holder_open(struct store *store, uint64_t owner, struct account *account,
                                    uint32_t *holder_out);
/* Leases end as returned (never consumed), reservations are cancelled (PRODUCER_DIED), waiters
 * vanish. */
void store_holder_close(struct store *store, uint32_t holder, uint64_t now_ns);
/* The same, at most `budget` leases and reservations at a time: true when it is closed. The waiters
 * vanish with the first call; the holder must not be used for anything else from then on. */
bool store_holder_close_some(struct store *store, uint32_t holder, uint32_t budget,
                             uint64_t now_ns);
/* Walks the open holders; *cursor 0 to begin, false at the end. */
bool store_holder_next(const struct store *store, uint32_t *cursor, uint32_t *holder_out,
                       uint64_t *owner_out);
/* A holder that store_attach() found: from now on it is `owner`'s, and what it holds is charged to
 * `account`, whatever its limits. Once per attach. */
void store_holder_adopt(struct store *store, uint32_t holder, uint64_t owner,
                        struct account *account);

/* A client has come back and says what it holds; what it was granted and never heard of ends.
 * Begin, then claim each, then end what was not claimed: leases as returned, reservations as
 * cancelled (PRODUCER_DIED). Nothing may be granted to the holder in between. A claim of what it
 * does not hold does nothing. */
void store_claim_begin(struct store *store, uint32_t holder);
void store_claim_lease(struct store *store, uint32_t holder, uint64_t hi, uint64_t lo);
void store_claim_reservation(struct store *store, uint32_t holder, uint64_t reservation);
/* How many leases and reservations it has ended. */
uint32_t store_claim_end(struct store *store, uint32_t holder, uint64_t now_ns);

/* ---- put ---- */
struct store_put {
    const char *sample_id; /* need not be terminated */
    uint32_t sample_id_bytes;
    const void *spec; /* opaque; copied */
    uint32_t spec_bytes;
    uint32_t tensor_count; /* room for as many checksums is taken now, so that seal cannot fail */
    uint64_t extent_bytes;
    uint32_t align_bytes; /* 64 or 4096 */
    uint64_t deadline_ns; /* absolute; <= now_ns = do not wait */
    uint64_t tag;         /* echoed by the effect when the put had to wait */
};
struct store_reservation {
    uint64_t token;
    struct place place; /* of the extent, in the store's arena */
};
/* STORE_OK, STORE_WAIT, STORE_E_FULL, STORE_E_LIMIT or STORE_E_TOO_LARGE. On STORE_WAIT the put's
 * id and spec have been copied.
 *
 * The line for room is first in, first out, with one exception: while its first cannot be served,
 * those behind it that fit may pass it, for max_pass_ns from when it came to the head of the line.
 * After that nobody passes until it is served or its time ends. Those who pass are tried in their
 * order, the first STORE_LOOK_MAX of the line; a newcomer passes at once if no more than those
 * wait. The line for landing space has the same rule. */
#define STORE_LOOK_MAX 64u
enum store_result store_reserve(struct store *store, uint32_t holder, const struct store_put *put,
                                uint64_t now_ns, struct store_reservation *out,
                                struct store_refusal *refusal);
/* PLANNED -> SEALED under this cluster-unique generation. checksums: tensor_count * 8 bytes, or 0
 * bytes. From here the generation outlives its holder. STORE_E_NOT_FOUND: no such reservation of
 * this holder. */
enum store_result store_seal(struct store *store, uint32_t holder, uint64_t reservation,
                             const void *checksums, uint32_t checksums_bytes, uint64_t generation,
                             uint64_t now_ns);
/* SEALED -> RESIDENT; an older RESIDENT generation of the same sample_id here is retired
 * (SUPERSEDED) and named in *superseded_out (0 = none). Getters that waited for it become effects.
 */
enum store_result store_publish(struct store *store, uint64_t generation, uint64_t now_ns,
                                uint64_t *superseded_out);
/* So many have ended so since init. */
uint64_t store_reserves_ended(const struct store *store);
/* Did this reservation end because it stood for longer than its bound? Known for as long as its
 * tombstone is kept. */
bool store_reserve_ended(const struct store *store, uint64_t reservation);
/* PLANNED -> GONE. Idempotent: an unknown reservation is STORE_OK. */
enum store_result store_cancel(struct store *store, uint32_t holder, uint64_t reservation,
                               uint64_t now_ns);
/* SEALED -> GONE, when the directory refused it. */
enum store_result store_unseal(struct store *store, uint64_t generation, uint64_t now_ns);

/* ---- get ---- */
struct store_get {
    const char *sample_id; /* by id when generation == 0 */
    uint32_t sample_id_bytes;
    uint64_t generation;
    uint64_t deadline_ns; /* get-before-put: wait until then for it to become RESIDENT; <= now_ns =
                             do not */
    uint64_t tag;         /* echoed by the effect */
    uint64_t cookie; /* kept with the lease; comes back in STORE_EFFECT_LEASE_ENDED when not 0 */
};
struct store_lease {
    uint64_t hi, lo; /* the token; unguessable */
    uint64_t generation;
    struct place place; /* of the extent, in the store's arena */
    uint32_t slot;      /* for store_spec() while the lease lives */
};
/* A get by generation waits only for one never seen here or SEALED: a RETIRED or GONE one is
 * STORE_E_NOT_FOUND at once. Works on landing copies too (by generation): a PLANNED landing copy
 * makes STORE_WAIT regardless of deadline_ns, ended by store_land_done/_failed. By id finds home
 * generations only. */
enum store_result store_get(struct store *store, uint32_t holder, const struct store_get *get,
                            uint64_t now_ns, struct store_lease *out,
                            struct store_refusal *refusal);
/* Forgets one queued waiter (put or get) of this holder; true if there was one. */
bool store_cancel_wait(struct store *store, uint32_t holder, uint64_t tag);

enum store_how { STORE_RETURNED = 0, STORE_CONSUMED_BY_READER = 1 };
/* Ends a lease of this holder. An unknown or ended lease is STORE_OK: a late `consumed` for a lease
 * that ended as returned (its holder died) still counts once, by whichever holder it is said. */
enum store_result store_release(struct store *store, uint32_t holder, uint64_t hi, uint64_t lo,
                                enum store_how how, uint64_t now_ns);
/* The cookie of a live lease of this holder, 0 if there is none. */
uint64_t store_lease_cookie(const struct store *store, uint32_t holder, uint64_t hi, uint64_t lo);

/* ---- retire ---- */
/* generation != 0: only that one, RESIDENT or SEALED (superseded = harmless STORE_OK); == 0:
 * whatever RESIDENT generation that id has at home here. Absent = STORE_OK; *retired_out tells
 * whether something was retired now. ack of a store that is not on-ack retires too. */
enum store_result store_retire(struct store *store, const char *sample_id, uint32_t sample_id_bytes,
                               uint64_t generation, enum store_reason reason, uint64_t now_ns,
                               bool *retired_out);
/* Retires unleased RESIDENT home generations committed more than max_hold_ns ago, at most `budget`
 * slots looked at; returns how many went. */
uint32_t store_gc(struct store *store, uint64_t max_hold_ns, uint64_t now_ns, uint32_t budget);
/* Did the last store_gc() end for its budget, and has the next one to go on where it ended? */
bool store_gc_goes_on(const struct store *store);
void store_gc_restart(struct store *store); /* ... or begin anew with the oldest? */
/* Retires everything (DROPPED), cancels reservations and waiters. Leased bytes stay until released.
 */
void store_drop(struct store *store, uint64_t now_ns);
/* The same, at most `budget` slots at a time; *cursor 0 to begin. True when all is dropped. Nothing
 * may be put, got or landed in between. */
bool store_drop_some(struct store *store, uint64_t *cursor, uint32_t budget, uint64_t now_ns);

/* ---- landing copies ---- */
struct store_land {
    struct store_put put; /* deadline_ns: wait for landing space until then; tag for the effect */
    uint64_t generation;
    uint64_t origin; /* the caller's number for the home node */
};
/* PLANNED landing copy. STORE_OK with *place_out, STORE_WAIT (effect STORE_EFFECT_LAND with tag),
 * STORE_E_FULL, STORE_E_EXISTS (one is there: use store_get). FIFO among landings. */
enum store_result store_land(struct store *store, const struct store_land *land, uint64_t now_ns,
                             struct place *place_out, struct store_refusal *refusal);
/* PLANNED -> RESIDENT; getters attached become effects. checksums as in store_seal. keep_cached:
 * stay after the last lease until space is needed (retain stores); landing then evicts idle copies,
 * oldest first. */
enum store_result store_land_done(struct store *store, uint64_t generation, const void *checksums,
                                  uint32_t checksums_bytes, bool keep_cached, uint64_t now_ns);
/* PLANNED -> GONE; getters attached end with STORE_E_NOT_FOUND effects (the caller says the real
 * cause). Also frees a cached copy that turned out to be stale or corrupt (RESIDENT -> RETIRED). */
enum store_result store_land_failed(struct store *store, uint64_t generation, uint64_t now_ns);
/* RESIDENT or PLANNED landing copy of that generation here? */
bool store_has_landing(const struct store *store, uint64_t generation);

/* ---- effects: pull until false, after every batch of calls and whenever the deadline passes ----
 */
enum store_effect_kind {
    STORE_EFFECT_PUT,     /* a waiting put ended: result, reservation, refusal */
    STORE_EFFECT_LAND,    /* a waiting land ended: result, reservation.place, refusal */
    STORE_EFFECT_GET,     /* a waiting get ended: result, lease, refusal */
    STORE_EFFECT_RETIRED, /* a home generation left RESIDENT: generation, reason, sample_id: tell
                             the directory */
    STORE_EFFECT_LEASE_ENDED, /* a lease with a cookie ended: cookie, how; again when a late
                                 `consumed` corrects a `returned` */
};
struct store_effect {
    enum store_effect_kind kind;
    uint32_t holder;
    uint64_t tag, cookie;
    enum store_result result;
    struct store_reservation reservation;
    struct store_lease lease;
    struct store_refusal refusal;
    uint64_t generation;
    enum store_reason reason;
    enum store_how how;
    char sample_id[STORE_ID_BYTES_MAX + 1];
};
bool store_next_effect(struct store *store, uint64_t now_ns, struct store_effect *out);
/* There is one that has not been pulled: the block must not be forgotten yet. */
bool store_has_effect(const struct store *store);
/* Absolute; UINT64_MAX = none. */
uint64_t store_next_deadline_ns(const struct store *store);

/* ---- replay: the first answer of an operation, for its repeats ---- */
struct store_op {
    uint64_t client_id, op_id; /* op_id 0 = not remembered */
};
struct store_answer {
    uint32_t status; /* the caller's */
    uint64_t value;  /* generation, or count */
};
bool store_replay_find(const struct store *store, struct store_op op, struct store_answer *out);
void store_replay_record(struct store *store, struct store_op op,
                         const struct store_answer *answer);

/* ---- probes: no side effects ---- */
struct store_info {
    uint32_t slot;
    enum store_state state;
    enum store_reason reason;
    uint64_t generation; /* 0 while PLANNED at home */
    uint64_t origin;     /* landing: home node; else 0 */
    bool landing, cached;
    uint64_t since_ns;  /* reserve, commit or retire time */
    struct place place; /* of the extent; GONE: how long it was, at 0 */
    uint64_t owner;     /* PLANNED: the holder's */
    uint32_t leases, consumed;
    char sample_id[STORE_ID_BYTES_MAX + 1];
};
/* By generation (any state, tombstones too), else by id: the RESIDENT one, else SEALED, else newest
 * PLANNED, else newest tombstone found. False = never seen. */
bool store_stat(const struct store *store, const char *sample_id, uint32_t sample_id_bytes,
                uint64_t generation, struct store_info *out);
/* Copies spec and checksums of a slot that is not FREE/GONE; sizes always set, bytes only if they
 * fit. */
bool store_spec(const struct store *store, uint32_t slot, void *spec, uint32_t spec_max,
                uint32_t *spec_bytes, void *checksums, uint32_t checksums_max,
                uint32_t *checksums_bytes);
/* Walks all slots; *cursor 0 to begin, false at the end. Cheap per call (skips at most 4096 unused
 * slots: then true with out->state == STORE_FREE). Changes in between are seen or not, never break
 * it. */
bool store_list_next(const struct store *store, uint64_t *cursor, struct store_info *out);
struct store_lease_info {
    uint64_t owner, generation, since_ns;
    char sample_id[STORE_ID_BYTES_MAX + 1];
};
/* Leases of one slot; *cursor 0 to begin. */
bool store_slot_lease_next(const struct store *store, uint32_t slot, uint64_t *cursor,
                           struct store_lease_info *out);
/* All leases, like store_list_next: true with out->generation == 0 means "go on". */
bool store_lease_next(const struct store *store, uint64_t *cursor, struct store_lease_info *out);

/* Leases with a cookie, also those that have ended and are remembered; *cursor 0 to begin. False at
 * the end. Cheap per call, like store_lease_next(): a cookie of 0 means "go on". */
struct store_cookie {
    uint64_t cookie;
    bool live;
    enum store_how how; /* of one that has ended */
};
bool store_cookie_next(const struct store *store, uint64_t *cursor, struct store_cookie *out);

struct store_totals {
    uint64_t resident_bytes; /* home extents: PLANNED, SEALED, RESIDENT, RETIRED */
    uint64_t landing_used_bytes;
    uint64_t planned, sealed, resident, retired, landing,
        tombstones; /* generations; landing counts copies */
    uint64_t leases, reservations, holders, put_waiters, get_waiters, land_waiters;
    uint64_t max_holders, max_leases, max_waiters;
    uint64_t puts, gets, frees;  /* since init */
    uint64_t largest_free_bytes; /* of the home region */
    uint64_t reserves_ended;     /* by max_reserve, since init */
};
void store_totals(const struct store *store, struct store_totals *out);

/* How generations have lived and ended, since init or attach. */
struct store_lives {
    uint64_t ended[STORE_REASONS]; /* left RESIDENT, or ended before; copies of others' too */
    /* Of home generations, from the moment at which they became readable: to their first lease, and
     * to their consumption or ack. */
    struct histogram first_get, consumed;
};
void store_lives(const struct store *store, struct store_lives *out);

/* Who holds the room, and who waits for it first. Owners: see store_holder_open(). Cheap. */
struct store_room {
    uint64_t reserved_bytes, sealed_bytes, resident_bytes, retired_bytes; /* of home generations */
    uint64_t leased_bytes; /* of resident and retired ones that somebody reads */
    /* Of the STORE_LOOK_MAX oldest reservations: whose holder has reserved the most. */
    bool has_reserver;
    uint64_t reserver, reserver_bytes, reserver_since_ns;
    /* A reader of the generation that has been RETIRED for longest. */
    bool has_reader;
    uint64_t reader, reader_since_ns;
    bool has_first;                              /* a put waits */
    uint64_t first, first_bytes, first_since_ns; /* since_ns: at the head of the line */
};
void store_room(const struct store *store, struct store_room *out);

/* ---- events: a ring for `featurectl events`; nothing else depends on it ---- */
struct store_event {
    uint64_t sequence, at_ns, generation, extent_bytes;
    enum store_state state;
    enum store_reason reason;
    bool landing;
    char sample_id[STORE_ID_BYTES_MAX + 1];
};
/* Next event after *sequence (0 = from the oldest kept); *missed_out = events overwritten in
 * between. */
bool store_event_next(const struct store *store, uint64_t *sequence, struct store_event *out,
                      uint64_t *missed_out);
uint64_t store_event_last(const struct store *store);

/* Checks every invariant of the block (extents disjoint and inside their region, lists and hashes
 * agree with slots, counters add up, RETIRED without lease is GONE, ...). For tests. NULL or a
 * sentence in `why`. */
const char *store_audit(const struct store *store, char *why, size_t why_bytes);

#endif
