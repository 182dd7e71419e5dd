/* SPDX-License-Identifier: Apache-2.0
 *
 * What the operations of the reference are made of: finding, places, leases, room, waiting.
 */
#ifndef FEATURED_TESTS_STORE_REFERENCE_STATE_H
#define FEATURED_TESTS_STORE_REFERENCE_STATE_H

#include "model/store_reference.h"

/* p points to one element of the array after the other. */
#define EACH(p, array)                                                                             \
    for (__typeof__(*(array)) *p = (array); p < (array) + sizeof(array) / sizeof(*(array)); p++)

struct ref_sample *refstate_resident_of(struct ref *ref, int id);
bool refstate_live(const struct ref_sample *s);
void refstate_step(struct ref *ref);
uint64_t refstate_bytes_of(const struct ref *ref, bool landing);
uint32_t refstate_count_waiters(const struct ref *ref, enum ref_kind kind, uint32_t holder);
uint64_t refstate_up(uint64_t value, uint64_t align);
void refstate_effect(struct ref *ref, enum store_effect_kind kind, uint64_t of);
void refstate_effect_remove(struct ref *ref, unsigned at);
void refstate_bury(struct ref *ref, struct ref_sample *s);
void refstate_gone(struct ref *ref, struct ref_sample *s, enum store_reason reason,
                   uint64_t now_ns);
void refstate_retire(struct ref *ref, struct ref_sample *s, enum store_reason reason,
                     uint64_t now_ns);
uint32_t refstate_lease_slots_used(const struct ref *ref);
uint32_t refstate_leases_of(const struct ref *ref, uint32_t holder);
struct ref_lease *refstate_grant(struct ref *ref, struct ref_sample *s, uint32_t holder,
                                 uint64_t cookie);
void refstate_after_reader(struct ref *ref, struct ref_sample *s, uint64_t now_ns);
void refstate_end_lease(struct ref *ref, struct ref_lease *l, enum store_how how, bool tell,
                        uint64_t now_ns);
enum store_result refstate_refuse(struct store_refusal *refusal, enum store_result result,
                                  enum store_cause cause, uint64_t limit, uint64_t used,
                                  uint64_t asked);
enum store_result refstate_try_take(struct ref *ref, const struct ref_waiter *w, uint64_t now_ns,
                                    struct store_refusal *refusal);
void refstate_answer(struct ref *ref, struct ref_waiter *w, enum store_result result);
void refstate_settle(struct ref *ref, uint64_t now_ns);
bool refstate_lets_pass(const struct ref *ref, enum ref_kind kind, uint64_t now_ns);
void refstate_end_reservations(struct ref *ref, uint64_t now_ns);
enum store_result refstate_enqueue(struct ref *ref, const struct ref_waiter *w, uint64_t now_ns,
                                   struct store_refusal *refusal);
void refstate_wake(struct ref *ref, uint64_t generation, int id, struct ref_sample *s);
void refstate_expire(struct ref *ref, uint64_t now_ns);
void refstate_forget(struct ref *ref, struct ref_waiter *w, enum store_reason reason,
                     uint64_t now_ns);

#endif
