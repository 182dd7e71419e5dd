/* SPDX-License-Identifier: Apache-2.0
 *
 * The RDMA transport for the transport suite, on the rails of a test machine (see machines): rxe0
 * at 10.77.0.1 and rxe1 at 10.77.1.1. Both transports of a test are in one process, so what they
 * say goes through the device and back.
 */
#ifndef FEATURED_TESTS_FIXTURE_RDMA_H
#define FEATURED_TESTS_FIXTURE_RDMA_H

#include "conformance/transport_fixture.h"

extern const struct transport_fixture transport_fixture_rdma;

#endif
