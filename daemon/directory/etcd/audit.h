/* SPDX-License-Identifier: Apache-2.0
 *
 * Questions about the index as a whole: pages of it, and the removal of what dead homes have left.
 */
#ifndef FEATURED_DIRECTORY_ETCD_AUDIT_H
#define FEATURED_DIRECTORY_ETCD_AUDIT_H

#include "directory/etcd/state.h"

/* False: out of memory. */
bool audit_make_spares(struct directory_etcd *self);
void audit_free_spares(struct directory_etcd *self);
void audit_list(struct directory *d, const char *store, const char *after, directory_list_fn done,
                void *context);
void audit_sweep(struct directory *d, const struct directory_record *records, size_t count,
                 directory_sweep_fn done, void *context);
void audit_tick(struct directory_etcd *self);
void audit_deliver(struct directory_etcd *self);
uint64_t audit_deadline_ns(const struct directory_etcd *self);
/* Makes all that is owed an answer due, as UNAVAILABLE. False: nothing is. */
bool audit_give_up(struct directory_etcd *self);

#endif
