/* SPDX-License-Identifier: Apache-2.0
 *
 * Reservations end by the clock, the line lets those who fit pass for a time, and the store says
 * who holds its room.
 */
#include <criterion/criterion.h>
#include <stdio.h>

#include "unit/store_fixture.h"

#define BOUND_NS 1000ull
#define PASS_NS  500ull

static struct fixture f;

static void setup(void) {
    fixture_options(&f);
    f.options.max_reserve_ns = BOUND_NS;
    f.options.max_pass_ns = PASS_NS;
    fixture_init(&f);
}

static void teardown(void) {
    fixture_deinit(&f);
}

TestSuite(squat_store, .init = setup, .fini = teardown);

static enum store_result reserve_until(uint32_t holder, const char *id, uint64_t bytes,
                                       uint64_t deadline_ns, uint64_t tag,
                                       struct store_reservation *out) {
    struct store_put put = fixture_put(id, bytes);
    struct store_reservation unused;
    put.deadline_ns = deadline_ns;
    put.tag = tag;
    return fixture_reserve(&f, holder, &put, out ? out : &unused);
}

Test(squat_store, squat_a_reservation_ends_at_its_bound_and_not_before) {
    struct store_reservation all;
    struct store_effect effect;
    cr_assert_eq(reserve_until(f.holder, "all", 64 * KIB, 0, 0, &all), STORE_OK);
    uint64_t begun_ns = f.now_ns;
    cr_assert_eq(store_next_deadline_ns(f.store), begun_ns + BOUND_NS);
    cr_assert_eq(reserve_until(f.holder, "next", 8 * KIB, FOREVER_NS, 7, NULL), STORE_WAIT);
    f.now_ns = begun_ns + BOUND_NS - 1;
    cr_assert_eq(fixture_drain(&f), 0);
    cr_assert_not(store_reserve_ended(f.store, all.token));
    f.now_ns = begun_ns + BOUND_NS;
    cr_assert(fixture_effect(&f, STORE_EFFECT_PUT, &effect));
    cr_assert_eq(effect.tag, 7);
    cr_assert_eq(effect.result, STORE_OK);
    cr_assert(store_reserve_ended(f.store, all.token));
    cr_assert_eq(store_seal(f.store, f.holder, all.token, NULL, 0, 99, f.now_ns),
                 STORE_E_NOT_FOUND);
    cr_assert_eq(fixture_totals(&f).reserves_ended, 1);
}

Test(squat_store, squat_the_smaller_of_max_reserve_and_max_hold_counts) {
    struct store_reservation all;
    store_set_policy(f.store, STORE_ON_RELEASE, 1, BOUND_NS / 4);
    cr_assert_eq(reserve_until(f.holder, "all", 64 * KIB, 0, 0, &all), STORE_OK);
    cr_assert_eq(store_next_deadline_ns(f.store), f.now_ns + BOUND_NS / 4);
    store_set_bounds(f.store, BOUND_NS / 8, PASS_NS);
    cr_assert_eq(store_next_deadline_ns(f.store), f.now_ns + BOUND_NS / 8);
    store_set_policy(f.store, STORE_ON_RELEASE, 1, 0);
    store_set_bounds(f.store, 0, PASS_NS);
    cr_assert_eq(store_next_deadline_ns(f.store), UINT64_MAX);
}

Test(squat_store, squat_what_is_sealed_does_not_end) {
    struct store_reservation some;
    uint64_t superseded;
    cr_assert_eq(reserve_until(f.holder, "some", 8 * KIB, 0, 0, &some), STORE_OK);
    cr_assert_eq(store_seal(f.store, f.holder, some.token, NULL, 0, 77, f.now_ns), STORE_OK);
    f.now_ns += 100 * BOUND_NS;
    fixture_drain(&f);
    cr_assert_eq(store_publish(f.store, 77, f.now_ns, &superseded), STORE_OK);
    cr_assert_eq(fixture_state(&f, 77), STORE_RESIDENT);
}

