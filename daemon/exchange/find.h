/* SPDX-License-Identifier: Apache-2.0
 *
 * The parts of a search: find.c carries it on, find_ends.c says why it has found nothing; and
 * find_notices.c, what its client hears meanwhile.
 */
#ifndef FEATURED_EXCHANGE_FIND_H
#define FEATURED_EXCHANGE_FIND_H

#include "exchange/exchange_internal.h"
#include "exchange/fetch.h"

/* What an event brings along. Valid while the event is dealt with. */
struct find_told {
    enum store_result result; /* of this node's store, with what goes with it */
    struct store_lease lease;
    struct store_refusal refusal;
    const struct directory_record *record;
    struct peer *peer; /* who answered, or did not */
    const Fb__PeerReply *reply;
    const uint8_t *payload; /* of the reply */
    size_t payload_bytes;
    Fb__Status status; /* of a refusal whose sentence is `why` */
    const char *why;
};

/* find_notices.c: what the client is told meanwhile. */
void find_send_progress(const struct item *item, const struct fetch_moved *moved);
void find_send_landed(const struct item *item, const struct fetch_moved *moved);
/* The home that the item's ref names serves no more, for certain. Of a ref that names no
 * incarnation only the home itself can tell. */
bool find_home_is_dead(const struct item *item);
/* Ends the item with the refusal that `what`, one of SEARCH_DO_END_..., stands for. */
void find_end(struct find *find, enum search_do what, const struct find_told *told);

#endif
