/* SPDX-License-Identifier: Apache-2.0
 *
 * Is this still the etcd that we knew, with all that was written to it?
 */
#ifndef FEATURED_DIRECTORY_ETCD_HISTORY_H
#define FEATURED_DIRECTORY_ETCD_HISTORY_H

#include "directory/etcd/condition.h"
#include "directory/etcd/state.h"

/* Two operations for a transaction that registers us: name the history if it has no name, read it.
 */
void history_ops(struct directory_etcd *self, struct condition *absent, struct etcd_op ops[2]);
/* Our last write, to be read beside the nodes: is it still there? */
void history_wrote(struct directory_etcd *self, const char *key, int64_t revision, bool deleted);
struct etcd_op history_last_op(struct directory_etcd *self);
void history_last_found(struct directory_etcd *self, const struct etcd_answer *answer, size_t op);
/* What this operation of an answer has read: another name than before? */
void history_found(struct directory_etcd *self, const struct etcd_answer *answer, size_t op);
/* Records may be missing of what other nodes hold. */
bool history_is_in_doubt(const struct directory_etcd *self);
/* The index's revision has gone back. */
void history_went_back(struct directory_etcd *self, int64_t from, int64_t to);
void history_tick(struct directory_etcd *self);
uint64_t history_deadline_ns(const struct directory_etcd *self);

/* As note(), for an answer that shows all that had been written before its question was sent, with
 * `revision` as it was then: if it shows less, the index has gone back in time. */
void history_note_current(struct directory_etcd *self, const struct etcd_answer *answer,
                          int64_t asked_at);

#endif
