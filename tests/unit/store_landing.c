/* SPDX-License-Identifier: Apache-2.0
 *
 * Landing copies: their own region, attached getters, caching and eviction.
 */
#include <criterion/criterion.h>

#include "unit/store_fixture.h"

#define FAR 1000ull

static struct fixture f;

static void setup(void) {
    fixture_options(&f);
    fixture_init(&f);
}

static void teardown(void) {
    fixture_deinit(&f);
}

TestSuite(store_landing, .init = setup, .fini = teardown);

static enum store_result land(uint64_t generation, uint64_t bytes, uint64_t deadline_ns) {
    struct store_land request = fixture_land(generation, bytes);
    struct place place = {0};
    request.put.deadline_ns = deadline_ns;
    request.put.tag = generation;
    enum store_result result = store_land(f.store, &request, f.now_ns, &place, &f.refusal);
    if (result == STORE_OK)
        cr_assert_geq(place.offset, 64 * KIB);
    return result;
}

static void land_cached(uint64_t generation, uint64_t bytes) {
    cr_assert_eq(land(generation, bytes, 0), STORE_OK);
    cr_assert_eq(store_land_done(f.store, generation, NULL, 0, true, f.now_ns), STORE_OK);
}

Test(store_landing, getters_attach_and_share_one_copy) {
    struct store_lease lease;
    struct store_effect effect[2];
    struct store_get get = {.generation = FAR, .cookie = 3};
    cr_assert_eq(land(FAR, 16 * KIB, 0), STORE_OK);
    cr_assert_eq(land(FAR, 16 * KIB, 0), STORE_E_EXISTS);
    cr_assert(store_has_landing(f.store, FAR));
    for (int i = 0; i < 2; i++)
        cr_assert_eq(store_get(f.store, f.holder, &get, f.now_ns, &lease, &f.refusal), STORE_WAIT);
    cr_assert_eq(store_land_done(f.store, FAR, NULL, 0, false, f.now_ns), STORE_OK);
    for (int i = 0; i < 2; i++) {
        cr_assert(fixture_effect(&f, STORE_EFFECT_GET, &effect[i]));
        cr_assert_eq(effect[i].result, STORE_OK);
    }
    fixture_release(&f, f.holder, &effect[0].lease, STORE_RETURNED);
    cr_assert_eq(fixture_state(&f, FAR), STORE_RESIDENT);
    fixture_release(&f, f.holder, &effect[1].lease, STORE_CONSUMED_BY_READER);
    cr_assert_eq(fixture_state(&f, FAR), STORE_GONE);
    cr_assert_eq(fixture_reason(&f, FAR), STORE_UNCACHED);
    cr_assert_eq(fixture_totals(&f).landing_used_bytes, 0);
    cr_assert(fixture_effect(&f, STORE_EFFECT_LEASE_ENDED, &effect[0]));
    cr_assert_eq(effect[0].how, STORE_RETURNED);
    cr_assert(fixture_effect(&f, STORE_EFFECT_LEASE_ENDED, &effect[1]));
    cr_assert_eq(effect[1].how, STORE_CONSUMED_BY_READER);
    cr_assert_eq(fixture_drain(&f), 0, "a landing copy is not the directory's business");
}

Test(store_landing, is_neither_resident_nor_in_the_quota) {
    struct store_totals before = fixture_totals(&f);
    land_cached(FAR, 16 * KIB);
    struct store_totals after = fixture_totals(&f);
    cr_assert_eq(after.resident_bytes, before.resident_bytes);
    cr_assert_eq(after.resident, 0);
    cr_assert_eq(after.landing, 1);
    cr_assert_eq(f.account.used_bytes, 0);
    fixture_publish(&f, "a", 64 * KIB);
    struct store_lease lease;
    cr_assert_eq(fixture_get_id(&f, f.holder, "landed", &lease), STORE_E_NOT_FOUND);
}

Test(store_landing, failure_ends_the_getters) {
    struct store_lease lease;
    struct store_effect effect;
    struct store_get get = {.generation = FAR};
    cr_assert_eq(land(FAR, 16 * KIB, 0), STORE_OK);
    cr_assert_eq(store_get(f.store, f.holder, &get, f.now_ns, &lease, &f.refusal), STORE_WAIT);
    cr_assert_eq(store_land_failed(f.store, FAR, f.now_ns), STORE_OK);
    cr_assert(fixture_effect(&f, STORE_EFFECT_GET, &effect));
    cr_assert_eq(effect.result, STORE_E_NOT_FOUND);
    cr_assert_eq(fixture_reason(&f, FAR), STORE_FETCH_FAILED);
    cr_assert_eq(land(FAR, 16 * KIB, 0), STORE_OK, "it may be fetched again");
}

