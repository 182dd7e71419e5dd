/* SPDX-License-Identifier: Apache-2.0
 *
 * How long this node's own record certainly lives, by this node's own clock, and when to renew it.
 * Pure: CLOCK_BOOTTIME (which goes on while the machine sleeps) is an argument, in nanoseconds.
 */
#ifndef FEATURED_DIRECTORY_FENCE_H
#define FEATURED_DIRECTORY_FENCE_H

#include <stdbool.h>
#include <stdint.h>

struct fence {
    uint64_t ttl_ns;     /* of the lease as etcd granted it; 0 = no lease */
    uint64_t renewed_ns; /* when the last acknowledged grant or keep-alive was sent */
    uint64_t next_ns;    /* when the next keep-alive is due; UINT64_MAX while one is under way */
};

/* No lease: nothing is valid. */
void fence_drop(struct fence *fence);
/* A lease of ttl_s was granted to a request sent at sent_ns. */
void fence_granted(struct fence *fence, uint64_t sent_ns, int64_t ttl_s);

bool fence_keep_alive_due(const struct fence *fence, uint64_t now_ns);
void fence_keep_alive_sent(struct fence *fence);
/* Acknowledged: the lease lives for ttl_s from some moment after sent_ns on. */
void fence_kept(struct fence *fence, uint64_t sent_ns, int64_t ttl_s);
/* Not acknowledged: the next is due soon. */
void fence_keep_alive_failed(struct fence *fence, uint64_t now_ns);

/* Whether the record certainly lives at now_ns and for a margin beyond. */
bool fence_holds(const struct fence *fence, uint64_t now_ns);
/* When it stops holding; UINT64_MAX without a lease. */
uint64_t fence_expiry_ns(const struct fence *fence);
/* How long one keep-alive may take before it counts as failed. */
uint32_t fence_timeout_ms(const struct fence *fence);

#endif
