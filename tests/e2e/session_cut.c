/* SPDX-License-Identifier: Apache-2.0
 *
 * Contract 6, "a broken connection to a client whose process lives ends nothing": connections are
 * cut with shutdown() on the library's own sockets, which are found among the descriptors of this
 * process by the name of the broker's socket.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "e2e/rounds.h"
#include "support/checks.h"
#include "support/world.h"

#define MIB         1048576u
#define DEADLINE_MS 60000u
#define CUTS        1000u

/* ---- cutting ---- */

/* One that is connected, and not yet cut by us. */
static bool leads_to(int fd, const char *socket_path) {
    struct sockaddr_un peer = {0};
    socklen_t bytes = sizeof peer;
    struct pollfd state = {.fd = fd, .events = POLLRDHUP};
    return getpeername(fd, (struct sockaddr *)&peer, &bytes) == 0 && peer.sun_family == AF_UNIX &&
           !strcmp(peer.sun_path, socket_path) && poll(&state, 1, 0) >= 0 &&
           !(state.revents & (POLLRDHUP | POLLHUP));
}

/* Every connection of this process to that broker; says how many. The test's own probe of the
 * cluster is among them, and has to stand it as well. */
static unsigned cut_all(const char *socket_path) {
    unsigned cut = 0;
    DIR *directory = opendir("/proc/self/fd");
    CHECK(directory != NULL, "no /proc/self/fd");
    for (struct dirent *entry; (entry = readdir(directory));) {
        int fd = atoi(entry->d_name);
        if (fd != dirfd(directory) && leads_to(fd, socket_path))
            cut += shutdown(fd, SHUT_RDWR) == 0;
    }
    closedir(directory);
    return cut;
}

static void cut_once(const struct world *world, uint32_t node) {
    CHECK(cut_all(world->cluster.nodes[node].socket_path) > 0, "nothing to cut");
}

/* ---- a thousand cuts ---- */

struct cutter {
    const char *socket_path;
    uint64_t seed;
    unsigned cuts;
    atomic_bool stop, done;
};

static void *cut_on(void *context) {
    struct cutter *cutter = context;
    while (cutter->cuts < CUTS && !cutter->stop) {
        cutter->cuts += cut_all(cutter->socket_path);
        check_pause((uint32_t)(check_random(&cutter->seed) % 4));
    }
    cutter->done = true;
    return NULL;
}

static void a_thousand_cuts(struct world *world) {
    struct cutter cutter = {.socket_path = world->cluster.nodes[world->consumer_node].socket_path};
    pthread_t thread;
    uint64_t seed = check_seed("session_cut"), round = 0;
    cutter.seed = seed;
    CHECK(pthread_create(&thread, NULL, cut_on, &cutter) == 0, "no thread");
    while (!cutter.done)
        round_run(world->producer, world->consumer, "s", round++, &seed);
    pthread_join(thread, NULL);
    world_settle(world);
    struct store_numbers rest = world_home(world);
    CHECK(!rest.resident && !rest.retired && !rest.planned && !rest.leases && !rest.reservations,
          "%" PRIu64 " resident, %" PRIu64 " retired, %" PRIu64 " planned, %" PRIu64
          " leases, %" PRIu64 " reservations",
          rest.resident, rest.retired, rest.planned, rest.leases, rest.reservations);
    CHECK(rest.puts == round * ROUND_SAMPLES, "%" PRIu64 " puts of %" PRIu64, rest.puts,
          round * ROUND_SAMPLES);
    printf("session_cut: %u cuts in %" PRIu64 " rounds\n", cutter.cuts, round);
}

Test(session_cut, a_thousand_cuts_change_nothing_one_node, .timeout = 300) {
    world_run(1, "[store run]\nreaders = 2\n", a_thousand_cuts);
}
Test(session_cut, a_thousand_cuts_change_nothing_two_nodes, .timeout = 300) {
    world_run(2, "[store run]\nreaders = 2\n", a_thousand_cuts);
}

/* ---- one cut at a time ---- */

