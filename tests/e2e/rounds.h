/* SPDX-License-Identifier: Apache-2.0
 *
 * A load that finds whatever is lost, changed, or counted twice: for tests that take something away
 * under it, connections or the broker.
 */
#ifndef FEATURED_TESTS_ROUNDS_H
#define FEATURED_TESTS_ROUNDS_H

#include <stdint.h>

#include "feature.h"

#define ROUND_SAMPLES     24u
#define ROUND_DEADLINE_MS 60000u

/* Puts ROUND_SAMPLES samples, half of them written in place over a while, and consumes each of them
 * twice: the store must have readers = 2. A consumption too many would be a sample that the second
 * read does not find, and one too few a sample that stays. Some views are kept over all of it.
 * Every call must succeed, and every byte be right. prefix: of this client's sample ids. */
void round_run(struct feature_store *producer, struct feature_store *consumer, const char *prefix,
               uint64_t round, uint64_t *seed);

#endif
