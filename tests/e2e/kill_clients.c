/* SPDX-License-Identifier: Apache-2.0
 *
 * Clients that are SIGKILLed at random moments of put, get and lease while others work: nothing
 * leaks and nobody sees a wrong byte. Also measures how soon a dead client's reservations and
 * leases are gone.
 */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "support/checks.h"
#include "support/world.h"

#define MIB     1048576u
#define VICTIMS 200u
#define AT_ONCE 10u
#define WORKERS 2u
#define IDS     8u
#define BATCH   256u
#define REMEMBERED                                                                                 \
    65536u /* generations whose end a broker remembers, and operations whose answer */
#ifdef __SANITIZE_ADDRESS__
#define GROWTH_MAX (1024u * MIB) /* AddressSanitizer keeps what is freed for a while */
#else
#define GROWTH_MAX (2u * MIB) /* of the brokers' private memory over all waves */
#endif
#define PER_GET_MAX 512u /* and for each get: ended leases and copies are remembered too */

struct client {
    struct world *world;
    uint32_t put_node, get_node;
    uint64_t seed;
};

/* The seed is part of the metadata, so that any reader can check any generation. */
static void check_view(const struct feature_view *view) {
    struct payload payload;
    const struct feature_ref *ref = feature_view_ref(view);
    uint64_t seed = payload_seed(view);
    payload_init(&payload, feature_ref_sample_id(ref), seed, seed % 400000);
    const char *why = payload_difference(&payload, view);
    CHECK(why == NULL, "%s of seed %" PRIu64 ": %s", feature_ref_sample_id(ref), seed, why);
    payload_deinit(&payload);
}

static void put_one(struct feature_store *store, const char *sample_id, uint64_t seed,
                    bool in_place) {
    struct payload payload;
    struct feature_reservation *reservation = NULL;
    payload_init(&payload, sample_id, seed, seed % 400000);
    if (!in_place) {
        CHECK_OK(payload_put(&payload, store, 20000, NULL));
    } else {
        CHECK_OK(feature_reserve(store, &payload.sample, 20000, &reservation));
        for (uint32_t i = 0; i < payload.sample.tensor_count; i++)
            payload_write(&payload, reservation, i);
        if (seed % 5 == 0)
            feature_cancel(reservation);
        else
            CHECK_OK(feature_commit(reservation, NULL));
    }
    payload_deinit(&payload);
}

static void get_one(struct feature_store *store, const char *sample_id, uint64_t random) {
    struct feature_get_options options = {.size = sizeof options, .deadline_ms = 20000};
    struct feature_view *view = NULL;
    int status = feature_get(store, by_id(sample_id), &options, &view);
    if (status == FEATURE_E_NOT_FOUND)
        return; /* never put, or superseded at this moment */
    CHECK_OK(status);
    check_view(view);
    CHECK_OK(feature_release(view, random % 4 == 0 ? FEATURE_RELEASE_CONSUMED
                                                   : FEATURE_RELEASE_RETURNED));
}

/* Puts and gets random samples until told to end, or killed. */
static int work(int channel, void *context) {
    struct client *client = context;
    struct feature *putter = cluster_connect(&client->world->cluster, client->put_node);
    struct feature *getter = cluster_connect(&client->world->cluster, client->get_node);
    struct feature_store *put_store = cluster_open(putter, "run", false);
    struct feature_store *get_store = cluster_open(getter, "run", true);
    channel_say(channel, "working");
    while (!channel_pending(channel, 0)) {
        uint64_t random = check_random(&client->seed);
        char sample_id[16];
        snprintf(sample_id, sizeof sample_id, "s%u", (unsigned)(random % IDS));
        if (random >> 32 & 1)
            put_one(put_store, sample_id, random >> 8, random >> 33 & 1);
        else
            get_one(get_store, sample_id, random >> 8);
    }
    feature_disconnect(getter);
    feature_disconnect(putter);
    return 0;
}

static void start(struct process *process, struct client *client, struct world *world,
                  uint64_t *seed) {
    *client =
        (struct client){world, world->producer_node, world->consumer_node, check_random(seed)};
    process_fork(process, work, client);
}

/* AT_ONCE clients, each killed after a random number of milliseconds. */
static void kill_wave(struct world *world, uint64_t *seed) {
    struct process victims[AT_ONCE];
    struct client clients[AT_ONCE];
    for (uint32_t i = 0; i < AT_ONCE; i++)
        start(&victims[i], &clients[i], world, seed);
    for (uint32_t i = 0; i < AT_ONCE; i++)
        channel_expect(victims[i].channel, "working", 60000);
    for (uint32_t i = 0; i < AT_ONCE; i++) {
        check_pause((uint32_t)(check_random(seed) % 20));
        CHECK(process_running(&victims[i]), "a client failed by itself");
        process_kill(&victims[i]);
    }
}

/* Puts until the home broker has forgotten as many generations as it remembers: from then on it
 * needs no more memory for that. */
