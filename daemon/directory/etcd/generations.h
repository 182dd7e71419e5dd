/* SPDX-License-Identifier: Apache-2.0
 *
 * Numbers of generations, unique in the cluster for ever.
 */
#ifndef FEATURED_DIRECTORY_ETCD_GENERATIONS_H
#define FEATURED_DIRECTORY_ETCD_GENERATIONS_H

#include "directory/etcd/state.h"

uint64_t generations_next(struct directory_etcd *self);
void generations_tick(struct directory_etcd *self);
uint64_t generations_deadline_ns(const struct directory_etcd *self);
/* The numbers left are given up: the next are above all that this node knows of. */
void generations_renew(struct directory_etcd *self);

#endif
