/* SPDX-License-Identifier: Apache-2.0
 *
 * The faults that only the fake network can make.
 */
#include <criterion/criterion.h>
#include <errno.h>

#include "conformance/transport_world.h"
#include "support/transport_fake.h"

#define FAKE_CASE(name)                                                                            \
    static void name(struct suite *s);                                                             \
    Test(transport_fake_faults, name) {                                                            \
        transport_suite_run(&transport_fixture_fake, name);                                        \
    }                                                                                              \
    static void name(struct suite *s)

static void run_dry(struct suite *s) {
    while (fake_network_step(s->world))
        ;
}

FAKE_CASE(cut_holds_back_one_direction_until_the_heal) {
    suite_connect(s);
    fake_network_cut(s->a.t, s->b.t, true);
    for (int i = 0; i < 10; i++)
        cr_assert_eq(suite_send(s->ab, &i, sizeof i), 0);
    cr_assert_eq(suite_send(s->ba, "x", 1), 0);
    run_dry(s);
    cr_assert_eq(s->ba->messages, 0);
    cr_assert_eq(s->ab->messages, 1, "the other direction works");
    fake_network_cut(s->a.t, s->b.t, false);
    run_dry(s);
    cr_assert_eq(s->ba->messages, 10);
    cr_assert_eq(*(int *)s->ba->last, 9, "order survives a cut");
}

FAKE_CASE(connect_across_a_cut_times_out) {
    suite_start(s);
    fake_network_cut(s->a.t, s->b.t, true);
    struct link *link = suite_dial(&s->a, s->b.address);
    uint64_t began_ns = fake_network_now_ns(s->world);
    run_dry(s);
    cr_assert(link->closed && !link->up);
    cr_assert(strstr(link->why, "timed out after 5000 ms") != NULL, "why: %s", link->why);
    cr_assert_geq(fake_network_now_ns(s->world) - began_ns, UINT64_C(5000000000));
}

FAKE_CASE(frozen_broker_gets_nothing_until_it_thaws) {
    suite_connect(s);
    suite_fill(s, MIB);
    fake_network_freeze(s->b.t, true);
    cr_assert_eq(suite_send(s->ab, "x", 1), 0);
    cr_assert_eq(suite_read(s, 0, 0, MIB), 0);
    run_dry(s);
    cr_assert_eq(s->ba->messages, 0);
    cr_assert_not(s->reads[0].done);
    fake_network_freeze(s->b.t, false);
    run_dry(s);
    cr_assert_eq(s->ba->messages, 1);
    cr_assert(s->reads[0].done && s->reads[0].status == 0);
    cr_assert(memcmp(s->a.memory, s->b.memory, MIB) == 0);
}

FAKE_CASE(home_frozen_during_a_read_finishes_it_after_the_thaw) {
    suite_connect(s);
    suite_fill(s, MIB);
    cr_assert_eq(suite_read(s, 0, 0, MIB), 0);
    WAIT_FOR(s, s->reads[0].bytes_done > 0);
    fake_network_freeze(s->b.t, true);
    run_dry(s);
    cr_assert_not(s->reads[0].done);
    fake_network_freeze(s->b.t, false);
    run_dry(s);
    cr_assert(s->reads[0].done && s->reads[0].status == 0);
}

FAKE_CASE(dropped_connection_ends_on_both_sides_even_across_a_cut) {
    suite_connect(s);
    suite_fill(s, MIB);
    fake_network_cut(s->a.t, s->b.t, true);
    fake_network_cut(s->b.t, s->a.t, true);
    cr_assert_eq(suite_read(s, 0, 0, MIB), 0);
    fake_network_drop(s->ab->conn);
    run_dry(s);
    cr_assert(s->ab->closed && s->ba->closed);
    cr_assert(s->reads[0].done && s->reads[0].status == -ECONNRESET);
}

FAKE_CASE(sending_to_a_destroyed_broker_ends_quietly) {
    suite_connect(s);
    fake_network_cut(s->b.t, s->a.t, true); /* a does not hear of the end */
    suite_destroy(&s->b);
    run_dry(s);
    cr_assert(s->b.destroyed && !s->ab->closed);
    cr_assert_eq(suite_send(s->ab, "x", 1), 0);
    cr_assert_eq(suite_read(s, 0, 0, 1), 0);
    run_dry(s);
    cr_assert_not(s->reads[0].done);
    fake_network_drop(s->ab->conn);
    run_dry(s);
    cr_assert(s->reads[0].done && s->ab->closed);
}

/* When each message arrives, for a seed. */
static void arrival_times(uint64_t seed, uint64_t out[8]) {
    struct suite s = {.fixture = &transport_fixture_fake};
    cr_assert_eq(auth_init(), 0);
    s.world = fake_network_new(seed, 1, 1000000);
    s.options = (struct transport_options){.chunk_bytes = 4096,
                                           .reads_per_connection = 1,
                                           .handshake_timeout_ms = 5000,
                                           .send_queue_bytes = MIB,
                                           .connections_max = 1};
    suite_connect(&s);
    for (int i = 0; i < 8; i++) {
        cr_assert_eq(suite_send(s.ab, "x", 1), 0);
        WAIT_FOR(&s, s.ba->messages == (uint64_t)i + 1);
        out[i] = fake_network_now_ns(s.world);
    }
    suite_end(&s);
    fake_network_free(s.world);
}

Test(transport_fake_faults, same_seed_gives_the_same_history) {
    uint64_t first[8], second[8], other[8];
    arrival_times(7, first);
    arrival_times(7, second);
    arrival_times(8, other);
    cr_assert_arr_eq(first, second, sizeof first);
    cr_assert(memcmp(first, other, sizeof first) != 0);
}

FAKE_CASE(clock_never_passes_a_due_event) {
    suite_connect(s);
    cr_assert_eq(suite_send(s->ab, "x", 1), 0);
    uint64_t due_ns = fake_network_next_ns(s->world);
    cr_assert_gt(due_ns, fake_network_now_ns(s->world));
    fake_network_advance(s->world, UINT64_MAX);
    cr_assert_eq(fake_network_now_ns(s->world), due_ns);
    cr_assert_eq(s->ba->messages, 0);
    run_dry(s);
    cr_assert_eq(fake_network_next_ns(s->world), UINT64_MAX);
    cr_assert_eq(s->ba->messages, 1);
}