Test(store_landing, idle_copies_give_way_longest_idle_first) {
    struct store_lease lease;
    land_cached(FAR, 16 * KIB);
    land_cached(FAR + 1, 8 * KIB);
    cr_assert_eq(fixture_get(&f, f.holder, FAR, &lease), STORE_OK);
    fixture_release(&f, f.holder, &lease, STORE_RETURNED);
    cr_assert_eq(land(FAR + 2, 16 * KIB, 0), STORE_OK);
    cr_assert_eq(fixture_state(&f, FAR + 1), STORE_GONE);
    cr_assert_eq(fixture_state(&f, FAR), STORE_RESIDENT);
}

Test(store_landing, leased_copies_do_not_give_way) {
    struct store_lease lease;
    struct store_effect effect;
    land_cached(FAR, 24 * KIB);
    cr_assert_eq(fixture_get(&f, f.holder, FAR, &lease), STORE_OK);
    cr_assert_eq(land(FAR + 1, 16 * KIB, 0), STORE_E_FULL);
    cr_assert_eq(f.refusal.cause, STORE_CAUSE_LANDING);
    cr_assert_eq(land(FAR + 1, 16 * KIB, FOREVER_NS), STORE_WAIT);
    cr_assert_eq(land(FAR + 2, 4 * KIB, 0), STORE_E_FULL);
    cr_assert_eq(f.refusal.cause, STORE_CAUSE_QUEUE);
    cr_assert_eq(land(FAR + 3, 33 * KIB, 0), STORE_E_TOO_LARGE);
    fixture_release(&f, f.holder, &lease, STORE_RETURNED);
    cr_assert(fixture_effect(&f, STORE_EFFECT_LAND, &effect));
    cr_assert_eq(effect.tag, FAR + 1);
    cr_assert_eq(effect.result, STORE_OK);
    cr_assert_geq(effect.reservation.place.offset, 64 * KIB);
}

Test(store_landing, a_stale_copy_is_freed_after_its_last_reader) {
    struct store_lease lease, again;
    land_cached(FAR, 8 * KIB);
    cr_assert_eq(fixture_get(&f, f.holder, FAR, &lease), STORE_OK);
    cr_assert_eq(store_land_failed(f.store, FAR, f.now_ns), STORE_OK);
    cr_assert_eq(fixture_state(&f, FAR), STORE_RETIRED);
    cr_assert_eq(fixture_get(&f, f.holder, FAR, &again), STORE_E_NOT_FOUND);
    fixture_release(&f, f.holder, &lease, STORE_RETURNED);
    cr_assert_eq(fixture_totals(&f).landing_used_bytes, 0);
}

Test(store_landing, drop_leaves_memory_to_a_transfer_that_still_runs) {
    cr_assert_eq(land(FAR, 8 * KIB, 0), STORE_OK);
    store_drop(f.store, f.now_ns);
    cr_assert_eq(fixture_totals(&f).landing_used_bytes, 8 * KIB);
    cr_assert_eq(store_land_done(f.store, FAR, NULL, 0, true, f.now_ns), STORE_E_NOT_FOUND);
    cr_assert_eq(fixture_totals(&f).landing_used_bytes, 0);
    cr_assert_eq(fixture_reason(&f, FAR), STORE_DROPPED);
}

/* Found by the store model (STORE_MODEL_SEED=1795781076389913310): two landings of one generation
 * wait, the second, which is smaller, passes the first. From then on the first can only be told
 * that a copy exists, and it must not stay in the line, where it keeps others from passing. */
Test(store_landing, one_that_was_passed_by_its_own_generation_is_answered_at_once) {
    struct store_effect effect;
    cr_assert_eq(land(FAR, 16 * KIB, 0), STORE_OK);
    cr_assert_eq(land(FAR + 1, 16 * KIB, 0), STORE_OK);
    struct store_land first = fixture_land(FAR + 2, 24 * KIB), second = fixture_land(FAR + 2, KIB);
    struct place place;
    first.put.deadline_ns = second.put.deadline_ns = FOREVER_NS;
    first.put.tag = 1, second.put.tag = 2;
    store_set_bounds(f.store, 0, 1000); /* passing is open for 1000 ns */
    cr_assert_eq(store_land(f.store, &first, f.now_ns, &place, &f.refusal), STORE_WAIT);
    cr_assert_eq(store_land(f.store, &second, f.now_ns, &place, &f.refusal), STORE_WAIT);
    cr_assert_eq(store_land_failed(f.store, FAR, f.now_ns), STORE_OK);
    cr_assert_eq(fixture_totals(&f).land_waiters, 0, "neither waits any more");
    cr_assert(fixture_effect(&f, STORE_EFFECT_LAND, &effect));
    cr_assert_eq(effect.tag, 2);
    cr_assert_eq(effect.result, STORE_OK);
    cr_assert(fixture_effect(&f, STORE_EFFECT_LAND, &effect));
    cr_assert_eq(effect.tag, 1);
    cr_assert_eq(effect.result, STORE_E_EXISTS);
}
