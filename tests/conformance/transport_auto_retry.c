/* SPDX-License-Identifier: Apache-2.0
 *
 * What `auto` does when a better choice fails and comes back. The better choices are fake networks
 * here, which can be cut: one in the list of two, two in the list of three. The last one is real
 * TCP.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <uv.h>

#include "conformance/transport_world.h"
#include "ops/log.h"
#include "support/transport_fake.h"
#include "transport/auto.h"
#include "transport/tcp/tcp.h"

enum { STEP_MS_MAX = 4 };

enum { NETWORKS = 2, NODES = 2 };

struct world {
    uv_loop_t loop;
    uv_timer_t tick; /* bounds a step in which nothing happens */
    struct fake_network *networks[NETWORKS];
    bool networks_stand_still;
    struct transport *fakes[NETWORKS][NODES]; /* NULL: that node is not on that network */
    size_t networks_of[NODES];                /* from the last one: 1 is networks[1] alone */
    size_t node_count;
};

static void on_tick(uv_timer_t *timer) {
    (void)timer;
}

static struct world *world_of(size_t networks_of_a, size_t networks_of_b) {
    struct world *world = calloc(1, sizeof *world);
    cr_assert_not_null(world);
    log_set_level(LOG_LEVEL_ERROR);
    for (size_t i = 0; i < NETWORKS; i++) {
        world->networks[i] = fake_network_new(1 + i, 10000, 100000);
        cr_assert_not_null(world->networks[i]);
    }
    world->networks_of[0] = networks_of_a;
    world->networks_of[1] = networks_of_b;
    cr_assert_eq(uv_loop_init(&world->loop), 0);
    uv_timer_init(&world->loop, &world->tick);
    uv_timer_start(&world->tick, on_tick, STEP_MS_MAX, STEP_MS_MAX);
    return world;
}

static void *world_new(void) {
    return world_of(1, 1);
}

static void *world_new_of_three(void) {
    return world_of(2, 2);
}

static void *world_new_of_three_and_one(void) {
    return world_of(2, 0);
}

static int transport_new(void *data, const struct transport_options *options,
                         const struct transport_events *events, void *owner,
                         struct transport **out) {
    struct world *world = data;
    size_t node = world->node_count++;
    struct transport_auto *list;
    struct transport *tcp;
    char why[96];
    cr_assert_eq(transport_auto_new(&world->loop, events, owner, &list), 0);
    for (size_t i = NETWORKS - world->networks_of[node]; i < NETWORKS; i++) {
        cr_assert_eq(fake_transport_new(world->networks[i], options, transport_auto_events(),
                                        transport_auto_owner(list), &world->fakes[i][node]),
                     0);
        transport_auto_add(list, world->fakes[i][node]);
    }
    struct transport_setup setup = {&world->loop, options, transport_auto_events(),
                                    transport_auto_owner(list)};
    cr_assert_eq(transport_tcp_new(&setup, &tcp, why, sizeof why), 0);
    transport_auto_add(list, tcp);
    *out = transport_auto_finish(list);
    return 0;
}

static void step(void *data) {
    struct world *world = data;
    bool happened = false;
    for (size_t i = 0; i < NETWORKS && !world->networks_stand_still; i++)
        happened |= fake_network_step(world->networks[i]);
    uv_run(&world->loop, happened ? UV_RUN_NOWAIT : UV_RUN_ONCE);
}

static void world_free(void *data) {
    struct world *world = data;
    uv_close((uv_handle_t *)&world->tick, NULL);
    uv_run(&world->loop, UV_RUN_DEFAULT);
    cr_assert_eq(uv_loop_close(&world->loop), 0, "the transport left a handle on the loop");
    for (size_t i = 0; i < NETWORKS; i++)
        fake_network_free(world->networks[i]);
    free(world);
}

#define FIXTURE(new)                                                                               \
    {                                                                                              \
        .listen_address = "127.0.0.1:0", .nobody_address = "127.0.0.1:1", .world_new = (new),      \
        .transport_new = transport_new, .step = step, .world_free = world_free,                    \
    }

static const struct transport_fixture of_two = FIXTURE(world_new),
                                      of_three = FIXTURE(world_new_of_three),
                                      of_three_and_one = FIXTURE(world_new_of_three_and_one);

#define LIST_CASE(fixture, name)                                                                   \
    static void name(struct suite *s);                                                             \
    Test(transport_auto, name) {                                                                   \
        transport_suite_run(&(fixture), name);                                                     \
    }                                                                                              \
    static void name(struct suite *s)
#define AUTO_CASE(name) LIST_CASE(of_two, name)

static void cut_network(struct suite *s, size_t network, bool on) {
    struct world *world = s->world;
    fake_network_cut(world->fakes[network][0], world->fakes[network][1], on);
    fake_network_cut(world->fakes[network][1], world->fakes[network][0], on);
}

/* The one of the list of two. */
static void cut(struct suite *s, bool on) {
    cut_network(s, NETWORKS - 1, on);
}

static const char *over(struct link *link) {
    struct transport_info info;
    link->node->t->ops->query(link->conn, &info);
    return info.transport;
}

static void fall_back(struct suite *s) {
    suite_start(s);
    cut(s, true);
    s->ab = suite_dial(&s->a, s->b.address);
    WAIT_FOR(s, s->ab->up && s->b.link_count == 1);
    s->ba = &s->b.links[0];
    cr_assert_str_eq(over(s->ab), "tcp");
}

