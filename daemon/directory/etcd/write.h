/* SPDX-License-Identifier: Apache-2.0
 *
 * Writes of the records of samples: publishes, republishes and retires.
 */
#ifndef FEATURED_DIRECTORY_ETCD_WRITE_H
#define FEATURED_DIRECTORY_ETCD_WRITE_H

#include "directory/etcd/state.h"

void write_add(struct directory_etcd *self, struct query *query);
/* Of before a restart; moment: the revision as known before it was asked for then. */
void write_add_again(struct directory_etcd *self, struct query *query, int64_t moment);
void write_tick(struct directory_etcd *self);
uint64_t write_deadline_ns(const struct directory_etcd *self);
/* Registered: our record has this mod_revision. */
void write_begin_epoch(struct directory_etcd *self, int64_t mod_revision);
/* The index has gone back in time: what is known of it says nothing any more, and the puts under
 * way are refused. */
void write_void_puts(struct directory_etcd *self);

#endif
