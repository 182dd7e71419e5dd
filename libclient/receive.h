/* SPDX-License-Identifier: Apache-2.0
 *
 * Receiving on a link. There is no receiving thread: of those that wait for something, one has the
 * receive role; it takes the next packet, whoever's it is, and hands it to the call that it belongs
 * to. No lock is held while it waits for the packet.
 *
 * All functions are called with the hub's lock held and return with it held.
 */
#ifndef FEATURED_LIBCLIENT_RECEIVE_H
#define FEATURED_LIBCLIENT_RECEIVE_H

#include "link.h"

/* What the broker has said about a call while it is under way. It waits in a list until the owner
 * of the call runs: the owner's function may take long, and the thread that received the packet
 * has other calls' answers to hand on. */
struct fc_notice {
    struct fc_notice *next;
    Fb__ClientNotice *message;
};

/* Takes the role, which nobody may have, receives one packet and hands it on; gives the role up but
 * wakes nobody for it: see fc_receive_offer(). Waits until deadline_ns, 0 = does not. True:
 * something was received, or the link has broken. *error_out: 0, or an errno that keeps this
 * process from receiving. */
bool fc_receive_one(struct fc_link *link, uint64_t deadline_ns, int *error_out);
/* Wakes somebody who sleeps, so that somebody receives. To be called by whoever has received and
 * will not go on. */
void fc_receive_offer(struct fc_link *link);
/* Waits until something has been received on this link, by this thread or by another, or until
 * deadline_ns, or less: the caller looks and waits again. */
void fc_receive_look(struct fc_link *link, uint64_t deadline_ns);
/* One request less is unanswered; queues that waited for that are told. */
void fc_receive_answered(struct fc_link *link, uint32_t items);

#endif
