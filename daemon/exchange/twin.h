/* SPDX-License-Identifier: Apache-2.0
 *
 * What the rest of this folder asks about another broker of our name: twin.c.
 */
#ifndef FEATURED_EXCHANGE_TWIN_H
#define FEATURED_EXCHANGE_TWIN_H

#include "exchange/exchange_internal.h"

/* Another broker with our name lives, and it was there first: this one takes and serves nothing. */
bool twin_was_first(const struct broker *broker);
/* Says which broker has our name, in words. False: none has. */
bool twin_say(const struct broker *broker, char *out, size_t out_bytes);

#endif
