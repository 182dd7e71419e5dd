/* SPDX-License-Identifier: Apache-2.0
 *
 * Two brokers' worth of transport for the suite: a (dials) and b (listens, and has bytes to read).
 * Records what happens; every recorder checks the order that the contract promises of events.
 */
#ifndef FEATURED_TESTS_TRANSPORT_WORLD_H
#define FEATURED_TESTS_TRANSPORT_WORLD_H

#include <criterion/criterion.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "conformance/transport_fixture.h"

#define MIB          (1024u * 1024u)
#define MEMORY_BYTES (72u * MIB) /* of each node's region */
#define LINKS_MAX    16u
#define READS_MAX    96u
#define POISON       0xa5

struct node;

struct link { /* one connection, as one node sees it */
    struct node *node;
    struct transport_conn *conn;
    bool up, closed;
    char hello[TRANSPORT_HELLO_BYTES_MAX + 1], why[256];
    uint64_t messages, message_bytes, reads_done, reads_failed, better;
    uint8_t *last; /* message */
    size_t last_bytes;
    /* What the link's owner does from within a callback. */
    void (*on_message)(struct link *link, const uint8_t *data, size_t bytes);
    void (*on_progress)(struct link *link);
};

struct read {
    struct link *link;
    bool done;
    int status;
    uint64_t bytes_done, prefix_bytes;
    const uint8_t *local, *home; /* where it lands and what is to land there; NULL: not compared */
    uint64_t finished_as;        /* 1 = the first read of its node to finish */
};

struct node {
    struct suite *suite;
    struct transport *t;
    struct link links[LINKS_MAX];
    size_t link_count;
    uint8_t *memory;
    uint32_t region;
    uint8_t key[TRANSPORT_KEY_BYTES_MAX];
    size_t key_bytes;
    char address[64];
    uint64_t reads_finished;
    bool refuses, destroyed;
};

struct suite {
    const struct transport_fixture *fixture;
    void *world;
    struct transport_options options; /* change before suite_start */
    const uint8_t *key_a, *key_b;
    struct node a, b;
    struct link *ab, *ba; /* the connection between them: a's side, b's side */
    struct read reads[READS_MAX];
};

/* Both nodes, b listening. */
void suite_start(struct suite *s);
/* The same, and a has dialled b: s->ab and s->ba are up. */
void suite_connect(struct suite *s);
/* Destroys what is left of both. transport_suite_run does it. */
void suite_end(struct suite *s);
/* a node's next connection to an address; its link. */
struct link *suite_dial(struct node *from, const char *address);
/* The same with an address of its own for bulk bytes. */
struct link *suite_dial_apart(struct node *from, const char *address, const char *data_address);
void suite_destroy(struct node *node);

/* Steps until the condition holds; fails the test when it has not after half a minute. */
#define WAIT_FOR(s, condition)                                                                     \
    do {                                                                                           \
        uint64_t end_ = suite_deadline_ms();                                                       \
        while (!(condition)) {                                                                     \
            cr_assert(suite_clock_ms() < end_, "never came true: %s", #condition);                 \
            (s)->fixture->step((s)->world);                                                        \
        }                                                                                          \
    } while (0)
uint64_t suite_clock_ms(void);
uint64_t suite_deadline_ms(void);
/* Lets everything that is under way happen, to see that nothing more does. */
void suite_settle(struct suite *s);

/* Asks the home's side of a connection for its region's key. */
void suite_take_key(struct link *home);
/* a reads b's region into its own, at the same offset; slot: of s->reads. Returns what read() did.
 */
int suite_read(struct suite *s, size_t slot, uint64_t offset, uint64_t bytes);
int suite_send(struct link *link, const void *data, size_t bytes);
/* Fills b's region with a pattern and a's with POISON. */
void suite_fill(struct suite *s, uint64_t bytes);

#endif
