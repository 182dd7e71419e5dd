/* SPDX-License-Identifier: Apache-2.0
 *
 * Three brokers a, b and c on an etcd of their own, and a connection to each with the stores "run"
 * (on-release) and "acked" (on-ack) open for writing.
 */
#ifndef FEATURED_TESTS_INDEX_WORLD_H
#define FEATURED_TESTS_INDEX_WORLD_H

#include "support/cluster.h"
#include "support/payload.h"
#include "support/world.h"

#define INDEX_NODES 3u
enum { A, B, C };

struct index_world {
    struct cluster cluster;
    struct feature *features[INDEX_NODES]; /* NULL where there is no such node */
    struct feature_store *run[INDEX_NODES], *acked[INDEX_NODES];
};

/* Starts everything, runs body, and checks that it left nothing: no bytes, leases or reservations
 * on any node, no record in etcd, no fds, no processes. options: of the cluster, ini excepted; 0
 * nodes = three, 0 members of etcd = one. */
void index_world_run(const struct cluster_options *options, void (*body)(struct index_world *));
/* The two halves of it, for worlds in which etcd is late. */
void index_world_start(struct index_world *world, const struct cluster_options *options);
void index_world_stop(struct index_world *world);

/* Every release, ack and abort said so far has reached its home. */
void index_world_settle(struct index_world *world);
/* A get of this must fail so on every node; `await`: sooner or later, as nodes that were away come
 * back. */
void index_world_await(struct index_world *world, const struct feature_key *key, int status);
void index_world_expect(struct index_world *world, const struct feature_key *key, int status);
/* Puts it on a node, again while that is refused for now; ref_out may be NULL. */
void index_world_put(struct index_world *world, uint32_t node, const struct payload *payload,
                     struct feature_ref **ref_out);
void index_world_abort(struct index_world *world, uint32_t node, const char *sample_id);
/* Got on a node in the same way. */
struct feature_view *index_world_view(struct index_world *world, uint32_t node,
                                      const struct payload *payload, const struct feature_key *key);
/* Every node gets exactly this sample under its id, and this is what the ref names. */
void index_world_expect_current(struct index_world *world, const struct payload *payload,
                                const struct feature_ref *ref);
/* The same, where a node may refuse for now. */
void index_world_await_current(struct index_world *world, const struct payload *payload,
                               const struct feature_ref *ref);
/* RESIDENT generations of store run that are at home somewhere. */
uint64_t index_world_resident(struct index_world *world);

/* INDEX_WITH(suite, what_must_hold, options of the cluster) { ... world ... } */
#define INDEX_WITH(SUITE, NAME, ...)                                                               \
    static void NAME(struct index_world *world);                                                   \
    Test(SUITE, NAME, .timeout = 300) {                                                            \
        index_world_run(&(struct cluster_options){__VA_ARGS__}, NAME);                             \
    }                                                                                              \
    static void NAME(struct index_world *world)

#endif
