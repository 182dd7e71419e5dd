/* SPDX-License-Identifier: Apache-2.0
 *
 * What the rest of this folder asks of puts that are under way, and of the records of those that
 * are over: publish.c, publish_known.c and publish_recall.c.
 */
#ifndef FEATURED_EXCHANGE_PUBLISH_H
#define FEATURED_EXCHANGE_PUBLISH_H

#include "exchange/exchange_internal.h"

/* A generation of this sample is SEALED here: whether the index has or had it is not known yet. */
bool publish_is_on_the_way(const struct broker *broker, const struct space *space,
                           const char *sample_id);
/* This generation's put is not over yet. */
bool publish_is_of(const struct broker *broker, const struct space *space, uint64_t generation);
/* A generation was retired whose put is not over: true, and the put removes the record when it is,
 * so that until then whoever looks for the sample finds this node. */
bool publish_keeps_record(struct broker *broker, const struct space *space, uint64_t generation);
/* Did the put of this generation get as far as its answer, so that nothing older lives? To be asked
 * before it is retired. */
bool publish_was_done(const struct broker *broker, const struct space *space, uint64_t generation);
/* The index has a record of a put of ours of which nothing is left. It is removed; if that put
 * failed, it may have replaced another node's record, and everyone sees to its own. */
void publish_clear(struct broker *broker, struct space *space, const char *sample_id,
                   uint64_t generation);
/* Word of an end that was kept for us: of a put that is not over. */
void publish_has_ended(struct broker *broker, const struct directory_record *ended);
/* After a restart: puts that were under way go on (publish_recall.c). */
void publish_recall(struct broker *broker);
/* How long ago a generation that is held here was committed. */
uint64_t publish_age_us(const struct broker *broker, const struct space *space,
                        uint64_t generation);

#endif
