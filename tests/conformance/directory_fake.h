/* SPDX-License-Identifier: Apache-2.0
 *
 * A directory with a cluster-wide index, in memory: several nodes of one process share it. Time is
 * what tick() says; nodes can be cut off from it, fenced and destroyed. Deterministic.
 *
 * A question takes effect at the moment of its answer, `delay` after it was asked.
 */
#ifndef FEATURED_TESTS_DIRECTORY_FAKE_H
#define FEATURED_TESTS_DIRECTORY_FAKE_H

#include "directory/directory.h"

#define DIRECTORY_FAKE_NODES_MAX 64u

struct directory_fake_cluster;

struct directory_fake_cluster *directory_fake_cluster_new(void);
/* After every node has been destroyed. */
void directory_fake_cluster_free(struct directory_fake_cluster *cluster);
/* From question to answer; 0 (the default) = the next tick. */
void directory_fake_set_delay(struct directory_fake_cluster *cluster, uint64_t delay_ns);
/* Records in the index. */
size_t directory_fake_record_count(const struct directory_fake_cluster *cluster);

/* One node's view. Strings and events are copied. */
struct directory *directory_fake_new(struct directory_fake_cluster *cluster, const char *node,
                                     const char *address, uint64_t incarnation,
                                     const struct directory_events *events, void *owner);
/* While cut off every question is answered UNAVAILABLE and next_generation() is 0. */
void directory_fake_set_reachable(struct directory *d, bool reachable);
/* true: this node's own record is gone (the others see it go down). false: it has registered again.
 */
void directory_fake_set_fenced(struct directory *d, bool fenced);

#endif
