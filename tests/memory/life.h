/* SPDX-License-Identifier: Apache-2.0
 *
 * Two brokers in one process and a client of each, for life.c; life_clients.c makes the requests.
 */
#ifndef FEATURED_TESTS_MEMORY_LIFE_H
#define FEATURED_TESTS_MEMORY_LIFE_H

#include "proto/frame.h"
#include "requests/requests.h"

#define ARENA_BYTES (256ull << 10)
#define BYTES       1000u
#define LARGE_BYTES (40u << 10) /* more than comes with the lease: it is read in chunks */
#define TURN_NS     (1000 * 1000ull)
#define TURNS_MAX   20000
#define PATIENCE_MS 2000u
#define HANDLE      1u
#define STEPS_MAX   64u
#define PLACE_TURNS 200

struct node {
    struct world *world;
    const char *name, *address;
    struct config config;
    struct config_store store;
    struct broker *broker;
    struct peers *peers;
    struct transport *transport;
    struct directory *directory;
};

struct client {
    struct node *node;
    struct broker_session *session;
    uint32_t next_request;
    bool answered;
    Fb__ClientReply__ResultCase result; /* that an OK to the last request has */
    Fb__Status status;                  /* of the last answer: of its first item that is not OK */
    char error[600];
    uint64_t reservation, generation, lease_hi, lease_lo;
};

struct world {
    struct fake_network *network;
    struct fake_etcd *etcd; /* NULL: directory = static */
    uint64_t now_ns;
    struct node a, b;
    struct client writer, reader; /* writer: at a; reader: at b */
    uint8_t payload[BYTES];
    uint8_t spec[256];
    /* What the clients were told. */
    bool refused;
    char first_refusal[700];
};

/* One turn of both loops, and what the network and etcd do meanwhile. */
void turn(struct world *w);

/* ---- life_clients.c: each waits for the answer, and notes the first refusal of all ---- */
/* Connects and opens the store. True: both went well. So with all that return bool. */
bool client_connect(struct client *client, struct node *node);
/* With the bytes in the request. The generation; 0: it was refused. */
uint64_t put_small(struct client *client, const char *id, uint64_t op_id);
/* Reserved, then committed: read in chunks by others. The same. */
uint64_t put_large(struct client *client, const char *id, uint64_t bytes, uint64_t op_id);
bool reserve(struct client *client, const char *id, uint64_t bytes);
/* `second` may be NULL. The first is released at once; the lease on the other one is left to the
 * end of the session. */
void get(struct client *client, const char *id, const char *second, uint64_t generation,
         bool consumed);
/* ack: else abort. generation 0: by id. */
void retire(struct client *client, bool ack, const char *id, uint64_t generation, uint64_t op_id);
/* All that only looks: stat, list, explain, health, nodes and more. */
void look(struct client *client, const char *id);
/* A store of its own. */
void create_and_drop(struct client *client);
void client_disconnect(struct client *client);

#endif
