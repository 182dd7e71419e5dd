/* SPDX-License-Identifier: Apache-2.0
 *
 * When the transport looks at its deadlines, and what it leaves to the next turn of the loop.
 */
#ifndef FEATURED_TRANSPORT_RDMA_TURN_H
#define FEATURED_TRANSPORT_RDMA_TURN_H

#include "transport/rdma/rdma_internal.h"

/* What must not happen inside an operation happens at the next turn of the loop: on_soon. */
void rdma_soon(struct rdma *rdma);
/* There may be a deadline to watch again. */
void rdma_watch_time(struct rdma *rdma);
/* Calls on_tick after as long a pause as there is time for. on_tick calls it again. */
void rdma_start_tick(struct rdma *rdma);
/* How long rails are not looked for. */
uint64_t rdma_scan_pause_ms(const struct rdma *rdma);

#endif
