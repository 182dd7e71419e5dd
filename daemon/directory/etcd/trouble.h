/* SPDX-License-Identifier: Apache-2.0
 *
 * What stands between this node and etcd, in words: what etcd refuses, and whether it still does.
 */
#ifndef FEATURED_DIRECTORY_ETCD_TROUBLE_H
#define FEATURED_DIRECTORY_ETCD_TROUBLE_H

#include "directory/etcd/state.h"

/* What became of a request; why: unless ETCD_OK. */
void trouble_note(struct directory_etcd *self, enum trouble_part part, enum etcd_result result,
                  const char *why);
bool trouble_say(const struct directory *d, char *out, size_t out_bytes);
void trouble_tick(struct directory_etcd *self);
uint64_t trouble_deadline_ns(const struct directory_etcd *self);

#endif
