/* SPDX-License-Identifier: Apache-2.0
 *
 * What `auto` does when its first choice fails and comes back. The first choice is the fake network
 * here, which can be cut; the second is real TCP.
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

struct world {
    uv_loop_t loop;
    uv_timer_t tick; /* bounds a step in which nothing happens */
    struct fake_network *network;
    bool network_stands_still;
    struct transport *fakes[2]; /* of node a, node b */
    size_t fake_count;
};

static void on_tick(uv_timer_t *timer) {
    (void)timer;
}

static void *world_new(void) {
    struct world *world = calloc(1, sizeof *world);
    cr_assert_not_null(world);
    log_set_level(LOG_LEVEL_ERROR);
    world->network = fake_network_new(1, 10000, 100000);
    cr_assert_not_null(world->network);
    cr_assert_eq(uv_loop_init(&world->loop), 0);
    uv_timer_init(&world->loop, &world->tick);
    uv_timer_start(&world->tick, on_tick, STEP_MS_MAX, STEP_MS_MAX);
    return world;
}

static int transport_new(void *data, const struct transport_options *options,
                         const struct transport_events *events, void *owner,
                         struct transport **out) {
    struct world *world = data;
    struct transport_auto *both;
    struct transport *tcp, **fake = &world->fakes[world->fake_count++];
    cr_assert_eq(transport_auto_new(&world->loop, events, owner, &both), 0);
    cr_assert_eq(fake_transport_new(world->network, options, transport_auto_events(),
                                    transport_auto_rdma_owner(both), fake),
                 0);
    cr_assert_eq(transport_tcp_new(&world->loop, options, transport_auto_events(),
                                   transport_auto_tcp_owner(both), &tcp),
                 0);
    *out = transport_auto_join(both, *fake, tcp);
    return 0;
}

static void step(void *data) {
    struct world *world = data;
    if (world->network_stands_still || !fake_network_step(world->network))
        uv_run(&world->loop, UV_RUN_ONCE);
    else
        uv_run(&world->loop, UV_RUN_NOWAIT);
}

static void world_free(void *data) {
    struct world *world = data;
    uv_close((uv_handle_t *)&world->tick, NULL);
    uv_run(&world->loop, UV_RUN_DEFAULT);
    cr_assert_eq(uv_loop_close(&world->loop), 0, "the transport left a handle on the loop");
    fake_network_free(world->network);
    free(world);
}

static const struct transport_fixture fixture = {
    .listen_address = "127.0.0.1:0",
    .nobody_address = "127.0.0.1:1",
    .world_new = world_new,
    .transport_new = transport_new,
    .step = step,
    .world_free = world_free,
};

#define AUTO_CASE(name)                                                                            \
    static void name(struct suite *s);                                                             \
    Test(transport_auto, name) {                                                                   \
        transport_suite_run(&fixture, name);                                                       \
    }                                                                                              \
    static void name(struct suite *s)

static void cut(struct suite *s, bool on) {
    struct world *world = s->world;
    fake_network_cut(world->fakes[0], world->fakes[1], on);
    fake_network_cut(world->fakes[1], world->fakes[0], on);
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
    return fake_network_next_ns(((struct world *)s->world)->network) != UINT64_MAX;
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
        world->network_stands_still = true;
        WAIT_FOR(s, probe_is_out(s));
        world->network_stands_still = false;
        WAIT_FOR(s, !probe_is_out(s));
    }
    cr_assert_eq(s->ab->better, 0);
    cut(s, false);
    WAIT_FOR(s, s->ab->better == 1);
}

AUTO_CASE(connection_may_end_while_the_first_choice_is_tried) {
    struct world *world = s->world;
    fall_back(s);
    world->network_stands_still = true;
    WAIT_FOR(s, probe_is_out(s));
    s->a.t->ops->close(s->ab->conn);
    WAIT_FOR(s, s->ab->closed);
    world->network_stands_still = false;
    suite_settle(s);
    cr_assert_eq(s->ab->better, 0);
}
