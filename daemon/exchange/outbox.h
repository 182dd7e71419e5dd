/* SPDX-License-Identifier: Apache-2.0
 *
 * What remote_lease.c takes of the outbox.
 */
#ifndef FEATURED_EXCHANGE_OUTBOX_H
#define FEATURED_EXCHANGE_OUTBOX_H

#include "exchange/exchange_internal.h"

/* NULL: out of memory. */
struct outbox *outbox_of(struct broker *broker, struct peer *peer);
/* After a restart: a `consumed` of before it that the home has not confirmed. */
void outbox_recall_consumed(struct broker *broker, struct remote_lease *lease);
/* After a restart: the acks that were pending, in their order. */
void outbox_recall_acks(struct broker *broker);
/* Room for the release of a lease of that store; NULL: out of memory. free() gives it back. */
struct pending_end *outbox_new_release(const char *store);

#endif
