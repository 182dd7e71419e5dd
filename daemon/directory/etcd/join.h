/* SPDX-License-Identifier: Apache-2.0
 *
 * Our own record in etcd, under a lease: got, kept, lost, got again.
 */
#ifndef FEATURED_DIRECTORY_ETCD_JOIN_H
#define FEATURED_DIRECTORY_ETCD_JOIN_H

#include "directory/etcd/state.h"

void join_tick(struct directory_etcd *self);
uint64_t join_deadline_ns(const struct directory_etcd *self);
/* What the index says of us has been read and told: goes on. */
void join_compared(struct directory_etcd *self);

#endif
