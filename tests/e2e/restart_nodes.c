/* SPDX-License-Identifier: Apache-2.0
 *
 * Two nodes, one of whose brokers is killed with SIGKILL and starts again with its memory, which
 * `featured --supervise` has kept: the home while a client of the other node reads from it, or the
 * reader's own broker while its client holds landed copies. The other node sees a connection that
 * broke: no sample is LOST, no view changes, what is consumed reaches the home once, and at rest
 * nothing is left, on the nodes and in etcd.
 */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "support/checks.h"
#include "support/cluster.h"
#include "support/payload.h"

#define ROUNDS      12u
#define HOME        0u
#define READER      1u
#define DEADLINE_MS 60000u
#define SMALL_BYTES 4096u /* comes with the answer that grants it */
#define LARGE_BYTES (4u << 20)

/* Does not wait for the next one: what follows meets whatever there is. One that was killed a
 * moment ago may be gone between the look and the signal. */
static void kill_broker(const struct cluster *cluster, uint32_t node) {
    pid_t broker;
    WAIT_UNTIL((broker = process_child(&cluster->nodes[node].process)) != 0 &&
                   kill(broker, SIGKILL) == 0,
               DEADLINE_MS);
}

/* With an index a node that is back serves when it has compared; until then it says UNAVAILABLE. */
static void put(const struct payload *payload, struct feature_store *store,
                struct feature_ref **ref) {
    int status = 0;
    WAIT_UNTIL((status = payload_put(payload, store, DEADLINE_MS, ref)) != FEATURE_E_UNAVAILABLE,
               DEADLINE_MS);
    CHECK_OK(status);
}

static struct feature_view *view(struct feature_store *store, const struct feature_ref *ref) {
    struct feature_view *view = NULL;
    int status = 0;
    WAIT_UNTIL((status = feature_get(store, FEATURE_BY_REF(ref), NULL, &view)) !=
                   FEATURE_E_UNAVAILABLE,
               DEADLINE_MS);
    CHECK_OK(status);
    return view;
}

/* In every other round before the get, else while the view is held. */
static void round_of(struct cluster *cluster, uint32_t killed, struct feature_store *at_home,
                     struct feature_store *at_reader, uint32_t round) {
    struct payload payload;
    struct feature_ref *ref;
    char id[16];
    snprintf(id, sizeof id, "s%u", round);
    payload_init(&payload, id, round + 1, round % 4 < 2 ? SMALL_BYTES : LARGE_BYTES);
    put(&payload, at_home, &ref);
    if (round % 2)
        kill_broker(cluster, killed);
    struct feature_view *held = view(at_reader, ref);
    if (round % 2 == 0)
        kill_broker(cluster, killed);
    CHECK_OK(feature_view_check(held));
    CHECK(payload_difference(&payload, held) == NULL, "%s", payload_difference(&payload, held));
    CHECK_OK(feature_release(held, FEATURE_RELEASE_CONSUMED));
    feature_ref_free(ref);
    payload_deinit(&payload);
}

static void run(uint32_t killed, uint32_t etcd_members) {
    struct cluster cluster;
    cluster_start(&cluster, &(struct cluster_options){.nodes = 2,
                                                      .supervised = true,
                                                      .etcd_members = etcd_members,
                                                      .ini = "[store run]\n"});
    struct feature *home = cluster_connect(&cluster, HOME);
    struct feature *reader = cluster_connect(&cluster, READER);
    struct feature_store *at_home = cluster_open(home, "run", false);
    struct feature_store *at_reader = cluster_open(reader, "run", true);
    struct feature_health before = {.size = sizeof before}, after = {.size = sizeof after};
    CHECK_OK(feature_health(killed == HOME ? home : reader, &before));
    for (uint32_t i = 0; i < ROUNDS; i++)
        round_of(&cluster, killed, at_home, at_reader, i);
    CHECK_OK(feature_health(killed == HOME ? home : reader, &after));
    CHECK(before.incarnation == after.incarnation, "another incarnation");
    feature_disconnect(reader);
    feature_disconnect(home);
    cluster_await_empty(&cluster, HOME);
    cluster_await_empty(&cluster, READER);
    if (etcd_members)
        cluster_etcd_await_no_samples(&cluster);
    CHECK(!cluster_log_has(&cluster, HOME, "is lost") &&
              !cluster_log_has(&cluster, READER, "is lost"),
          "somebody was taken for dead");
    cluster_stop(&cluster);
}

Test(restart_nodes, the_home_is_killed, .timeout = 300) {
    run(HOME, 0);
}

Test(restart_nodes, the_readers_broker_is_killed, .timeout = 300) {
    run(READER, 0);
}

Test(restart_nodes, the_home_is_killed_with_an_index, .timeout = 300) {
    run(HOME, 1);
}

Test(restart_nodes, the_readers_broker_is_killed_with_an_index, .timeout = 300) {
    run(READER, 1);
}
