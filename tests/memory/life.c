/* SPDX-License-Identifier: Apache-2.0
 *
 * The life of samples on two brokers in one process, once for every allocation that it takes, with
 * that one made to fail. Whatever fails: nothing crashes, every request is answered, the first
 * refusal says that it was memory, and at the end nothing is left: no lease, no reservation, no
 * pending release, no block of memory, and the stores pass their audit.
 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "directory/directory.h"
#include "directory/etcd/etcd.h"
#include "exchange/exchange_internal.h"
#include "memory/counted.h"
#include "memory/life.h"
#include "support/etcd_fake.h"
#include "support/transport_fake.h"

/* ---- the brokers ---- */

static void node_configure(struct node *node, struct world *w, const char *name,
                           const char *address) {
    node->world = w;
    node->name = name;
    node->address = address;
    node->config = (struct config){.max_sessions = 8,
                                   .max_resident_bytes = 8 * ARENA_BYTES,
                                   .max_stores = 4,
                                   .reads_per_peer = 4,
                                   .peer_timeout_ms = 5000,
                                   .ping_interval_ms = 1000,
                                   .reconnect_max_ms = 100,
                                   .gc_interval_ms = 50,
                                   .stores = &node->store,
                                   .store_count = 1};
    charge_limits_init(&node->config.limits);
    snprintf(node->config.node, sizeof node->config.node, "%s", name);
    node->store = (struct config_store){.name = "run",
                                        .readers = 1,
                                        .max_resident_bytes = ARENA_BYTES,
                                        .landing_bytes = ARENA_BYTES,
                                        .max_samples = 64};
}

static void on_woken(void *owner) {
    (void)owner;
}

static struct directory *node_make_index(struct node *node) {
    struct directory_etcd_options options = {
        .cluster = "memory",
        .node = node->name,
        .incarnation = (uint64_t)node->name[0],
        .capacity_bytes = ARENA_BYTES,
        .lease_ttl_s = 2,
        .batch_max = 8,
        .batch_delay_ns = NS_PER_MS,
        .request_timeout_ms = 300,
        .written_kept = 16,
        .give_up_ns = 1000 * NS_PER_MS,
    };
    struct directory *directory;
    struct etcd *etcd = etcd_fake_new(node->world->etcd, on_woken, node);
    cr_assert_eq(
        directory_etcd_new(&options, etcd, &broker_directory_events, node->broker, &directory), 0);
    directory_etcd_set_address(directory, node->address, "");
    return directory;
}

static struct directory *node_make_static(struct node *node, const struct node *other) {
    struct directory_peer peer = {other->name, other->address, ""};
    struct directory *directory;
    cr_assert_eq(directory_static_new(node->name, &peer, 1, 1, &broker_directory_events,
                                      node->broker, &directory),
                 0);
    return directory;
}

static void node_build(struct node *node, const struct node *other) {
    struct world *w = node->world;
    char why[512], bound[64];
    uint8_t hello[TRANSPORT_HELLO_BYTES_MAX];
    struct broker_options options = {.config = &node->config,
                                     .incarnation = (uint64_t)node->name[0]};
    cr_assert_eq(broker_new(&options, &node->broker), 0);
    cr_assert_eq(broker_attach(node->broker, 1, why, sizeof why), 0, "%s", why);
    struct peers_options peers = {.node = node->name,
                                  .incarnation = options.incarnation,
                                  .ping_interval_ns = 1000 * NS_PER_MS,
                                  .timeout_ns = 5000 * NS_PER_MS,
                                  .reconnect_max_ns = 100 * NS_PER_MS,
                                  .deadlines = broker_deadlines(node->broker)};
    struct transport_options transport = {.hello = hello,
                                          .hello_bytes = peers_hello(&peers, hello),
                                          .chunk_bytes = 16u << 10,
                                          .reads_per_connection = 4,
                                          .handshake_timeout_ms = 1000,
                                          .send_queue_bytes = 1u << 20,
                                          .connections_max = 8};
    cr_assert_eq(peers_new(&peers, &broker_peers_events, node->broker, &node->peers), 0);
    cr_assert_eq(fake_transport_new(w->network, &transport, &peers_transport_events, node->peers,
                                    &node->transport),
                 0);
    peers_set_transport(node->peers, node->transport);
    node->directory = w->etcd ? node_make_index(node) : node_make_static(node, other);
    broker_connect(node->broker, node->peers, node->transport, node->directory);
    cr_assert_eq(broker_open_stores(node->broker, why, sizeof why), 0, "%s", why);
    cr_assert_eq(peers_listen(node->peers, node->address, bound), 0);
    cr_assert_eq(node->directory->ops->start(node->directory), 0);
}

static void on_destroyed(void *owner) {
    (void)owner;
}

static void node_take_apart(struct node *node) {
    fake_network_kill(node->transport, false);
    node->transport->ops->destroy(node->transport, on_destroyed);
    peers_set_transport(node->peers, NULL);
    broker_release_peers(node->broker);
    peers_free(node->peers);
    node->directory->ops->destroy(node->directory);
    broker_free(node->broker);
}

void turn(struct world *w) {
    w->now_ns += TURN_NS;
    while (w->etcd && fake_etcd_next_ns(w->etcd) <= w->now_ns)
        fake_etcd_step(w->etcd, w->now_ns);
    if (w->etcd)
        fake_etcd_set_time(w->etcd, w->now_ns);
    while (fake_network_next_ns(w->network) <= w->now_ns)
        fake_network_step(w->network);
    fake_network_advance(w->network, w->now_ns);
    broker_pump(w->a.broker, w->now_ns);
    broker_pump(w->b.broker, w->now_ns);
}

/* ---- the life ---- */

