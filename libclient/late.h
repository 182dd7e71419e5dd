/* SPDX-License-Identifier: Apache-2.0
 *
 * Calls that were given up, and what must still be said. The reply to such a call may grant
 * something: it is handed back by whoever receives the reply. All with the link's lock held.
 */
#ifndef FEATURED_LIBCLIENT_LATE_H
#define FEATURED_LIBCLIENT_LATE_H

#include "link.h"

/* Made before a request is sent that asks for something: giving up must not fail. */
struct fc_abandoned {
    struct fc_abandoned *next;
    uint32_t request_id;
    uint32_t handle; /* of the store asked */
    bool arena_due;  /* counts in link->arenas_due */
};

/* The store handle of requests whose reply grants something; false for all others. */
bool fc_late_grants(const Fb__ClientRequest *request, uint32_t *handle_out);
/* The reply to entry->request_id is handed back when it comes. Takes entry. */
void fc_late_abandon(struct fc_link *link, struct fc_abandoned *entry);
/* Gives back what the reply grants on this store handle. */
void fc_late_hand_back(struct fc_link *link, uint32_t handle, const Fb__ClientReply *reply);
/* If this is the reply to an abandoned request: gives back what it grants. */
void fc_late_reply(struct fc_link *link, uint32_t request_id, const Fb__ClientReply *reply);
/* Forgets everything. */
void fc_late_deinit(struct fc_link *link);

#endif
