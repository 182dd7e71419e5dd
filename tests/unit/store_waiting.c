/* SPDX-License-Identifier: Apache-2.0
 *
 * Quotas, limits, and those who wait: puts for room, gets for a sample to be put.
 */
#include <criterion/criterion.h>
#include <string.h>

#include "unit/store_fixture.h"

static struct fixture f;

static void setup(void) {
    fixture_options(&f);
    fixture_init(&f);
}

static void teardown(void) {
    fixture_deinit(&f);
}

TestSuite(store_waiting, .init = setup, .fini = teardown);

static enum store_result reserve_until(uint32_t holder, const char *id, uint64_t bytes,
                                       uint64_t deadline_ns, uint64_t tag) {
    struct store_put put = fixture_put(id, bytes);
    struct store_reservation out;
    put.deadline_ns = deadline_ns;
    put.tag = tag;
    return fixture_reserve(&f, holder, &put, &out);
}

Test(store_waiting, nothing_is_evicted_when_full) {
    uint64_t a = fixture_publish(&f, "a", 60 * KIB);
    cr_assert_eq(reserve_until(f.holder, "b", 8 * KIB, 0, 1), STORE_E_FULL);
    cr_assert_eq(f.refusal.cause, STORE_CAUSE_QUOTA);
    cr_assert_eq(f.refusal.limit, 64 * KIB);
    cr_assert_eq(f.refusal.used, 60 * KIB);
    cr_assert_eq(f.refusal.asked, 8 * KIB);
    cr_assert_eq(fixture_state(&f, a), STORE_RESIDENT);
    cr_assert_eq(reserve_until(f.holder, "b", 65 * KIB, FOREVER_NS, 1), STORE_E_TOO_LARGE);
}

Test(store_waiting, node_account_is_shared) {
    f.account.used_bytes = 1020 * KIB;
    cr_assert_eq(reserve_until(f.holder, "b", 8 * KIB, 0, 1), STORE_E_FULL);
    cr_assert_eq(f.refusal.cause, STORE_CAUSE_NODE_QUOTA);
    cr_assert_eq(reserve_until(f.holder, "b", 8 * KIB, FOREVER_NS, 2), STORE_WAIT);
    cr_assert_eq(fixture_drain(&f), 0);
    f.account.used_bytes = 0; /* another store gave them back */
    struct store_effect effect;
    cr_assert(fixture_effect(&f, STORE_EFFECT_PUT, &effect));
    cr_assert_eq(effect.result, STORE_OK);
    cr_assert_eq(f.account.used_bytes, 8 * KIB);
}

Test(store_waiting, puts_are_served_first_come_first_served) {
    struct store_effect effect;
    bool retired;
    uint64_t a = fixture_publish(&f, "a", 60 * KIB);
    cr_assert_eq(reserve_until(f.holder, "big", 32 * KIB, FOREVER_NS, 1), STORE_WAIT);
    cr_assert_eq(reserve_until(f.holder, "small", 1 * KIB, 0, 2), STORE_E_FULL);
    cr_assert_eq(f.refusal.cause, STORE_CAUSE_QUEUE);
    cr_assert_eq(reserve_until(f.holder, "small", 1 * KIB, FOREVER_NS, 3), STORE_WAIT);
    cr_assert_eq(fixture_totals(&f).put_waiters, 2);
    store_retire(f.store, NULL, 0, a, STORE_ABORTED, f.now_ns, &retired);
    cr_assert(fixture_effect(&f, STORE_EFFECT_PUT, &effect));
    cr_assert_eq(effect.tag, 1);
    cr_assert(fixture_effect(&f, STORE_EFFECT_PUT, &effect));
    cr_assert_eq(effect.tag, 3);
    cr_assert_eq(store_seal(f.store, f.holder, effect.reservation.token, NULL, 0, 99, f.now_ns),
                 STORE_OK);
}