Test(squat_store, squat_many_reservations_end_a_part_at_a_time) {
    struct fixture many;
    fixture_options(&many);
    many.options.max_reserve_ns = BOUND_NS;
    many.options.max_samples = 400;
    fixture_init(&many);
    struct store_effect effect;
    uint32_t holder;
    char id[16];
    cr_assert_eq(store_holder_open(many.store, 1, &many.session, &holder), STORE_OK);
    for (int i = 0; i < 100; i++) {
        struct store_reservation out;
        snprintf(id, sizeof id, "s%d", i);
        struct store_put put = fixture_put(id, 64);
        cr_assert_eq(fixture_reserve(&many, holder, &put, &out), STORE_OK);
    }
    many.now_ns += BOUND_NS;
    cr_assert_not(store_next_effect(many.store, many.now_ns, &effect));
    uint64_t ended = fixture_totals(&many).reserves_ended;
    cr_assert(ended > 0 && ended < 100, "%llu ended at once", (unsigned long long)ended);
    cr_assert_leq(store_next_deadline_ns(many.store), many.now_ns);
    cr_assert_not(store_next_effect(many.store, many.now_ns, &effect));
    cr_assert_eq(fixture_totals(&many).reserves_ended, 100);
    fixture_deinit(&many);
}

/* ---- the line ---- */

Test(squat_store, squat_those_who_fit_pass_the_first_for_a_time) {
    struct store_effect effect;
    bool retired;
    uint64_t a = fixture_publish(&f, "a", 48 * KIB);
    cr_assert_eq(reserve_until(f.holder, "big", 32 * KIB, FOREVER_NS, 1, NULL), STORE_WAIT);
    uint64_t headed_ns = f.now_ns;
    cr_assert_eq(reserve_until(f.holder, "small", 1 * KIB, 0, 2, NULL), STORE_OK);
    cr_assert_eq(reserve_until(f.holder, "too big", 16 * KIB, FOREVER_NS, 3, NULL), STORE_WAIT);
    cr_assert_eq(reserve_until(f.holder, "small too", 1 * KIB, 0, 4, NULL), STORE_OK);
    f.now_ns = headed_ns + PASS_NS;
    cr_assert_eq(reserve_until(f.holder, "late", 1 * KIB, 0, 5, NULL), STORE_E_FULL);
    cr_assert_eq(f.refusal.cause, STORE_CAUSE_QUEUE);
    cr_assert_eq(reserve_until(f.holder, "patient", 1 * KIB, FOREVER_NS, 6, NULL), STORE_WAIT);
    cr_assert_eq(fixture_drain(&f), 0, "somebody passed");
    store_retire(f.store, NULL, 0, a, STORE_ABORTED, f.now_ns, &retired);
    cr_assert(fixture_effect(&f, STORE_EFFECT_PUT, &effect));
    cr_assert_eq(effect.tag, 1);
    cr_assert(fixture_effect(&f, STORE_EFFECT_PUT, &effect));
    cr_assert_eq(effect.tag, 3);
    cr_assert(fixture_effect(&f, STORE_EFFECT_PUT, &effect));
    cr_assert_eq(effect.tag, 6);
}

Test(squat_store, squat_the_next_first_has_a_time_of_its_own) {
    struct store_effect effect;
    fixture_publish(&f, "a", 48 * KIB);
    cr_assert_eq(reserve_until(f.holder, "big", 32 * KIB, f.now_ns + 2 * PASS_NS, 1, NULL),
                 STORE_WAIT);
    cr_assert_eq(reserve_until(f.holder, "big too", 32 * KIB, FOREVER_NS, 2, NULL), STORE_WAIT);
    f.now_ns += PASS_NS;
    cr_assert_eq(reserve_until(f.holder, "small", 1 * KIB, FOREVER_NS, 3, NULL), STORE_WAIT);
    f.now_ns += PASS_NS;
    cr_assert(fixture_effect(&f, STORE_EFFECT_PUT, &effect)); /* the first's time is over */
    cr_assert_eq(effect.tag, 1);
    cr_assert_eq(effect.result, STORE_E_FULL);
    cr_assert(fixture_effect(&f, STORE_EFFECT_PUT, &effect)); /* and the second is passed */
    cr_assert_eq(effect.tag, 3);
    cr_assert_eq(effect.result, STORE_OK);
}

