/* SPDX-License-Identifier: Apache-2.0 */
#include "conformance/directory_etcd_world.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "conformance/directory_suite.h"
#include "directory/etcd/batch.h"
#include "directory/etcd/etcd.h"
#include "directory/etcd/record.h"
#include "support/checks.h"

#define STEP_MS   2u
#define ANSWER_MS 20000u
#define REVOKE_MS 50u /* for leases to be given back; nothing hangs on it */

static uint64_t clock_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void on_rhythm(uv_timer_t *timer) {
    (void)timer; /* ends a turn of the loop */
}

static struct etcd *connect_to(struct etcd_world *world, const char *endpoints) {
    struct etcd_client_options options = {.endpoints = endpoints,
                                          .username = world->options.username,
                                          .password = world->options.password};
    if (world->options.tls)
        options.ca_file = world->server.ca_path;
    if (world->options.tls && !world->options.no_certificate) {
        options.cert_file = world->server.cert_path;
        options.key_file = world->server.key_path;
    }
    struct etcd *etcd;
    char why[256];
    CHECK(etcd_client_new(&world->loop, &options, &etcd, why, sizeof why) == 0, "%s", why);
    return etcd;
}

void etcd_world_init(struct etcd_world *world, const struct etcd_world_options *options) {
    char endpoints[256];
    *world = (struct etcd_world){.options = *options};
    uv_loop_init(&world->loop);
    uv_timer_init(&world->loop, &world->rhythm);
    uv_timer_start(&world->rhythm, on_rhythm, STEP_MS, STEP_MS);
    etcd_server_start(&world->server, options->members, options->tls);
    etcd_server_endpoints(&world->server, endpoints);
    world->direct = connect_to(world, endpoints);
}

void etcd_world_add(struct etcd_world *world, uint32_t i, const struct directory_events *events,
                    void *owner) {
    char name[16], address[32], endpoints[256];
    const struct etcd_member *member = &world->server.members[0];
    directory_suite_node_name(world->options.same_name ? 0 : i, name);
    directory_suite_node_address(i, address);
    etcd_server_endpoints(&world->server, endpoints);
    if (world->options.members == 1) {
        world->proxies[i] = tcp_proxy_new(&world->loop, member->host, member->client_port);
        snprintf(endpoints, sizeof endpoints, "http%s://127.0.0.1:%u",
                 world->options.tls ? "s" : "", tcp_proxy_port(world->proxies[i]));
    }
    struct directory_etcd_options options = {
        .cluster = "test",
        .node = name,
        .incarnation = world->options.incarnation ? world->options.incarnation
                                                  : DIRECTORY_SUITE_INCARNATION(i),
        .unix_offset_ns = (int64_t)(clock_ns(CLOCK_REALTIME) - clock_ns(CLOCK_BOOTTIME)),
        .lease_ttl_s = world->options.lease_ttl_s,
        .batch_max = BATCH_OPS_MAX, /* with as many compares it must still be one that etcd takes */
        .batch_delay_ns = 1000000,
        .written_kept = 512,
        .request_timeout_ms = world->options.request_timeout_ms,
        .give_up_ns = world->options.give_up_ms * 1000000u,
        .kept = world->options.kept,
    };
    CHECK(directory_etcd_new(&options, connect_to(world, endpoints), events, owner,
                             &world->nodes[i]) == 0,
          "out of memory");
    directory_etcd_set_address(world->nodes[i], address,
                               world->options.data_address ? world->options.data_address : "");
}

void etcd_world_step(struct etcd_world *world) {
    uv_run(&world->loop, UV_RUN_ONCE);
    for (uint32_t i = 0; i < ETCD_WORLD_NODES_MAX; i++)
        if (world->nodes[i])
            world->nodes[i]->ops->tick(world->nodes[i], clock_ns(CLOCK_BOOTTIME));
}

void etcd_world_destroy_node(struct etcd_world *world, uint32_t i) {
    if (world->nodes[i])
        world->nodes[i]->ops->destroy(world->nodes[i]);
    world->nodes[i] = NULL;
}

struct outcome {
    bool done;
    enum etcd_result result;
    struct etcd_kv kv;
    int64_t latest;
};

static void on_done(void *context, enum etcd_result result, const struct etcd_answer *answer,
                    const char *why) {
    struct outcome *outcome = context;
    CHECK(result == ETCD_OK, "%s", why);
    outcome->done = true;
    outcome->latest = answer->revision;
    if (answer->kv_count)
        outcome->kv = answer->kvs[0]; /* its numbers; the strings go */
}

static struct outcome ask(struct etcd_world *world, const struct etcd_request *request) {
    struct outcome outcome = {0};
    uint64_t deadline_ms = check_now_ms() + ANSWER_MS;
    world->direct->ops->ask(world->direct, request, ANSWER_MS, on_done, &outcome);
    while (!outcome.done) {
        CHECK(check_now_ms() < deadline_ms, "etcd does not answer");
        etcd_world_step(world);
    }
    return outcome;
}

void etcd_world_revoke(struct etcd_world *world, uint32_t i) {
    char name[16], key[ETCD_KEY_BYTES];
    directory_suite_node_name(i, name);
    etcd_node_key(key, "test", name);
    struct outcome found = ask(
        world, &(struct etcd_request){.kind = ETCD_READ, .read = {.kind = ETCD_RANGE, .key = key}});
    CHECK(found.kv.lease != 0, "%s has no record", name);
    ask(world, &(struct etcd_request){.kind = ETCD_LEASE_REVOKE, .lease = found.kv.lease});
}

struct etcd_world_revisions etcd_world_look(struct etcd_world *world, const char *sample_id) {
    char key[ETCD_KEY_BYTES];
    etcd_sample_key(key, "test", "run0", sample_id);
    struct outcome found = ask(
        world, &(struct etcd_request){.kind = ETCD_READ, .read = {.kind = ETCD_RANGE, .key = key}});
    return (struct etcd_world_revisions){found.kv.create_revision, found.kv.mod_revision,
                                         found.latest};
}

/* The proxies are closed last: leases are given back through them. */
void etcd_world_deinit(struct etcd_world *world) {
    for (uint32_t i = 0; i < ETCD_WORLD_NODES_MAX; i++)
        etcd_world_destroy_node(world, i);
    world->direct->ops->destroy(world->direct, 0);
    for (uint64_t until_ms = check_now_ms() + REVOKE_MS; check_now_ms() < until_ms;)
        uv_run(&world->loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&world->rhythm, NULL);
    for (uint32_t i = 0; i < ETCD_WORLD_NODES_MAX; i++)
        if (world->proxies[i])
            tcp_proxy_free(world->proxies[i]);
    uv_run(&world->loop, UV_RUN_DEFAULT);
    CHECK(uv_loop_close(&world->loop) == 0, "handles are left open");
    etcd_server_stop(&world->server);
}
