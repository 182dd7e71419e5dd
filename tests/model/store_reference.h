/* SPDX-License-Identifier: Apache-2.0
 *
 * What a store must do, said as plainly as possible: arrays, linear scans, no care for speed.
 * Written from the contract; shares no code with daemon/store but the public header's names.
 *
 * The one thing it does not decide is where an extent goes. It asks `seen` (what the store under
 * test shows) and checks that the place is legal; whether there is a place at all it works out by
 * itself. Every put carries a serial number in its spec, by which both sides speak of the same
 * sample.
 */
#ifndef FEATURED_TESTS_STORE_REFERENCE_H
#define FEATURED_TESTS_STORE_REFERENCE_H

#include "store/store.h"

#define REF_SAMPLES 128
#define REF_LEASES  256
#define REF_WAITERS 16
#define REF_EFFECTS 512
#define REF_HOLDERS 8

struct ref_sample {
    uint64_t serial; /* 0 = unused */
    bool landing, cached, dropped, effect_pending;
    bool was_last; /* newest gone of its id */
    bool hidden;   /* landed once more since */
    enum store_state state;
    enum store_reason reason;
    uint64_t generation, origin, token, offset, bytes, since_ns, order;
    uint64_t idle_order, tomb_order;
    int id;
    uint32_t holder, consumed, leases, tensors;
};
struct ref_lease {
    uint64_t serial, sample_serial, hi, lo, generation, cookie, ended_order;
    bool live, effect_pending, known; /* known: its token has been told */
    bool unheard;                     /* while ref_crash() runs */
    enum store_how how;
    uint32_t holder;
};
enum ref_kind { REF_PUT = 1, REF_LAND, REF_GET_ID, REF_GET_GENERATION };
struct ref_waiter {
    enum ref_kind kind;
    bool ready;
    uint32_t holder, align, tensors;
    uint64_t tag, cookie, deadline_ns, order, generation, origin, bytes, serial, granted;
    int id;
    enum store_result result;
    struct store_refusal refusal;
};
struct ref_effect {
    enum store_effect_kind kind;
    struct ref_waiter waiter; /* a copy, of an ended wait */
    uint64_t serial;          /* of the sample or lease */
};
struct ref_seen {
    uint64_t serial, offset;
};
struct ref {
    /* Called whenever something is done that would stand alone if the store died now; or NULL. */
    void (*step)(struct ref *ref, void *context);
    void *step_context;
    struct store_options options;
    struct store_account *account; /* its own copy */
    struct ref_sample samples[REF_SAMPLES];
    struct ref_lease leases[REF_LEASES];
    struct ref_waiter waiters[REF_WAITERS];
    struct {
        enum store_effect_kind kind;
        uint64_t of; /* sample or lease serial, or waiter order */
    } effects[REF_EFFECTS];
    unsigned effect_count;
    struct {
        bool open;
        struct ref_limits {
            uint32_t leases, reservations;
            uint64_t queued_bytes;
        } limits;
    } holders[REF_HOLDERS];
    struct ref_seen seen[REF_SAMPLES];
    unsigned seen_count;
    struct {
        uint64_t order, since_ns; /* which waiter is first, and since when */
    } lines[2];                   /* of REF_PUT and REF_LAND */
    uint64_t reserves_ended;
    uint64_t order, lease_serial, puts, gets, frees;
    const char *broken; /* set when the store's choice of place was not legal */
};

struct ref_put {
    int id;
    uint64_t serial, bytes, deadline_ns, tag;
    uint32_t align, tensors;
};

enum store_result ref_reserve(struct ref *ref, uint32_t holder, const struct ref_put *put,
                              uint64_t now_ns, struct store_refusal *refusal);
enum store_result ref_seal(struct ref *ref, uint32_t holder, uint64_t token,
                           uint32_t checksums_bytes, uint64_t generation);
enum store_result ref_publish(struct ref *ref, uint64_t generation, uint64_t now_ns,
                              uint64_t *superseded);
void ref_cancel(struct ref *ref, uint32_t holder, uint64_t token, uint64_t now_ns);
enum store_result ref_unseal(struct ref *ref, uint64_t generation, uint64_t now_ns);
/* get->sample_id is not looked at: id says it. */
enum store_result ref_get(struct ref *ref, uint32_t holder, int id, const struct store_get *get,
                          uint64_t now_ns, struct ref_lease **lease, struct store_refusal *refusal);
bool ref_cancel_wait(struct ref *ref, uint32_t holder, uint64_t tag, uint64_t now_ns);
void ref_release(struct ref *ref, uint32_t holder, struct ref_lease *lease, enum store_how how,
                 uint64_t now_ns);
/* What store_reserve_ended() says. */
bool ref_reserve_ended(struct ref *ref, uint64_t token);
bool ref_retire(struct ref *ref, int id, uint64_t generation, enum store_reason reason,
                uint64_t now_ns);
uint32_t ref_gc(struct ref *ref, uint64_t max_hold_ns, uint64_t now_ns);
void ref_drop(struct ref *ref, uint64_t now_ns);
void ref_holder_close(struct ref *ref, uint32_t holder, uint64_t now_ns);
enum store_result ref_land(struct ref *ref, const struct ref_put *put, uint64_t generation,
                           uint64_t origin, uint64_t now_ns, struct store_refusal *refusal);
enum store_result ref_land_done(struct ref *ref, uint64_t generation, bool keep, uint64_t now_ns);
enum store_result ref_land_failed(struct ref *ref, uint64_t generation, uint64_t now_ns);
void ref_hurry(struct ref *ref, uint64_t tag);
bool ref_next_effect(struct ref *ref, uint64_t now_ns, struct ref_effect *out);
uint64_t ref_next_deadline_ns(const struct ref *ref);
/* The process dies and another one takes the store over: who waited is gone, with what it had been
 * granted and not heard of, and so are copies whose transfer was under way. */
void ref_crash(struct ref *ref, uint64_t now_ns);

struct ref_sample *ref_by_serial(struct ref *ref, uint64_t serial);
struct ref_sample *ref_by_generation(struct ref *ref, uint64_t generation);
struct ref_sample *ref_by_id(struct ref *ref, int id); /* what store_stat() by id shows */
struct ref_lease *ref_lease_by_serial(struct ref *ref, uint64_t serial);
uint64_t ref_largest_hole(const struct ref *ref, bool landing);
uint64_t ref_reserve_bound_ns(const struct ref *ref); /* 0 = none */
void ref_totals(struct ref *ref, struct store_totals *out);

#endif
