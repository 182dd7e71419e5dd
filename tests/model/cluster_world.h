/* SPDX-License-Identifier: Apache-2.0
 *
 * Shared by cluster_world.c, which builds the nodes and lets time pass, and cluster_faults.c, which
 * makes them fail.
 */
#ifndef FEATURED_TESTS_CLUSTER_WORLD_H
#define FEATURED_TESTS_CLUSTER_WORLD_H

#include "model/cluster_sim.h"

#define DELAY_NS_MIN (20 * US)
#define DELAY_NS_MAX (400 * US)
#define LEASES_NS    (3000 * MS) /* in which leases end, and all that reach etcd notice */
#define UNIX_MS      1700000000000ull

/* ---- cluster_memory.c ---- */
/* A history begins; keeps: its brokers are killed with their memory. */
void memory_begin(bool keeps);
/* What a broker writes from now on to what it has mapped of this file, it alone sees. */
void memory_freeze(int fd);

/* ---- cluster_world.c ---- */
/* Breaks the connections that may not be; those that are built later, too. */
void world_apply_cuts(struct world *w);
/* Frees a node's broker in the daemon's order. */
void world_take_apart(struct node *node);
/* Ends the faults whose time is over: builds who crashed, lets go on who was stopped. */
void world_end_faults(struct world *w);

#endif
