/* SPDX-License-Identifier: Apache-2.0
 *
 * Contract 15 as its clients see it: the broker is killed with SIGKILL under load, again and again,
 * and starts each time with its memory, which `featured --supervise` has kept. No client is started
 * anew, no call fails, no byte changes, and everything is consumed as often as it was said.
 */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "e2e/rounds.h"
#include "support/checks.h"
#include "support/cluster.h"
#include "support/payload.h"

#define KILLS       50u
#define CLIENTS     4u
#define MIB         1048576u
#define DEADLINE_MS 60000u

static void kill_broker(const struct cluster *cluster) {
    pid_t before = 0;
    WAIT_UNTIL((before = process_child(&cluster->nodes[0].process)) != 0, DEADLINE_MS);
    CHECK(kill(before, SIGKILL) == 0, "no broker to kill");
    WAIT_UNTIL(process_child(&cluster->nodes[0].process) != before, DEADLINE_MS);
}

static void start(struct cluster *cluster) {
    cluster_start(cluster, &(struct cluster_options){.nodes = 1,
                                                     .supervised = true,
                                                     .ini = "[store run]\nreaders = 2\n"});
}

/* ---- one kill ---- */

static void check_kept(struct cluster *cluster, struct feature *feature, uint64_t incarnation) {
    struct feature_health health = {.size = sizeof health};
    CHECK_OK(feature_health(feature, &health));
    CHECK(health.incarnation == incarnation, "another incarnation");
    struct store_numbers numbers = cluster_numbers(cluster, 0, "run");
    CHECK(numbers.leases == 1 && numbers.reservations == 1,
          "%" PRIu64 " leases, %" PRIu64 " reservations", numbers.leases, numbers.reservations);
}

/* A view and a half-written reservation, before and after; twice, so that what was recalled is
 * recalled again. */
Test(session_kill, leases_and_reservations_are_there_again, .timeout = 120) {
    struct cluster cluster;
    struct payload read, written;
    struct feature_reservation *reservation;
    struct feature_health health = {.size = sizeof health};
    start(&cluster);
    struct feature *feature = cluster_connect(&cluster, 0);
    struct feature_store *store = cluster_open(feature, "run", false);
    CHECK_OK(feature_health(feature, &health));
    payload_init(&read, "read", 1, MIB);
    payload_init(&written, "written", 2, MIB);
    CHECK_OK(payload_put(&read, store, DEADLINE_MS, NULL));
    struct feature_view *view = payload_view(&read, store, FEATURE_BY_ID("read"));
    CHECK_OK(feature_reserve(store, &written.sample, DEADLINE_MS, &reservation));
    payload_write(&written, reservation, 0);
    for (uint32_t i = 1; i < 3; i++) {
        kill_broker(&cluster);
        payload_write(&written, reservation, i);
        check_kept(&cluster, feature, health.incarnation);
        CHECK_OK(feature_view_check(view));
        CHECK(payload_difference(&read, view) == NULL, "%s", payload_difference(&read, view));
    }
    payload_write(&written, reservation, 3);
    CHECK_OK(feature_commit(reservation, NULL));
    CHECK_OK(feature_release(view, FEATURE_RELEASE_CONSUMED));
    payload_check_get(&read, store, FEATURE_BY_ID("read"), FEATURE_RELEASE_CONSUMED);
    for (uint32_t i = 0; i < 2; i++)
        payload_check_get(&written, store, FEATURE_BY_ID("written"), FEATURE_RELEASE_CONSUMED);
    payload_deinit(&read);
    payload_deinit(&written);
    feature_disconnect(feature);
    cluster_await_empty(&cluster, 0);
    cluster_stop(&cluster);
}

/* ---- who dies while the broker is away ---- */

static int hold(int channel, void *context) {
    const struct cluster *cluster = context;
    struct feature_view *view;
    struct feature *feature = cluster_connect(cluster, 0);
    struct feature_store *store = cluster_open(feature, "run", false);
    CHECK_OK(feature_get(store, FEATURE_BY_ID("s"), NULL, &view));
    channel_say(channel, "held");
    channel_expect(channel, "end", DEADLINE_MS);
    return 0;
}