/* ---- who holds the room ---- */

Test(squat_store, squat_the_room_names_its_holders) {
    struct store_room room;
    struct store_lease lease;
    uint32_t squatter, reader;
    bool retired;
    cr_assert_eq(store_holder_open(f.store, 41, &f.session, &squatter), STORE_OK);
    cr_assert_eq(store_holder_open(f.store, 42, &f.session, &reader), STORE_OK);
    uint64_t kept = fixture_publish(&f, "kept", 4 * KIB);
    fixture_publish(&f, "idle", 8 * KIB);
    cr_assert_eq(fixture_get(&f, reader, kept, &lease), STORE_OK);
    store_room(f.store, &room);
    cr_assert_eq(room.leased_bytes, 4 * KIB);
    cr_assert_not(room.has_reader);
    store_retire(f.store, NULL, 0, kept, STORE_ABORTED, f.now_ns, &retired);
    cr_assert_eq(reserve_until(f.holder, "little", 1 * KIB, 0, 0, NULL), STORE_OK);
    cr_assert_eq(reserve_until(squatter, "much", 40 * KIB, 0, 0, NULL), STORE_OK);
    cr_assert_eq(reserve_until(reader, "waits", 30 * KIB, FOREVER_NS, 9, NULL), STORE_WAIT);
    store_room(f.store, &room);
    cr_assert_eq(room.reserved_bytes, 41 * KIB);
    cr_assert_eq(room.resident_bytes, 8 * KIB);
    cr_assert_eq(room.retired_bytes, 4 * KIB);
    cr_assert(room.has_reserver && room.reserver == 41 && room.reserver_bytes == 40 * KIB);
    cr_assert(room.has_reader && room.reader == 42);
    cr_assert(room.has_first && room.first == 42 && room.first_bytes == 30 * KIB);
    fixture_release(&f, reader, &lease, STORE_RETURNED);
    store_room(f.store, &room);
    cr_assert_eq(room.retired_bytes + room.leased_bytes, 0);
    cr_assert_not(room.has_reader);
}

/* ---- in parts ---- */

Test(squat_store, turn_a_holder_closes_in_parts) {
    struct store_lease lease;
    uint32_t holder;
    cr_assert_eq(store_holder_open(f.store, 1, &f.session, &holder), STORE_OK);
    uint64_t a = fixture_publish(&f, "a", 64);
    for (int i = 0; i < 10; i++)
        cr_assert_eq(fixture_get(&f, holder, a, &lease), STORE_OK);
    cr_assert_not(store_holder_close_some(f.store, holder, 4, f.now_ns));
    cr_assert_eq(fixture_totals(&f).leases, 6);
    cr_assert_not(store_holder_close_some(f.store, holder, 4, f.now_ns));
    cr_assert(store_holder_close_some(f.store, holder, 4, f.now_ns));
    cr_assert_eq(fixture_totals(&f).leases, 0);
    cr_assert_eq(fixture_state(&f, a), STORE_RESIDENT, "a dead holder consumed");
}

Test(squat_store, turn_a_store_is_dropped_in_parts) {
    uint64_t cursor = 0;
    char id[16];
    for (int i = 0; i < 10; i++) {
        snprintf(id, sizeof id, "s%d", i);
        fixture_publish(&f, id, 64);
    }
    cr_assert_not(store_drop_some(f.store, &cursor, 6, f.now_ns));
    cr_assert_eq(fixture_totals(&f).resident, 4);
    cr_assert(store_drop_some(f.store, &cursor, 6, f.now_ns));
    cr_assert_eq(fixture_totals(&f).resident, 0);
    cr_assert_eq(fixture_drain(&f), 10);
}
