/* SPDX-License-Identifier: Apache-2.0
 *
 * Keys: a ref or a sample_id.
 */
#ifndef FEATURED_LIBCLIENT_KEY_H
#define FEATURED_LIBCLIENT_KEY_H

#include "ref.h"
#include "store_handle.h"

/* Reads a caller's key, which may be NULL (INVALID) and of any version of its struct. FEATURE_OK,
 * or FEATURE_E_INVALID: both or neither set, a malformed id, or a ref of another store. */
int fc_key_read(const struct feature_store *store, const struct feature_key *theirs,
                struct feature_key *out);
int fc_key_check(const struct feature_store *store, struct feature_key key);
static inline const char *fc_key_sample_id(struct feature_key key) {
    return key.ref ? key.ref->sample_id : key.sample_id;
}
/* Fills the message; it borrows the key's strings. */
void fc_key_fill(struct feature_key key, Fb__RetireItem *out);

#endif
