/* SPDX-License-Identifier: Apache-2.0
 *
 * Which record does a sample have?
 */
#ifndef FEATURED_DIRECTORY_ETCD_LOCATE_H
#define FEATURED_DIRECTORY_ETCD_LOCATE_H

#include "directory/etcd/state.h"

void locate_tick(struct directory_etcd *self);
uint64_t locate_deadline_ns(const struct directory_etcd *self);

#endif
