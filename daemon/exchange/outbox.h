/* SPDX-License-Identifier: Apache-2.0
 *
 * What remote_lease.c takes of the outbox.
 */
#ifndef FEATURED_EXCHANGE_OUTBOX_H
#define FEATURED_EXCHANGE_OUTBOX_H

#include "exchange/exchange_internal.h"

/* NULL: out of memory. */
struct outbox *outbox_of(struct broker *broker, struct peer *peer);
/* Room for the release of a lease of that store; NULL: out of memory. free() gives it back. */
struct pending_end *outbox_new_release(const char *store);

#endif
