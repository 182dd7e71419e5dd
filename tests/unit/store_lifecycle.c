/* SPDX-License-Identifier: Apache-2.0
 *
 * The life of a generation at home: put, get, policies, supersede, death of holders, retire, gc,
 * drop.
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

TestSuite(store_lifecycle, .init = setup, .fini = teardown);

Test(store_lifecycle, planned_and_sealed_are_invisible) {
    struct store_put put = fixture_put("a", 4096);
    struct store_reservation reservation;
    struct store_lease lease;
    uint64_t superseded;
    cr_assert_eq(fixture_reserve(&f, f.holder, &put, &reservation), STORE_OK);
    cr_assert_eq(fixture_get_id(&f, f.holder, "a", &lease), STORE_E_NOT_FOUND);
    cr_assert_eq(store_seal(f.store, f.holder, reservation.token, NULL, 0, 5, f.now_ns), STORE_OK);
    cr_assert_eq(fixture_get(&f, f.holder, 5, &lease), STORE_E_NOT_FOUND);
    cr_assert_eq(store_publish(f.store, 5, f.now_ns, &superseded), STORE_OK);
    cr_assert_eq(fixture_get(&f, f.holder, 5, &lease), STORE_OK);
    cr_assert_eq(lease.place.offset, reservation.place.offset);
    cr_assert_eq(lease.place.bytes, 4096);
}

Test(store_lifecycle, spec_and_checksums_come_back) {
    static unsigned char spec[STORE_SPEC_BYTES_MAX], read[STORE_SPEC_BYTES_MAX];
    uint64_t sums[STORE_TENSORS_MAX], sums_read[STORE_TENSORS_MAX], superseded;
    for (unsigned i = 0; i < sizeof spec; i++)
        spec[i] = (unsigned char)(i * 7 + i / 256);
    for (unsigned i = 0; i < STORE_TENSORS_MAX; i++)
        sums[i] = i * 0x123456789abcdefull;
    struct store_put put = fixture_put("a", 4096);
    put.spec = spec;
    put.spec_bytes = sizeof spec;
    put.tensor_count = STORE_TENSORS_MAX;
    struct store_reservation reservation;
    struct store_lease lease;
    uint32_t spec_bytes, sums_bytes;
    cr_assert_eq(fixture_reserve(&f, f.holder, &put, &reservation), STORE_OK);
    cr_assert_eq(store_seal(f.store, f.holder, reservation.token, sums, 8, 5, f.now_ns),
                 STORE_E_INVALID);
    cr_assert_eq(store_seal(f.store, f.holder, reservation.token, sums, sizeof sums, 5, f.now_ns),
                 STORE_OK);
    cr_assert_eq(store_publish(f.store, 5, f.now_ns, &superseded), STORE_OK);
    cr_assert_eq(fixture_get(&f, f.holder, 5, &lease), STORE_OK);
    cr_assert(store_spec(f.store, lease.slot, read, sizeof read, &spec_bytes, sums_read,
                         sizeof sums_read, &sums_bytes));
    cr_assert_eq(spec_bytes, sizeof spec);
    cr_assert_eq(sums_bytes, sizeof sums);
    cr_assert_arr_eq(read, spec, sizeof spec);
    cr_assert_arr_eq(sums_read, sums, sizeof sums);
}

Test(store_lifecycle, reservation_is_its_holders_alone) {
    uint32_t other = fixture_holder(&f);
    struct store_put put = fixture_put("a", 4096);
    struct store_reservation reservation;
    cr_assert_eq(fixture_reserve(&f, f.holder, &put, &reservation), STORE_OK);
    cr_assert_eq(store_seal(f.store, other, reservation.token, NULL, 0, 5, f.now_ns),
                 STORE_E_NOT_FOUND);
    cr_assert_eq(store_cancel(f.store, other, reservation.token, f.now_ns), STORE_OK);
    cr_assert_eq(fixture_totals(&f).planned, 1);
    cr_assert_eq(store_cancel(f.store, f.holder, reservation.token, f.now_ns), STORE_OK);
    cr_assert_eq(store_cancel(f.store, f.holder, reservation.token, f.now_ns), STORE_OK);
    cr_assert_eq(fixture_totals(&f).resident_bytes, 0);
    cr_assert_eq(f.account.used_bytes, 0);
}

Test(store_lifecycle, consumed_release_retires_and_frees) {
    struct store_lease lease;
    struct store_effect effect;
    uint64_t generation = fixture_publish(&f, "a", 4096);
    cr_assert_eq(fixture_get(&f, f.holder, generation, &lease), STORE_OK);
    fixture_release(&f, f.holder, &lease, STORE_CONSUMED_BY_READER);
    cr_assert_eq(fixture_state(&f, generation), STORE_GONE);
    cr_assert_eq(fixture_reason(&f, generation), STORE_CONSUMED);
    cr_assert_eq(f.account.used_bytes, 0);
    cr_assert(fixture_effect(&f, STORE_EFFECT_RETIRED, &effect));
    cr_assert_eq(effect.generation, generation);
    cr_assert_eq(effect.reason, STORE_CONSUMED);
    cr_assert_str_eq(effect.sample_id, "a");
    cr_assert_eq(fixture_drain(&f), 0);
}

Test(store_lifecycle, returned_release_keeps) {
    struct store_lease lease;
    uint64_t generation = fixture_publish(&f, "a", 4096);
    cr_assert_eq(fixture_get(&f, f.holder, generation, &lease), STORE_OK);
    fixture_release(&f, f.holder, &lease, STORE_RETURNED);
    cr_assert_eq(fixture_state(&f, generation), STORE_RESIDENT);
    cr_assert_eq(fixture_drain(&f), 0);
}

Test(store_lifecycle, retires_when_enough_readers_consumed_and_none_reads) {
    struct store_lease first, second, third;
    store_set_policy(f.store, STORE_ON_RELEASE, 2, 0);
    uint64_t generation = fixture_publish(&f, "a", 4096);
    cr_assert_eq(fixture_get(&f, f.holder, generation, &first), STORE_OK);
    cr_assert_eq(fixture_get(&f, f.holder, generation, &second), STORE_OK);
    cr_assert_eq(fixture_get(&f, f.holder, generation, &third), STORE_OK);
    fixture_release(&f, f.holder, &first, STORE_CONSUMED_BY_READER);
    fixture_release(&f, f.holder, &second, STORE_CONSUMED_BY_READER);
    cr_assert_eq(fixture_state(&f, generation), STORE_RESIDENT);
    fixture_release(&f, f.holder, &third, STORE_RETURNED);
    cr_assert_eq(fixture_state(&f, generation), STORE_GONE);
}

Test(store_lifecycle, on_ack_and_retain_keep_after_consumption) {
    struct store_lease lease;
    bool retired;
    store_set_policy(f.store, STORE_ON_ACK, 1, 0);
    uint64_t generation = fixture_publish(&f, "a", 4096);
    cr_assert_eq(fixture_get(&f, f.holder, generation, &lease), STORE_OK);
    fixture_release(&f, f.holder, &lease, STORE_CONSUMED_BY_READER);
    cr_assert_eq(fixture_state(&f, generation), STORE_RESIDENT);
    store_set_policy(f.store, STORE_RETAIN, 1, 0);
    cr_assert_eq(fixture_get(&f, f.holder, generation, &lease), STORE_OK);
    fixture_release(&f, f.holder, &lease, STORE_CONSUMED_BY_READER);
    cr_assert_eq(fixture_state(&f, generation), STORE_RESIDENT);
    cr_assert_eq(store_retire(f.store, "a", 1, 0, STORE_ACKED, f.now_ns, &retired), STORE_OK);
    cr_assert(retired);
    cr_assert_eq(store_retire(f.store, "a", 1, 0, STORE_ACKED, f.now_ns, &retired), STORE_OK);
    cr_assert_not(retired);
    cr_assert_eq(fixture_reason(&f, generation), STORE_ACKED);
}

Test(store_lifecycle, a_reader_keeps_its_bytes_after_supersede) {
    struct store_lease lease, newer;
    struct store_put put = fixture_put("b", 64 * KIB);
    struct store_reservation reservation;
    uint64_t first = fixture_publish(&f, "a", 32 * KIB);
    cr_assert_eq(fixture_get(&f, f.holder, first, &lease), STORE_OK);
    uint64_t second = fixture_publish(&f, "a", 16 * KIB);
    cr_assert_eq(fixture_state(&f, first), STORE_RETIRED);
    cr_assert_eq(fixture_reason(&f, first), STORE_SUPERSEDED);
    cr_assert_eq(fixture_get(&f, f.holder, first, &newer), STORE_E_NOT_FOUND);
    cr_assert_eq(fixture_get_id(&f, f.holder, "a", &newer), STORE_OK);
    cr_assert_eq(newer.generation, second);
    cr_assert(newer.place.offset >= lease.place.offset + 32 * KIB ||
              newer.place.offset + 16 * KIB <= lease.place.offset);
    put.extent_bytes = 20 * KIB;
    cr_assert_eq(fixture_reserve(&f, f.holder, &put, &reservation), STORE_E_FULL);
    cr_assert_eq(f.refusal.cause, STORE_CAUSE_QUOTA);
    fixture_release(&f, f.holder, &lease, STORE_CONSUMED_BY_READER);
    cr_assert_eq(fixture_state(&f, first), STORE_GONE);
    cr_assert_eq(fixture_reserve(&f, f.holder, &put, &reservation), STORE_OK);
}

Test(store_lifecycle, dead_holder_consumes_nothing_and_leaves_nothing) {
    uint32_t other = fixture_holder(&f);
    struct store_lease lease;
    struct store_put put = fixture_put("b", 4096);
    struct store_reservation reservation;
    uint64_t generation = fixture_publish(&f, "a", 4096);
    cr_assert_eq(fixture_get(&f, other, generation, &lease), STORE_OK);
    cr_assert_eq(fixture_reserve(&f, other, &put, &reservation), STORE_OK);
    store_holder_close(f.store, other, f.now_ns);
    cr_assert_eq(fixture_state(&f, generation), STORE_RESIDENT);
    cr_assert_eq(fixture_totals(&f).leases, 0);
    cr_assert_eq(fixture_totals(&f).planned, 0);
    struct store_info info;
    cr_assert(store_stat(f.store, "b", 1, 0, &info));
    cr_assert_eq(info.state, STORE_GONE);
    cr_assert_eq(info.reason, STORE_PRODUCER_DIED);
}

Test(store_lifecycle, late_consumed_counts_once) {
    uint32_t other = fixture_holder(&f);
    struct store_lease lease, held;
    store_set_policy(f.store, STORE_ON_RELEASE, 2, 0);
    uint64_t generation = fixture_publish(&f, "a", 4096);
    cr_assert_eq(fixture_get(&f, other, generation, &lease), STORE_OK);
    store_holder_close(f.store, other, f.now_ns);
    fixture_release(&f, f.holder, &lease, STORE_CONSUMED_BY_READER);
    fixture_release(&f, f.holder, &lease, STORE_CONSUMED_BY_READER);
    cr_assert_eq(fixture_state(&f, generation), STORE_RESIDENT);
    cr_assert_eq(fixture_get(&f, f.holder, generation, &held), STORE_OK);
    fixture_release(&f, f.holder, &held, STORE_CONSUMED_BY_READER);
    cr_assert_eq(fixture_state(&f, generation), STORE_GONE);
}

Test(store_lifecycle, a_lease_is_its_holders_alone) {
    uint32_t other = fixture_holder(&f);
    struct store_lease lease;
    uint64_t generation = fixture_publish(&f, "a", 4096);
    struct store_get get = {.generation = generation, .cookie = 77};
    cr_assert_eq(store_get(f.store, f.holder, &get, f.now_ns, &lease, &f.refusal), STORE_OK);
    fixture_release(&f, other, &lease, STORE_CONSUMED_BY_READER);
    cr_assert_eq(store_release(f.store, f.holder, lease.hi, lease.lo + 1, STORE_RETURNED, f.now_ns),
                 STORE_OK);
    cr_assert_eq(store_lease_cookie(f.store, other, lease.hi, lease.lo), 0);
    cr_assert_eq(store_lease_cookie(f.store, f.holder, lease.hi, lease.lo), 77);
    cr_assert_eq(fixture_totals(&f).leases, 1);
}

Test(store_lifecycle, lease_with_cookie_tells_its_end_once) {
    uint32_t other = fixture_holder(&f);
    struct store_lease lease;
    struct store_effect effect;
    uint64_t generation = fixture_publish(&f, "a", 4096);
    struct store_get get = {.generation = generation, .cookie = 77};
    cr_assert_eq(store_get(f.store, other, &get, f.now_ns, &lease, &f.refusal), STORE_OK);
    store_holder_close(f.store, other, f.now_ns);
    cr_assert(fixture_effect(&f, STORE_EFFECT_LEASE_ENDED, &effect));
    cr_assert_eq(effect.cookie, 77);
    cr_assert_eq(effect.how, STORE_RETURNED);
    fixture_release(&f, f.holder, &lease, STORE_RETURNED);
    cr_assert_eq(fixture_drain(&f), 0);
}

Test(store_lifecycle, stale_retire_is_harmless) {
    bool retired;
    uint64_t first = fixture_publish(&f, "a", 4096), second = fixture_publish(&f, "a", 4096);
    cr_assert_eq(store_retire(f.store, "a", 1, first, STORE_ABORTED, f.now_ns, &retired), STORE_OK);
    cr_assert_not(retired);
    cr_assert_eq(fixture_state(&f, second), STORE_RESIDENT);
    cr_assert_eq(store_retire(f.store, "a", 1, 999, STORE_ABORTED, f.now_ns, &retired), STORE_OK);
    cr_assert_not(retired);
}

Test(store_lifecycle, unsealed_leaves_the_older_one_readable) {
    struct store_lease lease;
    struct store_put put = fixture_put("a", 4096);
    struct store_reservation reservation;
    uint64_t first = fixture_publish(&f, "a", 4096);
    cr_assert_eq(fixture_reserve(&f, f.holder, &put, &reservation), STORE_OK);
    cr_assert_eq(store_seal(f.store, f.holder, reservation.token, NULL, 0, 50, f.now_ns), STORE_OK);
    cr_assert_eq(store_unseal(f.store, 50, f.now_ns), STORE_OK);
    cr_assert_eq(store_unseal(f.store, 50, f.now_ns), STORE_E_NOT_FOUND);
    cr_assert_eq(fixture_get_id(&f, f.holder, "a", &lease), STORE_OK);
    cr_assert_eq(lease.generation, first);
    cr_assert_eq(fixture_state(&f, 50), STORE_GONE);
}

Test(store_lifecycle, gc_spares_leased_and_young) {
    struct store_lease lease;
    uint64_t old = fixture_publish(&f, "old", 4096), held = fixture_publish(&f, "held", 4096);
    cr_assert_eq(fixture_get(&f, f.holder, held, &lease), STORE_OK);
    f.now_ns += 1000;
    uint64_t young = fixture_publish(&f, "young", 4096);
    f.now_ns += 10;
    cr_assert_eq(store_gc(f.store, 0, f.now_ns, 100), 0);
    cr_assert_eq(store_gc(f.store, 100, f.now_ns, 100), 1);
    cr_assert_eq(fixture_reason(&f, old), STORE_MAX_HOLD);
    cr_assert_eq(fixture_state(&f, held), STORE_RESIDENT);
    cr_assert_eq(fixture_state(&f, young), STORE_RESIDENT);
}

Test(store_lifecycle, gc_goes_on_behind_leased_elders) {
    struct store_lease lease;
    fixture_publish(&f, "held", 4096);
    cr_assert_eq(fixture_get_id(&f, f.holder, "held", &lease), STORE_OK);
    uint64_t second = fixture_publish(&f, "second", 4096);
    f.now_ns += 1000;
    cr_assert_eq(store_gc(f.store, 100, f.now_ns, 1), 0);
    cr_assert_eq(store_gc(f.store, 100, f.now_ns, 1), 1);
    cr_assert_eq(fixture_state(&f, second), STORE_GONE);
}

Test(store_lifecycle, drop_spares_leased_bytes_until_released) {
    struct store_lease lease;
    struct store_put put = fixture_put("c", 4096);
    struct store_reservation reservation;
    uint64_t a = fixture_publish(&f, "a", 4096), b = fixture_publish(&f, "b", 4096);
    cr_assert_eq(fixture_get(&f, f.holder, a, &lease), STORE_OK);
    cr_assert_eq(fixture_reserve(&f, f.holder, &put, &reservation), STORE_OK);
    store_drop(f.store, f.now_ns);
    cr_assert_eq(fixture_state(&f, a), STORE_RETIRED);
    cr_assert_eq(fixture_state(&f, b), STORE_GONE);
    cr_assert_eq(store_seal(f.store, f.holder, reservation.token, NULL, 0, 9, f.now_ns),
                 STORE_E_NOT_FOUND);
    cr_assert_eq(f.account.used_bytes, 4096);
    fixture_release(&f, f.holder, &lease, STORE_RETURNED);
    cr_assert_eq(fixture_state(&f, a), STORE_GONE);
    cr_assert_eq(fixture_drain(&f), 2);
}