Test(store_waiting, put_fails_full_at_its_deadline_and_lets_the_next_try) {
    struct store_effect effect;
    fixture_publish(&f, "a", 60 * KIB);
    cr_assert_eq(reserve_until(f.holder, "big", 32 * KIB, f.now_ns + 10, 1), STORE_WAIT);
    cr_assert_eq(reserve_until(f.holder, "small", 1 * KIB, f.now_ns + 99, 2), STORE_WAIT);
    cr_assert_eq(store_next_deadline_ns(f.store), f.now_ns + 10);
    cr_assert_eq(fixture_drain(&f), 0);
    f.now_ns += 10;
    cr_assert(fixture_effect(&f, STORE_EFFECT_PUT, &effect));
    cr_assert_eq(effect.tag, 1);
    cr_assert_eq(effect.result, STORE_E_FULL);
    cr_assert_eq(effect.refusal.cause, STORE_CAUSE_QUOTA);
    cr_assert_eq(effect.refusal.asked, 32 * KIB);
    cr_assert(fixture_effect(&f, STORE_EFFECT_PUT, &effect));
    cr_assert_eq(effect.tag, 2);
    cr_assert_eq(effect.result, STORE_OK);
    cr_assert_eq(store_next_deadline_ns(f.store), UINT64_MAX);
}

Test(store_waiting, holder_limits_are_its_own) {
    struct charge_limits limits;
    struct account account;
    uint32_t holder;
    charge_limits_init(&limits);
    limits.of[ACCOUNT_SESSION][CHARGE_LEASES] = 1;
    limits.of[ACCOUNT_SESSION][CHARGE_RESERVATIONS] = 2;
    limits.of[ACCOUNT_SESSION][CHARGE_QUEUED_BYTES] = 8 * KIB;
    account_init(&account, ACCOUNT_SESSION, 1, NULL, &limits);
    struct store_lease lease;
    uint64_t a = fixture_publish(&f, "a", 60 * KIB);
    cr_assert_eq(store_holder_open(f.store, 1, &account, &holder), STORE_OK);
    cr_assert_eq(reserve_until(holder, "b", 12 * KIB, FOREVER_NS, 1), STORE_E_LIMIT);
    cr_assert_eq(f.refusal.cause, STORE_CAUSE_SESSION_QUEUED);
    cr_assert_eq(reserve_until(holder, "b", 4 * KIB, 0, 1), STORE_OK);
    cr_assert_eq(reserve_until(holder, "c", 4 * KIB, FOREVER_NS, 1), STORE_WAIT);
    cr_assert_eq(reserve_until(holder, "d", 4 * KIB, 0, 1), STORE_E_LIMIT);
    cr_assert_eq(f.refusal.cause, STORE_CAUSE_SESSION_RESERVATIONS);
    cr_assert_eq(fixture_get(&f, holder, a, &lease), STORE_OK);
    cr_assert_eq(fixture_get(&f, holder, a, &lease), STORE_E_LIMIT);
    cr_assert_eq(f.refusal.cause, STORE_CAUSE_SESSION_LEASES);
    cr_assert_eq(fixture_get(&f, f.holder, a, &lease), STORE_OK);
}

Test(store_waiting, get_before_put_is_answered_by_publish) {
    struct store_lease lease;
    struct store_effect effect;
    struct store_get by_id = {
        .sample_id = "a", .sample_id_bytes = 1, .deadline_ns = FOREVER_NS, .tag = 1, .cookie = 5};
    struct store_get by_generation = {.generation = 1, .deadline_ns = f.now_ns + 50, .tag = 2};
    struct store_get other = {.generation = 2, .deadline_ns = f.now_ns + 50, .tag = 3};
    cr_assert_eq(store_get(f.store, f.holder, &by_id, f.now_ns, &lease, &f.refusal), STORE_WAIT);
    cr_assert_eq(store_get(f.store, f.holder, &by_generation, f.now_ns, &lease, &f.refusal),
                 STORE_WAIT);
    cr_assert_eq(store_get(f.store, f.holder, &other, f.now_ns, &lease, &f.refusal), STORE_WAIT);
    cr_assert_eq(fixture_publish(&f, "a", 4096), 1);
    for (uint64_t tag = 1; tag <= 2; tag++) {
        cr_assert(fixture_effect(&f, STORE_EFFECT_GET, &effect));
        cr_assert_eq(effect.tag, tag);
        cr_assert_eq(effect.result, STORE_OK);
        cr_assert_eq(effect.lease.generation, 1);
    }
    cr_assert_eq(fixture_drain(&f), 0);
    f.now_ns += 50;
    cr_assert(fixture_effect(&f, STORE_EFFECT_GET, &effect));
    cr_assert_eq(effect.tag, 3);
    cr_assert_eq(effect.result, STORE_E_TIMEOUT);
}

