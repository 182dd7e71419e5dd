/* SPDX-License-Identifier: Apache-2.0
 *
 * A node's loop, in small: whatever the network or a client brings makes it due to turn a little
 * later, so that several things may have come by then; a turn is broker_pump(). A paused node
 * neither hears nor turns; then everything comes at once, its clients' requests first, and only
 * then does it look at the clock, as a process that was stopped would. A crashed one is taken apart
 * in the daemon's order, cut off from everybody beforehand, and built anew under another
 * incarnation.
 */
#include "model/cluster_world.h"

#include <criterion/criterion.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ETCD_NS_MIN   (200 * US)
#define ETCD_NS_MAX   (3 * MS)
#define TURN_NS_MAX   (60 * US)
#define BEGIN_NS      (1000 * MS)
#define ARENA_BYTES   (384ull << 10)
#define LANDING_BYTES (192ull << 10)
#define CHUNK_BYTES   (24u << 10)
#define LANDED_GRAIN_BYTES                                                                         \
    (16u << 10) /* the largest samples are told of at each chunk but the last */

/* splitmix64 (Steele, Lea, Flood 2014) */
uint64_t cluster_random(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

void world_say(const struct world *w, const char *format, ...) {
    va_list arguments;
    if (!w->trace)
        return;
    printf("  %9.3f ms  ", (double)(w->now_ns - BEGIN_NS) / 1e6);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n");
}

uint64_t node_clock_ns(const struct node *node) {
    return node->world->now_ns + node->clock_offset_ns;
}

struct space *node_space(const struct node *node) {
    return &node->broker->spaces[0];
}

static void wake(struct node *node) {
    struct world *w = node->world;
    uint64_t at_ns = w->now_ns + cluster_random(&w->random) % TURN_NS_MAX;
    if (at_ns < node->pump_ns)
        node->pump_ns = at_ns;
}

/* ---- the network's events, on their way to the peers ---- */

static void *on_accepted(void *owner, struct transport_conn *conn, const void *hello,
                         size_t hello_bytes) {
    struct node *node = owner;
    wake(node);
    return peers_transport_events.accepted(node->peers, conn, hello, hello_bytes);
}

static void on_up(void *owner, void *user, const void *hello, size_t hello_bytes) {
    struct node *node = owner;
    wake(node);
    peers_transport_events.up(node->peers, user, hello, hello_bytes);
}

static void on_message(void *owner, void *user, const void *data, size_t bytes) {
    struct node *node = owner;
    wake(node);
    peers_transport_events.message(node->peers, user, data, bytes);
}

static void on_read_done(void *owner, void *user, void *read_user, int status) {
    struct node *node = owner;
    wake(node);
    peers_transport_events.read_done(node->peers, user, read_user, status);
}

static void on_read_progress(void *owner, void *user, void *read_user, uint64_t bytes_done,
                             uint64_t prefix_bytes) {
    struct node *node = owner;
    wake(node);
    peers_transport_events.read_progress(node->peers, user, read_user, bytes_done, prefix_bytes);
}

static void on_closed(void *owner, void *user, const char *why) {
    struct node *node = owner;
    wake(node);
    peers_transport_events.closed(node->peers, user, why);
}

static const struct transport_events events = {
    .accepted = on_accepted,
    .up = on_up,
    .message = on_message,
    .read_done = on_read_done,
    .read_progress = on_read_progress,
    .closed = on_closed,
};

/* ---- building ---- */

static void configure(struct node *node) {
    const struct history *h = node->world->history;
    struct config *config = &node->config;
    memset(config, 0, sizeof *config);
    memset(&node->store, 0, sizeof node->store);
    snprintf(config->node, sizeof config->node, "%s", node->name);
    config->max_sessions = 64;
    charge_limits_init(&config->limits);
    uint64_t *limits = config->limits.of[ACCOUNT_SESSION];
    limits[CHARGE_LEASES] = 24;
    limits[CHARGE_RESERVATIONS] = 8;
    limits[CHARGE_REQUESTS] = 32;
    limits[CHARGE_QUEUED_BYTES] = 1u << 20;
    for (enum account_kind kind = ACCOUNT_USER; kind <= ACCOUNT_PEER;
         kind += ACCOUNT_PEER - ACCOUNT_USER) {
        config->limits.of[kind][CHARGE_LEASES] = 4096; /* the size of stores follows these */
        config->limits.of[kind][CHARGE_WAITS] = 4096;
    }
    config->max_resident_bytes = ARENA_BYTES;
    config->max_stores = 4;
    config->reads_per_peer = 4;
    config->peer_timeout_ms = h->index ? 900 : 120;
    config->ping_interval_ms = h->index ? 300 : 40;
    config->reconnect_max_ms = h->index ? 200 : 60;
    config->gc_interval_ms = 100;
    config->lease_ttl_ms = ETCD_LEASE_TTL_MIN * 1000;
    config->lost_keep_ms = h->fences ? 4000 : 0; /* longer than anybody is away */
    config->stores = &node->store;
    config->store_count = 1;
    snprintf(node->store.name, sizeof node->store.name, "run");
    node->store.policy = (uint32_t)h->policy;
    node->store.readers = h->readers;
    node->store.max_resident_bytes = ARENA_BYTES;
    node->store.landing_bytes = LANDING_BYTES;
    node->store.max_samples = 64;
}

static void on_woken(void *owner) {
    wake(owner);
}

static struct directory *make_index(struct node *node) {
    struct directory_etcd_options options = {
        .cluster = "sim",
        .node = node->name,
        .incarnation = node->incarnation,
        .capacity_bytes = ARENA_BYTES,
        .lease_ttl_s = ETCD_LEASE_TTL_MIN,
        .batch_max = 8,
        .batch_delay_ns = MS,
        .request_timeout_ms = 300,
        .written_kept = 4, /* sometimes known, sometimes not */
        .compare_interval_ns = node->world->history->forgets ? 3000 * MS : 0,
        .give_up_ns = 1000 * MS,
        .kept = broker_directory_kept(node->broker),
    };
    struct directory *directory;
    node->etcd = etcd_fake_new(node->world->etcd, on_woken, node);
    etcd_fake_cut(node->etcd, node->world->directory_cut_until_ns[node->index] != 0);
    cr_assert_eq(directory_etcd_new(&options, node->etcd, &broker_directory_events, node->broker,
                                    &directory),
                 0);
    directory_etcd_set_address(directory, node->address, "");
    return directory;
}

static struct directory *make_directory(struct node *node) {
    struct world *w = node->world;
    if (w->history->index)
        return make_index(node);
    struct directory_peer others[NODES_MAX];
    struct directory *directory;
    size_t count = 0;
    for (unsigned i = 0; i < w->node_count; i++)
        if (i != node->index)
            others[count++] = (struct directory_peer){w->nodes[i].name, w->nodes[i].address, ""};
    if (!node->clock_set_back)
        node->began_unix_ms = UNIX_MS + w->now_ns / MS;
    cr_assert_eq(directory_static_new(node->name, others, count, node->began_unix_ms,
                                      &broker_directory_events, node->broker, &directory),
                 0);
    directory_static_keep(directory, broker_directory_kept(node->broker));
    return directory;
}

void world_apply_cuts(struct world *w) {
    for (unsigned a = 0; a < w->node_count; a++)
        for (unsigned b = 0; b < w->node_count; b++)
            if (w->nodes[a].broker && w->nodes[b].broker && w->cut_until_ns[a][b] > w->now_ns)
                fake_network_cut(w->nodes[a].transport, w->nodes[b].transport, true);
}

static uint64_t clock_of(void *owner) {
    return node_clock_ns(owner);
}

/* In a real broker they are watched (local/lasting.c). */
static void take_descriptors(const struct node *node) {
    struct broker_credentials credentials;
    int pidfd, lock_fd;
    while (broker_session_recalled(node->broker, &credentials, &pidfd, &lock_fd)) {
        close(pidfd);
        close(lock_fd);
    }
}

static void build(struct node *node) {
    struct world *w = node->world;
    char bound[64], why[512];
    const bool returns = node->killed;
    node->killed = false;
    if (!returns)
        node->incarnation = cluster_random(&w->random) | 1;
    if (node->keep && !returns)
        keep_fake_init(node->keep);
    /* It cannot know that there are others, who live on by leases that etcd has forgotten. */
    for (unsigned id = 0; w->forgot && w->now_ns - w->forgot_ns < LEASES_NS && id < SAMPLE_IDS;
         id++)
        contract_record_lost(&w->contract, id);
    struct broker_options options = {.config = &node->config,
                                     .incarnation = node->incarnation,
                                     .clock_ns = clock_of,
                                     .landed_grain_bytes = LANDED_GRAIN_BYTES,
                                     .keep = node->keep ? &node->keep->keep : NULL,
                                     .owner = node};
    struct peers_options peers = {
        .node = node->name,
        .incarnation = node->incarnation,
        .ping_interval_ns = node->config.ping_interval_ms * MS,
        .timeout_ns = node->config.peer_timeout_ms * MS,
        .reconnect_max_ns = node->config.reconnect_max_ms * MS,
    };
    uint8_t hello[TRANSPORT_HELLO_BYTES_MAX];
    struct transport_options transport = {
        .hello = hello,
        .hello_bytes = peers_hello(&peers, hello),
        .chunk_bytes = CHUNK_BYTES,
        .reads_per_connection = 4,
        .handshake_timeout_ms = 50,
        .send_queue_bytes = 4u << 20,
        .connections_max = 64,
    };
    cr_assert_eq(broker_new(&options, &node->broker), 0);
    cr_assert_eq(broker_attach(node->broker, node_clock_ns(node), why, sizeof why), 0, "%s", why);
    cr_assert_eq(broker_incarnation(node->broker), node->incarnation);
    peers.deadlines = broker_deadlines(node->broker);
    cr_assert_eq(peers_new(&peers, &broker_peers_events, node->broker, &node->peers), 0);
    cr_assert_eq(fake_transport_new(w->network, &transport, &events, node, &node->transport), 0);
    peers_set_transport(node->peers, node->transport);
    node->directory = make_directory(node);
    broker_connect(node->broker, node->peers, node->transport, node->directory);
    cr_assert_eq(broker_open_stores(node->broker, why, sizeof why), 0, "%s", why);
    take_descriptors(node);
    cr_assert_eq(peers_listen(node->peers, node->address, bound), 0);
    cr_assert_eq(node->directory->ops->start(node->directory), 0);
    node->paused = false;
    node->pump_ns = w->now_ns;
    world_apply_cuts(w);
    world_say(w, "%s starts%s, incarnation %llu", node->name, returns ? " with its memory" : "",
              (unsigned long long)node->incarnation);
}

static void on_transport_gone(void *owner) {
    struct node *node = owner;
    node->transport = NULL;
}

/* Sessions that wait for their clients. */
static void close_sessions(struct node *node) {
    struct broker_session *session;
    while ((session = TAILQ_FIRST(&node->broker->sessions)))
        broker_session_close(session, node_clock_ns(node));
}

void world_take_apart(struct node *node) {
    close_sessions(node);
    node->transport->ops->destroy(node->transport, on_transport_gone);
    cr_assert_null(node->transport, "a killed transport ends at once");
    peers_set_transport(node->peers, NULL);
    broker_release_peers(node->broker);
    peers_free(node->peers);
    node->directory->ops->destroy(node->directory);
    broker_free(node->broker);
    node->broker = NULL;
    node->etcd = NULL;
}

/* ---- time ---- */

/* Restarts there are, and what the dead have sent comes late; brokers of one name there are not. */
static void expect_no_twins(const struct node *node) {
    const char *own = peers_twin(node->peers), *other = peers_rival(node->peers, NULL);
    if (*own || *other)
        contract_broken(&node->world->contract, "twins", "node %s says: %s", node->name,
                        *own ? own : other);
}

void world_pump(struct node *node) {
    uint64_t now_ns = node_clock_ns(node);
    broker_pump(node->broker, now_ns);
    expect_no_twins(node);
    uint64_t next_ns = broker_next_deadline_ns(node->broker);
    node->pump_ns = next_ns == UINT64_MAX ? UINT64_MAX
                    : next_ns <= now_ns   ? node->world->now_ns + US
                                          : next_ns - node->clock_offset_ns;
}

static void resume(struct node *node) {
    struct world *w = node->world;
    world_say(w, "%s goes on", node->name);
    node->paused = false;
    for (unsigned i = 0; i < node->deferred_count; i++) {
        w->begun = node->deferred_begun[i];
        client_step(w, &node->deferred[i]);
    }
    w->begun = 0;
    node->deferred_count = 0;
    fake_network_freeze(node->transport, false);
    if (node->etcd)
        etcd_fake_freeze(node->etcd, false);
    node->pump_ns = w->now_ns + cluster_random(&w->random) % (2 * TURN_NS_MAX);
}

static void end_cuts(struct world *w) {
    for (unsigned a = 0; a < w->node_count; a++)
        for (unsigned b = 0; b < w->node_count; b++) {
            if (!w->cut_until_ns[a][b] || w->cut_until_ns[a][b] > w->now_ns)
                continue;
            w->cut_until_ns[a][b] = 0;
            if (w->nodes[a].broker && w->nodes[b].broker)
                fake_network_cut(w->nodes[a].transport, w->nodes[b].transport, false);
        }
}

void world_end_faults(struct world *w) {
    end_cuts(w);
    if (w->vague_until_ns && w->vague_until_ns <= w->now_ns) {
        w->vague_until_ns = 0;
        fake_etcd_set_vague(w->etcd, 0);
    }
    if (w->slow_until_ns && w->slow_until_ns <= w->now_ns) {
        w->slow_until_ns = 0;
        fake_network_set_delay(w->network, DELAY_NS_MIN, DELAY_NS_MAX);
    }
    for (unsigned i = 0; i < w->node_count; i++) {
        struct node *node = &w->nodes[i];
        if (w->directory_cut_until_ns[i] && w->directory_cut_until_ns[i] <= w->now_ns) {
            w->directory_cut_until_ns[i] = 0;
            if (node->etcd)
                etcd_fake_cut(node->etcd, false);
        }
        if (!node->broker && node->crashed_until_ns <= w->now_ns)
            build(node);
        else if (node->broker && node->paused && node->paused_until_ns <= w->now_ns)
            resume(node);
    }
}

static uint64_t min_of(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

static uint64_t next_fault_end_ns(const struct world *w) {
    uint64_t next_ns = w->slow_until_ns ? w->slow_until_ns : UINT64_MAX;
    if (w->vague_until_ns)
        next_ns = min_of(next_ns, w->vague_until_ns);
    for (unsigned a = 0; a < w->node_count; a++) {
        const struct node *node = &w->nodes[a];
        for (unsigned b = 0; b < w->node_count; b++)
            if (w->cut_until_ns[a][b])
                next_ns = min_of(next_ns, w->cut_until_ns[a][b]);
        if (w->directory_cut_until_ns[a])
            next_ns = min_of(next_ns, w->directory_cut_until_ns[a]);
        if (!node->broker)
            next_ns = min_of(next_ns, node->crashed_until_ns);
        else if (node->paused)
            next_ns = min_of(next_ns, node->paused_until_ns);
    }
    return next_ns;
}

static struct node *next_to_turn(struct world *w) {
    struct node *next = NULL;
    for (unsigned i = 0; i < w->node_count; i++) {
        struct node *node = &w->nodes[i];
        if (node->broker && !node->paused && (!next || node->pump_ns < next->pump_ns))
            next = node;
    }
    return next;
}

static void say_written(void *context, const struct etcd_kv *kv, bool current) {
    (void)current;
    world_say(context, "etcd: %s %s %s", kv->key, kv->value ? "=" : "is gone",
              kv->value ? kv->value : "");
}

static void step_etcd(struct world *w) {
    int64_t before = fake_etcd_revision(w->etcd);
    fake_network_advance(w->network, w->now_ns);
    fake_etcd_step(w->etcd, w->now_ns);
    w->delivered++;
    if (w->trace)
        fake_etcd_each(w->etcd, before, say_written, w);
}

void world_go(struct world *w, uint64_t until_ns) {
    while (!w->contract.broken) {
        uint64_t net_ns = fake_network_next_ns(w->network), fault_ns = next_fault_end_ns(w);
        struct node *turn = next_to_turn(w);
        uint64_t turn_ns = turn ? turn->pump_ns : UINT64_MAX;
        uint64_t etcd_ns = w->etcd ? fake_etcd_next_ns(w->etcd) : UINT64_MAX;
        uint64_t next_ns = min_of(min_of(net_ns, fault_ns), min_of(turn_ns, etcd_ns));
        if (next_ns > until_ns)
            break;
        w->now_ns = next_ns > w->now_ns ? next_ns : w->now_ns;
        if (w->etcd)
            fake_etcd_set_time(w->etcd, w->now_ns);
        if (fault_ns <= next_ns) {
            fake_network_advance(w->network, w->now_ns);
            world_end_faults(w);
        } else if (net_ns <= next_ns) {
            fake_network_step(w->network);
            w->delivered++;
        } else if (etcd_ns <= next_ns) {
            step_etcd(w);
        } else {
            fake_network_advance(w->network, w->now_ns);
            world_pump(turn);
        }
    }
    w->now_ns = until_ns > w->now_ns ? until_ns : w->now_ns;
    if (w->etcd)
        fake_etcd_set_time(w->etcd, w->now_ns);
    fake_network_advance(w->network, w->now_ns);
}

/* ---- all of it ---- */

void world_init(struct world *w, const struct history *history, bool trace) {
    clients_once();
    w->history = history;
    w->random = history->seed ^ 0x5bd1e9955bd1e995u;
    w->now_ns = BEGIN_NS;
    w->begun = 0;
    w->delivered = w->done = 0;
    w->settling = w->forgot = false;
    w->trace = trace;
    w->asked_count = 1; /* 0 stands for none */
    w->held_count = w->reserved_count = 0;
    w->slow_until_ns = w->vague_until_ns = 0;
    memset(w->cut_until_ns, 0, sizeof w->cut_until_ns);
    memset(w->directory_cut_until_ns, 0, sizeof w->directory_cut_until_ns);
    contract_init(&w->contract, history->index, history->policy, history->readers);
    w->network = fake_network_new(cluster_random(&w->random), DELAY_NS_MIN, DELAY_NS_MAX);
    cr_assert_not_null(w->network);
    fake_network_advance(w->network, w->now_ns);
    w->etcd =
        history->index ? fake_etcd_new(cluster_random(&w->random), ETCD_NS_MIN, ETCD_NS_MAX) : NULL;
    if (w->etcd)
        fake_etcd_set_time(w->etcd, w->now_ns);
    memory_begin(history->kills);
    w->node_count = history->nodes;
    for (unsigned i = 0; i < w->node_count; i++) {
        struct node *node = &w->nodes[i];
        memset(node, 0, offsetof(struct node, deferred));
        node->deferred_count = 0;
        node->keep = history->kills ? calloc(1, sizeof *node->keep) : NULL;
        node->world = w;
        node->index = i;
        node->clock_offset_ns = cluster_random(&w->random) % (100 * MS);
        snprintf(node->name, sizeof node->name, "%c", 'a' + (char)i);
        snprintf(node->address, sizeof node->address, "%c:1", 'a' + (char)i);
        configure(node);
    }
    for (unsigned i = 0; i < w->node_count; i++)
        build(&w->nodes[i]);
}

void world_free(struct world *w) {
    for (unsigned i = 0; i < w->node_count; i++) {
        struct node *node = &w->nodes[i];
        if (node->broker) {
            node->dying = true;
            clients_die(node);
            fake_network_kill(node->transport, true);
            world_take_apart(node);
        }
        if (node->keep)
            keep_fake_deinit(node->keep);
        free(node->keep);
    }
    if (w->etcd)
        fake_etcd_free(w->etcd);
    fake_network_free(w->network);
}