static void fill_memory_of_the_past(struct world *world) {
    struct payload payload;
    struct feature_put_item items[BATCH];
    payload_init(&payload, "s0", 0, 0);
    for (uint32_t i = 0; i < BATCH; i++)
        items[i] = (struct feature_put_item){.size = sizeof(struct feature_put_item),
                                             .sample = &payload.sample,
                                             .data = payload.data};
    for (uint32_t put = 0; put < REMEMBERED + BATCH; put += BATCH) {
        CHECK_OK(feature_put_batch(world->producer, items, BATCH, 20000));
        for (uint32_t i = 0; i < BATCH; i++)
            feature_ref_free(items[i].ref);
    }
    payload_deinit(&payload);
}

struct growth {
    uint64_t bytes, gets;
};

static struct growth measure(struct world *world) {
    struct growth sum = {0};
    for (uint32_t i = 0; i < world->cluster.count; i++) {
        sum.bytes += check_private_bytes(world->cluster.nodes[i].process.pid);
        sum.gets += cluster_numbers(&world->cluster, i, "run").gets;
    }
    return sum;
}

static void kill_200_clients(struct world *world) {
    struct process workers[WORKERS];
    struct client clients[WORKERS];
    uint64_t seed = check_seed("kill_clients");
    struct growth before = {0};
    fill_memory_of_the_past(world);
    for (uint32_t i = 0; i < WORKERS; i++)
        start(&workers[i], &clients[i], world, &seed);
    for (uint32_t i = 0; i < WORKERS; i++)
        channel_expect(workers[i].channel, "working", 20000);
    for (uint32_t killed = 0; killed < VICTIMS; killed += AT_ONCE) {
        kill_wave(world, &seed);
        if (killed == 4 * AT_ONCE) /* warm by now */
            before = measure(world);
    }
    struct growth after = measure(world);
    for (uint32_t i = 0; i < WORKERS; i++) {
        channel_say(workers[i].channel, "end");
        process_join(&workers[i], 60000);
    }
    for (uint32_t i = 0; i < world->cluster.count; i++)
        cluster_await_idle(&world->cluster, i);
    uint64_t allowed_bytes = GROWTH_MAX + PER_GET_MAX * (after.gets - before.gets);
    CHECK(after.bytes <= before.bytes + allowed_bytes,
          "brokers grew from %" PRIu64 " to %" PRIu64 " bytes", before.bytes, after.bytes);
    for (uint32_t i = 0; i < IDS; i++) {
        char sample_id[16];
        snprintf(sample_id, sizeof sample_id, "s%u", i);
        get_one(world->consumer, sample_id, 1);
        CHECK_OK(feature_abort(world->producer, FEATURE_BY_ID(sample_id), 1, NULL));
    }
    world_settle(world); /* world_run() checks that bytes, leases and fds are back */
}

Test(kill_clients, nothing_leaks_one_node, .timeout = 300) {
    world_run(1, "[store run]\n", kill_200_clients);
}
Test(kill_clients, nothing_leaks_two_nodes, .timeout = 300) {
    world_run(2, "[store run]\n", kill_200_clients);
}

/* ---- how soon ---- */

static int hold_both(int channel, void *context) {
    struct world *world = context;
    struct payload payload;
    struct feature_reservation *reservation = NULL;
    struct feature_view *view = NULL;
    struct feature *feature = cluster_connect(&world->cluster, 0);
    struct feature_store *store = cluster_open(feature, "run", false);
    payload_init(&payload, "reserved", 1, MIB);
    CHECK_OK(feature_reserve(store, &payload.sample, 0, &reservation));
    CHECK_OK(feature_get(store, by_id("s1"), NULL, &view));
    channel_say(channel, "held");
    channel_expect(channel, "never", 60000);
    return 1;
}

static void a_dead_client_holds_nothing(struct world *world) {
    enum { ROUNDS = 20 };
    uint64_t worst_us = 0;
    struct payload payload;
    payload_init(&payload, "s1", 2, MIB);
    CHECK_OK(payload_put(&payload, world->producer, 0, NULL));
    for (int i = 0; i < ROUNDS; i++) {
        struct process client;
        process_fork(&client, hold_both, world);
        channel_expect(client.channel, "held", 20000);
        struct store_numbers held = world_home(world);
        CHECK(held.leases == 1 && held.reservations == 1,
              "%" PRIu64 " leases, %" PRIu64 " reservations", held.leases, held.reservations);
        uint64_t begin_us = check_now_us();
        process_kill(&client);
        WAIT_UNTIL(world_home(world).leases + world_home(world).reservations == 0, 5000);
        uint64_t took_us = check_now_us() - begin_us;
        worst_us = took_us > worst_us ? took_us : worst_us;
    }
    fprintf(stderr,
            "kill_clients: leases and reservations of a SIGKILLed client gone after at most %.1f "
            "ms (of "
            "%d; wanted: 100 ms)\n",
            (double)worst_us / 1000.0, ROUNDS);
    payload_check_get(&payload, world->consumer, by_id("s1"), FEATURE_RELEASE_CONSUMED);
    world_settle(world);
    payload_deinit(&payload);
}

Test(kill_clients, a_dead_client_holds_nothing, .timeout = 120) {
    world_run(1, "[store run]\n", a_dead_client_holds_nothing);
}
