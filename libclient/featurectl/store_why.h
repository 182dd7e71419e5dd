/* SPDX-License-Identifier: Apache-2.0
 *
 * Why the memory of a store is not free, in one sentence made of what its broker tells.
 */
#ifndef FEATURED_CTL_STORE_WHY_H
#define FEATURED_CTL_STORE_WHY_H

#include "admin.h"

/* "2 puts wait, first session 3 pid 4312 (12 s); 7 samples to be consumed". "" when the store
 * holds nothing. Freed with free(). */
char *store_why(const Fb__StoreInfo *store);

#endif
