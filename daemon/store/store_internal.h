/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of the store ask of each other. Public functions end with store_settle(), which
 * hands freed room to those who wait; nothing below it does.
 */
#ifndef FEATURED_STORE_INTERNAL_H
#define FEATURED_STORE_INTERNAL_H

#include "store/slots.h"

/* What ends by the clock ends so many at a time; the rest at the next pull of an effect. */
#define EXPIRE_BUDGET 64u

/* ---- store.c ---- */
/* Where all tables lie, in the derived part of `store`; returns the bytes of the block. */
uint64_t store_lay_out(struct store *store, const struct store_options *options);
void store_derive_key(unsigned char key[16], uint64_t seed);
/* The header that store_init() writes, without the magic. */
void store_describe(struct store_header *header, const struct store_options *options,
                    uint64_t block_bytes);
void store_init_derived(struct store *store, const struct store_options *options);

/* ---- order.c ---- */
struct keyed { /* a slot, and what it is sorted by */
    uint64_t key;
    uint32_t index;
};
/* Ascending by key; those with the same key stay as they are. `spare` has room for as many. */
void keyed_sort(struct keyed *items, struct keyed *spare, size_t count);

/* ---- names.c: one slot per sample_id in use; references are counted ---- */
uint32_t name_find(const struct store *store, const char *id, uint32_t id_bytes); /* or NONE */
uint32_t name_ref(struct store *store, const char *id, uint32_t id_bytes);        /* never fails */
void name_unref(struct store *store, uint32_t name);
void name_restore(struct store *store, uint32_t name); /* after an attach */
void name_copy(const struct store *store, uint32_t name, char out[STORE_ID_BYTES_MAX + 1]);

/* ---- specs.c: a spec and the room for its checksums, in a chain of chunks ---- */
uint32_t spec_chunks(uint32_t spec_bytes, uint32_t tensor_count);
uint32_t spec_store(struct store *store, const void *spec, uint32_t spec_bytes,
                    uint32_t tensor_count); /* the caller has checked that chunks are left */
void spec_write(struct store *store, uint32_t chunk, uint32_t offset, const void *bytes,
                uint32_t count);
void spec_read(const struct store *store, uint32_t chunk, uint32_t offset, void *bytes,
               uint32_t count);
void spec_free(struct store *store, uint32_t chunk);

/* ---- samples.c: taking and ending generation slots ---- */
struct sample_request {
    const char *sample_id; /* or NULL: name and chunk are handed over by a waiter */
    uint32_t sample_id_bytes;
    const void *spec;
    uint32_t name, chunk;
    uint32_t spec_bytes, tensor_count;
    uint64_t extent_bytes;
    uint32_t align_bytes;
    bool landing;
    bool waited; /* for a waiter, who hears of it later: WORD_UNHEARD */
    uint32_t holder;
    uint64_t generation, origin;
};
enum store_result sample_new(struct store *store, const struct sample_request *request,
                             uint64_t now_ns, uint32_t *index_out, struct store_refusal *refusal);
/* The same for a landing copy: cached copies that nobody reads make room for it, the one that has
 * been idle for longest first. STORE_E_EXISTS: there is a copy of that generation. */
enum store_result sample_new_landing(struct store *store, const struct sample_request *request,
                                     uint64_t now_ns, uint32_t *index_out,
                                     struct store_refusal *refusal);
bool put_is_valid(const struct store_put *put);
uint64_t extent_round(uint64_t bytes);
uint64_t sample_token(const struct store *store, uint32_t index);
uint32_t sample_by_generation(const struct store *store, uint64_t generation); /* or NONE */
void sample_hash(struct store *store, uint32_t index);
/* Adds (1) or takes off (-1) a slot in the counters of its state. */
void sample_count(struct store *store, const struct sample_slot *sample, uint64_t by);
/* Commits the transition and counts, dates and records it. */
void sample_commit(struct store *store, uint32_t index, enum store_state state,
                   enum store_reason reason, uint64_t now_ns);
/* A PLANNED one at home is no reservation any more. */
void sample_unreserve(struct store *store, uint32_t index);
/* PLANNED or SEALED at home, PLANNED landing, or RETIRED without lease: frees it all -> GONE. */
void sample_end(struct store *store, uint32_t index, enum store_reason reason, uint64_t now_ns);
/* RESIDENT -> RETIRED, and GONE if nobody reads it. */
void sample_retire(struct store *store, uint32_t index, enum store_reason reason, uint64_t now_ns);
/* A GONE slot that has nothing to tell joins the tombstones. */
void sample_bury(struct store *store, uint32_t index);
/* Its effect was pulled. */
void sample_told(struct store *store, uint32_t index);
/* An idle landing copy, or a tombstone, is the youngest of its list; without these flags. */
void sample_to_end(struct store *store, uint32_t index, uint64_t flags_gone);
/* GONE, in no list and no hash any more -> FREE. */
void sample_free(struct store *store, uint32_t index);
/* Ends reservations that have stood for too long, a bounded number at a time. */
void reservations_expire(struct store *store, uint64_t now_ns);
uint64_t reservations_deadline_ns(const struct store *store);
uint32_t reservation_find(const struct store *store, uint32_t holder, uint64_t token);

