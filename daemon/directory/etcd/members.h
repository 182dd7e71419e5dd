/* SPDX-License-Identifier: Apache-2.0
 *
 * The other nodes, as etcd knows them.
 */
#ifndef FEATURED_DIRECTORY_ETCD_MEMBERS_H
#define FEATURED_DIRECTORY_ETCD_MEMBERS_H

#include "directory/etcd/state.h"

void members_tick(struct directory_etcd *self);
uint64_t members_deadline_ns(const struct directory_etcd *self);
/* When the node's last registration began, if it was of this incarnation; 0 = not known. */
int64_t members_registration(const struct directory_etcd *self, const char *node,
                             uint64_t incarnation);
bool members_has(const struct directory_etcd *self, const char *node, uint64_t incarnation);
void members_free(struct directory_etcd *self);

#endif