Test(session_kill, a_client_that_dies_meanwhile_holds_nothing, .timeout = 120) {
    struct cluster cluster;
    struct process client;
    struct payload payload;
    start(&cluster);
    struct feature *feature = cluster_connect(&cluster, 0);
    struct feature_store *store = cluster_open(feature, "run", false);
    payload_init(&payload, "s", 1, MIB);
    CHECK_OK(payload_put(&payload, store, DEADLINE_MS, NULL));
    process_fork(&client, hold, &cluster);
    channel_expect(client.channel, "held", DEADLINE_MS);
    pid_t broker = process_child(&cluster.nodes[0].process);
    CHECK(kill(broker, SIGSTOP) == 0, "no broker to stop"); /* it sees nothing of the death */
    process_kill(&client);
    CHECK(kill(broker, SIGKILL) == 0, "no broker to kill");
    WAIT_UNTIL(cluster_numbers(&cluster, 0, "run").leases == 0, DEADLINE_MS);
    for (uint32_t i = 0; i < 2; i++)
        payload_check_get(&payload, store, FEATURE_BY_ID("s"), FEATURE_RELEASE_CONSUMED);
    payload_deinit(&payload);
    feature_disconnect(feature);
    cluster_await_empty(&cluster, 0);
    cluster_stop(&cluster);
}

/* ---- fifty kills under load ---- */

struct client {
    struct cluster *cluster;
    uint32_t number;
    uint64_t seed;
};

static int run_load(int channel, void *context) {
    struct client *client = context;
    char prefix[16];
    uint64_t round = 0;
    snprintf(prefix, sizeof prefix, "c%u.", client->number);
    struct feature *producer = cluster_connect(client->cluster, 0);
    struct feature *consumer = cluster_connect(client->cluster, 0);
    struct feature_store *to = cluster_open(producer, "run", false);
    struct feature_store *from = cluster_open(consumer, "run", true);
    while (!channel_pending(channel, 0))
        round_run(to, from, prefix, round++, &client->seed);
    CHECK_OK(feature_drain(producer, DEADLINE_MS));
    CHECK_OK(feature_drain(consumer, DEADLINE_MS));
    feature_disconnect(consumer);
    feature_disconnect(producer);
    printf("session_kill: client %u did %" PRIu64 " rounds of %u samples\n", client->number, round,
           ROUND_SAMPLES);
    fflush(stdout); /* a helper ends without exit() */
    return 0;
}

static int by_size(const void *one, const void *other) {
    uint64_t a = *(const uint64_t *)one, b = *(const uint64_t *)other;
    return (a > b) - (a < b);
}

/* Kills at any moment of the load; the time without service is that until a client that was there
 * before is answered. */
Test(session_kill, fifty_kills_under_load_lose_nothing, .timeout = 300) {
    struct cluster cluster;
    struct client clients[CLIENTS];
    struct process processes[CLIENTS];
    struct feature_health health = {.size = sizeof health};
    uint64_t away_us[KILLS], seed = check_seed("session_kill");
    start(&cluster);
    struct feature *feature = cluster_connect(&cluster, 0);
    for (uint32_t i = 0; i < CLIENTS; i++) {
        clients[i] = (struct client){&cluster, i, check_random(&seed)};
        process_fork(&processes[i], run_load, &clients[i]);
    }
    for (uint32_t i = 0; i < KILLS; i++) {
        check_pause((uint32_t)(check_random(&seed) % 120));
        uint64_t begin_us = check_now_us();
        kill_broker(&cluster);
        CHECK_OK(feature_health(feature, &health));
        away_us[i] = check_now_us() - begin_us;
        for (uint32_t k = 0; k < CLIENTS; k++)
            CHECK(process_running(&processes[k]), "client %u failed after %u kills", k, i + 1);
    }
    for (uint32_t i = 0; i < CLIENTS; i++)
        channel_say(processes[i].channel, "end");
    for (uint32_t i = 0; i < CLIENTS; i++)
        process_join(&processes[i], 2 * DEADLINE_MS);
    qsort(away_us, KILLS, sizeof away_us[0], by_size);
    printf("session_kill: %u kills; without service p50 %" PRIu64 " us, longest %" PRIu64 " us\n",
           KILLS, away_us[KILLS / 2], away_us[KILLS - 1]);
    feature_disconnect(feature);
    cluster_await_empty(&cluster, 0);
    cluster_stop(&cluster);
}
