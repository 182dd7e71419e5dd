/* SPDX-License-Identifier: Apache-2.0
 *
 * One sample's record against what this node holds, for another broker: index_check.c.
 */
#ifndef FEATURED_EXCHANGE_INDEX_CHECK_H
#define FEATURED_EXCHANGE_INDEX_CHECK_H

#include "exchange/exchange_internal.h"

/* The same check for another broker, to which the finding is sent. */
void index_serve_check(const struct serve_asked *asked);
void index_forget_checks(struct broker *broker, const struct asking *asking);

#endif
