/* SPDX-License-Identifier: Apache-2.0
 *
 * The directory kept in etcd: membership under a lease, one record per sample, generations from a
 * shared counter. A pure state machine: it acts in tick() alone, on what the callbacks of its
 * `struct etcd` have noted; time is tick()'s argument (CLOCK_BOOTTIME).
 */
#ifndef FEATURED_DIRECTORY_DIRECTORY_ETCD_H
#define FEATURED_DIRECTORY_DIRECTORY_ETCD_H

#include "directory/directory.h"
#include "directory/etcd/etcd.h"

struct directory_etcd_options {
    const char *cluster, *node;
    uint64_t incarnation, capacity_bytes;
    int64_t unix_offset_ns;  /* CLOCK_REALTIME - CLOCK_BOOTTIME */
    uint32_t lease_ttl_s;    /* ETCD_LEASE_TTL_MIN or more */
    uint32_t batch_max;      /* samples per transaction, 1 to BATCH_OPS_MAX */
    uint64_t batch_delay_ns; /* before a transaction is begun beside one that is under way */
    uint32_t request_timeout_ms;
    uint32_t written_kept;        /* publishes whose retires are cheap; above 0, 16 bytes each */
    uint64_t compare_interval_ns; /* between readings of all that the index says of us; 0 = none */
    uint64_t give_up_ns; /* after which a publish or locate that reaches nobody is UNAVAILABLE */
};

/* Strings are copied. etcd: the directory's from here on, also on failure. */
int directory_etcd_new(const struct directory_etcd_options *options, struct etcd *etcd,
                       const struct directory_events *events, void *owner, struct directory **out);
/* Where the other nodes reach this one, host:port: by messages, and for its bytes if that is
 * another place ("" = the same); before start(). Not set: they do not. */
void directory_etcd_set_address(struct directory *d, const char *address, const char *data_address);

#endif
