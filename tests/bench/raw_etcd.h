/* SPDX-License-Identifier: Apache-2.0
 *
 * The plainest client of etcd's JSON gateway: blocking, one connection, one request at a time,
 * requests made once. Its time is the limit of the figures about the index.
 */
#ifndef FEATURED_TESTS_BENCH_RAW_ETCD_H
#define FEATURED_TESTS_BENCH_RAW_ETCD_H

#include <stdint.h>

#define RAW_ETCD_TXN_KEYS 128u /* etcd's limit */

struct raw_etcd;

/* url: of one member, without a path. NULL with the reason written. */
struct raw_etcd *raw_etcd_new(const char *url);
void raw_etcd_free(struct raw_etcd *etcd);
/* Ops for rounds_run(): context is a struct raw_etcd. A put of one key of the size of a sample's
 * record; a Txn of RAW_ETCD_TXN_KEYS such puts. */
int raw_etcd_put(void *etcd);
int raw_etcd_txn(void *etcd);

/* etcd's own counters: transactions that wrote, keys put and deleted. 0 or -1. */
struct raw_etcd_counts {
    uint64_t revision, puts, deletes;
};
int raw_etcd_count(struct raw_etcd *etcd, struct raw_etcd_counts *out);

#endif
