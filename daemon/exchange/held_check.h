/* SPDX-License-Identifier: Apache-2.0
 *
 * What this node holds against the index: held_due.c notes what is to be checked, held_walk.c
 * begins it when its turn comes, held_check.c checks one sample, and republish.c writes a record
 * that is missing.
 */
#ifndef FEATURED_EXCHANGE_HELD_CHECK_H
#define FEATURED_EXCHANGE_HELD_CHECK_H

#include "exchange/exchange_internal.h"

/* ---- held_due.c ---- */

/* That generation is to be checked when its turn comes. first: and nothing is served before. */
void held_due_one(struct broker *broker, const struct space *space, uint64_t generation,
                  bool first);
/* All that this node holds is to be checked: now, if there is an index, or at that time. */
void held_due_all(struct broker *broker);
void held_due_all_at(struct broker *broker, uint64_t at_ns);
/* To be called when something that checks wait for has come: they go on in this turn or the next.
 */
void held_due_wake(struct broker *broker);
/* Forgets the generations of held_due_one(). */
void held_due_drop(struct broker *broker);
/* Something is noted that has not begun. */
bool held_due_any(const struct broker *broker);

/* ---- held_check.c ---- */

/* What is held of a sample as its home. False: nothing is. */
bool held_find(const struct space *space, const char *sample_id, struct store_info *info);
/* For another node, whose put does not know which generation it has replaced (a PeerRetire of
 * generation 0). It is answered now or later: yes, nothing older can be read here any more. */
void held_check_serve(const struct serve_asked *asked, struct space *space, const char *sample_id);
/* The connection of that broker is gone: its checks go on and are answered to nobody. */
void held_checks_forget(struct broker *broker, const struct asking *asking);
/* On our own behalf, at once: the record of this sample is put right if it is missing or wrong. */
void held_check_own(struct broker *broker, struct space *space, const char *sample_id);
/* The same, and nothing is served until it has been found out what is right. */
void held_check_first(struct broker *broker, struct space *space, const char *sample_id);

/* ---- republish.c ---- */

/* Writes the record of a generation held here in place of the one that names in_place_of (0: of
 * none). first: nothing is served until it has been written. */
void republish(struct broker *broker, struct space *space, const char *sample_id,
               uint64_t generation, uint64_t in_place_of, bool first);

#endif
