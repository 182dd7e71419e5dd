/* SPDX-License-Identifier: Apache-2.0
 *
 * When a record of a sample may be replaced or removed: only while it still names a generation that
 * the caller knows. Pure.
 */
#ifndef FEATURED_DIRECTORY_ETCD_CONDITION_H
#define FEATURED_DIRECTORY_ETCD_CONDITION_H

#include "directory/etcd/gateway.h"

/* Compares for a nested transaction. They point into this struct and at the key. */
struct condition {
    char above[32], below[32];
    struct etcd_compare compares[3]; /* the third is for the caller */
    size_t count;
};

/* They hold while the record of `key` names this generation, or (0) while there is no record. */
void condition_set(struct condition *condition, const char *key, uint64_t generation);

#endif