static void live(struct world *w) {
    struct client *writer = &w->writer, *reader = &w->reader;
    uint64_t first, large;
    client_connect(writer, &w->a);
    client_connect(reader, &w->b);
    first = put_small(writer, "first", 1);
    large = put_large(writer, "large", LARGE_BYTES, 2);
    put_small(writer, "second", 3);
    put_small(writer, "third", 4);
    get(writer, "first", NULL, first, false);
    if (large)
        get(reader, "large", NULL, large, true);
    get(reader, "second", "third", 0, false);
    look(writer, "first");
    look(reader, "third");
    put_small(writer, "first", 5);       /* supersedes one here */
    put_small(reader, "second", 6);      /* supersedes one elsewhere */
    if (reserve(writer, "never", BYTES)) /* left to the end of the session */
        retire(reader, true, "third", 0, 7);
    retire(writer, false, "first", 0, 8);
    retire(reader, false, "second", 0, 9);
    create_and_drop(writer);
    client_disconnect(reader);
    client_disconnect(writer);
}

/* ---- what must be true at the end ---- */

static bool is_at_rest(const struct node *node) {
    struct store_totals totals;
    store_totals(node->broker->spaces[0].store, &totals);
    return broker_is_idle(node->broker) && !totals.planned && !totals.sealed &&
           !totals.put_waiters && !totals.get_waiters && !totals.land_waiters &&
           !node->broker->exchange->remote_leases.live && !node->broker->spaces[1].used;
}

static void expect_sound(const struct node *node, uint64_t n) {
    char why[256];
    const char *wrong = store_audit(node->broker->spaces[0].store, why, sizeof why);
    cr_assert_null(wrong, "allocation %llu: node %s: %s: %s", (unsigned long long)n, node->name,
                   wrong, why);
}

static int descriptors_open(void) {
    int count = 0;
    for (int fd = 0; fd < 1024; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static bool is_ready(const struct node *node) {
    char why[TROUBLE_BYTES];
    return !broker_not_ready_why(node->broker, why) &&
           peers_next(node->broker->peers, NULL) != NULL &&
           peer_is_up(peers_next(node->broker->peers, NULL));
}

/* Lives once, with the n-th allocation failing and those right behind it, `in_a_row` in all;
 * `index`: with an index in etcd. Returns how many allocations it took. */
static uint64_t live_once(uint64_t n, uint64_t in_a_row, bool index) {
    struct world *w = calloc(1, sizeof *w);
    int64_t live_before = counted_live();
    int descriptors_before = descriptors_open();
    w->now_ns = 1000 * NS_PER_MS;
    w->network = fake_network_new(1, 10000, 20000);
    fake_network_advance(w->network, w->now_ns);
    if (index) {
        w->etcd = fake_etcd_new(1, 10000, 20000);
        fake_etcd_set_time(w->etcd, w->now_ns);
    }
    node_configure(&w->a, w, "a", "a:1");
    node_configure(&w->b, w, "b", "b:1");
    node_build(&w->a, &w->b);
    node_build(&w->b, &w->a);
    for (int i = 0; !is_ready(&w->a) || !is_ready(&w->b); i++) {
        cr_assert_lt(i, TURNS_MAX, "not ready");
        turn(w);
    }
    counted_fail_so_many(in_a_row);
    counted_fail_at(n);
    live(w);
    uint64_t calls = counted_calls();
    bool failed = counted_has_failed();
    counted_fail_at(0);
    for (int i = 0; !is_at_rest(&w->a) || !is_at_rest(&w->b); i++) {
        char left[2][160];
        broker_describe_load(w->a.broker, left[0], sizeof left[0]);
        broker_describe_load(w->b.broker, left[1], sizeof left[1]);
        cr_assert_lt(i, TURNS_MAX, "allocation %llu: not at rest: a has %s, b %s",
                     (unsigned long long)n, left[0], left[1]);
        turn(w);
    }
    expect_sound(&w->a, n);
    expect_sound(&w->b, n);
    cr_expect(!w->refused || (failed && strstr(w->first_refusal, "memory")), "allocation %llu: %s",
              (unsigned long long)n, w->first_refusal);
    node_take_apart(&w->a);
    node_take_apart(&w->b);
    fake_network_free(w->network);
    if (w->etcd)
        fake_etcd_free(w->etcd);
    cr_assert_eq(counted_live(), live_before, "allocation %llu: %lld blocks are not freed",
                 (unsigned long long)n, (long long)(counted_live() - live_before));
    cr_assert_eq(descriptors_open(), descriptors_before, "allocation %llu: descriptors",
                 (unsigned long long)n);
    free(w);
    return calls;
}

static void live_with_each_failing(bool index) {
    cr_assert_geq(auth_init(), 0);
    uint64_t calls = live_once(0, 1, index);
    cr_assert_gt(calls, 100u);
    for (uint64_t n = 1; n <= calls; n++)
        live_once(n, 1, index);
    printf("memory: %llu allocations, each failed once\n", (unsigned long long)calls);
}

static void live_with_some_failing(bool index) {
    cr_assert_geq(auth_init(), 0);
    uint64_t calls = live_once(0, 1, index);
    for (uint64_t n = 1; n <= calls; n += 3)
        live_once(n, 8, index);
}

Test(memory, a_life_whose_every_allocation_fails_once) {
    live_with_each_failing(false);
}

Test(memory, a_life_whose_allocations_fail_in_a_row) {
    live_with_some_failing(false);
}

Test(memory, a_life_with_an_index_whose_every_allocation_fails_once) {
    live_with_each_failing(true);
}

Test(memory, a_life_with_an_index_whose_allocations_fail_in_a_row) {
    live_with_some_failing(true);
}
