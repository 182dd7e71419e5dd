/* SPDX-License-Identifier: Apache-2.0
 *
 * Ends of samples, kept in etcd for homes that cannot be told of them now.
 */
#ifndef FEATURED_DIRECTORY_ETCD_ENDED_H
#define FEATURED_DIRECTORY_ETCD_ENDED_H

#include "directory/etcd/state.h"

void ended_tick(struct directory_etcd *self);
uint64_t ended_deadline_ns(const struct directory_etcd *self);

#endif
