/* SPDX-License-Identifier: Apache-2.0
 *
 * A limit that was hit, for people: which key, its value, whose, and how much they hold.
 */
#ifndef FEATURED_BROKER_ACCOUNT_WORDS_H
#define FEATURED_BROKER_ACCOUNT_WORDS_H

#include <stddef.h>

#include "store/charges.h"

/* "session 12 of user 1000", "node b" */
void account_name(const struct account *account, char *out, size_t out_bytes);
/* "max_leases_per_user = 4: user 1000 has 4 leases, 1 more asked" */
void account_sentence(char *out, size_t out_bytes, const struct charge_refusal *refusal);

#endif
