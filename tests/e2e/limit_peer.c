/* SPDX-License-Identifier: Apache-2.0
 *
 * Another node that takes as much as it can, played with the broker's own side of asking; and
 * strangers on the port for nodes.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

#include "e2e/limit_attack.h"
#include "peer/peer.h"
#include "support/checks.h"
#include "transport/tcp/tcp.h"

#define ANSWER_MS 20000u

struct node_played {
    uv_loop_t loop;
    struct deadlines deadlines;
    struct peers *peers;
    struct transport *transport;
    struct peer *broker;
    struct attack *attack;
    uint32_t granted;
};

static uint64_t clock_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void on_link_up(void *owner, struct peer *peer) {
    (void)owner, (void)peer;
}

static const struct peers_events events = {.link_up = on_link_up};

static void play(struct node_played *node, struct attack *attack, const char *name) {
    static const char secret[] = "the common secret of all nodes";
    static uint8_t key[AUTH_KEY_BYTES];
    uint8_t hello[TRANSPORT_HELLO_BYTES_MAX];
    *node = (struct node_played){.attack = attack};
    CHECK(auth_init() >= 0 && uv_loop_init(&node->loop) == 0, "no loop");
    auth_key("cluster", secret, strlen(secret), key);
    struct peers_options options = {.node = name,
                                    .incarnation = 42,
                                    .ping_interval_ns = 1000000000,
                                    .timeout_ns = 60000000000,
                                    .reconnect_max_ns = 60000000000,
                                    .deadlines = &node->deadlines};
    struct transport_options transport = {.cluster_key = key,
                                          .hello = hello,
                                          .hello_bytes = peers_hello(&options, hello),
                                          .chunk_bytes = 1u << 20,
                                          .reads_per_connection = 8,
                                          .handshake_timeout_ms = 5000,
                                          .send_queue_bytes = 64u << 20,
                                          .connections_max = 8};
    CHECK(peers_new(&options, &events, node, &node->peers) == 0, "cannot play a node");
    struct transport_setup setup = {&node->loop, &transport, &peers_transport_events, node->peers};
    char why[96];
    CHECK(transport_tcp_new(&setup, &node->transport, why, sizeof why) == 0, "cannot play a node");
    peers_set_transport(node->peers, node->transport);
    node->broker = peers_add(node->peers, "a", attack->cluster->nodes[0].address, "");
}

static void turn(struct node_played *node) {
    peers_begin_turn(node->peers, clock_now_ns());
    deadlines_run(&node->deadlines, clock_now_ns(), UINT32_MAX);
    uv_run(&node->loop, UV_RUN_NOWAIT);
    check_pause(1);
}

#define TURN_UNTIL(node, condition)                                                                \
    for (uint64_t end_ms = check_now_ms() + ANSWER_MS; !(condition); turn(node))                   \
    CHECK(check_now_ms() < end_ms, "not within %u ms", ANSWER_MS)

static void join_cluster(struct node_played *node, struct attack *attack, const char *name) {
    play(node, attack, name);
    TURN_UNTIL(node, peer_is_up(node->broker));
}

/* The real node b is connected: of all connections one more, or one more of the same name. */
void peer_opens_connections(struct attack *attack) {
    static struct node_played nodes[2];
    struct peer_info info = {.last_failure = ""};
    for (uint32_t i = 0; i < 2; i++) {
        play(&nodes[i], attack, "x");
        for (bool settled = false; !settled;
             settled = *info.last_failure || peer_is_up(nodes[i].broker)) {
            turn(&nodes[i]);
            peer_query(nodes[i].broker, &info);
        }
        if (!*info.last_failure)
            continue;
        snprintf(attack->sentence, sizeof attack->sentence, "%s", info.last_failure);
        attack_note(attack, "closed");
        return;
    }
}

static void on_lease(void *context, const Fb__PeerReply *reply, const uint8_t *payload,
                     size_t payload_bytes, const char *why) {
    (void)payload, (void)payload_bytes, (void)why;
    struct node_played *node = context;
    struct attack *attack = node->attack;
    if (reply && reply->status == FB__STATUS__OK) {
        node->granted++;
        return;
    }
    attack_note(attack, reply && reply->status == FB__STATUS__FULL ? "FULL" : "other");
    snprintf(attack->sentence, sizeof attack->sentence, "%s", reply ? reply->error : why);
}

static void ask_lease(struct node_played *node, const char *sample_id, uint64_t generation,
                      uint32_t wait_ms) {
    Fb__GetItem item = FB__GET_ITEM__INIT;
    item.sample_id = (char *)sample_id;
    item.generation = generation;
    Fb__PeerLease lease = FB__PEER_LEASE__INIT;
    lease.store = (char *)"run";
    lease.item = &item;
    lease.wait_ms = wait_ms;
    lease.holder = (char *)"nobody";
    Fb__PeerRequest request = FB__PEER_REQUEST__INIT;
    request.op_case = FB__PEER_REQUEST__OP_LEASE;
    request.lease = &lease;
    CHECK(peer_call(node->broker, &request, on_lease, node, clock_now_ns()) == 0, "not asked");
}

/* A sample of 60,000 bytes at node a. */
static uint64_t put_sample(const struct attack *attack) {
    static const uint8_t bytes[60000];
    struct wire wire;
    wire_connect(&wire, attack->cluster->nodes[0].socket_path);
    wire_hello(&wire, 9);
    uint32_t handle = wire_open(&wire, "run");
    Fb__ClientReply *reply = wire_put(&wire, handle, "leased", 0, bytes, sizeof bytes);
    uint64_t generation = reply->put->items[0]->generation;
    CHECK(generation, "put: %s", reply->put->items[0]->error);
    fb__client_reply__free_unpacked(reply, NULL);
    wire_close(&wire);
    return generation;
}

void peer_takes_leases(struct attack *attack) {
    static struct node_played node;
    uint64_t generation = put_sample(attack);
    join_cluster(&node, attack, "x");
    for (uint32_t i = 0; i < 3; i++)
        ask_lease(&node, "leased", generation, 0);
    TURN_UNTIL(&node, *attack->status);
    CHECK(node.granted == 2, "%u were granted", node.granted);
}

void peer_waits(struct attack *attack) {
    static struct node_played node;
    join_cluster(&node, attack, "x");
    for (uint32_t i = 0; i < 3; i++)
        ask_lease(&node, "never", 12345 + i, 60000);
    TURN_UNTIL(&node, *attack->status);
    CHECK(node.granted == 0, "%u were granted", node.granted);
}

/* 60 MB of answers: more than the sockets hold. */
void peer_does_not_read(struct attack *attack) {
    static struct node_played node;
    uint64_t generation = put_sample(attack);
    join_cluster(&node, attack, "x");
    for (uint32_t i = 0; i < 1000; i++)
        ask_lease(&node, "leased", generation, 0);
    WAIT_UNTIL(cluster_log_has(attack->cluster, 0, "does not take our answers"), ANSWER_MS);
    attack_note(attack, "closed");
}

void strangers_knock(struct attack *attack) {
    char host[32];
    snprintf(host, sizeof host, "%s", attack->cluster->nodes[0].address);
    char *colon = strchr(host, ':');
    *colon = '\0';
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10))};
    CHECK(inet_aton(host, &address.sin_addr), "%s", host);
    for (uint32_t i = 0; i < 300; i++) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        CHECK(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0,
              "connection %u: %s", i, strerror(errno));
    }
    attack_note(attack, "closed");
}
