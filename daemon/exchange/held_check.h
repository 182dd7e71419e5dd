/* SPDX-License-Identifier: Apache-2.0
 *
 * What this node holds against the index: held_check.c, and republish.c.
 */
#ifndef FEATURED_EXCHANGE_HELD_CHECK_H
#define FEATURED_EXCHANGE_HELD_CHECK_H

#include "exchange/exchange_internal.h"

/* For another node, that is answered now or later; false: nothing to check, the answer is yes. */
bool held_check_serve(struct asking *asking, uint32_t request_id, struct space *space,
                      const char *sample_id, const Fb__PeerRetire *asked);
void held_checks_forget(struct broker *broker, const struct asking *asking);
/* On our own behalf: one sample, or all that this node holds. What is missing is put right. */
void held_check_own(struct broker *broker, struct space *space, const char *sample_id);
/* The same, and nothing is served until it has been found out what is right. */
void held_check_first(struct broker *broker, struct space *space, const char *sample_id);
/* The same for that generation, when its turn comes. */
void held_check_due(struct broker *broker, const struct space *space, uint64_t generation,
                    bool first);
void held_checks_drop_due(struct broker *broker);
/* What is held of a sample as its home. */
bool held_find(const struct space *space, const char *sample_id, struct store_info *info);
void held_check_all(struct broker *broker);
bool held_checks_are_due(const struct broker *broker);
/* To be called when something that checks wait for has come: they go on in this turn or the next.
 */
void held_checks_wake(struct broker *broker);

/* ---- republish.c ---- */
/* Writes the record of a generation held here in place of the one that names in_place_of (0: of
 * none). */
void republish(struct broker *broker, struct space *space, const char *sample_id,
               uint64_t generation, uint64_t in_place_of, bool first);

#endif