static bool probe_is_out(struct suite *s) {
    struct world *world = s->world;
    return fake_network_next_ns(world->networks[NETWORKS - 1]) != UINT64_MAX;
}

AUTO_CASE(first_choice_is_taken_when_it_works) {
    suite_connect(s);
    cr_assert_str_eq(over(s->ab), "fake");
    cr_assert_eq(s->ab->better, 0);
}

AUTO_CASE(owner_hears_when_the_first_choice_works_again) {
    fall_back(s);
    cut(s, false);
    WAIT_FOR(s, s->ab->better == 1);
    cr_assert_not(s->ab->closed, "the connection itself goes on");
    cr_assert_eq(suite_send(s->ab, "x", 1), 0);
    WAIT_FOR(s, s->ba->messages == 1);
    s->a.t->ops->close(s->ab->conn);
    WAIT_FOR(s, s->ab->closed && s->ba->closed);
    struct link *again = suite_dial(&s->a, s->b.address);
    WAIT_FOR(s, again->up);
    cr_assert_str_eq(over(again), "fake");
}

AUTO_CASE(first_choice_is_tried_on_while_it_fails) {
    struct world *world = s->world;
    fall_back(s);
    for (int i = 0; i < 2; i++) {
        world->networks_stand_still = true;
        WAIT_FOR(s, probe_is_out(s));
        world->networks_stand_still = false;
        WAIT_FOR(s, !probe_is_out(s));
    }
    cr_assert_eq(s->ab->better, 0);
    cut(s, false);
    WAIT_FOR(s, s->ab->better == 1);
}

AUTO_CASE(connection_may_end_while_the_first_choice_is_tried) {
    struct world *world = s->world;
    fall_back(s);
    world->networks_stand_still = true;
    WAIT_FOR(s, probe_is_out(s));
    s->a.t->ops->close(s->ab->conn);
    WAIT_FOR(s, s->ab->closed);
    world->networks_stand_still = false;
    suite_settle(s);
    cr_assert_eq(s->ab->better, 0);
}

/* ---- a list of three: two networks, the first one better, and TCP ---- */

static const char *detail(struct link *link) {
    static struct transport_info info;
    link->node->t->ops->query(link->conn, &info);
    return info.detail;
}

static void dial(struct suite *s) {
    s->ab = suite_dial(&s->a, s->b.address);
    size_t accepted = s->b.link_count;
    WAIT_FOR(s, s->ab->up && s->b.link_count == accepted + 1);
    s->ba = &s->b.links[accepted];
}

static void dial_anew(struct suite *s) {
    s->a.t->ops->close(s->ab->conn);
    WAIT_FOR(s, s->ab->closed && s->ba->closed);
    dial(s);
}

static void check_messages_flow(struct suite *s) {
    uint64_t before = s->ba->messages;
    cr_assert_eq(suite_send(s->ab, "x", 1), 0);
    WAIT_FOR(s, s->ba->messages == before + 1);
}

LIST_CASE(of_three, first_of_three_is_taken_when_it_works) {
    suite_start(s);
    cut_network(s, 1, true);
    dial(s);
    cr_assert_str_eq(over(s->ab), "fake");
    cr_assert_str_empty(detail(s->ab));
}

LIST_CASE(of_three, second_of_three_is_taken_when_the_first_fails) {
    suite_start(s);
    cut_network(s, 0, true);
    dial(s);
    cr_assert_str_eq(over(s->ab), "fake");
    cr_assert_not_null(strstr(detail(s->ab), "no fake: "), "%s", detail(s->ab));
    suite_fill(s, MIB);
    suite_take_key(s->ba);
    cr_assert_eq(suite_read(s, 0, 0, MIB), 0);
    WAIT_FOR(s, s->reads[0].done);
    cr_assert_eq(s->reads[0].status, 0);
    cr_assert_eq(memcmp(s->a.memory, s->b.memory, MIB), 0);
}

LIST_CASE(of_three, first_of_three_is_gone_back_to) {
    suite_start(s);
    cut_network(s, 0, true);
    dial(s);
    cut_network(s, 0, false);
    WAIT_FOR(s, s->ab->better == 1);
    check_messages_flow(s);
    dial_anew(s);
    cut_network(s, 1, true);
    check_messages_flow(s); /* so it is over the first */
}

LIST_CASE(of_three, last_of_three_names_why_the_others_were_not_taken) {
    suite_start(s);
    cut_network(s, 0, true);
    cut_network(s, 1, true);
    dial(s);
    cr_assert_str_eq(over(s->ab), "tcp");
    cr_assert_not_null(strstr(detail(s->ab), "; fake: "), "%s", detail(s->ab));
}

LIST_CASE(of_three, second_of_three_is_better_than_the_last) {
    suite_start(s);
    cut_network(s, 0, true);
    cut_network(s, 1, true);
    dial(s);
    cut_network(s, 1, false);
    WAIT_FOR(s, s->ab->better == 1);
    dial_anew(s);
    cr_assert_str_eq(over(s->ab), "fake");
}

LIST_CASE(of_three_and_one, lists_need_one_transport_in_common) {
    suite_start(s);
    dial(s);
    cr_assert_str_eq(over(s->ab), "tcp");
    suite_fill(s, MIB);
    suite_take_key(s->ba);
    cr_assert_eq(suite_read(s, 0, 0, MIB), 0);
    WAIT_FOR(s, s->reads[0].done);
    cr_assert_eq(s->reads[0].status, 0);
}
