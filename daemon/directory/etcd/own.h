/* SPDX-License-Identifier: Apache-2.0
 *
 * What the index says of us, read as a whole and told to the owner.
 */
#ifndef FEATURED_DIRECTORY_ETCD_OWN_H
#define FEATURED_DIRECTORY_ETCD_OWN_H

#include "directory/etcd/state.h"

/* Reads everything that the index says of us, and tells the owner. */
void own_begin(struct directory_etcd *self);
/* All that this node holds has been compared under the registration that began at that revision. */
void own_note_compared(struct directory_etcd *self, int64_t create_revision);
/* True: what a node that has registered again waits for has been compared: join_compared() is due.
 */
bool own_tick(struct directory_etcd *self);
uint64_t own_deadline_ns(const struct directory_etcd *self);
void own_free(struct directory_etcd *self);

#endif