static void a_reservation_is_written_across_a_cut(struct world *world) {
    struct payload payload;
    struct feature_reservation *reservation;
    payload_init(&payload, "s1", 3, MIB);
    CHECK_OK(feature_reserve(world->producer, &payload.sample, 0, &reservation));
    payload_write(&payload, reservation, 0);
    cut_once(world, world->producer_node);
    payload_write(&payload, reservation, 1);
    struct feature_health health = {.size = sizeof health};
    CHECK_OK(feature_health(world->producer_feature, &health)); /* it has come back */
    CHECK(world_home(world).reservations == 1, "the reservation is gone");
    payload_write(&payload, reservation, 2);
    payload_write(&payload, reservation, 3);
    cut_once(world, world->producer_node);
    CHECK_OK(feature_commit(reservation, NULL));
    payload_check_get(&payload, world->consumer, by_id("s1"), FEATURE_RELEASE_CONSUMED);
    payload_deinit(&payload);
}
Test(session_cut, a_reservation_is_written_across_a_cut, .timeout = 120) {
    world_run(1, "[store run]\n", a_reservation_is_written_across_a_cut);
}

struct waiting {
    struct feature_store *store;
    const struct payload *payload;
    atomic_bool got;
};

static void *wait_for_sample(void *context) {
    struct waiting *waiting = context;
    const struct feature_get_options options = {
        .size = sizeof options, .deadline_ms = DEADLINE_MS, .wait_ms = DEADLINE_MS};
    struct feature_view *view;
    CHECK_OK(feature_get(waiting->store, by_id("late"), &options, &view));
    CHECK(payload_difference(waiting->payload, view) == NULL, "%s",
          payload_difference(waiting->payload, view));
    CHECK_OK(feature_release(view, FEATURE_RELEASE_CONSUMED));
    waiting->got = true;
    return NULL;
}

static void a_get_that_waits_goes_on(struct world *world) {
    struct payload payload;
    pthread_t thread;
    payload_init(&payload, "late", 4, MIB);
    struct waiting waiting = {.store = world->consumer, .payload = &payload};
    CHECK(pthread_create(&thread, NULL, wait_for_sample, &waiting) == 0, "no thread");
    for (int i = 0; i < 3; i++) {
        WAIT_UNTIL(world_home(world).get_waiters == 1, DEADLINE_MS);
        cut_once(world, world->consumer_node);
    }
    CHECK(!waiting.got, "it has got what is not there");
    CHECK_OK(payload_put(&payload, world->producer, DEADLINE_MS, NULL));
    pthread_join(thread, NULL);
    payload_deinit(&payload);
}
Test(session_cut, a_get_that_waits_goes_on, .timeout = 120) {
    world_run(1, "[store run]\n", a_get_that_waits_goes_on);
}

/* A process without descriptors cannot connect again. It is told so, and keeps what it has. */
static void a_full_descriptor_table(struct world *world) {
    struct payload payload;
    struct feature_view *view, *other;
    struct rlimit before, none;
    payload_init(&payload, "s1", 5, MIB);
    CHECK_OK(payload_put(&payload, world->producer, 0, NULL));
    view = payload_view(&payload, world->consumer, by_id("s1"));
    CHECK(getrlimit(RLIMIT_NOFILE, &before) == 0, "getrlimit");
    none = before;
    none.rlim_cur = 3; /* those that are open stay so */
    cut_once(world, world->consumer_node);
    CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0, "setrlimit");
    CHECK_STATUS(FEATURE_E_FULL, feature_get(world->consumer, by_id("s1"), NULL, &other));
    CHECK_SAYS("descriptor");
    CHECK(setrlimit(RLIMIT_NOFILE, &before) == 0, "setrlimit");
    CHECK_OK(feature_view_check(view));
    CHECK(world_home(world).leases == 1, "%" PRIu64 " leases", world_home(world).leases);
    CHECK(payload_difference(&payload, view) == NULL, "%s", payload_difference(&payload, view));
    CHECK_OK(feature_release(view, FEATURE_RELEASE_CONSUMED));
    payload_deinit(&payload);
}
Test(session_cut, a_full_descriptor_table_is_told_and_ends_nothing, .timeout = 120) {
    world_run(1, "[store run]\n", a_full_descriptor_table);
}

/* ---- the end of the program ---- */

