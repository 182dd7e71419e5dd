/* SPDX-License-Identifier: Apache-2.0
 *
 * The members of the cluster, for commands that look at all of them.
 */
#ifndef FEATURED_CTL_MEMBERS_H
#define FEATURED_CTL_MEMBERS_H

#include "featurectl/context.h"

/* How long each member has to say something of itself. */
#define MEMBERS_PATIENCE_MS 2000u

/* Every member that this node knows, itself first, each with what it says of itself; those that
 * have left of late too. Reports trouble. *reply_out: freed by context_free_reply(). */
int members_fetch(struct context *context, Fb__ClientReply **reply_out);
/* It has said something of itself: NULL, or why it has not: "left the cluster", ... */
const char *members_silence(const Fb__NodeInfo *node);
bool members_has_left(const Fb__NodeInfo *node);

#endif
