/* SPDX-License-Identifier: Apache-2.0
 *
 * RDMA verbs: the reader's broker fetches bytes out of the home's registered memory itself; no CPU
 * of the home takes part. See docs/RDMA.md and the RDMA part of proto/PROTOCOL.md.
 *
 * Circle: conn.c, conn_rails.c, control.c, reader.c: frames of the control link change the rails,
 * the state of the connection and what may be read, and each of these says so to the other side by
 * frames.
 * Circle: device.c, link.c, memory.c, rails.c: a device that goes takes its QPs and its
 * registrations with it, and a QP or a registration that hears of it first says so to the device; a
 * QP finds its device by the rail that it uses.
 */
#ifndef FEATURED_TRANSPORT_RDMA_H
#define FEATURED_TRANSPORT_RDMA_H

#include "transport/transport.h"

struct rdma_options {
    const char *devices;          /* "mlx5_0, mlx5_1:1"; "" = every one with a routable address */
    uint64_t registration_bytes;  /* memory is registered in pieces of at most this size */
    uint32_t reads_in_flight_max; /* RDMA READs posted at once per rail */
    uint32_t stall_timeout_ms;    /* a rail whose reads make no progress for so long is taken out */
};

/* A transport_constructor with options of its own, copied. -ENODEV: no usable rail. */
int transport_rdma_new(const struct transport_setup *setup, const struct rdma_options *rdma,
                       struct transport **out, char *why, size_t why_bytes);

#endif