static int hold_and_exec(int channel, void *context) {
    struct world *world = context;
    struct payload payload;
    struct feature_reservation *reservation;
    struct feature_view *view;
    struct feature *feature = cluster_connect(&world->cluster, 0);
    struct feature_store *store = cluster_open(feature, "run", false);
    payload_init(&payload, "reserved", 1, MIB);
    CHECK_OK(feature_reserve(store, &payload.sample, 0, &reservation));
    CHECK_OK(feature_get(store, by_id("s1"), NULL, &view));
    channel_say(channel, "held");
    channel_expect(channel, "exec", DEADLINE_MS);
    fcntl(channel, F_SETFD, 0); /* tells the test that the program lives */
    execlp("sleep", "sleep", "600", NULL);
    return 1;
}

/* The pid lives on, the program does not. */
static void exec_with_leases_held(struct world *world) {
    struct payload payload;
    struct process trainer;
    payload_init(&payload, "s1", 2, MIB);
    CHECK_OK(payload_put(&payload, world->producer, 0, NULL));
    process_fork(&trainer, hold_and_exec, world);
    channel_expect(trainer.channel, "held", DEADLINE_MS);
    CHECK(world_home(world).leases == 1 && world_home(world).reservations == 1, "it holds nothing");
    uint64_t begin_us = check_now_us();
    channel_say(trainer.channel, "exec");
    WAIT_UNTIL(world_home(world).leases + world_home(world).reservations == 0, DEADLINE_MS);
    printf("session_cut: gone %" PRIu64 " us after exec was asked for\n",
           check_now_us() - begin_us);
    CHECK(process_running(&trainer), "the process has ended");
    process_kill(&trainer);
    payload_check_get(&payload, world->consumer, by_id("s1"),
                      FEATURE_RELEASE_CONSUMED); /* returned */
    payload_deinit(&payload);
}
Test(session_cut, a_program_that_becomes_another_holds_nothing, .timeout = 120) {
    world_run(1, "[store run]\n", exec_with_leases_held);
}

/* ---- a parked session is the process's ---- */

static int hold_and_wait(int channel, void *context) {
    struct world *world = context;
    struct feature_view *view;
    struct feature *feature = cluster_connect(&world->cluster, 0);
    struct feature_store *store = cluster_open(feature, "run", false);
    CHECK_OK(feature_get(store, by_id("s1"), NULL, &view));
    channel_say(channel, "held");
    channel_expect(channel, "cut", DEADLINE_MS);
    CHECK(cut_all(world->cluster.nodes[0].socket_path) > 0, "nothing to cut");
    channel_say(channel, "parked");
    channel_expect(channel, "come back", DEADLINE_MS);
    CHECK_OK(feature_view_check(view));
    CHECK_OK(feature_release(view, FEATURE_RELEASE_RETURNED));
    feature_disconnect(feature);
    return 0;
}

static void a_parked_session(struct world *world, bool dies) {
    struct payload payload;
    struct process trainer;
    payload_init(&payload, "s1", 2, MIB);
    CHECK_OK(payload_put(&payload, world->producer, 0, NULL));
    uint64_t sessions = cluster_health(&world->cluster, 0).sessions;
    process_fork(&trainer, hold_and_wait, world);
    channel_expect(trainer.channel, "held", DEADLINE_MS);
    channel_say(trainer.channel, "cut");
    channel_expect(trainer.channel, "parked", DEADLINE_MS);
    CHECK(world_home(world).leases == 1, "%" PRIu64 " leases", world_home(world).leases);
    CHECK(cluster_health(&world->cluster, 0).sessions == sessions + 1, "it counts as a session");
    if (dies) {
        process_kill(&trainer);
    } else {
        channel_say(trainer.channel, "come back");
        process_join(&trainer, DEADLINE_MS);
    }
    WAIT_UNTIL(world_home(world).leases == 0, DEADLINE_MS);
    WAIT_UNTIL(cluster_health(&world->cluster, 0).sessions == sessions, DEADLINE_MS);
    payload_check_get(&payload, world->consumer, by_id("s1"), FEATURE_RELEASE_CONSUMED);
    payload_deinit(&payload);
}
static void a_parked_session_comes_back(struct world *world) {
    a_parked_session(world, false);
}
static void a_parked_session_ends_with_its_process(struct world *world) {
    a_parked_session(world, true);
}
Test(session_cut, a_parked_session_comes_back, .timeout = 120) {
    world_run(1, "[store run]\n", a_parked_session_comes_back);
}
Test(session_cut, a_parked_session_ends_with_its_process, .timeout = 120) {
    world_run(1, "[store run]\n", a_parked_session_ends_with_its_process);
}
