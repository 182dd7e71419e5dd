/* SPDX-License-Identifier: Apache-2.0
 *
 * A producer and a consumer of one store "run": on the same broker, or on two (put on a, got on b).
 * A clause of the contract is one function that is run on both.
 */
#ifndef FEATURED_TESTS_WORLD_H
#define FEATURED_TESTS_WORLD_H

#include "support/cluster.h"
#include "support/payload.h"

struct world {
    struct cluster cluster;
    uint32_t producer_node, consumer_node;
    struct feature *producer_feature, *consumer_feature;
    struct feature_store *producer;        /* writes */
    struct feature_store *consumer;        /* read-only */
    struct feature_store *consumer_writer; /* the consumer's connection, with the right to abort */
};

/* Starts `nodes` brokers with ini (it must have a [store run]), runs body, and checks that it left
 * nothing: no bytes, leases, reservations, fds or processes. */
void world_run(uint32_t nodes, const char *ini, void (*body)(struct world *world));
/* Releases, acks and aborts said so far have reached their home. */
void world_settle(struct world *world);

/* Numbers of the store where samples are put. */
struct store_numbers world_home(struct world *world);

/* A key that lives until the end of the block it stands in. */
#define by_ref(ref)      FEATURE_BY_REF(ref)
#define by_id(sample_id) FEATURE_BY_ID(sample_id)
/* Gets with a short deadline; gives the status only (a view that came is released as returned). */
int world_try_get(struct feature_store *store, const struct feature_key *key, uint32_t deadline_ms);

/* CONTRACT(c3_supersede, INI) { ... world ... }: two tests, named after the clause and the number
 * of nodes. */
#define CONTRACT(NAME, INI)                                                                        \
    static void NAME(struct world *world);                                                         \
    Test(contract, NAME##_one_node, .timeout = 120) {                                              \
        world_run(1, INI, NAME);                                                                   \
    }                                                                                              \
    CONTRACT_TWO_NODES(NAME, INI)
/* For what takes two nodes to happen. */
#define CONTRACT_TWO_NODES(NAME, INI)                                                              \
    static void NAME(struct world *world);                                                         \
    Test(contract, NAME##_two_nodes, .timeout = 120) {                                             \
        world_run(2, INI, NAME);                                                                   \
    }                                                                                              \
    static void NAME(struct world *world)

#endif
