/* SPDX-License-Identifier: Apache-2.0
 *
 * Calls against a broker that is frozen, or was killed, end soon after their deadline, whatever
 * they had begun. tests/unit/deadline.c tells the phases of a call apart. The bounds are wide, for
 * a machine that is busy: less than the ten seconds of a call without a deadline.
 */
#include <criterion/criterion.h>

#include "support/checks.h"
#include "support/world.h"

#define MIB         1048576u
#define DEADLINE_MS 300u
#define SOON_MS     7000u

/* Fails, with this status, and soon. */
#define SOON(status, call)                                                                         \
    do {                                                                                           \
        uint64_t begun_ms_ = check_now_ms();                                                       \
        CHECK_STATUS(status, call);                                                                \
        uint64_t took_ms_ = check_now_ms() - begun_ms_;                                            \
        CHECK(took_ms_ < SOON_MS, "%s took %u ms", #call, (unsigned)took_ms_);                     \
    } while (0)

static void try_all(struct world *world, const struct payload *large, const struct payload *small,
                    int status) {
    struct feature_reservation *room;
    SOON(status, payload_put(large, world->producer, DEADLINE_MS, NULL));
    SOON(status, payload_put(small, world->producer, DEADLINE_MS, NULL));
    SOON(status, feature_reserve(world->producer, &large->sample, DEADLINE_MS, &room));
    SOON(status, world_try_get(world->producer, by_id("s1"), DEADLINE_MS));
    SOON(status, feature_drain(world->producer_feature, DEADLINE_MS));
}

static void every_call_ends(struct world *world) {
    struct payload large, small;
    payload_init(&large, "large", 1, MIB);
    payload_init(&small, "small", 2, 1000);
    cluster_node_freeze(&world->cluster, 0);
    try_all(world, &large, &small, FEATURE_E_TIMEOUT);
    cluster_node_kill(&world->cluster, 0);
    try_all(world, &large, &small, FEATURE_E_UNAVAILABLE);
    payload_deinit(&large);
    payload_deinit(&small);
}

Test(deadline, every_call_ends_soon_after_it, .timeout = 120) {
    world_run(1, "[store run]\n", every_call_ends);
}
