/* SPDX-License-Identifier: Apache-2.0 */
#include "conformance/transport_fixture.h"

#include <criterion/criterion.h>
#include <stdlib.h>

#include "support/transport_fake.h"

/* Delays up to ten times the shortest: enough for everything that may overtake to do so. */
enum { DELAY_NS_MIN = 10000, DELAY_NS_MAX = 100000 };

static void *world_new(void) {
    const char *text = getenv("TRANSPORT_FAKE_SEED");
    uint64_t seed = text != NULL ? strtoull(text, NULL, 0) : 1;
    struct fake_network *network = fake_network_new(seed, DELAY_NS_MIN, DELAY_NS_MAX);
    cr_assert_not_null(network);
    return network;
}

static int transport_new(void *world, const struct transport_options *options,
                         const struct transport_events *events, void *owner,
                         struct transport **out) {
    return fake_transport_new(world, options, events, owner, out);
}

static void step(void *world) {
    fake_network_step(world);
}

static void world_free(void *world) {
    fake_network_free(world);
}

const struct transport_fixture transport_fixture_fake = {
    .listen_address = "node:0",
    .nobody_address = "nobody:1",
    .world_new = world_new,
    .transport_new = transport_new,
    .step = step,
    .world_free = world_free,
};
