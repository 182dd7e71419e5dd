/* SPDX-License-Identifier: Apache-2.0
 *
 * The QP of a link: made, moved through its states, opened for READs. Knows nothing of handshakes
 * and connections; each function returns 0 or a negative errno, and the link decides.
 */
#ifndef FEATURED_TRANSPORT_RDMA_QP_H
#define FEATURED_TRANSPORT_RDMA_QP_H

#include "transport/rdma/rdma_internal.h"

enum { RDMA_RETRIES = 6 }; /* of what is not acknowledged; see qp.c */

/* The QP and its completion queue, with room for `slots` receives, as many SENDs, and `depth`
 * READs.
 */
int rqp_create(struct rdma_link *link, uint32_t slots, uint32_t depth);
/* depth: READs at once, for RTR those that are answered, for RTS those that are asked. */
int rqp_modify(struct rdma_link *link, enum ibv_qp_state state, uint8_t depth);
/* Peers may read through this QP from here on; nothing happens to one that carries messages. */
int rqp_allow_reads(struct rdma_link *link);
/* READs that we may have under way, if the other side answers `theirs` at once. */
uint8_t rqp_reads_out_max(const struct rdma_link *link, uint32_t theirs);
/* The other side has said what it is (in its REQ or REP): from INIT to RTS. */
int rqp_connect(struct rdma_link *link, const struct rdma_conn_param *theirs,
                const struct rwire_private *data);
/* What we say of this QP in our REQ (theirs == NULL) or REP. data: must live as long as *out. */
void rqp_fill_param(struct rdma_link *link, uint8_t data[RWIRE_PRIVATE_BYTES],
                    const struct rdma_conn_param *theirs, struct rdma_conn_param *out);

#endif
