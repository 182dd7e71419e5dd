/* SPDX-License-Identifier: Apache-2.0
 *
 * Greedy: of all pairs left, the one whose addresses have the longest prefix in common. Rails of
 * one subnet share more than rails of two; without a common subnet (a routed fabric) the pairs are
 * in order.
 */
#include "transport/rdma/pairing.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>

static const uint8_t *pairing_address_bytes(const struct sockaddr_storage *address,
                                            uint32_t *count_out) {
    if (address->ss_family == AF_INET) {
        *count_out = sizeof(struct in_addr);
        return (const uint8_t *)&((const struct sockaddr_in *)address)->sin_addr;
    }
    *count_out = sizeof(struct in6_addr);
    return (const uint8_t *)&((const struct sockaddr_in6 *)address)->sin6_addr;
}

/* How many leading bits two addresses have in common; -1: they cannot talk to each other, for a
 * rail with an IPv4 address does not reach one with an IPv6 address. */
static int pairing_common_bits(const struct sockaddr_storage *a, const struct sockaddr_storage *b) {
    uint32_t count;
    if (a->ss_family != b->ss_family || (a->ss_family != AF_INET && a->ss_family != AF_INET6))
        return -1;
    const uint8_t *left = pairing_address_bytes(a, &count),
                  *right = pairing_address_bytes(b, &count);
    for (uint32_t bit = 0; bit < count * 8; bit++)
        if ((left[bit / 8] ^ right[bit / 8]) & (0x80 >> bit % 8))
            return (int)bit;
    return (int)(count * 8);
}

/* Of equal pairs the first in order wins, so without a common subnet rail 0 is paired with rail 0.
 * There are at most 8 rails on each side, so trying all pairs for each pair found is 512
 * comparisons. */
uint32_t rdma_pair_rails(const struct sockaddr_storage *ours, uint32_t our_count,
                         const struct sockaddr_storage *theirs, uint32_t their_count,
                         int *peer_out) {
    uint32_t pairs = 0, best_ours = 0, best_theirs = 0;
    uint64_t taken = 0;
    for (uint32_t i = 0; i < our_count; i++)
        peer_out[i] = -1;
    for (;;) {
        int best = -1;
        for (uint32_t i = 0; i < our_count; i++)
            for (uint32_t j = 0; j < their_count; j++) {
                bool is_free = peer_out[i] < 0 && !(taken & UINT64_C(1) << j);
                int bits = is_free ? pairing_common_bits(&ours[i], &theirs[j]) : -1;
                if (bits > best) {
                    best = bits;
                    best_ours = i;
                    best_theirs = j;
                }
            }
        if (best < 0)
            return pairs;
        peer_out[best_ours] = (int)best_theirs;
        taken |= UINT64_C(1) << best_theirs;
        pairs++;
    }
}
