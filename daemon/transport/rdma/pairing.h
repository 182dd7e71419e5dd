/* SPDX-License-Identifier: Apache-2.0
 *
 * Which rail of ours talks to which of theirs. Pure.
 */
#ifndef FEATURED_TRANSPORT_RDMA_PAIRING_H
#define FEATURED_TRANSPORT_RDMA_PAIRING_H

#include <stdint.h>
#include <sys/socket.h>

/* peer_out[i]: the number of their rail for ours number i; -1: none. Every rail is used at most
 * once; addresses of family 0 are no rails. Rails of one subnet find each other. Returns the number
 * of pairs. */
uint32_t rdma_pair_rails(const struct sockaddr_storage *ours, uint32_t our_count,
                         const struct sockaddr_storage *theirs, uint32_t their_count,
                         int *peer_out);

#endif