Test(store_waiting, an_answer_nobody_heard_vanishes_with_its_holder) {
    struct store_lease lease;
    uint32_t other = fixture_holder(&f);
    struct store_get get = {.generation = 1, .deadline_ns = FOREVER_NS, .cookie = 9};
    cr_assert_eq(store_get(f.store, other, &get, f.now_ns, &lease, &f.refusal), STORE_WAIT);
    fixture_publish(&f, "a", 4096);
    cr_assert_eq(fixture_totals(&f).leases, 1);
    store_holder_close(f.store, other, f.now_ns);
    cr_assert_eq(fixture_totals(&f).leases, 0);
    cr_assert_eq(fixture_drain(&f), 0);
    cr_assert_eq(fixture_state(&f, 1), STORE_RESIDENT);
}

Test(store_waiting, a_cancelled_wait_is_forgotten_and_lets_the_next_try) {
    struct store_effect effect;
    fixture_publish(&f, "a", 60 * KIB);
    cr_assert_eq(reserve_until(f.holder, "big", 32 * KIB, FOREVER_NS, 1), STORE_WAIT);
    cr_assert_eq(reserve_until(f.holder, "small", 1 * KIB, FOREVER_NS, 2), STORE_WAIT);
    cr_assert(store_cancel_wait(f.store, f.holder, 1));
    cr_assert_not(store_cancel_wait(f.store, f.holder, 1));
    cr_assert(fixture_effect(&f, STORE_EFFECT_PUT, &effect));
    cr_assert_eq(effect.tag, 2);
    cr_assert_eq(fixture_drain(&f), 0);
}

Test(store_waiting, slots_and_spec_room_run_out_with_a_cause) {
    static char spec[STORE_SPEC_BYTES_MAX];
    struct store_put put = fixture_put("a", 64);
    struct store_reservation out;
    put.spec = spec;
    put.spec_bytes = sizeof spec;
    enum store_result result;
    while ((result = fixture_reserve(&f, f.holder, &put, &out)) == STORE_OK)
        ;
    cr_assert_eq(result, STORE_E_FULL);
    cr_assert_eq(f.refusal.cause, STORE_CAUSE_SPECS);
    uint32_t other = fixture_holder(&f);
    put.spec_bytes = 0;
    put.tensor_count = 0;
    while ((result = fixture_reserve(&f, other, &put, &out)) == STORE_OK)
        ;
    cr_assert_eq(result, STORE_E_FULL);
    cr_assert_eq(f.refusal.cause, STORE_CAUSE_SAMPLES);
    cr_assert_eq(f.refusal.limit, 64);
}

Test(store_waiting, drop_answers_all_who_wait) {
    struct store_lease lease;
    struct store_effect effect;
    struct store_get get = {.generation = 77, .deadline_ns = FOREVER_NS};
    fixture_publish(&f, "a", 60 * KIB);
    cr_assert_eq(reserve_until(f.holder, "big", 32 * KIB, FOREVER_NS, 1), STORE_WAIT);
    cr_assert_eq(store_get(f.store, f.holder, &get, f.now_ns, &lease, &f.refusal), STORE_WAIT);
    store_drop(f.store, f.now_ns);
    unsigned answered = 0;
    while (store_next_effect(f.store, f.now_ns, &effect))
        answered += effect.kind != STORE_EFFECT_RETIRED && effect.result == STORE_E_NOT_FOUND;
    cr_assert_eq(answered, 2);
    cr_assert_eq(f.account.used_bytes, 0);
}