/* ---- lease.c ---- */
enum store_result lease_check(const struct store *store, uint32_t holder,
                              struct store_refusal *refusal);
/* unheard: 0, or WORD_UNHEARD when it is granted to a waiter, who hears of it later. */
uint32_t lease_grant(struct store *store, uint32_t sample, uint32_t holder, uint64_t cookie,
                     uint64_t unheard, uint64_t now_ns);
void lease_end(struct store *store, uint32_t lease, enum store_how how, bool tell, uint64_t now_ns);
void lease_describe(const struct store *store, uint32_t lease, struct store_lease *out);
void lease_bury(struct store *store, uint32_t lease);
/* Its effect was pulled. */
void lease_told(struct store *store, uint32_t lease);
/* What the end of a lease means for its sample, once it is in no list of live ones any more. */
void lease_reader_left(struct store *store, uint32_t sample, uint64_t now_ns);
/* By its token, live or ended; or NONE. */
uint32_t lease_find(const struct store *store, uint64_t hi, uint64_t lo);
/* `consumed` is said of a lease that has ended: it counts unless that was said before. */
void lease_late_consumed(struct store *store, uint32_t lease, uint64_t now_ns);

/* ---- waiters.c ---- */
enum store_result waiter_check(const struct store *store, struct store_refusal *refusal);
uint32_t waiter_new(struct store *store, enum waiter_kind kind, uint32_t holder, uint64_t tag,
                    uint64_t deadline_ns);
void waiter_enqueue(struct store *store, uint32_t waiter, uint64_t now_ns);
/* A put or landing that waits for room, not yet in its queue: *index_out. STORE_E_FULL: there is no
 * room for one more wait. It will fail with the refusal as it is now. */
enum store_result waiter_for_room(struct store *store, enum waiter_kind kind, uint32_t holder,
                                  const struct store_put *put, struct store_refusal *refusal,
                                  uint32_t *index_out);
void waiter_answer(struct store *store, uint32_t waiter, enum store_result result);
/* Undoes its grant, if it had one that was not pulled yet. */
void waiter_forget(struct store *store, uint32_t waiter, enum store_reason reason, uint64_t now_ns);
void waiter_free(struct store *store, uint32_t waiter);
/* Gets waiting for this generation (and, with it, for this name) end: with leases on `sample`, or
 * with NOT_FOUND when sample is NONE. */
void waiters_wake(struct store *store, uint64_t generation, uint32_t name, uint32_t sample,
                  uint64_t now_ns);
void waiters_fail_all(struct store *store);
/* Of the waiter whose time ends first; UINT64_MAX = none. */
uint64_t waiters_deadline_ns(const struct store *store);
void waiters_expire(struct store *store, uint64_t now_ns);
void store_settle(struct store *store, uint64_t now_ns);
/* May one that is not in the line take room before those who are? After store_settle(). */
bool line_lets_pass(const struct store *store, const struct line *line, uint64_t waiters,
                    uint64_t now_ns);

/* ---- effects.c ---- */
void effect_sample_retired(struct store *store, uint32_t sample);
void effect_lease_ended(struct store *store, uint32_t lease);
void effect_waiter(struct store *store, uint32_t waiter);
void effect_forget_waiter(struct store *store, uint32_t waiter);
enum effect_of { EFFECT_NONE, EFFECT_OF_SAMPLE, EFFECT_OF_LEASE, EFFECT_OF_WAITER };
/* Takes the oldest one out of the queue, and says of which slot it speaks. */
enum effect_of effect_take(struct store *store, uint32_t *index_out);

/* ---- replay.c ---- */
void replays_rebuild(struct store *store);

/* ---- events.c ---- */
void event_record(struct store *store, const struct sample_slot *sample, uint64_t now_ns);
size_t event_ring_bytes(uint32_t max_events);
void events_restore(struct store *store); /* after an attach */

/* ---- holder.c ---- */
bool holder_restore(struct store *store, uint32_t holder); /* after an attach */

static inline struct extent_map *home_map(const struct store *store) {
    return store_at(store, store->home_map);
}
static inline struct extent_map *landing_map(const struct store *store) {
    return store_at(store, store->landing_map);
}
static inline enum store_result refuse(struct store_refusal *refusal, enum store_result result,
                                       enum store_cause cause, uint64_t limit, uint64_t used,
                                       uint64_t asked) {
    *refusal = (struct store_refusal){.cause = cause, .limit = limit, .used = used, .asked = asked};
    return result;
}
static inline enum store_result refuse_account(struct store_refusal *refusal,
                                               enum store_cause cause,
                                               const struct charge_refusal *full) {
    refuse(refusal, STORE_E_LIMIT, cause, full->limit, full->used, full->asked);
    refusal->account = full->account;
    return STORE_E_LIMIT;
}

#endif
