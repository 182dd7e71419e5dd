/* SPDX-License-Identifier: Apache-2.0
 *
 * For commands that look into one store (--store) or all of them.
 */
#ifndef FEATURED_CTL_EACH_STORE_H
#define FEATURED_CTL_EACH_STORE_H

#include "featurectl/context.h"

/* Says what it has to say about one store; returns a status, already reported. */
typedef int (*each_store_fn)(struct context *context, const Fb__StoreInfo *store,
                             struct table *table, void *user);

/* Calls visit() for the store that --store names, else for every store of this node; prints the
 * table. A store that fails does not stop the others; returns the first failure. */
int each_store(struct context *context, struct table *table, each_store_fn visit, void *user);
/* Also for stores that were dropped and of which somebody still holds something. */
int each_store_or_dropped(struct context *context, struct table *table, each_store_fn visit,
                          void *user);
/* Every store of this node, as the broker tells it; reports trouble. */
int each_store_fetch(struct context *context, Fb__ClientReply **reply_out);

#endif
