/* SPDX-License-Identifier: Apache-2.0
 *
 * Leases that other homes have granted to this node: remote_lease.c. Taken by find.c, ended by
 * outbox.c, which tells the home.
 */
#ifndef FEATURED_EXCHANGE_REMOTE_LEASE_H
#define FEATURED_EXCHANGE_REMOTE_LEASE_H

#include "exchange/exchange_internal.h"

/* Takes all the memory that a lease and its release need, before the home is asked for it. 0 = out
 * of memory: it is not to be asked. */
uint64_t remote_lease_new(struct broker *broker, struct peer *peer, const char *store, uid_t uid);
/* The home has granted it, over the present connection. */
void remote_lease_granted(struct broker *broker, uint64_t id, uint64_t hi, uint64_t lo,
                          uint64_t generation);
/* It has not. */
void remote_lease_cancel(struct broker *broker, uint64_t id);
struct remote_lease *remote_lease_find(struct broker *broker, uint64_t id);
void remote_lease_end(struct broker *broker, struct remote_lease *lease);
/* Writes down how far it has come. */
void remote_lease_note(struct broker *broker, const struct remote_lease *lease,
                       enum kept_lease_word word);
/* The home has confirmed that it was consumed, or has been gone for too long. */
void remote_lease_told(struct broker *broker, uint64_t id);
/* Makes the leases of the node's memory known again: before anything else is done with leases. */
void remote_leases_recall(struct broker *broker);
/* The stores have been asked: what none of them has a lease for (`seen`) is given back. */
void remote_leases_settle(struct broker *broker);

#endif
