/* SPDX-License-Identifier: Apache-2.0
 *
 * Calls that were given up. The reply to such a call may grant something: it is handed back by
 * whoever receives the reply. All with the hub's lock held.
 */
#ifndef FEATURED_LIBCLIENT_LATE_H
#define FEATURED_LIBCLIENT_LATE_H

#include "link.h"

/* The store handle of requests whose reply grants something; false for all others. */
bool fc_late_grants(const Fb__ClientRequest *request, uint32_t *handle_out);
/* How many leases or reservations the reply may grant. */
uint32_t fc_late_count(const Fb__ClientRequest *request);
/* The reply to entry->request_id is handed back when it comes. Takes entry. */
void fc_late_abandon(struct fc_link *link, struct fc_abandoned *entry);
/* Gives back what the reply grants on this store handle. */
void fc_late_hand_back(struct fc_link *link, uint32_t handle, const Fb__ClientReply *reply);
/* If this is the reply to an abandoned request: gives back what it grants, and *items_out is what
 * it counted for; else false. reply NULL: it could not be decoded, and what it grants stays
 * granted. */
bool fc_late_reply(struct fc_link *link, uint32_t request_id, const Fb__ClientReply *reply,
                   uint32_t *items_out);

#endif
