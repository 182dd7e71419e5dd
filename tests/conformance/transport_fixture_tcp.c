/* SPDX-License-Identifier: Apache-2.0 */
#include "conformance/transport_fixture.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <uv.h>

#include "ops/log.h"
#include "transport/tcp/tcp.h"

enum { STEP_MS_MAX = 4 };

struct world {
    uv_loop_t loop;
    uv_timer_t tick; /* bounds a step in which nothing happens */
};

static void on_tick(uv_timer_t *timer) {
    (void)timer;
}

static void *world_new(void) {
    struct world *world = calloc(1, sizeof *world);
    cr_assert_not_null(world);
    log_set_level(LOG_LEVEL_ERROR); /* dropped strangers are the point of some cases */
    cr_assert_eq(uv_loop_init(&world->loop), 0);
    uv_timer_init(&world->loop, &world->tick);
    uv_timer_start(&world->tick, on_tick, STEP_MS_MAX, STEP_MS_MAX);
    return world;
}

static int transport_new(void *world, const struct transport_options *options,
                         const struct transport_events *events, void *owner,
                         struct transport **out) {
    struct transport_setup setup = {&((struct world *)world)->loop, options, events, owner};
    char why[96];
    return transport_tcp_new(&setup, out, why, sizeof why);
}

static void step(void *world) {
    uv_run(&((struct world *)world)->loop, UV_RUN_ONCE);
}

static void world_free(void *data) {
    struct world *world = data;
    uv_close((uv_handle_t *)&world->tick, NULL);
    uv_run(&world->loop, UV_RUN_DEFAULT);
    cr_assert_eq(uv_loop_close(&world->loop), 0, "the transport left a handle on the loop");
    free(world);
}

const struct transport_fixture transport_fixture_tcp = {
    .listen_address = "127.0.0.1:0",
    .nobody_address = "127.0.0.1:1",
    .world_new = world_new,
    .transport_new = transport_new,
    .step = step,
    .world_free = world_free,
};
