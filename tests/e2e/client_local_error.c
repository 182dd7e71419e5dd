/* SPDX-License-Identifier: Apache-2.0
 *
 * Clients that lack something (memory, descriptors, a broker that reads) beside a real broker: a
 * call fails and names the limit, the session goes on, its leases stay, and bytes under a lease do
 * not change.
 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "support/checks.h"
#include "support/world.h"

#define MIB         1048576u
#define DEADLINE_MS 20000u
#define STORE_MIB   4u

/* ---- memory ---- */

#ifndef __SANITIZE_ADDRESS__
struct link_of_chain {
    struct link_of_chain *next;
};

static uint64_t mapped_bytes(void) {
    char text[64] = "";
    int statm = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    CHECK(statm >= 0 && read(statm, text, sizeof text - 1) > 0, "no /proc/self/statm");
    close(statm);
    return strtoull(text, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* Takes what malloc() still has, down to the smallest pieces. */
static struct link_of_chain *take_all_memory(void) {
    struct link_of_chain *chain = NULL, *taken;
    for (size_t bytes = MIB; bytes >= sizeof *taken; bytes /= 2)
        while ((taken = malloc(bytes))) {
            taken->next = chain;
            chain = taken;
        }
    return chain;
}

static void give_back_memory(struct link_of_chain *chain) {
    while (chain) {
        struct link_of_chain *next = chain->next;
        free(chain);
        chain = next;
    }
}

static int without_memory(int channel, void *context) {
    struct world *world = context;
    struct payload payload;
    struct feature_view *first = NULL, *second = NULL;
    struct feature_ref *ref = NULL;
    struct feature *feature = cluster_connect(&world->cluster, 0);
    struct feature_store *store = cluster_open(feature, "run", false);
    struct rlimit before;
    payload_init(&payload, "mine", 4, 1000);
    CHECK_OK(feature_get(store, by_id("s1"), NULL, &first));
    CHECK_OK(feature_get(store, by_id("s2"), NULL, &second));
    CHECK(getrlimit(RLIMIT_AS, &before) == 0, "no limit");
    const struct rlimit low = {.rlim_cur = mapped_bytes(), .rlim_max = before.rlim_max};
    CHECK(setrlimit(RLIMIT_AS, &low) == 0, "limit not set");
    struct link_of_chain *chain = take_all_memory();
    struct feature_view *third = NULL;
    int got = feature_get(store, by_id("s3"), NULL, &third);
    char said[256];
    snprintf(said, sizeof said, "%s", feature_last_error());
    int put = payload_put(&payload, store, 1000, &ref);
    int released = feature_release(second, FEATURE_RELEASE_RETURNED);
    give_back_memory(chain);
    setrlimit(RLIMIT_AS, &before);
    CHECK(got == FEATURE_E_FULL, "get: %s: %s", feature_strerror(got), said);
    CHECK(strstr(said, "RLIMIT_AS") != NULL, "get said: %s", said);
    CHECK(put == FEATURE_E_FULL, "put: %s", feature_strerror(put));
    CHECK(released == FEATURE_OK, "release: %s", feature_strerror(released));
    CHECK_OK(feature_view_check(first));
    CHECK_OK(feature_drain(feature, DEADLINE_MS));
    channel_say(channel, "survived");
    channel_expect(channel, "end", DEADLINE_MS);
    CHECK_OK(payload_put(&payload, store, 1000, NULL));
    payload_check_get(&payload, store, by_id("mine"), FEATURE_RELEASE_CONSUMED);
    CHECK_OK(feature_release(first, FEATURE_RELEASE_RETURNED));
    feature_disconnect(feature);
    return 0;
}

static void a_client_without_memory(struct world *world) {
    static const char *const ids[] = {"s1", "s2", "s3"};
    struct payload payload;
    struct process client;
    for (int i = 0; i < 3; i++) {
        payload_init(&payload, ids[i], 2, 1000);
        CHECK_OK(payload_put(&payload, world->producer, 0, NULL));
        payload_deinit(&payload);
    }
    process_fork(&client, without_memory, world);
    channel_expect(client.channel, "survived", DEADLINE_MS);
    /* Of s1 only: s2 is released, and what was granted of s3 has been handed back. */
    WAIT_UNTIL(world_home(world).leases == 1, DEADLINE_MS);
    channel_say(client.channel, "end");
    process_join(&client, DEADLINE_MS);
    for (int i = 0; i < 3; i++)
        CHECK_OK(feature_abort(world->producer, FEATURE_BY_ID(ids[i]), 1, NULL));
}

Test(client_local_error, a_client_without_memory_keeps_its_leases, .timeout = 120) {
    world_run(1, "[store run]\n", a_client_without_memory);
}
#endif

/* ---- descriptors: bytes under a lease do not change ---- */

static int with_a_full_table(int channel, void *context) {
    struct world *world = context;
    struct payload payload;
    struct feature_store *other = NULL;
    struct rlimit before;
    struct feature *feature = cluster_connect(&world->cluster, 0);
    struct feature_store *store = cluster_open(feature, "run", true);
    payload_init(&payload, "s1", 2, STORE_MIB * MIB / 2 - 65536);
    struct feature_view *view = payload_view(&payload, store, by_id("s1"));
    CHECK(getrlimit(RLIMIT_NOFILE, &before) == 0, "no limit");
    const struct rlimit low = {.rlim_cur = 64, .rlim_max = before.rlim_max};
    CHECK(setrlimit(RLIMIT_NOFILE, &low) == 0, "limit not set");
    while (dup(0) >= 0)
        ;
    CHECK_STATUS(FEATURE_E_FULL, feature_store_open(feature, "other", NULL, &other));
    CHECK_SAYS("open files 64 of 64");
    CHECK_OK(feature_view_check(view));
    channel_say(channel, "refused");
    channel_expect(channel, "overwrite", DEADLINE_MS); /* the test has tried to */
    CHECK(payload_difference(&payload, view) == NULL, "%s", payload_difference(&payload, view));
    CHECK_OK(feature_view_check(view));
    CHECK_OK(feature_release(view, FEATURE_RELEASE_RETURNED));
    feature_disconnect(feature);
    payload_deinit(&payload);
    return 0;
}

static void a_client_with_a_full_table(struct world *world) {
    struct payload payload;
    struct process client;
    struct feature_ref *ref = NULL;
    payload_init(&payload, "s1", 2, STORE_MIB * MIB / 2 - 65536);
    CHECK_OK(payload_put(&payload, world->producer, 0, &ref));
    payload_deinit(&payload);
    process_fork(&client, with_a_full_table, world);
    channel_expect(client.channel, "refused", DEADLINE_MS);
    CHECK_OK(feature_abort(world->producer, FEATURE_BY_REF(ref), 1, NULL));
    for (uint64_t i = 0; i < 4; i++) {
        payload_init(&payload, "filler", 100 + i, STORE_MIB * MIB / 2 - 65536);
        int status = payload_put(&payload, world->producer, 0, NULL);
        CHECK(status == FEATURE_OK || status == FEATURE_E_FULL, "%s", feature_last_error());
        payload_deinit(&payload);
    }
    channel_say(client.channel, "overwrite");
    process_join(&client, DEADLINE_MS);
    CHECK_OK(feature_abort(world->producer, FEATURE_BY_ID("filler"), 1, NULL));
    feature_ref_free(ref);
}

Test(client_local_error, bytes_stay_under_a_client_with_a_full_table, .timeout = 120) {
    world_run(1,
              "[store run]\nmax_resident_bytes = 4MiB\nlanding_bytes = 0\n"
              "[store other]\nmax_resident_bytes = 1MiB\nlanding_bytes = 0\n",
              a_client_with_a_full_table);
}

/* ---- a broker that does not read for a while ---- */

static void a_frozen_broker(struct world *world) {
    enum { STORES = 30 };
    struct payload payload;
    struct feature_store *stores[STORES];
    struct feature_view *views[STORES], *late = NULL;
    struct feature *feature = cluster_connect(&world->cluster, 0);
    struct feature_store *store = cluster_open(feature, "run", true);
    struct feature_get_options options = {.size = sizeof options, .deadline_ms = 10};
    payload_init(&payload, "s1", 2, MIB);
    CHECK_OK(payload_put(&payload, world->producer, 0, NULL));
    struct feature_view *kept = payload_view(&payload, store, by_id("s1"));
    for (int i = 0; i < STORES; i++) {
        stores[i] = cluster_open(feature, "run", true);
        CHECK_OK(feature_get(stores[i], by_id("s1"), NULL, &views[i]));
    }
    cluster_node_freeze(&world->cluster, 0);
    CHECK_STATUS(FEATURE_E_TIMEOUT, feature_get(store, by_id("s1"), &options, &late));
    for (int i = 0; i < STORES; i++) {
        CHECK_OK(feature_release(views[i], FEATURE_RELEASE_RETURNED));
        feature_store_close(stores[i]);
    }
    CHECK_OK(feature_view_check(kept));
    cluster_node_thaw(&world->cluster, 0);
    CHECK_OK(feature_exists(store, by_id("s1")));
    CHECK_OK(feature_view_check(kept));
    WAIT_UNTIL(world_home(world).leases == 1, DEADLINE_MS); /* that of `kept` */
    CHECK(payload_difference(&payload, kept) == NULL, "%s", payload_difference(&payload, kept));
    CHECK_OK(feature_release(kept, FEATURE_RELEASE_CONSUMED));
    feature_disconnect(feature);
    payload_deinit(&payload);
}

Test(client_local_error, a_frozen_broker_loses_nothing, .timeout = 120) {
    world_run(1, "[store run]\n", a_frozen_broker);
}
