/* SPDX-License-Identifier: Apache-2.0
 *
 * The transport suite over RDMA. It needs a device, so it is a suite of its own that tests/vm/run
 * runs in a machine that has two.
 */
#include "vm/fixture_rdma.h"

#include <criterion/criterion.h>

#undef TRANSPORT_CASE
#define TRANSPORT_CASE(name)                                                                       \
    static void name(struct suite *s);                                                             \
    Test(transport_rdma, name) {                                                                   \
        transport_suite_run(&transport_fixture_rdma, name);                                        \
    }                                                                                              \
    static void name(struct suite *s)

/* The suite defines its tests by the macro above. */
#include "../conformance/transport_suite.c"       // NOLINT(bugprone-suspicious-include)
#include "../conformance/transport_suite_reads.c" // NOLINT(bugprone-suspicious-include)
