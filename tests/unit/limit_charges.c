/* SPDX-License-Identifier: Apache-2.0
 *
 * Accounts, and that a store charges what its holders hold to them: however many handles, stores
 * and sessions there are, the limits of a session and of a user hold over all of them.
 */
#include <criterion/criterion.h>
#include <string.h>

#include "node/account_words.h"
#include "unit/store_fixture.h"

static struct charge_limits limits;
static struct account node, user, first, second;

static void set_up(void) {
    charge_limits_init(&limits);
    account_init(&node, ACCOUNT_NODE, 0, NULL, &limits);
    account_init(&user, ACCOUNT_USER, 1000, &node, &limits);
    account_init(&first, ACCOUNT_SESSION, 1, &user, &limits);
    account_init(&second, ACCOUNT_SESSION, 2, &user, &limits);
}

static void tear_down(void) {
    account_deinit(&first);
    account_deinit(&second);
    account_deinit(&user);
    account_deinit(&node);
}

TestSuite(limit_charges, .init = set_up, .fini = tear_down);

Test(limit_charges, limit_of_a_session_of_its_user_and_of_the_node) {
    struct charge_refusal refusal;
    limits.of[ACCOUNT_SESSION][CHARGE_PENDING_ENDS] = 3;
    limits.of[ACCOUNT_USER][CHARGE_PENDING_ENDS] = 5;
    limits.of[ACCOUNT_NODE][CHARGE_PENDING_ENDS] = 6;
    cr_assert(account_charge(&first, CHARGE_PENDING_ENDS, 3, &refusal));
    cr_assert_not(account_charge(&first, CHARGE_PENDING_ENDS, 1, &refusal));
    cr_expect_eq(refusal.account, &first);
    cr_expect_eq(refusal.used, 3);
    cr_assert_not(account_charge(&second, CHARGE_PENDING_ENDS, 3, &refusal));
    cr_expect_eq(refusal.account, &user);
    cr_expect_eq(refusal.limit, 5);
    cr_expect_eq(second.used[CHARGE_PENDING_ENDS], 0, "a refusal charges nothing");
    cr_assert(account_charge(&second, CHARGE_PENDING_ENDS, 2, &refusal));
    account_add(&node, CHARGE_PENDING_ENDS, 1);
    limits.of[ACCOUNT_USER][CHARGE_PENDING_ENDS] = 100; /* a reload */
    cr_assert_not(account_charge(&second, CHARGE_PENDING_ENDS, 1, &refusal));
    cr_expect_eq(refusal.account, &node);
    limits.of[ACCOUNT_SESSION][CHARGE_PENDING_ENDS] = 1; /* below what is held: nothing more */
    cr_assert_not(account_charge(&first, CHARGE_PENDING_ENDS, 1, &refusal));
    account_release(&first, CHARGE_PENDING_ENDS, 3);
    account_release(&second, CHARGE_PENDING_ENDS, 2);
    account_release(&node, CHARGE_PENDING_ENDS, 1);
}

Test(limit_charges, limit_sentences_name_key_value_holder_and_amount) {
    char sentence[320];
    struct charge_refusal refusal;
    limits.of[ACCOUNT_USER][CHARGE_QUEUED_BYTES] = 4 << 20;
    account_add(&second, CHARGE_QUEUED_BYTES, 3 << 20);
    cr_assert_not(account_charge(&first, CHARGE_QUEUED_BYTES, 2 << 20, &refusal));
    account_sentence(sentence, sizeof sentence, &refusal);
    cr_expect_str_eq(sentence,
                     "max_queued_bytes_per_user = 4 MiB: user 1000 has 3 MiB of puts that "
                     "wait for room, 2 MiB more asked");
    account_release(&second, CHARGE_QUEUED_BYTES, 3 << 20);
}

Test(limit_charges, limit_holds_over_handles_and_stores) {
    struct fixture a, b;
    struct store_lease lease;
    uint32_t holders[3];
    fixture_options(&a);
    fixture_options(&b);
    fixture_init(&a);
    fixture_init(&b);
    uint64_t in_a = fixture_publish(&a, "x", 4 * KIB), in_b = fixture_publish(&b, "x", 4 * KIB);
    limits.of[ACCOUNT_SESSION][CHARGE_LEASES] = 3;
    limits.of[ACCOUNT_USER][CHARGE_LEASES] = 4;
    cr_assert_eq(store_holder_open(a.store, 1, &first, &holders[0]), STORE_OK);
    cr_assert_eq(store_holder_open(a.store, 1, &first, &holders[1]), STORE_OK);
    cr_assert_eq(store_holder_open(b.store, 1, &first, &holders[2]), STORE_OK);
    cr_assert_eq(fixture_get(&a, holders[0], in_a, &lease), STORE_OK);
    cr_assert_eq(fixture_get(&a, holders[1], in_a, &lease), STORE_OK);
    cr_assert_eq(fixture_get(&b, holders[2], in_b, &lease), STORE_OK);
    cr_assert_eq(fixture_get(&a, holders[0], in_a, &lease), STORE_E_LIMIT);
    cr_expect_eq(a.refusal.account, &first);
    uint32_t other;
    cr_assert_eq(store_holder_open(b.store, 2, &second, &other), STORE_OK);
    cr_assert_eq(fixture_get(&b, other, in_b, &lease), STORE_OK);
    cr_assert_eq(fixture_get(&b, other, in_b, &lease), STORE_E_LIMIT);
    cr_expect_eq(b.refusal.account, &user);
    store_holder_close(a.store, holders[0], a.now_ns); /* gives back what it held, once */
    cr_expect_eq(first.used[CHARGE_LEASES], 2);
    cr_assert_eq(fixture_get(&b, other, in_b, &lease), STORE_OK);
    store_holder_close(a.store, holders[1], a.now_ns);
    store_holder_close(b.store, holders[2], b.now_ns);
    store_holder_close(b.store, other, b.now_ns);
    fixture_deinit(&a);
    fixture_deinit(&b);
}

Test(limit_charges, limit_reservations_move_from_waiting_to_room_and_are_charged_once) {
    struct fixture f;
    struct store_reservation out;
    uint32_t holder;
    fixture_options(&f);
    fixture_init(&f);
    struct store_put put = fixture_put("y", 60 * KIB);
    put.deadline_ns = FOREVER_NS;
    cr_assert_eq(store_holder_open(f.store, 1, &first, &holder), STORE_OK);
    cr_assert_eq(fixture_reserve(&f, holder, &put, &out), STORE_OK);
    cr_expect_eq(first.used[CHARGE_RESERVED_BYTES], 60 * KIB);
    struct store_put next = fixture_put("z", 32 * KIB);
    next.deadline_ns = FOREVER_NS;
    struct store_reservation none;
    cr_assert_eq(fixture_reserve(&f, holder, &next, &none), STORE_WAIT);
    cr_expect_eq(user.used[CHARGE_RESERVATIONS], 2);
    cr_expect_eq(user.used[CHARGE_QUEUED_BYTES], 32 * KIB);
    cr_assert_eq(store_cancel(f.store, holder, out.token, f.now_ns), STORE_OK);
    cr_expect_eq(user.used[CHARGE_RESERVATIONS], 1);
    cr_expect_eq(user.used[CHARGE_RESERVED_BYTES], 32 * KIB);
    cr_expect_eq(user.used[CHARGE_QUEUED_BYTES], 0);
    fixture_drain(&f);
    store_holder_close(f.store, holder, f.now_ns);
    fixture_deinit(&f);
}
