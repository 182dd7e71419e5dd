/* SPDX-License-Identifier: Apache-2.0
 *
 * etcd counts a lease's TTL from the moment it handles the grant or keep-alive, which is after the
 * request was sent: counted from the sending, the lease lives at least that long. From the TTL a
 * margin is taken off for what may lie between this check and the deed that relies on it: a fifth,
 * 2 s of 10.
 *
 * A third of the TTL between keep-alives lets two fail before the fence falls, each given up after
 * a sixth; a failed one is repeated after a twentieth.
 */
#include "directory/etcd/fence.h"

#define NS_PER_S    1000000000ull
#define NS_PER_MS   1000000ull
#define MARGIN      5u /* parts of the TTL */
#define INTERVAL    3u
#define TIMEOUT     6u
#define RETRY_PAUSE 20u

void fence_drop(struct fence *fence) {
    *fence = (struct fence){.next_ns = UINT64_MAX};
}

void fence_granted(struct fence *fence, uint64_t sent_ns, int64_t ttl_s) {
    fence->ttl_ns = (uint64_t)ttl_s * NS_PER_S;
    fence->renewed_ns = sent_ns;
    fence->next_ns = sent_ns + fence->ttl_ns / INTERVAL;
}

bool fence_keep_alive_due(const struct fence *fence, uint64_t now_ns) {
    return fence->ttl_ns && now_ns >= fence->next_ns;
}

void fence_keep_alive_sent(struct fence *fence) {
    fence->next_ns = UINT64_MAX;
}

void fence_kept(struct fence *fence, uint64_t sent_ns, int64_t ttl_s) {
    if (fence->ttl_ns && sent_ns >= fence->renewed_ns)
        fence_granted(fence, sent_ns, ttl_s);
}

void fence_keep_alive_failed(struct fence *fence, uint64_t now_ns) {
    fence->next_ns = fence->ttl_ns ? now_ns + fence->ttl_ns / RETRY_PAUSE : UINT64_MAX;
}

bool fence_holds(const struct fence *fence, uint64_t now_ns) {
    return fence->ttl_ns && now_ns < fence_expiry_ns(fence);
}

uint64_t fence_expiry_ns(const struct fence *fence) {
    if (!fence->ttl_ns)
        return UINT64_MAX;
    return fence->renewed_ns + fence->ttl_ns - fence->ttl_ns / MARGIN;
}

uint32_t fence_timeout_ms(const struct fence *fence) {
    return (uint32_t)(fence->ttl_ns / TIMEOUT / NS_PER_MS);
}
